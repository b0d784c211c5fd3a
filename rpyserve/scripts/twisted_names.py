"""``from twisted...`` in a script: an installed Twisted, or else a few names that are ours.

Owns a finder that is first on ``sys.meta_path`` while scripts are served. Where Twisted is
installed it finds the genuine modules, and has some of them completed when they have been loaded:
see `COMPLETIONS`. Nothing is loaded before somebody asks. Where there is none, it gives exactly the
names in `PROVIDED`, which are rpyserve's classes; any other is an ImportError that says what there
is, and how to install Twisted.

Whether Twisted is there may change while the server runs: `changes` says how often it has.

In a program, ``import rpyserve`` is enough: where no Twisted is installed, the program's own import
of it installs the finder.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FrameType, ModuleType
from typing import Final, NoReturn

from rpyserve.util.author_code import PACKAGE_DIRECTORY, is_author_code
from rpyserve.util.text import install_command

PROVIDED: Final[dict[str, dict[str, str]]] = {
    "twisted.web.resource": {"Resource": "rpyserve.resources.resource"},
    "twisted.web.server": {
        "Session": "rpyserve.sessions.session",
        "Site": "rpyserve.site",
        "NOT_DONE_YET": "rpyserve.resources.rendering",
    },
    "twisted.python.components": {"registerAdapter": "rpyserve.sessions.adapters"},
}
"""Each module with its names, and where rpyserve has them."""

COMPLETIONS: Final = {
    "twisted.internet.default": "rpyserve.twisted.installation",
    "twisted.internet.main": "rpyserve.twisted.installation",
    "twisted.python.components": "rpyserve.twisted.adapters",
    "twisted.python.log": "rpyserve.twisted.logs",
    "twisted.web.resource": "rpyserve.twisted.resources",
    "twisted.web.server": "rpyserve.twisted.sessions",
    "twisted.web.template": "rpyserve.twisted.templates",
    "twisted.web.util": "rpyserve.twisted.texts",
}
"""Each genuine module that is completed, and the module of ours whose ``adopt`` does that."""

_PACKAGES: Final = frozenset({"twisted", "twisted.web", "twisted.python"})
_DIRECTORY_ADVICE: Final = (
    "A directory is served by `rpyserve DIRECTORY`, or by `from rpyserve import Directory`."
)
_REDIRECT_ADVICE: Final = "Write `from rpyserve import Redirect` and return Redirect(url)."
_NOT_FOUND_ADVICE: Final = "Write `from rpyserve import HTTPError` and raise HTTPError(404)."
_PASSWORD_ADVICE: Final = (
    'Write `from rpyserve import BasicAuth` and BasicAuth(resource, {"name": "password"}).'
)
# What to write instead of a part of Twisted's dotted names.
_ADVICE: Final = {
    "internet": (
        "There is no reactor: write `async def` and `await trio.sleep(seconds)`. To serve a Site "
        "from a program, write `from rpyserve import run` and run(site, port=8080)."
    ),
    "util": _REDIRECT_ADVICE,
    "redirectTo": _REDIRECT_ADVICE,
    "static": _DIRECTORY_ADVICE,
    "File": _DIRECTORY_ADVICE,
    "NoResource": _NOT_FOUND_ADVICE,
    "error": _NOT_FOUND_ADVICE,
    "ForbiddenResource": "Write `from rpyserve import HTTPError` and raise HTTPError(403).",
    "vhost": (
        "Write `from rpyserve import NameVirtualHost`; its addHost(name, resource) is the same."
    ),
    "wsgi": "Write `from rpyserve import WSGIResource` and WSGIResource(app).",
    "proxy": (
        "Write `from rpyserve import ReverseProxyResource` "
        'and ReverseProxyResource("http://localhost:5000").'
    ),
    "guard": _PASSWORD_ADVICE,
    "cred": _PASSWORD_ADVICE,
    "template": (
        'Write `from rpyserve import template` and return template("page.html.j2", name=name).'
    ),
}

_install_count = 0

# Where the answer to the last import of Twisted came from, and how often it has become another.
_watched: dict[str, tuple[int, int] | None] = {}
_changes = 0
_next_look = 0.0

LOOK_INTERVAL: Final = 0.5
"""Seconds between two looks for a Twisted that was installed or removed."""


def install() -> None:
    """Serve Twisted's names from now on, until `uninstall` has been called as often."""
    global _install_count
    _install_count += 1
    if _install_count > 1:
        return
    sys.meta_path.insert(0, _FINDER)
    complete_loaded()


def complete_loaded() -> None:
    """Complete the modules of Twisted's that a program has imported before."""
    for name in COMPLETIONS:
        module = sys.modules.get(name)
        if module is not None and not _is_ours(name):
            _complete(module)


def uninstall() -> None:
    """Take back one `install`; the last takes the names that are ours away again."""
    global _install_count
    _install_count = max(0, _install_count - 1)
    if _install_count == 0 and _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
        _watched.clear()
        _forget(_is_ours)


def changes() -> int:
    """Return how often Twisted was installed or removed since a script first asked for it.

    Its modules are forgotten then, and the next import finds what is there now. That is looked for
    from time to time only: each request asks.
    """
    global _changes, _next_look
    if not _watched or time.monotonic() < _next_look:
        return _changes
    _next_look = time.monotonic() + LOOK_INTERVAL
    if any(_signature(path) != before for path, before in _watched.items()):
        _watched.clear()
        _changes += 1
        importlib.invalidate_caches()
        _forget(lambda name: True)
    return _changes


