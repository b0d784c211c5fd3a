"""What a site's directory holds, by name: scripts, modules, and names that cannot work or stand in each other's way.

Reads directories, opens no file. Foreign directories (environments, installed packages, hidden ones) are left alone, as
they are when the site is served; links are judged as `directory` judges them. Paths are relative to the site.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from rpyserve.check.findings import Finding, Rule
from rpyserve.files import path_rules
from rpyserve.scripts import file_state

__all__ = ["Survey", "check_filenames"]

_REPARSE_POINT: Final = (
    0x400  # Windows: junctions are links too, and so, in a way, is what a cloud keeps for one
)
_COPY: Final = re.compile(r".*\.r?py[^a-z0-9].*", re.IGNORECASE)
_RENAMED: Final = re.compile(r"(.+)\.rpy(\.(txt|html?|py))?", re.IGNORECASE)


@dataclass(slots=True)
class Survey:
    """What was found: the *scripts* and *modules*, and what is wrong with a path."""

    scripts: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    findings: list[tuple[str, Finding]] = field(default_factory=list)

    def note(self, path: str, kind: Rule, message: str, hint: str) -> None:
        """Add what is wrong with *path* as a whole."""
        self.findings.append((path, Finding(0, kind, message, hint)))


def check_filenames(root: str, *, follow_symlinks: bool = False) -> Survey:
    """Look at all names below the directory *root*.

    Args:
        root: the site's directory, resolved.
        follow_symlinks: links may lead out of it.
    """
    found = Survey()
    todo, seen = [""], {root}
    while todo:
        directory = todo.pop()
        entries = _entries(root, directory, found)
        names = {entry.name for entry in entries}
        _collisions(directory, names, found)
        for entry in entries:
            path = os.path.join(directory, entry.name)
            real = _target(root, path, found, follow_symlinks) if _is_link(entry) else entry.path
            if real is None or _is_out_of_the_way(entry, path, names, found):
                continue
            if not os.path.isdir(real):
                _file(path, names, found)
            elif real not in seen and _may_enter(path, found):
                seen.add(real)
                todo.append(path)
    return found


def _entries(root: str, directory: str, found: Survey) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(os.path.join(root, directory)) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as exc:
        found.note(
            directory or ".",
            Rule.UNREADABLE,
            _why(exc, "directory"),
            "Give yourself the right to read it.",
        )
        return []
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".") and not file_state.is_ignored_directory(entry.path)
    ]


def _is_link(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        return True
    try:
        return bool(
            getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0) & _REPARSE_POINT
        )
    except OSError:
        return False


def _target(root: str, path: str, found: Survey, follow: bool) -> str | None:
    """Where the link at *path* leads, if that is to be looked at: what lies in the site has its turn without it."""
    link = os.path.join(root, path)
    real = os.path.realpath(link)
    if not os.path.exists(link):
        found.note(
            path, Rule.LINK, "This link leads nowhere.", "Remove it, or mend what it leads to."
        )
    elif real == link:
        return link
    elif why := path_rules.forbidden_target(
        root, real, follow=follow, script=path_rules.is_script(link)
    ):
        found.note(
            path, Rule.LINK, f"This is a link. {why}", "Move what it leads to into the site."
        )
    elif not path_rules.is_inside(root, real):
        return real
    return None


def _is_out_of_the_way(entry: os.DirEntry[str], path: str, names: set[str], found: Survey) -> bool:
    """Whether nothing is ever served or imported under this name; tells of it where its author may think otherwise."""
    name = entry.name
    if (renamed := _RENAMED.fullmatch(name)) and not path_rules.is_script(name) and entry.is_file():
        proper = renamed[1] + path_rules.SCRIPT
        if proper in names:
            found.note(
                path,
                Rule.BACKUP,
                f"This copy of {proper} is never served.",
                "Move it out of the site.",
            )
        else:
            message = "The name of a script ends in .rpy and nothing else, in small letters."
            found.note(
                path,
                Rule.MISNAMED,
                f"{message} This file is never served.",
                f"Rename it to {proper}.",
            )
        return True
    why = path_rules.private_reason(name, top=os.path.dirname(path) == "")
    if why.startswith("Backups") or (why and _COPY.fullmatch(name)):
        found.note(path, Rule.BACKUP, why, "Move it out of the site.")
    elif not why and (refused := path_rules.invalid_segment(name)):
        found.note(path, Rule.UNREACHABLE, f"No URL leads here. {refused}", "Give it another name.")
        return True
    return bool(why) and not name.endswith(".py")


def _file(path: str, names: set[str], found: Survey) -> None:
    name = os.path.basename(path)
    if name.endswith(".py"):
        found.modules.append(path)
    elif path_rules.is_script(name):
        found.scripts.append(path)
        _hides(path, names, found)


def _hides(path: str, names: set[str], found: Survey) -> None:
    directory, name = os.path.split(path)
    short = name.removesuffix(path_rules.SCRIPT)
    url = path_rules.readable([*filter(None, directory.split(os.sep)), short])
    if short in names and not path_rules.private_reason(short):
        message = (
            f"{short} comes first, so {url} is not this script; only {url}{path_rules.SCRIPT} is."
        )
        found.note(path, Rule.HIDDEN_PAGE, message, "Give one of the two another name.")
    if name == "index.rpy" and "index.html" in names:
        where = url.removesuffix("index")
        message = f"index.rpy comes first, so {where} never shows this file."
        found.note(
            os.path.join(directory, "index.html"),
            Rule.HIDDEN_PAGE,
            message,
            "Remove or rename one of the two.",
        )


def _may_enter(path: str, found: Survey) -> bool:
    if path_rules.is_script(path):
        message = "A directory is no script, and nothing in this one is served."
        found.note(path, Rule.MISNAMED, message, "Give it a name that does not end in .rpy.")
        return False
    return True


def _collisions(directory: str, names: set[str], found: Survey) -> None:
    first: dict[str, str] = {}
    for name in sorted(names):
        other = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            message = f"This name and {other} are one and the same on Windows and macOS, where one would be lost."
            found.note(
                os.path.join(directory, name),
                Rule.SAME_NAME,
                message,
                "Give one of the two another name.",
            )


def _why(exc: OSError, what: str) -> str:
    return f"This {what} cannot be read: {exc.strerror or exc}."
