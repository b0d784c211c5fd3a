"""Checks a whole site, and returns what was found as a `Report`.

Owns the order: names of files, scripts, the modules that these import, other Python files. Nothing
of the site is imported or executed. One syntax tree is held at a time, so memory does not grow with
the site.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import quote

from rpyserve._names import PUBLIC, __version__
from rpyserve.check.bindings import ModuleBindings
from rpyserve.check.escaping import find_unescaped
from rpyserve.check.filenames import SiteFiles
from rpyserve.check.findings import Finding, Rule
from rpyserve.check.imports import ImportChecker
from rpyserve.check.kept_objects import find_kept_objects
from rpyserve.check.resources import check_requests, check_resource, check_results
from rpyserve.check.state_loss import find_state_losses
from rpyserve.diagnostics import advice
from rpyserve.diagnostics.describe import summary
from rpyserve.scripts import file_state
from rpyserve.scripts.importer import SiteModules
from rpyserve.scripts.source import compile_source
from rpyserve.util.text import closest_match, escape_unprintable


@dataclass(slots=True)
class Report:
    """What was checked and found.

    Attributes:
        root: the directory of the site.
        script_count: the number of scripts.
        module_count: the number of modules.
        findings: the findings of each file or directory, by its path relative to the site.
    """

    root: str
    script_count: int = 0
    module_count: int = 0
    findings: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def fault_count(self) -> int:
        return self._count_findings(are_notes=False)

    def _count_findings(self, *, are_notes: bool) -> int:
        found = chain.from_iterable(self.findings.values())
        return [finding.rule.is_note for finding in found].count(are_notes)

    def add(self, path: str, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.findings.setdefault(path, []).append(finding)

    def drop(self, rule: Rule) -> None:
        for path, findings in list(self.findings.items()):
            del self.findings[path]
            self.add(path, [finding for finding in findings if finding.rule is not rule])

    def summary(self) -> str:
        note_count = self._count_findings(are_notes=True)
        found = _list(self.fault_count, "fault", note_count, "note") or "no problems"
        checked = _list(self.script_count, "script", self.module_count, "module") or "0 scripts"
        return f"{checked} checked, {found} found."

    def lines(self, directory: str) -> Iterator[str]:
        """Yield the lines that show the findings, file by file.

        Args:
            directory: paths below it are shown relative to it; empty for whole paths.
        """
        before = None
        for file, finding in self.in_order(directory):
            if before not in (None, file):
                yield ""
            before = file
            place = f"{file}:{finding.line}" if finding.line else file
            note = "note: " if finding.rule.is_note else ""
            told = f"{place}: {note}{finding.message} [{finding.rule.value}]"
            yield escape_unprintable(told)  # so that no name can forge a line
            for line in finding.hint.split("\n"):
                yield f"    {escape_unprintable(line)}"

    def in_order(self, directory: str) -> Iterator[tuple[str, Finding]]:
        """Yield the findings, each with its file, sorted by file and line; see `lines`."""
        for path in sorted(self.findings):
            file = os.path.normpath(os.path.join(self.root, path))
            file = file.removeprefix(os.path.join(directory, ""))
            for finding in sorted(self.findings[path], key=lambda finding: finding.line):
                yield file, finding

    # For programs

    def as_json(self, directory: str) -> str:
        """Return what was found as one JSON object."""
        findings = [
            {
                "path": file,
                "line": finding.line or None,
                "rule": finding.rule.value,
                "level": "note" if finding.rule.is_note else "fault",
                "message": finding.message,
                "hint": finding.hint,
            }
            for file, finding in self.in_order(directory)
        ]
        counts = {"scripts": self.script_count, "modules": self.module_count}
        return _json({**counts, "faults": self.fault_count, "findings": findings})

    def as_sarif(self, directory: str) -> str:
        """Return what was found as a log in SARIF 2.1.0 (OASIS), as code scanners take it."""
        found = list(self.in_order(directory))
        rules = sorted({finding.rule.value for _, finding in found})
        driver = {
            "name": "rpyserve",
            "version": __version__,
            "rules": [{"id": rule} for rule in rules],
        }
        results = [_sarif_result(file, finding) for file, finding in found]
        return _json(
            {
                "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
                "version": "2.1.0",
                "runs": [{"tool": {"driver": driver}, "results": results}],
            }
        )

    def as_github(self, directory: str) -> str:
        """Return what was found as commands that GitHub Actions shows beside the lines."""
        commands = []
        for file, finding in self.in_order(directory):
            level = "notice" if finding.rule.is_note else "error"
            line = f",line={finding.line}" if finding.line else ""
            name = _github(file, in_property=True)
            text = _github(f"{finding.message}\n{finding.hint}")
            commands.append(f"::{level} file={name}{line},title={finding.rule.value}::{text}")
        return "\n".join(commands)


def _json(value: object) -> str:
    # What is no ASCII is escaped: names of files may hold surrogates.
    return json.dumps(value, indent=2)


def _sarif_result(file: str, finding: Finding) -> dict[str, object]:
    uri = quote(file.replace(os.sep, "/"), errors="surrogateescape")
    place: dict[str, object] = {"artifactLocation": {"uri": uri}}
    if finding.line:
        place["region"] = {"startLine": finding.line}
    return {
        "ruleId": finding.rule.value,
        "level": "note" if finding.rule.is_note else "error",
        "message": {"text": f"{finding.message}\n{finding.hint}"},
        "locations": [{"physicalLocation": place}],
    }


def _github(text: str, *, in_property: bool = False) -> str:
    """Escape *text* for a workflow command."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    if in_property:
        text = text.replace(":", "%3A").replace(",", "%2C")
    return escape_unprintable(text)


