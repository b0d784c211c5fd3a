"""The house keeps its shape: imports go one way, and what is public is meant to be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import rpyserve

PACKAGE = Path(rpyserve.__file__).parent


def imports_of(module: Path) -> set[str]:
    """The modules of the package that *module* imports when it is loaded (not within a function or for types)."""
    found: set[str] = set()

    def visit(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rpyserve"):
                prefix = (node.module or "").removeprefix("rpyserve").lstrip(".")
                found.add(prefix)
                found.update(f"{prefix}.{alias.name}".lstrip(".") for alias in node.names)
            elif isinstance(node, ast.Import):
                found.update(a.name.removeprefix("rpyserve.") for a in node.names if a.name.startswith("rpyserve."))
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
                visit(node.body + node.orelse)
            elif isinstance(node, (ast.ClassDef, ast.Try)):
                visit(node.body)

    visit(ast.parse(module.read_text(encoding="utf-8")).body)
    return found & MODULES


MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
}


def file_of(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def test_imports_have_no_cycle() -> None:
    graph = {name: imports_of(file_of(name)) for name in MODULES}
    done: set[str] = set()
    while ready := {name for name, needs in graph.items() if name not in done and needs <= done}:
        done |= ready
    assert done == MODULES, f"a cycle among {sorted(MODULES - done)}"


def test_protocols_never_see_the_site() -> None:
    for name in ("protocol.connection", "serving.listeners"):
        reached, todo = set(), {name}
        while todo:
            module = todo.pop()
            reached.add(module)
            todo |= imports_of(file_of(module)) - reached
        assert not reached & {
            "site",
            "sessions.session",
            "sessions.store",
            "scripts.loader",
            "files.directory",
            "cli",
        }, f"{name} reaches {sorted(reached)}"


def test_only_the_command_line_knows_all() -> None:
    for name in MODULES - {"cli"}:
        assert "cli" not in imports_of(file_of(name)), name


def test_public_names() -> None:
    assert set(rpyserve.__all__) == {
        "NOT_DONE_YET", "Attribute", "BasicAuth", "Directory", "HTTPError", "Interface", "NameVirtualHost", "Redirect",
        "Registry", "Request", "Resource", "Response", "ReverseProxyResource", "Session", "Site", "Upload",
        "WSGIResource", "WebSocketResource", "background", "cache", "cors", "html", "implementer", "registerAdapter",
        "registry", "run", "serve", "template", "websocket",
    }  # fmt: skip
    for name in set(rpyserve.__all__) - {"registry"}:
        assert getattr(rpyserve, name) is not None
    assert set(rpyserve.__all__) <= set(dir(rpyserve))
    assert not set(rpyserve.__all__) & {name.partition(".")[0] for name in MODULES}, (
        "importing the module would put it in the place of the name"
    )


def test_every_module_says_what_it_owns() -> None:
    for name in MODULES:
        doc = ast.get_docstring(ast.parse((file_of(name)).read_text(encoding="utf-8")))
        assert doc, name


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import rpyserve; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"trio", "h11", "click", "watchfiles", "zope.interface", "asyncio"}
    assert not heavy & set(done.stdout.split())
