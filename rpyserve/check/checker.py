"""``rpyserve --check``: all that is wrong with a site before anything of it runs.

Owns the order of looking (names, scripts, the modules that these import, other Python files) and how the findings are
printed. Nothing of the site is imported or executed. One file's tree is held at a time, so memory does not grow with
the site. Findings go to stdout, to be piped; the closing line goes to stderr.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rpyserve.check import resources, state_loss
from rpyserve.check.bindings import collect_bindings
from rpyserve.check.filenames import check_filenames
from rpyserve.check.findings import Finding, Rule
from rpyserve.check.imports import ImportChecker, changes_path
from rpyserve.check.state_loss import Lifetime
from rpyserve.diagnostics import advice
from rpyserve.diagnostics.describe import summary
from rpyserve.files.safe_open import resolved
from rpyserve.scripts import file_state
from rpyserve.scripts.importer import SiteModules
from rpyserve.scripts.source import compile_source
from rpyserve.serving.console import print_line

__all__ = ["Report", "check", "print_check"]

_LIVES = {
    Lifetime.REQUEST: Rule.LOST_WITH_REQUEST,
    Lifetime.EDIT: Rule.LOST_WITH_EDIT,
    Lifetime.MEMORY: Rule.FORGOTTEN,
}


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found, by path relative to the site."""

    scripts: int = 0
    modules: int = 0
    findings: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def wrong(self) -> int:
        """How many faults there are."""
        return sum(
            not finding.kind.is_note for found in self.findings.values() for finding in found
        )

    @property
    def notes(self) -> int:
        """How many notes there are."""
        return sum(map(len, self.findings.values())) - self.wrong

    def closing(self) -> str:
        """The line that sums it up."""
        looked = _count(self.scripts, "script") + (
            f" and {_count(self.modules, 'module')}" if self.modules else ""
        )
        if not self.findings:
            return f"{looked}, nothing to complain about."
        told = [_count(self.wrong, "fault")] * bool(self.wrong) + [
            _count(self.notes, "note")
        ] * bool(self.notes)
        return f"{looked}: {' and '.join(told)}."

    def lines(self, here: str, root: str) -> Iterator[str]:
        """Yield the findings as they are printed, file by file.

        Args:
            here: the directory that paths are shown relative to, where they are below it.
            root: the site's.
        """
        for number, path in enumerate(sorted(self.findings)):
            if number:
                yield ""
            where = _shown(os.path.normpath(os.path.join(root, path)), here)
            for finding in sorted(self.findings[path], key=lambda finding: finding.line):
                place = f"{where}:{finding.line}" if finding.line else where
                note = "note: " if finding.kind.is_note else ""
                yield _one_line(f"{place}: {note}{finding.message} [{finding.kind.value}]")
                yield from (f"    {_one_line(line)}" for line in finding.hint.split("\n"))


def check(root: str, *, follow_symlinks: bool = False) -> Report:
    """Look at the site in the directory *root*, which must be resolved; *follow_symlinks* as when it is served."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Check(root, follow_symlinks).report


def print_check(directory: Path, here: str, *, follow_symlinks: bool, quiet: bool) -> int:
    """Print what is wrong with the site in *directory*; return 1 if there are faults, else 0.

    Args:
        here: where the command was called, which paths are shown relative to.
        quiet: say nothing if nothing was found.
    """
    root = resolved(directory)
    report = check(root, follow_symlinks=follow_symlinks)
    for line in report.lines(here, root):
        print(line)
    if report.findings or not quiet:
        print_line(report.closing())
    return int(report.wrong > 0)


class _Check:
    def __init__(self, root: str, follow: bool) -> None:
        self._root = root
        self._imports = ImportChecker(SiteModules(root))
        self._path_is_changed = False
        self.report = Report()
        found = check_filenames(root, follow_symlinks=follow)
        for path, finding in found.findings:
            self._note(path, finding)
        self.report.scripts, self.report.modules = len(found.scripts), len(found.modules)
        for path in found.scripts:
            self._file(path, script=True)
        self._modules({os.path.join(root, path): path for path in found.modules})
        if self._path_is_changed:
            self._forgive()

    def _modules(self, paths: dict[str, str]) -> None:
        """First those that scripts import, and those that they import in turn; the rest need only be Python."""
        done: set[str] = set()
        while todo := (self._imports.reached & paths.keys()) - done:
            for file in sorted(todo):
                self._file(paths[file])
            done |= todo
        for file in paths.keys() - done:
            self._file(paths[file], imported=False)

    def _file(self, path: str, *, script: bool = False, imported: bool = True) -> None:
        file = os.path.join(self._root, path)
        try:
            data, _ = file_state.read(file)
        except OSError as exc:
            message = f"This file cannot be read: {exc.strerror or exc}."
            self._note(
                path,
                Finding(0, Rule.UNREADABLE, message, "Make it a plain file that you may read."),
            )
            return
        tree = self._tree(path, file, data)
        if tree is None or not imported:
            return
        self._path_is_changed |= changes_path(data)
        top = collect_bindings(tree)
        if script:
            for finding in resources.check_resource(tree, top):
                self._note(path, finding)
        for finding in self._imports.find(tree, top, file):
            self._note(path, finding)
        for loss in state_loss.find(tree, module=not script, top=top):
            self._note(path, Finding(loss.line, _LIVES[loss.life], loss.message, loss.hint))

    def _tree(self, path: str, file: str, data: bytes) -> ast.Module | None:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                tree = compile_source(data, file).tree
            except Exception as exc:  # what is nested too deep is no SyntaxError
                line = exc.lineno if isinstance(exc, SyntaxError) else 0
                hint = advice.advice_for(exc) or "Mend this line, or the one above it."
                self._note(path, Finding(line or 1, Rule.SYNTAX, summary(exc), hint))
                return None
        for line, text in dict.fromkeys((each.lineno, str(each.message)) for each in warned):
            self._note(
                path,
                Finding(
                    line,
                    Rule.WARNING,
                    f"Python warns of this line: {text}.",
                    "Write what you mean.",
                ),
            )
        return tree

    def _note(self, path: str, finding: Finding) -> None:
        self.report.findings.setdefault(path, []).append(finding)

    def _forgive(self) -> None:
        """Where code changes the path of modules, nobody can say what an import finds."""
        for path, found in list(self.report.findings.items()):
            found[:] = [finding for finding in found if finding.kind is not Rule.IMPORT]
            if not found:
                del self.report.findings[path]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _shown(path: str, here: str) -> str:
    return os.path.relpath(path, here) if here and path.startswith(os.path.join(here, "")) else path


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
