"""What a script gets wrong without failing, as lines on the console.

A call of an async function that nobody awaited is named with script and line. Python warns when it
throws such a coroutine away, which may be long after the call and far from it. So each coroutine
remembers the line that made it; see `CoroutineOrigins`. Warnings of all other kinds go where they
went before.

What a script or module will lose or leaves unescaped is announced when a version is first executed.
A version is the contents of a file: an edit that is taken back is announced again, a mere touch is
not. Nothing here may stop a script from running.
"""

from __future__ import annotations

import ast
import linecache
import logging
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.util.author_code import coroutine_origins, display_path, is_author_code

if TYPE_CHECKING:
    from rpyserve.check.findings import Finding
    from rpyserve.diagnostics.model import ErrorReport

log = logging.getLogger("rpyserve")

_NEVER: Final = re.compile(r"coroutine '([^']+)' was never awaited")
_silence = threading.local()
_ORIGIN: Final = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)


@contextmanager
def reporting_unawaited(reporter: ConsoleReporter, *, at_once: bool = True) -> Iterator[None]:
    """While inside, coroutines of this thread that nobody awaited are told to *reporter*.

    Args:
        at_once: whether there may be some from the start; else from when scripts or modules of the
            site are compiled that may make them.
    """
    with warnings.catch_warnings(), coroutine_origins.remembered(at_once=at_once):
        warnings.filterwarnings("always", _NEVER.pattern, RuntimeWarning)
        others: Any = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: Any = None,
            line: Any = None,
        ) -> None:
            if (
                issubclass(category, RuntimeWarning)
                and (failure := _failure(str(message), filename, lineno)) is not None
            ):
                frame = failure.chain[0].frames[0]
                reporter.report(f"{display_path(frame.file)}, line {frame.line}", failure)
            elif not getattr(_silence, "is_kept", False):
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


@contextmanager
def python_warnings_silent() -> Iterator[None]:
    """While inside, this thread's warnings are not printed: the requests' own thread prints them.

    Python's filters of warnings are those of all threads.
    """
    _silence.is_kept = True
    try:
        yield
    finally:
        _silence.is_kept = False


def check_silently(root: str, sources: Mapping[str, bytes]) -> Mapping[str, Sequence[Finding]]:
    """Return the findings of the check in some files of a site; for a thread.

    Args:
        root: the directory of the site.
        sources: the contents of the files, by their paths relative to it.
    """
    from rpyserve.check.checker import check_sources

    with python_warnings_silent():
        return check_sources(root, sources).findings


def _failure(text: str, filename: str, number: int) -> ErrorReport | None:
    """What the warning *text* means; None if it is of another kind, or not of the author's code."""
    found = _NEVER.search(text)
    if found is None:
        return None
    if origins := _ORIGIN.findall(text):
        filename, number = origins[-1][0], int(origins[-1][1])
    if not is_author_code(filename):
        return None
    from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line

    name = found[1].rpartition(".")[2]
    linecache.checkcache(filename)
    source = linecache.getline(filename, number).rstrip("\n")
    frame = Frame(filename, number, lines=(Line(number, source, True),), source_hash=hash(source))
    title = f"{name}() was called without `await`, so it never ran."
    hint = f"Write:\nawait {_call_in(source, name)}"
    return ErrorReport(title, hint, (ExceptionReport(title, frames=(frame,)),))


def _call_in(source: str, name: str) -> str:
    """The call of *name* in the line *source*; an outline of it where that is only a part."""
    try:
        nodes = [*ast.walk(ast.parse(source.strip()))]
    except SyntaxError:
        nodes = []
    for node in nodes:
        match node:
            case ast.Call(ast.Name(called) | ast.Attribute(attr=called)) if called == name:
                return ast.unparse(node)
    return f"{name}(...)"


# What is announced

# Code about which there is something to announce contains one of these. For other code, nothing of
# the check is imported before the first answer.
_NEEDED: Final = (b"global", b"nonlocal", b".", b"[", b"@", b"next", b"heap", b"insort", b"html(")


class FindingAnnouncer:
    """Announces state losses and unescaped values, once for each version of a file."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}

    def __call__(self, path: str, data: bytes, tree: ast.Module, kind: str) -> None:
        """Announce what is found in a source, unless that was done for these contents already.

        Args:
            path: the file.
            data: its contents.
            tree: their syntax tree.
            kind: ``"script"`` or ``"module"``.
        """
        is_wanted = log.isEnabledFor(logging.INFO) and any(part in data for part in _NEEDED)
        if not is_wanted or self._versions.get(path) == hash(data):
            return
        self._versions[path] = hash(data)
        from rpyserve.check.bindings import ModuleBindings
        from rpyserve.check.escaping import find_unescaped
        from rpyserve.check.state_loss import find_state_losses

        bindings = ModuleBindings(tree)
        losses = find_state_losses(bindings, is_module=kind == "module")
        shown = display_path(path)
        for finding in (*losses, *find_unescaped(bindings)):
            hint = finding.hint.replace("\n", " ")
            log.info("%s:%d: %s %s", shown, finding.line, finding.message, hint)