def genuine_spec() -> ModuleSpec | None:
    """Return the spec of an installed Twisted; None if there is none."""
    loaded = sys.modules.get("twisted")
    if loaded is not None and not _is_ours("twisted"):
        return loaded.__spec__ or ModuleSpec("twisted", None)
    spec = PathFinder.find_spec("twisted")
    # Without such a file it is what is left of one, or a directory of the site.
    return spec if spec is not None and type(spec.loader) is SourceFileLoader else None


def _watch(spec: ModuleSpec | None) -> None:
    """Have `changes` look at the place of *spec*, or at all places where there may be one."""
    if _watched:
        return
    if spec is not None and spec.origin is not None:
        paths = [spec.origin]
    else:
        paths = [os.path.join(each, "twisted", "__init__.py") for each in sys.path]
    _watched.update((path, _signature(path)) for path in paths)


def _signature(path: str) -> tuple[int, int] | None:
    """What tells a file from another one in its place; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _is_ours(name: str) -> bool:
    return isinstance(getattr(sys.modules.get(name), "__loader__", None), _TwistedLoader)


def _forget(applies: Callable[[str], bool]) -> None:
    for name in list(sys.modules):
        is_part = name.partition(".")[0] == "twisted" or name.startswith("rpyserve.twisted.")
        if is_part and applies(name):
            del sys.modules[name]


def _complete(module: ModuleType) -> None:
    if not hasattr(module, _COMPLETED):
        setattr(module, _COMPLETED, True)
        importlib.import_module(COMPLETIONS[module.__name__]).adopt(module)


# On a module of Twisted's that has been completed.
_COMPLETED: Final = "__rpyserve_completed__"


def replacement_for(name: str) -> tuple[str, str, str]:
    """What to say of *name*, a dotted name of Twisted's that is not provided.

    Returns:
        That there is none, which names there are, and what to write instead or to install.
    """
    imports = (f"from {module} import {', '.join(names)}" for module, names in PROVIDED.items())
    known = [_ADVICE[part] for part in reversed(name.split(".")) if part in _ADVICE]
    installation = f"To have Twisted itself: `{install_command('twisted')}`."
    return (
        f"rpyserve has no {name}.",
        f"Of Twisted's names it has: {'; '.join(imports)}.",
        " ".join([installation, *(f"Or: {advice}" for advice in known[:1])]),
    )


def is_provided(name: str) -> bool:
    """Whether *name*, a dotted name of Twisted's, is one that a script can import."""
    module, _, last = name.rpartition(".")
    return name in _PACKAGES or name in PROVIDED or last in PROVIDED.get(module, {})


def find_for_author(name: str) -> ModuleSpec | None:
    """Find *name*, for which there is no other module, if the author's own code imports it."""
    if not _is_imported_by_author():
        return None
    install()
    return _FINDER.find_spec(name)


def _is_imported_by_author() -> bool:
    """Whether the innermost code is the author's, the import system's and rpyserve's apart."""
    passed = ("<frozen importlib", PACKAGE_DIRECTORY)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(passed):
        frame = frame.f_back
    if frame is None:
        return False
    is_program = frame.f_globals.get("__name__") == "__main__"
    return is_program or is_author_code(frame.f_code.co_filename)


class _TwistedFinder(MetaPathFinder):
    """Finds the modules of an installed Twisted, or else those that are provided."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "twisted":
            return None
        genuine = genuine_spec()
        _watch(genuine)
        if genuine is not None:
            return _find_genuine(fullname, path, genuine)
        if fullname not in _PACKAGES and fullname not in PROVIDED:
            _refuse(fullname, ModuleNotFoundError)
        return ModuleSpec(
            fullname, _TwistedLoader(), is_package=fullname in _PACKAGES, origin="rpyserve"
        )


def _find_genuine(name: str, path: Sequence[str] | None, package: ModuleSpec) -> ModuleSpec | None:
    spec = package if name == "twisted" else PathFinder.find_spec(name, path)
    if spec is not None and type(spec.loader) is SourceFileLoader:
        if spec.submodule_search_locations is not None:
            spec.loader = _PackageLoader(name, spec.loader.path)
        elif name in COMPLETIONS:
            spec.loader = _CompletingLoader(name, spec.loader.path)
    return spec


class _PackageLoader(SourceFileLoader):
    """Loads a package of Twisted's, whose modules are there when they are mentioned.

    Twisted's own server has imported most of them, so scripts say just ``import twisted``.
    """

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.__dict__.setdefault("__getattr__", partial(_import_submodule, module.__name__))


class _CompletingLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _complete(module)


def _import_submodule(package: str, name: str) -> ModuleType:
    full_name = f"{package}.{name}"
    if not name.startswith("__") and importlib.util.find_spec(full_name) is not None:
        return importlib.import_module(full_name)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


class _TwistedLoader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        for name, home in PROVIDED.get(module.__name__, {}).items():
            setattr(module, name, getattr(importlib.import_module(home), name))
        module.__dict__["__getattr__"] = partial(_refuse_attribute, module.__name__)


_FINDER: Final = _TwistedFinder()


def _refuse_attribute(module: str, name: str) -> NoReturn:
    # Python itself asks for dunder names, and for a submodule before it imports that.
    if name.startswith("__") or f"{module}.{name}" in _PACKAGES | PROVIDED.keys():
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    _refuse(f"{module}.{name}", ImportError)


def _refuse(name: str, kind: type[ImportError]) -> NoReturn:
    message, provided, replacement = replacement_for(name)
    # A long message is cut: what there is instead is told only where nothing else is known.
    known = "" if "Or: " in replacement else provided
    raise kind(" ".join(filter(None, (message, replacement, known))), name=name)
