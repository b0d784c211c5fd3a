"""What a name says: whether a URL segment can be one at all, and whether the file of that name is private.

Pure decisions over texts, the same on every platform: nothing here looks at a disk. Every "no" comes with its
reason as a sentence for the site's author; an empty text means "yes". The walk asks of every segment first
`refusal`, then `privacy`, and `trespass` judges a whole resolved path, so that no link leads around either.
Rules err towards hiding: a new kind of backup or database is a line in `_PRIVATE`.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import quote

__all__ = [
    "SCRIPT",
    "forbidden_target",
    "invalid_segment",
    "is_inside",
    "is_material",
    "is_script",
    "nearest",
    "private_reason",
    "readable",
    "rename_hint",
    "unlisted",
]  # fmt: skip

SCRIPT: Final = ".rpy"
LONGEST: Final = 255
"""How many bytes of UTF-8 a file name may have on the file systems that matter."""

_RESERVED = re.compile(
    r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\..*)?", re.I
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SCRIPT_IN_IT = re.compile(r"\.rpy", re.I)

_PRIVATE: Final = tuple(
    (re.compile(pattern, re.I | re.S), reason)
    for pattern, reason in (
        (r"__pycache__", "Python's compiled files are never served."),
        (r".*~|~\$.*|#.*#|.*\.(?:bak|old|orig|rej|save|sw[a-z]|tmp)|.*___jb_(?:old|tmp)___", "Backups that editors "
         "leave are never served."),
        (r".*\.rpy", "The extension of a script is .rpy, in small letters."),
        (r".*\.rpyc.*", "Compiled scripts are never served."),
        (r".*\.rpy.*", "A name with .rpy inside looks like a copy of a script, so it is never served."),
        (r".*\.py", "Python files are never served: scripts end in .rpy."),
        (r".*\.py[a-z0-9]?(?![a-z0-9]).*", "Python files and copies of them are never served."),
    )
)  # fmt: skip
_MATERIAL: Final = tuple(
    (re.compile(pattern, re.I | re.S), reason)
    for pattern, reason in (
        (r".*\.db3?(?:-wal|-shm|-journal)?|.*\.sqlite.*", "Databases are never served."),
        (r".*\.(?:j2|jinja2?)", "Template sources are never served."),
        (r".*\.(?:pem|key|p12|pfx)", "Keys and certificates are never served."),
    )
)
"""Private as well, but what scripts may make their pages of."""
_SIDE_FILE = re.compile(r".*-(?:shm|journal)", re.I | re.S)
_UNLISTED: Final = {"node_modules", "site-packages"}


def invalid_segment(segment: str) -> str:
    """Say why no file can have the name *segment*, a decoded URL segment, on every platform; empty if one can."""
    if not segment:
        return "There is an empty name between two slashes in this URL."
    if segment in (".", ".."):
        return "A URL cannot climb with '.' or '..'."
    if _SURROGATE.search(segment):
        return "This URL is no UTF-8."
    if _CONTROL.search(segment):
        return "There is a control character in this URL."
    for char in "/\\:":
        if char in segment:
            return f"A name with {char!r} in it names no file."
    if segment[-1] in ". ":
        return "A name that ends in a dot or a space names no file."
    if _RESERVED.fullmatch(segment):
        return "This name is a device's on Windows, so it names no file anywhere."
    if len(segment.encode()) > LONGEST:
        return f"A file name has at most {LONGEST} bytes."
    return ""


def is_script(name: str) -> bool:
    """Whether a file of this name is a script. Letters count: ``X.RPY`` is none (and is private)."""
    return name.endswith(SCRIPT) and not name.startswith(".")


@lru_cache(maxsize=1024)
def private_reason(name: str, *, top: bool = False) -> str:
    """Say why a file or directory called *name* is never served or listed; empty if it may be.

    Args:
        top: it is at the top of the site, where ``.well-known`` is public (RFC 8615).
    """
    if name.startswith("."):
        return (
            "" if top and name == ".well-known" else "Names that begin with a dot are never served."
        )
    if is_script(name):
        return ""
    plain = name.rstrip(". ")
    for pattern, reason in (*_PRIVATE, *_MATERIAL):
        if pattern.fullmatch(plain):
            return reason
    return ""


def is_material(name: str) -> bool:
    """Whether the private file *name* is one that a script may make its page of: a database, a template, a key.

    Not what a database keeps beside it while it is open: reading it writes that.
    """
    if (
        any(pattern.fullmatch(name) for pattern, _ in _PRIVATE)
        or name.startswith(".")
        or _SIDE_FILE.fullmatch(name)
    ):
        return False
    return any(pattern.fullmatch(name) for pattern, _ in _MATERIAL)


def unlisted(name: str) -> bool:
    """Whether a directory of this name is left out of listings though it is served."""
    return name.lower() in _UNLISTED


def is_inside(root: str, path: str) -> bool:
    """Whether the absolute, resolved *path* is *root* or below it. A neighbour with the same prefix is not."""
    root, path = os.path.normcase(root), os.path.normcase(path)
    return path == root or path.startswith(root if root.endswith(os.sep) else root + os.sep)


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
    if names == [""]:
        return ""  # a link to the root itself
    for depth, name in enumerate(names):
        if why := private_reason(name, top=depth == 0):
            return f"It leads to {name!r}. {why}"
        if is_script(name) and not (script and depth == len(names) - 1):
            return f"It leads to the script {name!r}, whose source is never served."
    return ""


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return which of the *candidates* somebody who asked for *name* may have meant; empty if none."""
    by_key: dict[str, str] = {}
    for candidate in candidates:
        by_key.setdefault(_key(candidate), candidate)
    import difflib

    close = difflib.get_close_matches(_key(name)[:LONGEST], by_key, n=1, cutoff=0.75)
    return by_key[close[0]] if close else ""


def rename_hint(name: str, neighbours: Iterable[str]) -> str:
    """Say which of the *neighbours* is the script that *name* asks for, but for its name; empty if none is."""
    wanted = _key(name)
    for neighbour in sorted(neighbours):
        if is_script(neighbour) or _key(neighbour) != wanted:
            continue
        stem, dot, extension = neighbour.partition(".")
        if dot and re.fullmatch(r"rpy(\.(txt|html?|py))?|py", extension, re.I):
            return f"There is a file {neighbour!r} here: rename it to {stem + SCRIPT!r}."
    return ""


def readable(segments: Iterable[str]) -> str:
    """Return the URL path of *segments* as a person reads it: only what has a meaning there is encoded."""
    return "".join("/" + "".join(map(_readable_char, segment)) for segment in segments)


def _readable_char(char: str) -> str:
    return char if char > "\x7f" else quote(char, safe="!$&'()*+,;=@")


def _key(name: str) -> str:
    """What two names have in common that differ in letter case, or in being a script, its short URL, or a copy."""
    return re.sub(r"\.r?py([^a-z].*|[a-z]?)$", "", name.rstrip("/~").casefold())
