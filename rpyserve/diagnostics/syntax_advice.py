"""What to say of a file that is no Python 3: older Python, another language, or a slip of the hand.

Goes by the parser's message first, then by the line, then by the whole file. Says nothing where the parser's own
message says it all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["for_syntax_error"]

_RENPY: Final = re.compile(
    r"^\s*(label\s+\w+(\(.*\))?\s*:|(define|default)\s+[\w.]+\s*=|init(\s+-?\d+)?(\s+python(\s+\w+)*)?\s*:|screen\s+\w+.*:|"
    r"(scene|show|hide|jump)\s+\w+|image\s+[\w ]+=|transform\s+\w+.*:|translate\s+\w+\s+\w+\s*:)",
    re.MULTILINE,
)
_CONFLICT: Final = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)


def for_syntax_error(exc: SyntaxError) -> str:
    """Return the hint for *exc*; empty if none is known."""
    source = _source(exc.filename)
    line = _line(exc, source)
    return _of_file(source) or _of_message(exc, line) or _of_line(exc.msg or "", line)


def _of_file(source: str) -> str:
    start = source.lstrip("\ufeff \t\r\n")
    if start.startswith("<?php"):
        return "This is PHP. A script is written in Python; what it returns is the page."
    if start.startswith("<"):
        return (
            "This file begins with HTML. Name it .html, or return the HTML from a function:\n"
            + ('def resource(request):\n    return """<h1>Hello</h1>"""')
        )
    if _CONFLICT.search(source):
        return "There are marks of a merge conflict in this file (<<<<<<<). Choose one side and delete the marks."
    # One such line may be a slip; Ren'Py has them all over.
    if len(_RENPY.findall(source)) >= 2 or re.search(r"^\s*label\s+\w+\s*:", source, re.MULTILINE):
        return "This looks like a Ren'Py script: visual novels have .rpy files, too. rpyserve's scripts are Python."
    return ""


def _of_message(exc: SyntaxError, line: str) -> str:
    message = exc.msg or ""
    if isinstance(exc, TabError):
        return "Some lines are indented with tabs and others with spaces. Use four spaces in all of them."
    if isinstance(exc, IndentationError):
        return _indentation(message)
    if called := re.search(r"Missing parentheses in call to '(\w+)'", message):
        return _statement_call(called[1], line)
    if "multiple exception types must be parenthesized" in message:
        return f"This is Python 2. In Python 3 write:\n{_except(line)}"
    if "await" in message and "outside" in message:
        return "`await` works in async functions only. Write `async def`:\nasync def render_GET(self, request):"
    if "'async with' outside" in message or "'async for' outside" in message:
        return "This works in async functions only. Write:\nasync def render_GET(self, request):"
    if "'return' outside function" in message:
        return 'Only a function returns. Put it into one:\ndef resource(request):\n    return "..."'
    if "UTF-8" in message or "UTF-16" in message or "NUL byte" in message:
        return "In your editor, choose Save As and the encoding UTF-8."
    if re.search(r"invalid character '[\u2018\u2019\u201c\u201d]'", message):
        return "Curly quotation marks came in, perhaps by copying from a page. Type plain ones: \" or '."
    return ""


def _indentation(message: str) -> str:
    if "expected an indented block" in message:
        return "Indent the lines after the colon by four spaces; a block with nothing to do holds `pass`."
    if "unindent does not match" in message:
        return "This line is indented less than the block before it, but not as far as any line above. Line it up."
    return "This line is indented further than the one above it, without a reason. Line it up with that one."


def _statement_call(name: str, line: str) -> str:
    rest = line.strip().partition(name)[2].strip()
    if name == "print":
        return f"This is Python 2. In Python 3 write:\nprint({rest})"
    return f"This is Python 2. In Python 3 write:\n{name}({rest})"


def _except(line: str) -> str:
    found = re.search(r"except\s+([\w.]+)\s*,\s*(\w+)\s*:", line)
    return f"except {found[1]} as {found[2]}:" if found else "except ValueError as exc:"


def _of_line(message: str, line: str) -> str:
    old = "This is Python 2. In Python 3 write:\n"
    if found := re.search(r"\bexcept\s+[\w.]+\s*,\s*\w+\s*:", line):
        return old + _except(found[0])
    if found := re.search(r"\braise\s+([\w.]+)\s*,\s*(.+)", line):
        return f"{old}raise {found[1]}({found[2].strip()})"
    if re.search(r"\bprint\s*>>", line):
        return f"{old}print(..., file=sys.stderr)"
    if "<>" in line:
        return f"{old}a != b"
    if "leading zeros in decimal" in message and (found := re.search(r"\b0(\d+)", line)):
        return f"{old}0o{found[1]}"
    if found := re.search(r"\b(\d+)[lL]\b", line):
        return f"{old}{found[1]}"
    if "`" in line:
        return f"{old}repr(x)"
    if re.search(r"\bur['\"]", line):
        return f"{old}r'...'"
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