def check(root: str, *, follow_symlinks: bool = False) -> Report:
    """Check a site.

    Args:
        root: its directory, resolved.
        follow_symlinks: links may lead out of it.
    """
    files = SiteFiles(root, follow_symlinks=follow_symlinks)
    report = Report(root, len(files.scripts), len(files.modules), files.findings)
    imports = ImportChecker(SiteModules(root))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files.scripts:
            _check_code(path, report, imports, is_module=False)
        _check_modules(files.modules, report, imports)
    if imports.search_path_changes:  # nobody can say what an import finds
        report.drop(Rule.UNRESOLVED_IMPORT)
    return report


def check_sources(root: str, sources: Mapping[str, bytes]) -> Report:
    """Check some of a site's files only, and what their names stand for in the others.

    Meant for a thread of a running server, so Python's own warnings, which are one setting for the
    whole process, are left as they are: there is no `Rule.PYTHON_WARNING` in the report.

    Args:
        root: the directory of the site, resolved.
        sources: the contents of scripts and modules, by their paths relative to it.
    """
    scripts = [path for path in sources if path.endswith(".rpy")]
    report = Report(root, len(scripts), len(sources) - len(scripts))
    imports = ImportChecker(SiteModules(root))
    for path, data in sources.items():
        tree = _compiled(path, data, report)
        if tree is not None:
            _check_tree(path, tree, report, imports, is_module=not path.endswith(".rpy"))
    if imports.search_path_changes:
        report.drop(Rule.UNRESOLVED_IMPORT)
    return report


def _check_modules(paths: list[str], report: Report, imports: ImportChecker) -> None:
    """Check the modules that scripts, or these modules, import; others need only be Python."""
    modules = {os.path.join(report.root, path): path for path in paths}
    checked: set[str] = set()
    while todo := (imports.reached & modules.keys()) - checked:
        for file in sorted(todo):
            _check_code(modules[file], report, imports, is_module=True)
        checked |= todo
    for file in modules.keys() - checked:
        _parse(modules[file], report)


def _check_code(path: str, report: Report, imports: ImportChecker, *, is_module: bool) -> None:
    tree = _parse(path, report)
    if tree is not None:
        _check_tree(path, tree, report, imports, is_module=is_module)


