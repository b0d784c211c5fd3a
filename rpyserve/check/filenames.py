"""The names in a site's directory: its scripts and modules, and names that cannot work or that hide
each other.

Reads directories and opens no file. Ignored directories (environments, installed packages, hidden
ones) are left alone, as they are when the site is served, and links are judged by the rules of
`files.path_rules`. All paths are relative to the site.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from rpyserve.check.findings import Finding, Rule
from rpyserve.files import path_rules
from rpyserve.files.safe_open import is_link
from rpyserve.scripts import file_state

__all__ = ["SiteFiles", "check_filenames"]

_COPY_OF_CODE: Final = re.compile(r".*\.r?py[^a-z0-9].*", re.IGNORECASE)
_OBVIOUS: Final = ("Python", "Compiled", "Databases", "Keys", "Template")
"""How the reasons begin for which nobody expects a file to be served."""
_MISNAMED_SCRIPT: Final = re.compile(r"(.+)\.rpy(\.(txt|html?|py))?", re.IGNORECASE)


@dataclass(slots=True)
class SiteFiles:
    """What a site's directory contains.

    Attributes:
        scripts: the paths of the scripts.
        modules: the paths of the Python modules.
        findings: what is wrong with names, each with the path of the file or directory.
    """

    scripts: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    findings: list[tuple[str, Finding]] = field(default_factory=list)

    def add(self, path: str, rule: Rule, message: str, hint: str) -> None:
        """Add a finding about the file or directory at *path* as a whole."""
        self.findings.append((path, Finding(0, rule, message, hint)))


def check_filenames(root: str, *, follow_symlinks: bool = False) -> SiteFiles:
    """Check all names below the directory *root*.

    Args:
        root: the site's directory, resolved.
        follow_symlinks: links may lead out of it.
    """
    walk = _Walk(root, follow_symlinks)
    walk.run()
    return walk.files


class _Walk:
    """Visits each directory of a site once, however many links lead to it."""

    def __init__(self, root: str, follow_symlinks: bool) -> None:
        self.files = SiteFiles()
        self._root = root
        self._follow_symlinks = follow_symlinks
        self._seen = {root}
        self._todo = [""]

    def run(self) -> None:
        while self._todo:
            directory = self._todo.pop()
            entries = self._entries(directory)
            names = {entry.name for entry in entries}
            self._check_collisions(directory, names)
            for entry in entries:
                self._visit(entry, os.path.join(directory, entry.name), names)

    def _entries(self, directory: str) -> list[os.DirEntry[str]]:
        """The entries of *directory* that belong to the site."""
        try:
            with os.scandir(os.path.join(self._root, directory)) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as exc:
            message = f"This directory cannot be read: {exc.strerror or exc}."
            self.files.add(directory or ".", Rule.UNREADABLE, message, "Make it readable.")
            return []
        return [
            entry
            for entry in entries
            if not entry.name.startswith(".") and not file_state.is_ignored_directory(entry.path)
        ]

    def _visit(self, entry: os.DirEntry[str], path: str, names: set[str]) -> None:
        real = self._link_target(path) if _is_link(entry) else entry.path
        if real is None or self._is_never_served(entry, path, names):
            return
        if not os.path.isdir(real):
            self._visit_file(path, names)
        elif path_rules.is_script(path):
            message = "A directory is not a script, and nothing in this one is served."
            hint = "Give it a name that does not end in .rpy."
            self.files.add(path, Rule.WRONG_EXTENSION, message, hint)
        elif real not in self._seen:
            self._seen.add(real)
            self._todo.append(path)

    def _link_target(self, path: str) -> str | None:
        """Where the link at *path* leads; None if it is forbidden or visited without the link."""
        link = os.path.join(self._root, path)
        real = os.path.realpath(link)
        if not os.path.exists(link):
            hint = "Remove it, or repair what it leads to."
            self.files.add(path, Rule.BAD_LINK, "This link is broken.", hint)
            return None
        if real == link:  # a file that a cloud keeps is marked like a link
            return link
        is_script = path_rules.is_script(link)
        reason = path_rules.forbidden_target(
            self._root, real, follow=self._follow_symlinks, script=is_script
        )
        if reason:
            hint = "Move what it leads to into the site."
            self.files.add(path, Rule.BAD_LINK, f"This is a link. {reason}", hint)
            return None
        return None if path_rules.is_inside(self._root, real) else real

    def _is_never_served(self, entry: os.DirEntry[str], path: str, names: set[str]) -> bool:
        """Whether this name is never served or imported; if that may surprise, it is a finding."""
        name = entry.name
        renamed = _MISNAMED_SCRIPT.fullmatch(name)
        if renamed and not path_rules.is_script(name) and entry.is_file():
            self._add_misnamed_script(path, renamed[1] + path_rules.SCRIPT, names)
            return True
        reason = path_rules.private_reason(name, top=os.path.dirname(path) == "")
        if entry.is_file():
            reason = reason or path_rules.private_file_reason(name)
        if not reason:
            invalid = path_rules.invalid_segment(name)
            if invalid:
                message = f"No URL leads here. {invalid}"
                self.files.add(path, Rule.UNREACHABLE, message, "Rename it.")
            return bool(invalid)
        if reason.startswith("Backups") or _COPY_OF_CODE.fullmatch(name):
            self.files.add(path, Rule.BACKUP, reason, "Move it out of the site.")
        elif not reason.startswith(_OBVIOUS):
            hint = "To publish it, rename it, or write a script that sends it."
            self.files.add(path, Rule.NEVER_SERVED, reason, hint)
        return not name.endswith(".py")

    def _add_misnamed_script(self, path: str, proper: str, names: set[str]) -> None:
        if proper in names:
            message = f"This copy of {proper} is never served."
            self.files.add(path, Rule.BACKUP, message, "Move it out of the site.")
        else:
            message = "This file is never served: the name of a script ends in .rpy, in lower case."
            self.files.add(path, Rule.WRONG_EXTENSION, message, f"Rename it to {proper}.")

    def _visit_file(self, path: str, names: set[str]) -> None:
        if path.endswith(".py"):
            self.files.modules.append(path)
        elif path_rules.is_script(os.path.basename(path)):
            self.files.scripts.append(path)
            self._check_shadowing(path, names)

    def _check_shadowing(self, path: str, names: set[str]) -> None:
        """Find another file beside the script at *path* that has the same URL."""
        directory, name = os.path.split(path)
        stem = name.removesuffix(path_rules.SCRIPT)
        segments = [*filter(None, directory.split(os.sep)), stem]
        url = path_rules.readable(segments)
        if stem in names and not path_rules.private_reason(stem):
            message = (
                f"{stem} takes precedence: "
                f"{url} does not lead to this script, only {url}{path_rules.SCRIPT} does."
            )
            self.files.add(path, Rule.SHADOWED_PAGE, message, "Rename one of the two.")
        if name == "index.rpy" and "index.html" in names:
            shadowed = os.path.join(directory, "index.html")
            message = (
                f"index.rpy takes precedence: {url.removesuffix('index')} never shows this file."
            )
            self.files.add(
                shadowed, Rule.SHADOWED_PAGE, message, "Remove or rename one of the two."
            )

    def _check_collisions(self, directory: str, names: set[str]) -> None:
        first: dict[str, str] = {}
        for name in sorted(names):
            key = unicodedata.normalize("NFC", name).casefold()
            other = first.setdefault(key, name)
            if other != name:
                message = f"On Windows and macOS this is the same name as {other}."
                path = os.path.join(directory, name)
                self.files.add(path, Rule.NAME_COLLISION, message, "Rename one of the two.")


def _is_link(entry: os.DirEntry[str]) -> bool:
    try:
        return is_link(entry.stat(follow_symlinks=False))
    except OSError:
        return False
