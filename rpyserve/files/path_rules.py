"""What a name says: whether it can be a file's at all, and whether that file is private.

Pure decisions over texts, the same on every platform: nothing here looks at a disk. `refusal`
judges one URL segment, and `forbidden_target` a whole resolved path, so that no link leads around
the rules. Every refusal comes with its reason as a sentence for the site's author; an empty text
means that nothing is wrong.

What is private is decided by a list of kinds, not by a list of what may be served: downloads have
any extension, or none, and a server of static files is expected to send them. The list errs towards
hiding: a new kind of backup or database is a line in `_PRIVATE` or `_DATA`. Where the name tells
nothing, `private_content` looks at how the file begins.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable
from functools import lru_cache
from heapq import nsmallest
from typing import Final
from urllib.parse import quote

from rpyserve.util.text import WINDOWS_DEVICE, closest_match

SCRIPT: Final = ".rpy"

# How many bytes of UTF-8 a file name may have on the file systems that matter.
MAX_NAME: Final = 255

# How many characters of names are compared, which takes time that grows with the square of it.
_MAX_KEY: Final = 40

# How many names are compared with another one: the likeliest by their length and beginning.
_MAX_COMPARED: Final = 40

_Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*rows: tuple[str, str]) -> _Rules:
    """Compile rows of a pattern for whole names and the reason why such files are not served."""
    return tuple((re.compile(pattern, re.I | re.S), reason) for pattern, reason in rows)


_INVALID: Final = _rules(
    (r"", "There is an empty name between two slashes in this URL."),
    (r"\.\.?", "A URL cannot climb with '.' or '..'."),
    (r".*[\ud800-\udfff].*", "This URL is not valid UTF-8."),
    (r".*[\x00-\x1f\x7f].*", "There is a control character in this URL."),
    (r".*[/\\:].*", r"A file name cannot contain '/', '\\' or ':'."),
    (r".*[. ]", "A file name cannot end in a dot or a space."),
    (
        WINDOWS_DEVICE.pattern,
        "This is the name of a device on Windows, so no file has it anywhere.",
    ),
)

_BACKUP: Final = "Backups are never served."
_DATABASE: Final = "Databases are never served."
_SHELF: Final = "Files of the module shelve, and others with their extensions, are never served."
_KEY: Final = "Keys and certificates are never served."
_LOG: Final = "Log files and memory dumps are never served."

_PRIVATE: Final = _rules(
    (r"__pycache__", "Python's compiled files are never served."),
    (r".*~|~\$.*|#.*#", _BACKUP),
    (r".*\.(?:bak|bkp|backup|copy|dist|old|orig|rej|save|sw[a-z]|tmp)", _BACKUP),
    (r".*___jb_(?:old|tmp)___", _BACKUP),
    (r".*\.rpy", "The extension of a script is .rpy, in lower case."),
    (r".*\.rpyc.*", "Compiled scripts are never served."),
    (
        r".*\.rpy.*",
        "A name that contains .rpy looks like a copy of a script, so it is never served.",
    ),
    (r".*\.py", "Python files are never served: scripts end in .rpy."),
    (r".*\.py[a-z0-9]?(?![a-z0-9]).*", "Python files and copies of them are never served."),
    (r".*\.so", "Native modules are never served."),
    (r".*\.log[.-]?[0-9_-]*|nohup\.out", _LOG),
    (r"(?:agents|claude|gemini)\.md", "Notes for coding agents are never served."),
)
# Private as well, but scripts may make their pages of it.
_DATA: Final = _rules(
    (
        r".*\.(?:accdb|db[0-9]?|dump|duckdb|laccdb|ldb|mdb|s3db|sl3|sql)"
        r"(?:[.-](?:wal|shm|journal|lock))?",
        _DATABASE,
    ),
    (r".*\.sqlite.*", _DATABASE),
    (r".*\.(?:dat|dir|pag)", _SHELF),
    (r".*\.(?:pickle|pkl)", "Pickled objects are never served."),
    (r".*\.(?:j2|jinja2?|mako|tpl)", "Template sources are never served."),
    (r".*\.ipynb", "Notebooks are never served: they hold code, and what it has printed."),
    (r".*\.(?:bks|der|jceks|jks|kdbx?|key|keystore|p12|p8|pem|pfx|ppk)", _KEY),
    (r"id_(?:dsa|ecdsa|ed25519|rsa)(?:_sk)?", _KEY),
)

_RULES: Final = _PRIVATE + _DATA

# What programs append to the name of a file that they copy, rotate or compress.
_COPY_SUFFIX: Final = re.compile(r"(?:\.(?:[0-9]+|7z|bz2|gz|lz4|rar|tar|xz|zip|zst))+\Z", re.I)

_MEMORY_DUMP: Final = re.compile(r"core(?:\.[0-9]+)?", re.I)
_PRIVATE_CONTENT: Final = (
    (re.compile(rb"SQLite format 3\x00"), _DATABASE),
    (re.compile(rb"[\xcd-\xd1]\x9aW\x13|\x13W\x9a[\xcd-\xd1]"), _DATABASE),  # of GNU dbm
    (re.compile(rb"\s*-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File-"), _KEY),
    (re.compile(rb"\x7fELF.{12}(?:\x04\x00|\x00\x04)", re.S), _LOG),  # of the type ET_CORE
)

# A script, or nearly one: it has another extension than .rpy, or one more.
_MISNAMED: Final = re.compile(r"([^.]*)\.(?:rpy(?:\.(?:txt|html?|py))?|py)", re.I)

_DATABASE_SIDE_FILE: Final = re.compile(r".*-(?:shm|journal)", re.I | re.S)
# Directories that are served, but left out of listings.
_UNLISTED: Final = frozenset({"node_modules", "site-packages"})


def refusal(name: str, *, top: bool = False) -> str:
    """Say why *name*, a decoded URL segment or a file's name, is never served; empty if it may be.

    Args:
        top: it is at the top of the site; see `private_reason`.
    """
    if len(name) > MAX_NAME:
        # Not remembered: whoever makes requests decides how long and how different such names are.
        return invalid_segment(name)
    return _refusal(name, top)


@lru_cache(maxsize=1024)
def _refusal(name: str, top: bool) -> str:
    return invalid_segment(name) or private_reason(name, top=top)


def is_listed(name: str, *, top: bool = False) -> bool:
    """Whether a listing may show a file or directory of this name."""
    return name.lower() not in _UNLISTED and not refusal(name, top=top)


def invalid_segment(segment: str) -> str:
    """Say why no file has the name *segment*, a decoded URL segment, on any platform."""
    if len(segment.encode(errors="surrogatepass")) > MAX_NAME:
        return f"A file name has at most {MAX_NAME} bytes."
    return _matching_reason(_INVALID, segment)


def is_script(name: str) -> bool:
    """Whether a file of this name is a script. Letter case counts: ``X.RPY`` is private."""
    return name.endswith(SCRIPT) and not name.startswith(".")


def private_reason(name: str, *, top: bool = False) -> str:
    """Say why a file or directory called *name* is never served or listed; empty if it may be.

    Args:
        top: it is at the top of the site, where ``.well-known`` is public (RFC 8615).
    """
    if name.startswith("."):
        is_public = top and name == ".well-known"
        return "" if is_public else "Names that begin with a dot are never served."
    if is_script(name):
        return ""
    plain = name.rstrip(". ")
    original = _COPY_SUFFIX.sub("", plain)
    return _matching_reason(_RULES, plain) or _matching_reason(_RULES, original)


def private_file_reason(name: str) -> str:
    """Say why a file called *name* is never served, though a directory may be called so."""
    return _LOG if _MEMORY_DUMP.fullmatch(name) else ""


def private_content(start: bytes) -> str:
    """Say why a file that begins with *start* is never served; empty if it may be.

    It is for files whose names tell nothing: ``shelve`` calls its database what the author called
    it, and keys may be called anything.
    """
    return next((reason for kind, reason in _PRIVATE_CONTENT if kind.match(start)), "")


def is_material(name: str) -> bool:
    """Whether the private file *name* is one that a script may make its page of.

    Databases, templates and keys are. What a database keeps beside it while it is open is not,
    because reading the database writes that.
    """
    if name.startswith(".") or _DATABASE_SIDE_FILE.fullmatch(name):
        return False
    return bool(_matching_reason(_DATA, name)) and not _matching_reason(_PRIVATE, name)


def _matching_reason(rules: _Rules, name: str) -> str:
    return next((reason for pattern, reason in rules if pattern.fullmatch(name)), "")


def is_inside(root: str, path: str) -> bool:
    """Whether the absolute, resolved *path* is *root* or below it."""
    root, path = os.path.normcase(root), os.path.normcase(path)
    prefix = root if root.endswith(os.sep) else root + os.sep  # not that of a neighbour
    return path == root or path.startswith(prefix)


def forbidden_target(root: str, path: str, *, follow: bool, script: bool = False) -> str:
    """Say why the resolved *path* must not be reached in the site at *root*; empty if it may be.

    Args:
        root: the site's directory, resolved.
        follow: links may lead out of the site. What they lead to is judged by its own name then.
        script: it is to be executed, so it may be a script; what is sent as a file may not.
    """
    if is_inside(root, path):
        names = path[len(root) :].strip(os.sep).split(os.sep)
    elif follow:
        names = ["", os.path.basename(path)]
    else:
        return "It leads out of the site; --follow-symlinks allows that."
    for depth, name in enumerate(names):
        if why := private_reason(name, top=depth == 0):
            return f"It leads to {name!r}. {why}"
        if is_script(name) and not (script and depth == len(names) - 1):
            return f"It leads to the script {name!r}, whose source is never served."
    return ""


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return which of the *candidates* may have been meant by *name*; empty if none."""
    wanted = _key(name)[:_MAX_KEY]
    by_key: dict[str, str] = {}
    for candidate in candidates:
        by_key.setdefault(_key(candidate)[:_MAX_KEY], candidate)

    def unlikeness(key: str) -> int:
        beginning = os.path.commonprefix([key, wanted])  # noqa: RUF071 (of characters)
        return abs(len(key) - len(wanted)) - len(beginning)

    key = closest_match(wanted, nsmallest(_MAX_COMPARED, by_key, unlikeness))
    return "" if key is None else by_key[key]


def rename_hint(name: str, neighbours: Iterable[str]) -> str:
    """Say which of the *neighbours* to rename, so that it is the script that *name* asks for."""
    wanted = _key(name)
    for neighbour in sorted(neighbours):
        renamed = _MISNAMED.fullmatch(neighbour)
        if renamed and _key(neighbour) == wanted and not is_script(neighbour):
            return f"There is a file {neighbour!r} here: rename it to {renamed[1] + SCRIPT!r}."
    return ""


def readable(segments: Iterable[str]) -> str:
    """Return the URL path of *segments*, only that encoded which has a meaning in URLs."""
    return "".join("/" + "".join(map(_readable_char, segment)) for segment in segments)


def _readable_char(char: str) -> str:
    return char if char > "\x7f" else quote(char, safe="!$&'()*+,;=@")


def _key(name: str) -> str:
    """Return what a script, its short URL and its copies share, in any letter case."""
    return re.sub(r"\.r?py([^a-z].*|[a-z]?)$", "", name.rstrip("/~").casefold())