def _check_tree(
    path: str, tree: ast.Module, report: Report, imports: ImportChecker, *, is_module: bool
) -> None:
    bindings = ModuleBindings(tree)
    if not is_module:
        report.add(path, check_resource(tree, bindings))
        report.add(path, check_results(bindings))
        report.add(path, check_requests(bindings))
        report.add(path, find_kept_objects(bindings))
        report.add(path, _check_cache_files(bindings, report.root))
    given = {"__execution__"} if is_module else {"__execution__", "cache", "registry"}
    report.add(path, _find_undefined_names(tree, bindings, given))
    report.add(path, find_unescaped(bindings))
    report.add(path, imports.check(tree, bindings, os.path.join(report.root, path)))
    report.add(path, find_state_losses(bindings, is_module=is_module))


def _check_cache_files(bindings: ModuleBindings, root: str) -> Iterator[Finding]:
    """Find names in calls of ``cache()`` that stand for nothing."""
    hint = "Write the name of a file or directory relative to the site's directory."
    for call in bindings.cache_calls:
        for argument in call.args:
            match argument:
                case ast.Constant(str(name)) if not file_state.is_there(os.path.join(root, name)):
                    message = f'cache("{name}") names nothing that is there.'
                    yield Finding(call.lineno, Rule.MISSING_CACHE_FILE, message, hint)


def _find_undefined_names(
    tree: ast.Module, bindings: ModuleBindings, given: set[str]
) -> Iterator[Finding]:
    """Find names that nothing defines, as far as pyflakes can tell.

    Args:
        given: the names that there are without a definition, besides Python's own.
    """
    if bindings.has_dynamic_names:
        return
    from pyflakes.checker import Checker
    from pyflakes.messages import UndefinedName

    for told in Checker(tree, builtins=given).messages:
        if type(told) is UndefinedName:
            name = told.message_args[0]
            yield Finding(
                told.lineno,
                Rule.UNDEFINED_NAME,
                f"{name} is not defined.",
                _hint_for(name, bindings),
            )


def _hint_for(name: str, bindings: ModuleBindings) -> str:
    meant = closest_match(name, [*bindings.names, *bindings.used_names - {name}, *PUBLIC])
    if name in PUBLIC:
        return f"Import it:\nfrom rpyserve import {name}"
    if name in sys.stdlib_module_names:
        return f"Import it:\nimport {name}"
    return f"Did you mean {meant}?" if meant else "Define it, or correct its spelling."


def _parse(path: str, report: Report) -> ast.Module | None:
    """Return the syntax tree of the file; None if it has none, which is a finding."""
    file = os.path.join(report.root, path)
    try:
        data, _ = file_state.read(file)
    except OSError as exc:
        message = f"This file cannot be read: {exc.strerror or exc}."
        hint = "Make it a regular file that you may read."
        report.add(path, [Finding(0, Rule.UNREADABLE, message, hint)])
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = _compiled(path, data, report)
    if tree is None:
        return None
    for line, text in dict.fromkeys((each.lineno, str(each.message)) for each in caught):
        what = f"Python warns about this line: {text}."
        report.add(path, [Finding(line, Rule.PYTHON_WARNING, what, "Write what you mean.")])
    return tree


def _compiled(path: str, data: bytes, report: Report) -> ast.Module | None:
    """Return the syntax tree of *data*; None if it has none, which is a finding."""
    try:
        return compile_source(data, os.path.join(report.root, path)).tree
    except Exception as exc:  # code that is nested too deep is no SyntaxError
        line = getattr(exc, "lineno", None) or 1
        hint = advice.advice_for(exc) or "Correct this line, or the one above it."
        report.add(path, [Finding(line, Rule.SYNTAX_ERROR, summary(exc), hint)])
        return None


def _list(number: int, noun: str, other_number: int, other_noun: str) -> str:
    counts = [(number, noun), (other_number, other_noun)]
    return " and ".join(f"{count} {what}{'s' * (count != 1)}" for count, what in counts if count)
