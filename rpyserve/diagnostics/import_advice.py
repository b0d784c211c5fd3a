"""What to say of an import that failed: a helper elsewhere in the site, a hidden one, one that is not installed.

Looks for files beside the script that imported and in the site's directory, which is the working directory.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from itertools import islice
from types import ModuleType
from typing import Any, Final

from rpyserve.diagnostics import name_advice
from rpyserve.scripts.file_state import is_ignored_directory
from rpyserve.util.author_code import is_author_code

__all__ = ["for_attribute_of_module", "for_import_error", "missing"]

_PYTHON2: Final = {
    "StringIO": "from io import StringIO", "cStringIO": "from io import BytesIO", "urllib2": "import urllib.request",
    "urlparse": "import urllib.parse", "Queue": "import queue", "ConfigParser": "import configparser",
    "cPickle": "import pickle", "httplib": "import http.client", "Cookie": "import http.cookies",
    "HTMLParser": "import html.parser", "__builtin__": "import builtins", "md5": "import hashlib",
    "sets": "set() needs no import", "thread": "import threading", "commands": "import subprocess",
}  # fmt: skip
_MOVED: Final = {
    ("urllib", "urlencode"): "from urllib.parse import urlencode",
    ("urllib", "quote"): "from urllib.parse import quote",
    ("urllib", "unquote"): "from urllib.parse import unquote",
    ("urllib", "urlopen"): "from urllib.request import urlopen",
    ("itertools", "izip"): "zip needs no import", ("itertools", "imap"): "map needs no import",
    ("string", "letters"): "from string import ascii_letters", ("string", "maketrans"): "str.maketrans",
    ("os", "getcwdu"): "os.getcwd()", ("types", "StringType"): "str", ("cgi", "escape"): "from html import escape",
    ("string", "join"): '" ".join(words)', ("sys", "maxint"): "sys.maxsize", ("time", "clock"): "time.perf_counter()",
    ("collections", "Mapping"): "from collections.abc import Mapping",
}  # fmt: skip
_PACKAGES: Final = {
    "PIL": "pillow", "yaml": "pyyaml", "cv2": "opencv-python", "bs4": "beautifulsoup4", "sklearn": "scikit-learn",
    "dateutil": "python-dateutil", "dotenv": "python-dotenv", "serial": "pyserial", "docx": "python-docx",
}  # fmt: skip


def for_import_error(exc: Any) -> str:
    """Return the hint for an ImportError; empty if none is known."""
    name, wanted = exc.name or "", getattr(exc, "name_from", None) or _wanted(exc)
    if name.partition(".")[0] == "twisted" and "rpyserve has no" in str(exc):
        return ""  # it says all itself
    if name == "zope.interface" and wanted in {"implements", "classProvides", "moduleProvides"}:
        return "This is Python 2. In Python 3 write above the class:\n@implementer(ICounter)\nclass Counter:"
    if "no known parent package" in str(exc) or "beyond top-level package" in str(exc):
        return "One dot is the script's own directory, two the one above it; the site's directory is the topmost."
    beside, home = _directories(exc)
    if isinstance(exc, ModuleNotFoundError):
        return missing(name, beside, home)
    if wanted and re.match(r"rpydir\d*(\.|$)", name):
        return _not_beside(wanted, home)
    if wanted and "(unknown location)" in str(exc):  # a directory
        same = os.path.join(home, *name.split(".")) == beside
        return _not_beside(
            wanted, home, "beside this script" if same else f"in {name.replace('.', '/')}"
        )
    if hint := _MOVED.get((name, wanted)):
        return f"This is Python 2. In Python 3 write:\n{hint}"
    if "partially initialized module" in str(exc):
        return (
            f"{name} is being imported already: two modules import each other. Import within a function, or move what "
            "both need into a third."
        )
    return _hidden(name, beside, home, getattr(exc, "path", None)) or name_advice.for_import(
        name, wanted
    )


def for_attribute_of_module(exc: Any) -> str:
    """Return the hint for an AttributeError if the thing before the dot is a module."""
    module = getattr(exc, "obj", None)
    if not isinstance(module, ModuleType):
        return ""
    name, wanted = module.__name__, exc.name or ""
    if hint := _MOVED.get((name, wanted)):
        return f"This is Python 2. In Python 3 write:\n{hint}"
    return _hidden(name, *_directories(exc), getattr(module, "__file__", None))


def missing(name: str, beside: str, home: str) -> str:
    """Return what to do about a module *name* that is not found.

    Args:
        beside: the directory of the file that imports it.
        home: the site's directory.
    """
    top, _, rest = name.partition(".")
    if top in _PYTHON2:
        return f"This is Python 2. In Python 3 write:\n{_PYTHON2[top]}"
    if re.fullmatch(r"rpydir\d*", top):
        return _not_beside(rest.rpartition(".")[2], home)
    if _has(beside, top):
        return f"{top}.py is beside the script, not in the site's directory. Write:\nfrom . import {top}"
    if rest and top in sys.modules and not hasattr(sys.modules[top], "__path__"):
        return f"{top} is a single file, so there is nothing in it to import as {name}."
    if where := _somewhere(home, top):
        return f"{top}.py is in {os.path.relpath(where, home)}. Write:\n{_import(where, home, top)}"
    if found := _slip(top, home):
        return f"There is no {top}. Did you mean this?\nimport {found}"
    if not re.fullmatch(r"[A-Za-z_]\w*", top):
        return ""
    package = _PACKAGES.get(top, top)
    install = f"{_pip()} install {package}"
    return f"There is no {top}.py in the site, and no such module is installed. To install one:\n{install}"


def _not_beside(name: str, home: str, where: str = "beside this script") -> str:
    missing = f"There is no {name}.py {where}."
    if _has(home, name):
        return f"{missing} It is in the site's directory. Write:\nimport {name}"
    if (found := _somewhere(home, name)) is None:
        return missing
    return (
        f"{missing} It is in {os.path.relpath(found, home)}. Write:\n{_import(found, home, name)}"
    )


def _import(where: str, home: str, name: str) -> str:
    return f"from {'.'.join(os.path.relpath(where, home).split(os.sep))} import {name}"


def _slip(name: str, home: str) -> str:
    """The module that a misspelt *name* stands for. A letter too many may be the name of another package."""
    try:
        own = [entry[:-3] for entry in os.listdir(home) if entry.endswith(".py")]
    except OSError:
        own = []
    found = name_advice.near(name, own) or name_advice.near(name, sys.stdlib_module_names, 0.75)
    return found if found in own or len(found) >= len(name) else ""


def _hidden(name: str, beside: str, home: str, found: str | None) -> str:
    """A file of the site that another module of that name hides."""
    for directory in (beside, home):
        file = os.path.join(directory, name + ".py")
        if directory and os.path.isfile(file) and found != file:
            whose = "Python's own" if name in sys.stdlib_module_names else "an installed"
            relative = f", or write:\nfrom . import {name}" if directory == beside else "."
            return f"This is {whose} {name}, not the site's {name}.py. Rename that file, such as my_{name}.py{relative}"
    return ""


def _wanted(exc: ImportError) -> str:
    found = re.search(r"cannot import name '(\w+)'", str(exc))
    return found[1] if found else ""


def _directories(exc: BaseException) -> tuple[str, str]:
    """The directory of the code that imported, and the site's."""
    home = os.getcwd()
    frames = [frame.filename for frame in traceback.extract_tb(exc.__traceback__)]
    own = [name for name in frames if is_author_code(name)]
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        execution = frame.f_globals.get("__execution__")
        home = getattr(execution, "root", home)
    return (os.path.dirname(own[-1]) if own else "", home)


def _has(directory: str, name: str) -> bool:
    return bool(directory) and (
        os.path.isfile(os.path.join(directory, name + ".py"))
        or os.path.isfile(os.path.join(directory, name, "__init__.py"))
    )


def _somewhere(home: str, name: str) -> str | None:
    """A directory below the site's, at most three levels, that has the module."""
    for directory, below, _ in islice(os.walk(home), 1000):
        depth = os.path.relpath(directory, home).count(os.sep)
        if directory != home and _has(directory, name):
            return directory
        importable = [each for each in sorted(below) if each.isidentifier() and depth < 2]
        below[:] = [
            each for each in importable if not is_ignored_directory(os.path.join(directory, each))
        ]
    return None


def _pip() -> str:
    return f'"{sys.executable}" -m pip' if " " in sys.executable else f"{sys.executable} -m pip"
