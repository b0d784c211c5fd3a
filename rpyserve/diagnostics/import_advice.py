"""Advice about an import that failed: a helper elsewhere in the site, a hidden one, not installed.

Looks for files beside the script that imports, and below the site's directory.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from rpyserve.diagnostics import name_advice
from rpyserve.scripts.file_state import is_ignored_directory
from rpyserve.util.author_code import is_author_code

__all__ = ["for_attribute_of_module", "for_import_error", "missing"]

_PYTHON2: Final = {
    "StringIO": "from io import StringIO",
    "cPickle": "import pickle",
    "urllib2": "import urllib.request",
    "urlparse": "import urllib.parse",
}
"""Modules of Python 2, and their successors."""

_PACKAGES: Final = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "yaml": "pyyaml",
}
"""Modules whose package has another name."""

_SCRIPT_PACKAGE: Final = re.compile(r"rpydir\d*(\.|$)")
"""rpyserve's own name for a script's directory, which relative imports use."""

MAX_LEVELS: Final = 3
"""How many levels below the site's directory are searched for a module."""

MAX_DIRECTORIES: Final = 1000
"""How many directories are searched."""


@dataclass(frozen=True, slots=True)
class _Importer:
    """Where the import that failed was written.

    Attributes:
        directory: the directory of its file; empty if it is not known.
        site: the site's directory.
    """

    directory: str
    site: str


def for_import_error(exc: Any) -> str:
    """Return the advice about an ImportError; empty if there is none."""
    text, module = str(exc), exc.name or ""
    name = getattr(exc, "name_from", None) or _name_in(text)
    if module.partition(".")[0] == "twisted" and "rpyserve has no" in text:
        return ""  # it explains itself
    importer = _importer_of(exc)
    if isinstance(exc, ModuleNotFoundError):
        return missing(module, importer.directory, importer.site)
    if name and _SCRIPT_PACKAGE.match(module):
        return _missing_in("beside this script", name, importer.site)
    if name and "(unknown location)" in text:
        return _missing_in(_name_of_directory(module, importer), name, importer.site)
    hidden = _hidden_file(module, importer, getattr(exc, "path", None))
    return hidden or name_advice.for_import(module, name)


def for_attribute_of_module(exc: Any) -> str:
    """Return the advice about an AttributeError of a module that hides one of the site's."""
    module = exc.obj
    if not isinstance(module, ModuleType):
        return ""
    return _hidden_file(module.__name__, _importer_of(exc), getattr(module, "__file__", None))


def missing(name: str, directory: str, site: str) -> str:
    """Return what to do about a module *name* that is not found.

    Args:
        directory: the directory of the file that imports it.
        site: the site's directory.
    """
    top, _, rest = name.partition(".")
    if top in _PYTHON2:
        return f"This is Python 2. In Python 3 write:\n{_PYTHON2[top]}"
    if _SCRIPT_PACKAGE.match(name):
        return _missing_in("beside this script", rest.rpartition(".")[2], site)
    if _has_module(directory, top):
        place = f"{top}.py is beside the script, not in the site's directory."
        return f"{place} Write:\nfrom . import {top}"
    if rest and top in sys.modules and not hasattr(sys.modules[top], "__path__"):
        return f"{top} is a single file, so there is no {name} in it."
    if found := _find_below(site, top):
        return f"{top}.py is in {os.path.relpath(found, site)}. {_write_import(found, site, top)}"
    if meant := _misspelled_module(top, site):
        return f"There is no {top}. Did you mean this?\nimport {meant}"
    return _not_installed(top)


def _not_installed(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        return ""
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    install = f"{python} -m pip install {_PACKAGES.get(name, name)}"
    return (
        f"There is no {name}.py in the site, and no such module is installed. To install it:\n"
        f"{install}"
    )


def _missing_in(place: str, name: str, site: str) -> str:
    """The advice about a module *name* that is not at *place*, but perhaps elsewhere."""
    sentence = f"There is no {name}.py {place}."
    if _has_module(site, name):
        return f"{sentence} It is in the site's directory. Write:\nimport {name}"
    if found := _find_below(site, name):
        where = f"It is in {os.path.relpath(found, site)}."
        return f"{sentence} {where} {_write_import(found, site, name)}"
    return sentence


def _write_import(directory: str, site: str, name: str) -> str:
    package = os.path.relpath(directory, site).replace(os.sep, ".")
    return f"Write:\nfrom {package} import {name}"


def _name_of_directory(module: str, importer: _Importer) -> str:
    is_own = os.path.join(importer.site, *module.split(".")) == importer.directory
    return "beside this script" if is_own else f"in {module.replace('.', '/')}"


def _misspelled_module(name: str, site: str) -> str | None:
    own = [path.stem for path in Path(site).glob("*.py")]
    if found := name_advice.closest(name, own):
        return found
    found = name_advice.closest(name, sys.stdlib_module_names)
    # With a letter more than one of Python's it may be the name of a package.
    return found if found and len(found) >= len(name) else None


def _hidden_file(name: str, importer: _Importer, loaded: str | None) -> str:
    """The advice about a file of the site that the *loaded* module of the same name hides."""
    for directory in (importer.directory, importer.site):
        file = os.path.join(directory, name + ".py")
        if directory and os.path.isfile(file) and loaded != file:
            owner = "Python's own" if name in sys.stdlib_module_names else "an installed"
            sentence = f"This is {owner} {name}, not the site's {name}.py."
            rename = f"Rename that file, for example to my_{name}.py"
            if directory == importer.directory:
                return f"{sentence} {rename}, or write:\nfrom . import {name}"
            return f"{sentence} {rename}."
    return ""


def _name_in(message: str) -> str:
    found = re.search(r"cannot import name '(\w+)'", message)
    return found[1] if found else ""


def _importer_of(exc: BaseException) -> _Importer:
    site = os.getcwd()
    file = ""
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        if is_author_code(frame.f_code.co_filename):
            file = frame.f_code.co_filename
        site = getattr(frame.f_globals.get("__execution__"), "root", site)
    return _Importer(os.path.dirname(file), site)


def _has_module(directory: str, name: str) -> bool:
    if not directory:
        return False
    files = (name + ".py", os.path.join(name, "__init__.py"))
    return any(os.path.isfile(os.path.join(directory, file)) for file in files)


def _find_below(site: str, name: str) -> str | None:
    """The directory below the site's that holds the module *name*."""
    for directory, below, _ in islice(os.walk(site), MAX_DIRECTORIES):
        if directory != site and _has_module(directory, name):
            return directory
        below[:] = [each for each in sorted(below) if _is_importable(directory, each)]
        if len(Path(directory).relative_to(site).parts) == MAX_LEVELS:
            below.clear()
    return None


def _is_importable(directory: str, name: str) -> bool:
    return name.isidentifier() and not is_ignored_directory(os.path.join(directory, name))
