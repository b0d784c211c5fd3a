"""Advice about a file that is not Python 3: Python 2, another language, or a slip.

Looks at the whole file first, then at the parser's message, then at the line. Where the message
explains itself there is no advice.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["for_syntax_error"]

_CONFLICT_MARK: Final = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)
_RENPY: Final = re.compile(r"^\s*(label\s+\w+\s*:|(define|default)\s+[\w.]+\s*=)", re.MULTILINE)
_PYTHON2: Final = "This is Python 2. In Python 3 write:\n"
_EXCEPT: Final = re.compile(r"\bexcept\s+([\w.]+)\s*,\s*(\w+)\s*:")
_RAISE: Final = re.compile(r"\braise\s+([\w.]+)\s*,\s*(.+)")

_RETURN_HTML: Final = 'def resource(request):\n    return """<h1>Hello</h1>"""'
_ASYNC_METHOD: Final = "async def render_GET(self, request):"

_MESSAGES: Final = (
    (
        "expected an indented block",
        "Indent the lines after the colon by four spaces. If nothing is to happen, write `pass`.",
    ),
    (
        "unindent does not match",
        "This line is indented less than the block before it, but it matches no line above. "
        "Align it with one of them.",
    ),
    (
        "unexpected indent",
        "This line is indented more than the one above it, for no reason. Align the two.",
    ),
    (
        r"await.*outside|outside.*await",
        f"`await` only works in async functions. Write `async def`:\n{_ASYNC_METHOD}",
    ),
    (
        "'async (with|for)' outside",
        f"This only works in async functions. Write:\n{_ASYNC_METHOD}",
    ),
    (
        "'return' outside function",
        "Only functions return something. Put it into one:\n"
        'def resource(request):\n    return "..."',
    ),
    (
        "UTF-8|UTF-16|NUL byte",
        "In your editor, choose Save As and the encoding UTF-8.",
    ),
    (
        "invalid character '[\u2018\u2019\u201c\u201d]'",
        "These are curly quotation marks, perhaps copied from a page. Type straight ones: \" or '.",
    ),
)
"""Patterns in the parser's messages, and what to do."""


def for_syntax_error(exc: SyntaxError) -> str:
    """Return the advice about *exc*; empty if there is none."""
    source = _source(exc.filename)
    line = _line(exc, source)
    return _for_file(source) or _for_message(exc) or _for_python2(exc, line)


def _for_file(source: str) -> str:
    if re.match(r"\ufeff?\s*<[!A-Za-z]", source):
        return (
            "This file is HTML. Give its name the extension .html, or return the HTML from a "
            f"function:\n{_RETURN_HTML}"
        )
    if _CONFLICT_MARK.search(source):
        return (
            "There are marks of a merge conflict in this file (<<<<<<<). Choose one side and "
            "delete the marks."
        )
    if _RENPY.search(source):
        return (
            "This looks like a Ren'Py script: visual novels use the extension .rpy, too. "
            "rpyserve's scripts are Python."
        )
    return ""


def _for_message(exc: SyntaxError) -> str:
    if isinstance(exc, TabError):
        return "Some lines are indented with tabs, others with spaces. Use four spaces everywhere."
    message = exc.msg or ""
    return next((advice for pattern, advice in _MESSAGES if re.search(pattern, message)), "")


def _for_python2(exc: SyntaxError, line: str) -> str:
    if "Missing parentheses in call to 'print'" in (exc.msg or ""):
        arguments = line.strip().partition("print")[2].strip()
        return f"{_PYTHON2}print({arguments})"
    if found := _EXCEPT.search(line):
        return f"{_PYTHON2}except {found[1]} as {found[2]}:"
    if found := _RAISE.search(line):
        return f"{_PYTHON2}raise {found[1]}({found[2].strip()})"
    return ""


def _line(exc: SyntaxError, source: str) -> str:
    if exc.text:
        return exc.text
    lines = source.splitlines()
    return lines[exc.lineno - 1] if exc.lineno and exc.lineno <= len(lines) else ""


def _source(filename: str | None) -> str:
    try:
        return Path(filename or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
