"""Twisted's names: a script of the series imports from ``twisted`` and gets rpyserve's classes.

Owns a finder that is first on ``sys.meta_path`` while scripts are served. In a program, ``import
rpyserve`` is enough: where no Twisted is installed, the program's own import of it installs the
finder. It gives exactly the names in `PROVIDED`; any other is an ImportError that says what there
is. Nothing of Twisted is written again here, and a Twisted that has been imported already is left
alone.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Final, NoReturn

from rpyserve.util.author_code import PACKAGE_DIRECTORY, is_author_code

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


def install() -> None:
    """Serve Twisted's names from now on, until `uninstall` has been called as often."""
    global _install_count
    _install_count += 1
    if _install_count == 1 and "twisted" not in sys.modules:
        sys.meta_path.insert(0, _FINDER)


def uninstall() -> None:
    """Take back one `install`; the last takes the names away again."""
    global _install_count
    _install_count = max(0, _install_count - 1)
    if _install_count == 0 and _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
        for name in (*_PACKAGES, *PROVIDED):
            if isinstance(getattr(sys.modules.get(name), "__loader__", None), _TwistedLoader):
                del sys.modules[name]


def replacement_for(name: str) -> tuple[str, str, str]:
    """What to say of *name*, a dotted name of Twisted's that is not provided.

    Returns:
        That there is none, which names there are, and what to write instead, or "" if that is not
        known.
    """
    imports = (f"from {module} import {', '.join(names)}" for module, names in PROVIDED.items())
    known = [_ADVICE[part] for part in reversed(name.split(".")) if part in _ADVICE]
    return (
        f"rpyserve has no {name}.",
        f"Of Twisted's names it has: {'; '.join(imports)}.",
        known[0] if known else "",
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
    """Finds the modules that are provided, and refuses all others of Twisted's."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "twisted":
            return None
        if fullname not in _PACKAGES and fullname not in PROVIDED:
            _refuse(fullname, ModuleNotFoundError)
        return ModuleSpec(
            fullname, _TwistedLoader(), is_package=fullname in _PACKAGES, origin="rpyserve"
        )


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
    # What to write comes first: a long message is cut.
    raise kind(" ".join(filter(None, (message, replacement, provided))), name=name)
