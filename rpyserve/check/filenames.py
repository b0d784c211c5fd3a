"""The names in a site's directory.

Finds the scripts and modules, names that cannot work, and names that hide each other.
Reads directories and opens no file. Ignored directories (environments, installed packages, hidden
ones) are left alone, as they are when the site is served, and links are judged by the rules of
`files.path_rules`. All paths are relative to the site.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from operator import attrgetter
from typing import Final

from rpyserve.check.findings import Finding, Rule
from rpyserve.files import path_rules
from rpyserve.files.safe_open import is_link
from rpyserve.scripts import file_state

_COPY_OF_CODE: Final = re.compile(r".*\.r?py[^a-z0-9].*", re.IGNORECASE)
# How the reasons begin for which nobody expects a file to be served.
_OBVIOUS: Final = ("Python", "Compiled", "Databases", "Keys", "Template", "Notes")
_MISNAMED_SCRIPT: Final = re.compile(r"(.+)\.rpy(\.(txt|html?|py))?", re.IGNORECASE)
_MISNAMED: Final = "This file is never served: the name of a script ends in .rpy, in lower case."
_RENAME: Final = "Rename one of the two."
_PUBLISH: Final = "To publish it, rename it, or write a script that sends it."
_MOVE: Final = "Move it out of the site."


class SiteFiles:
    """What the directory of a site contains.

    Each directory is visited once, however many links lead to it.

    Args:
        root: the directory, resolved.
        follow_symlinks: links may lead out of it.

    Attributes:
        scripts: the paths of the scripts.
        modules: the paths of the Python modules.
        findings: what is wrong with names, by the paths of the files and directories.
    """

    def __init__(self, root: str, *, follow_symlinks: bool = False) -> None:
        self.scripts: list[str] = []
        self.modules: list[str] = []
        self.findings: dict[str, list[Finding]] = defaultdict(list)
        self._root = root
        self._follow_symlinks = follow_symlinks
        self._seen = {root}
        self._todo = [""]
        while self._todo:
            self._visit_directory(self._todo.pop())

    def _add(self, path: str, rule: Rule, message: str, hint: str) -> None:
        self.findings[path].append(Finding(0, rule, message, hint))

    def _visit_directory(self, directory: str) -> None:
        try:
            with os.scandir(os.path.join(self._root, directory)) as scanned:
                entries = sorted(scanned, key=attrgetter("name"))
            own = [each for each in entries if not file_state.is_ignored_directory(each.path)]
            names = {entry.name for entry in own}
            self._check_collisions(directory, names)
            for entry in own:
                self._visit(entry, os.path.join(directory, entry.name), names)
        except OSError as exc:
            message = f"This directory cannot be read: {exc.strerror or exc}."
            self._add(directory or ".", Rule.UNREADABLE, message, "Make it readable.")

    def _visit(self, entry: os.DirEntry[str], path: str, names: set[str]) -> None:
        is_linked = is_link(entry.stat(follow_symlinks=False))
        real = self._link_target(path) if is_linked else entry.path
        if real is None or self._is_misnamed(entry, path, names) or self._is_private(entry, path):
            return
        is_script = path_rules.is_script(entry.name)
        if os.path.isdir(real):
            if is_script:
                self._add(
                    path,
                    Rule.WRONG_EXTENSION,
                    "A directory is not a script, and nothing in this one is served.",
                    "Give it a name that does not end in .rpy.",
                )
            elif real not in self._seen:
                self._seen.add(real)
                self._todo.append(path)
        elif is_script:
            self.scripts.append(path)
            self._check_shadowing(path, names)
        elif path.endswith(".py"):
            self.modules.append(path)

    def _link_target(self, path: str) -> str | None:
        """Where the link at *path* leads; None if it is forbidden or visited without the link."""
        link = os.path.join(self._root, path)
        real = os.path.realpath(link)
        message, hint = "This link is broken.", "Remove it, or repair what it leads to."
        if os.path.exists(link):
            if real == link:  # a file that a cloud keeps is marked like a link
                return link
            reason = path_rules.forbidden_target(
                self._root,
                real,
                follow=self._follow_symlinks,
                script=path_rules.is_script(link),
            )
            if not reason:
                return None if path_rules.is_inside(self._root, real) else real
            message, hint = f"This is a link. {reason}", "Move what it leads to into the site."
        self._add(path, Rule.BAD_LINK, message, hint)
        return None

    def _is_misnamed(self, entry: os.DirEntry[str], path: str, names: set[str]) -> bool:
        """Whether the file would be a script if it had another name, which is a finding."""
        renamed = _MISNAMED_SCRIPT.fullmatch(entry.name)
        if not renamed or path_rules.is_script(entry.name) or not entry.is_file():
            return False
        proper = renamed[1] + path_rules.SCRIPT
        if proper in names:
            self._add(path, Rule.BACKUP, f"This copy of {proper} is never served.", _MOVE)
        else:
            self._add(path, Rule.WRONG_EXTENSION, _MISNAMED, f"Rename it to {proper}.")
        return True

    def _is_private(self, entry: os.DirEntry[str], path: str) -> bool:
        """Whether this name is never served or imported; if that may surprise, it is a finding."""
        name = entry.name
        reason = path_rules.private_reason(name, top=os.path.dirname(path) == "")
        if entry.is_file():
            reason = reason or path_rules.private_file_reason(name)
        if not reason:
            invalid = path_rules.invalid_segment(name)
            if invalid:
                self._add(path, Rule.UNREACHABLE, f"No URL leads here. {invalid}", "Rename it.")
            return bool(invalid)
        if reason.startswith("Backups") or _COPY_OF_CODE.fullmatch(name):
            self._add(path, Rule.BACKUP, reason, _MOVE)
        elif not reason.startswith(_OBVIOUS):
            self._add(path, Rule.NEVER_SERVED, reason, _PUBLISH)
        return not name.endswith(".py")

    def _check_shadowing(self, path: str, names: set[str]) -> None:
        """Find another file beside the script at *path* that has the same URL."""
        directory, name = os.path.split(path)
        stem = name.removesuffix(path_rules.SCRIPT)
        url = path_rules.readable([*filter(None, directory.split(os.sep)), stem])
        if stem in names and not path_rules.private_reason(stem):
            message = (
                f"{stem} takes precedence: "
                f"{url} does not lead to this script, only {url}{path_rules.SCRIPT} does."
            )
            self._add(path, Rule.SHADOWED_PAGE, message, _RENAME)
        if name == "index.rpy" and "index.html" in names:
            url = url.removesuffix("index")
            message = f"index.rpy takes precedence: {url} never shows this file."
            self._add(os.path.join(directory, "index.html"), Rule.SHADOWED_PAGE, message, _RENAME)

    def _check_collisions(self, directory: str, names: set[str]) -> None:
        first: dict[str, str] = {}
        for name in sorted(names):
            key = unicodedata.normalize("NFC", name).casefold()
            other = first.setdefault(key, name)
            if other != name:
                self._add(
                    os.path.join(directory, name),
                    Rule.NAME_COLLISION,
                    f"On Windows and macOS this is the same name as {other}.",
                    _RENAME,
                )
