"""Advice about an import that failed: a helper elsewhere in the site, a hidden one, not installed.

Looks for files beside the script that imports, and in the site's directories.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from rpyserve.diagnostics import name_advice
from rpyserve.scripts.file_state import is_ignored_directory
from rpyserve.scripts.importer import module_file
from rpyserve.util.author_code import is_author_code, working_directory
from rpyserve.util.text import install_command

# How advice about what is no more in Python 3 begins.
PYTHON2: Final = "This is Python 2. In Python 3 write:\n"

# Modules of Python 2, and how their successors are imported.
_SUCCESSORS: Final = {
    "StringIO": "from io import StringIO",
    "cPickle": "import pickle",
    "urllib2": "import urllib.request",
    "urlparse": "import urllib.parse",
}

# Modules whose package has another name.
_PACKAGES: Final = {
    "Crypto": "pycryptodome",
    "MySQLdb": "mysqlclient",
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "discord": "discord.py",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "jwt": "pyjwt",
    "pptx": "python-pptx",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "usb": "pyusb",
    "yaml": "pyyaml",
}

# rpyserve's own name for a script's directory, which relative imports use.
_SCRIPT_PACKAGE: Final = re.compile(r"rpydir\d*(\.|$)")

# How many directories are searched for a module.
MAX_DIRECTORIES: Final = 1000


def for_import_error(exc: Any) -> str:
    """Return the advice about an ImportError; empty if there is none."""
    module = exc.name or ""
    directory, site = _importer_of(exc)
    if isinstance(exc, ModuleNotFoundError):
        return missing(module, directory, site)
    found = re.search(r"cannot import name '(\w+)'", str(exc))
    if found is None:
        return ""
    if _SCRIPT_PACKAGE.match(module) or "(unknown location)" in str(exc):
        return _place_or_none(found[1], directory, site)
    hidden = _hidden_file(module, directory, site, exc.path)
    return hidden or name_advice.for_import(module, found[1])


def for_attribute_of_module(exc: Any) -> str:
    """Return the advice about an AttributeError of a module that hides one of the site's."""
    module = exc.obj
    if not isinstance(module, ModuleType):
        return ""
    return _hidden_file(module.__name__, *_importer_of(exc), getattr(module, "__file__", None))


def _importer_of(exc: BaseException) -> tuple[str, str]:
    """The directory of the file that imports, and the site's."""
    directory = site = working_directory()
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        if is_author_code(frame.f_code.co_filename):
            directory = os.path.dirname(frame.f_code.co_filename)
        site = getattr(frame.f_globals.get("__execution__"), "root", site)
    return directory, site


def missing(name: str, directory: str, site: str) -> str:
    """Return what to do about a module *name* that is not found.

    Args:
        directory: the directory of the file that imports it.
        site: the site's directory.
    """
    top, _, rest = name.partition(".")
    if _SCRIPT_PACKAGE.match(name):
        return _place_or_none(rest.rpartition(".")[2], directory, site)
    if top in _SUCCESSORS:
        return f"{PYTHON2}{_SUCCESSORS[top]}"
    if top in sys.modules:
        return ""  # Python says that it is no package
    place = _place(top, directory, site) or _script_called(top, directory, site)
    return place or _misspelled(top, site) or _not_installed(top)


def _script_called(name: str, directory: str, site: str) -> str:
    for place in (directory, site):
        if os.path.isfile(os.path.join(place, f"{name}.rpy")):
            return (
                f"{name}.rpy is a script, which cannot be imported. Move what both need into a "
                f"module beside it, or rename it if it is no page: {name}.py"
            )
    return ""


def _misspelled(name: str, site: str) -> str:
    own = [path.stem for path in Path(site).glob("*.py")]
    meant = name_advice.closest(name, [*own, *sys.stdlib_module_names])
    # With a letter more than the other it may be the name of a package.
    if meant is None or len(meant) < len(name):
        return ""
    return f"There is no {name}. Did you mean this?\nimport {meant}"


def _not_installed(name: str) -> str:
    return (
        f"There is no {name}.py in the site, and no such module is installed. To install it:\n"
        f"{install_command(_PACKAGES.get(name, name))}"
    )


def _place_or_none(name: str, directory: str, site: str) -> str:
    place = _place(name, directory, site) or _script_called(name, directory, site)
    return place or f"There is no {name}.py in the site."


def _place(name: str, directory: str, site: str) -> str:
    """The advice about a module *name* of the site's; empty if it has none."""
    if directory != site and module_file(directory, name):
        place = f"{name}.py is beside the script, not in the site's directory."
        return f"{place} Write:\nfrom . import {name}"
    for found, below, _ in islice(os.walk(site), MAX_DIRECTORIES):
        if module_file(found, name):
            where = os.path.relpath(found, site)
            if where == ".":
                return f"{name}.py is in the site's directory. Write:\nimport {name}"
            package = where.replace(os.sep, ".")
            return f"{name}.py is in {where}. Write:\nfrom {package} import {name}"
        below[:] = sorted(
            each
            for each in filter(str.isidentifier, below)
            if not is_ignored_directory(os.path.join(found, each))
        )
    return ""


def _hidden_file(name: str, directory: str, site: str, loaded: str | None) -> str:
    """The advice about a file of the site that the *loaded* module of the same name hides."""
    own = module_file(directory, name) or module_file(site, name)
    if own is None or own == loaded:
        return ""
    owner = "Python's own" if name in sys.stdlib_module_names else "an installed"
    sentence = f"This is {owner} {name}, not the site's {name}.py."
    rename = f"Rename that file, for example to my_{name}.py"
    line = f", or write:\nfrom . import {name}" if os.path.dirname(own) == directory else "."
    return f"{sentence} {rename}{line}"
