"""The package keeps its shape: imports go one way between packages, and what is public is meant to
be.

Every import counts: at the top of a module, inside a function, and for types only. `python
tests/test_architecture.py` prints the packages in their order and the arrows between them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import rpyserve

PACKAGE = Path(rpyserve.__file__).parent

MUST_NOT_KNOW = {
    "util": {
        "http",
        "protocol",
        "resources",
        "scripts",
        "sessions",
        "files",
        "diagnostics",
        "check",
        "livereload",
    },
    "http": {
        "protocol",
        "resources",
        "scripts",
        "sessions",
        "files",
        "diagnostics",
        "check",
        "livereload",
    },
    "protocol": {"resources", "scripts", "sessions", "files", "diagnostics", "check", "livereload"},
    "resources": {"protocol", "scripts", "sessions", "files", "diagnostics", "check", "livereload"},
    "scripts": {"protocol", "sessions", "files", "diagnostics", "check", "livereload"},
    "sessions": {"protocol", "resources", "files", "diagnostics", "check", "livereload"},
    "files": {"protocol", "sessions", "diagnostics", "check", "livereload"},
    "diagnostics": {"protocol", "files", "check", "livereload"},
    "check": {"protocol", "sessions", "livereload"},
    "livereload": {"protocol", "check"},
    "stores": {"protocol", "files", "check", "livereload"},
    "production": {
        "protocol",
        "scripts",
        "sessions",
        "files",
        "diagnostics",
        "check",
        "livereload",
    },
    "twisted": {"protocol", "files", "check", "livereload"},
    "inspector": {"protocol", "files", "check", "livereload", "serving"},
    "testing": {"protocol", "check", "livereload"},
    "serving": set(),
}
"""What each package must not import; besides, none of them may import `serving`, `testing`, `site`
or `cli` unasked.
"""

MAY_KNOW = {
    "serving": {"cli"},
    "testing": {"inspector"},
    "site": {"cli", "serving", "livereload", "testing", "inspector"},
    "cli": {"__main__"},
}
"""Who may import these; `__init__` names where public things are, but imports nothing by itself."""

OPTIONAL = {"stores", "twisted", "inspector", "production"}
"""Packages that a site on its author's machine, without sessions kept elsewhere or Twisted, never imports. They are
not counted among the modules that everybody who works here has to know.
"""

FOR_TYPES = {"http.request -> rpyserve"}
"""Only for types: what `getSession` returns, where editors look for it."""

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "sample_site" not in path.parts
}


def imports_of(path: Path) -> Iterator[str]:
    """Each module of the package that the module at *path* imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rpyserve":
            within = (node.module or "").removeprefix("rpyserve").lstrip(".")
            for alias in node.names:
                name = f"{within}.{alias.name}".lstrip(".")
                yield name if name in MODULES or f"{name}.__init__" in MODULES else within
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("rpyserve."):
                    yield alias.name.removeprefix("rpyserve.")


def room_of(module: str) -> str:
    """The package of a module, or the module itself where it stands at the top."""
    return module.partition(".")[0]


def arrows() -> dict[str, dict[str, list[str]]]:
    """For each package or top module, what it imports, with the modules that do so."""
    found: dict[str, dict[str, list[str]]] = {
        room_of(name): {} for name in MODULES if name != "__init__"
    }
    for name, path in MODULES.items():
        if name == "__init__":
            continue
        for target in imports_of(path):
            room = room_of(target or "__init__")
            if room != room_of(name):
                found[room_of(name)].setdefault(room, []).append(
                    f"{name} -> {target or 'rpyserve'}"
                )
    return found


def order() -> list[str]:
    """The packages, the lowest first; a circle raises `CycleError`."""
    return list(
        TopologicalSorter({room: set(needs) for room, needs in arrows().items()}).static_order()
    )


def test_imports_between_packages_have_no_circle() -> None:
    try:
        print("From the bottom to the top:", " ".join(order()))
    except CycleError as exc:
        circle = exc.args[1]
        found = arrows()
        ties = [tie for a in circle for b in circle for tie in found.get(a, {}).get(b, [])]
        raise AssertionError(
            f"a circle {' <- '.join(circle)}:\n" + "\n".join(sorted(set(ties)))
        ) from None


def test_imports_between_modules_have_no_circle() -> None:
    graph = {
        name: {t for t in imports_of(path) if t in MODULES and t != name}
        for name, path in MODULES.items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as exc:
        raise AssertionError(f"a circle of modules: {' <- '.join(exc.args[1])}") from None


def test_no_package_knows_what_it_must_not() -> None:
    found = arrows()
    for room, needs in found.items():
        for need, ties in needs.items():
            assert need not in MUST_NOT_KNOW.get(room, set()), ties
            assert need not in MAY_KNOW or room in MAY_KNOW[need], ties
            front = [tie for tie in ties if tie not in FOR_TYPES] if need == "__init__" else []
            assert not front, f"nothing imports the package's own front: {front}"


def test_the_package_is_small_at_the_top() -> None:
    assert len([name for name in MODULES if "." not in name]) <= 8
    modules = [name for name in MODULES if not name.endswith("__init__")]
    assert len([name for name in modules if room_of(name) not in OPTIONAL]) <= 120


def test_every_package_and_module_says_what_it_owns() -> None:
    for name, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name


def test_public_names() -> None:
    assert set(rpyserve.__all__) == {
        "NOT_DONE_YET", "Attribute", "BasicAuth", "Directory", "HTTPError", "Interface", "Job", "Limits",
        "NameVirtualHost", "Redirect", "Registry", "Request", "Resource", "Response",
        "ReverseProxyResource", "Session", "SessionEnd", "Site", "Upload", "WSGIResource",
        "WebSocket", "WebSocketClosed", "WebSocketResource", "background", "cache", "cors", "current_job", "html", "in_thread",
        "implementer", "registerAdapter", "registry", "run", "serve", "template", "websocket",
    }  # fmt: skip
    for name in set(rpyserve.__all__) - {"registry"}:
        assert getattr(rpyserve, name) is not None
    assert set(rpyserve.__all__) <= set(dir(rpyserve))
    assert not set(rpyserve.__all__) & {room_of(name) for name in MODULES}, (
        "importing the module would put it in the place of the name"
    )


def test_public_names_belong_to_the_package() -> None:
    for name in set(rpyserve.__all__) - {"registry", "NOT_DONE_YET", "Attribute", "Interface"}:
        assert getattr(rpyserve, name).__module__ in ("rpyserve", "zope.interface.declarations"), (
            name
        )


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import rpyserve; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"trio", "h11", "click", "watchfiles", "zope.interface", "asyncio"}
    assert not heavy & set(done.stdout.split())


if __name__ == "__main__":
    for room, needs in arrows().items():
        for need, ties in sorted(needs.items()):
            print(
                f"{room} -> {need}: {len(ties)}", *(ties if "-v" in sys.argv else ()), sep="\n    "
            )
    print("From the bottom to the top:", *order())
