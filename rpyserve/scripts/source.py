"""From the bytes of a Python file to code, and from code back to its source.

Owns how a source is decoded (PEP 263: coding lines, a byte order mark; any line ends). Where that
fails, there is a `SyntaxError` with file and line, as for any other mistake in it. Executes
nothing.

The source of code is what it was compiled from: the execution of a script or a site module carries
it, so a later edit shows no wrong lines. For other files there is only the file itself: if a module
was saved after this process began, the file may be newer than the code, and its source is unknown.
Templates are compiled again when they change.

Python counts columns in bytes of UTF-8; everything that leaves this module counts characters.
"""

from __future__ import annotations

import ast
import functools
import linecache
import os
import re
import sys
import time
import tokenize
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from types import CodeType, FrameType
from typing import Final, NamedTuple, NoReturn, cast

from rpyserve.scripts.execution import execution_in
from rpyserve.util.author_code import is_author_code

_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_HAVE_POSITIONS: Final = (".py", ".rpy", ".pyw")
_STARTED: Final = time.time()
_TOO_DEEP: Final = (
    "an expression or a block in this file is longer or nested deeper than Python can compile, "
    "such as a sum of thousands of terms; put the values into a list"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A compiled source.

    Args:
        data: the contents of the file.
        code: what they were compiled to.
        imports: the first names of the modules that it imports; "." is its own package.
        tree: its syntax tree.
    """

    data: bytes
    code: CodeType
    imports: frozenset[str]
    tree: ast.Module


def compile_source(data: bytes, path: str) -> Source:
    """Compile *data*, the contents of the file at *path*.

    Raises:
        SyntaxError: it is no Python, or not text; with the file's name, and the line where one is
            known.
    """
    # It trusts size and mtime, which an edit may leave as they were.
    linecache.cache.pop(path, None)
    text = _decode(data, path)
    try:
        tree = ast.parse(text, path)  # of bytes, the parser would count columns in bytes
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
    except (RecursionError, MemoryError) as exc:
        raise SyntaxError(_TOO_DEEP, (path, None, None, None)) from exc
    return Source(data, code, frozenset(_imported_names(tree)), tree)


def _imported_names(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else (node.module or "").partition(".")[0])
    return found


USES: Final = {
    "getSession": "session",
    "session": "session",
    "sessions": "session",
    "registry": "registry",
    "registry_lease": "registry",
}
"""What it means that code has such a name: that it may use the session, or the registry."""

ALL_USES: Final = frozenset(USES.values())


# Code that has to do with coroutines has one of these: `async`, `await`, and rpyserve's own.
_ASYNC: Final = re.compile(rb"async|wait|in_thread|load_body")
_NOT_ASYNC: Final = (sys.stdlib_module_names - {"asyncio"}) | {".", "rpyserve", "twisted", "zope"}


def may_make_coroutines(source: Source, is_own: Callable[[str], bool]) -> bool:
    """Whether *source*, or what it imports from elsewhere, may have async functions.

    Args:
        is_own: says of a name that is imported whether it is a module of the site, which is asked
            about by itself.
    """
    if _ASYNC.search(source.data):
        return True
    return not all(map(is_own, source.imports - _NOT_ASYNC))


def uses_of(code: CodeType) -> frozenset[str]:
    """Return which of `ALL_USES` *code*, or the functions in it, may make."""
    found: set[str] = set()
    codes = [code]
    for each in codes:  # it grows
        found.update(USES[name] for name in each.co_names if name in USES)
        codes += [constant for constant in each.co_consts if isinstance(constant, CodeType)]
    return frozenset(found)


def _decode(data: bytes, path: str) -> str:
    if data.startswith(_UTF16_MARKS):
        _fail("this file is saved as UTF-16; save it as UTF-8", path, 1)
    if b"\0" in data:
        line = _line_of(data, data.index(b"\0"))
        _fail("there is a NUL byte in this file, so it is no text", path, line)
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
    except SyntaxError as exc:
        if "unknown encoding" in str(exc) or "encoding problem" in str(exc):
            _fail(str(exc), path, 1)
        encoding = "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        line = _line_of(data, exc.start)
        what = f"line {line} is not {encoding.upper()} (byte 0x{data[exc.start]:02x})"
        _fail(f"{what}; save the file as UTF-8", path, line)


def _line_of(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def _fail(message: str, path: str, line: int) -> NoReturn:
    raise SyntaxError(message, (path, line, None, None))


# From code back to its source


class Range(NamedTuple):
    """A piece of source: lines counted from 1, columns in characters from 0, the end exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


def source_lines(code: CodeType, namespace: Mapping[str, object]) -> Sequence[str] | None:
    """Return the lines of the file that *code* was compiled from; None if they are not known.

    Args:
        namespace: the globals that it runs in.
    """
    execution = execution_in(namespace)
    if execution is not None and os.fspath(execution.path) == code.co_filename:
        return decode_lines(execution.source)
    return _lines_of_file(code.co_filename, loaded=namespace.get("__name__") in sys.modules)


def _lines_of_file(path: str, *, loaded: bool) -> Sequence[str] | None:
    try:
        if loaded and os.stat(path).st_mtime > _STARTED:
            return None
    except (OSError, ValueError):
        return None
    linecache.checkcache(path)
    return [line.rstrip("\n") for line in linecache.getlines(path)] or None


@functools.lru_cache(maxsize=32)
def decode_lines(data: bytes) -> Sequence[str]:
    """Return the lines of a Python source, as the compiler counts them."""
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
    except SyntaxError:
        encoding = "utf-8"
    return _LINE_END.split(data.decode(encoding, "replace"))


def line_at(frame: FrameType) -> str:
    """Return the line of source that *frame* is at; empty if it is not known. Never fails."""
    with suppress(Exception):
        lines = source_lines(frame.f_code, frame.f_globals) or ()
        return lines[frame.f_lineno - 1].strip()
    return ""


def innermost_author_line(exc: BaseException) -> tuple[FrameType | None, str]:
    """Return the innermost frame of the author's code that *exc* passed, and its line of source."""
    entries = traceback.walk_tb(exc.__traceback__)
    own = [entry for entry in entries if is_author_code(entry[0].f_code.co_filename)]
    if not own:
        return None, ""
    frame, number = own[-1]
    lines = source_lines(frame.f_code, frame.f_globals) or ()
    return frame, lines[number - 1].strip() if 0 < number <= len(lines) else ""


def position_of(code: CodeType, instruction: int, lines: Sequence[str]) -> Range | None:
    """Return the piece of *lines* that the instruction at that byte offset of *code* comes from."""
    if instruction < 0 or not code.co_filename.endswith(_HAVE_POSITIONS):
        return None  # the columns of a template are those of the code generated from it
    unknown = (None, None, None, None)
    found = next(islice(code.co_positions(), instruction // 2, None), unknown)
    if None in found:
        return None
    line, end_line, start, end = cast("tuple[int, int, int, int]", found)
    if end_line > len(lines):
        return None
    column = _count_characters(lines[line - 1], start)
    return Range(line, column, end_line, _count_characters(lines[end_line - 1], end))


class DroppedText(NamedTuple):
    """A text that a function makes and does nothing with, or only prints.

    Args:
        place: where it is in the source.
        source: the text as it is written; empty if it has several lines.
        is_printed: it is the argument of `print`.
        is_repeated: a loop makes it, perhaps many times.
    """

    place: Range
    source: str
    is_printed: bool
    is_repeated: bool = False


class DroppedExpression(NamedTuple):
    """The same in a tree. See `DroppedText`."""

    text: ast.expr
    is_printed: bool = False
    is_repeated: bool = False


def find_dropped_text(code: CodeType, lines: Sequence[str]) -> DroppedText | None:
    """Return the last text that the function with *code* drops, or else prints; None if none."""
    tree = _parsed(lines)
    function = _function_of(tree, code) if tree else None
    found = None if function is None else find_dropped_in(function)
    if found is None:
        return None
    place = _range_of(found.text, lines)
    is_one_line = place.line == place.end_line
    source = lines[place.line - 1][place.column : place.end_column] if is_one_line else ""
    return DroppedText(place, source, found.is_printed, found.is_repeated)


def find_dropped_in(
    function: ast.FunctionDef | ast.AsyncFunctionDef,
) -> DroppedExpression | None:
    """Return what `find_dropped_text` finds in the tree *function*."""
    statements = _own_statements(function)
    loops = [each for each in statements if isinstance(each, ast.For | ast.AsyncFor | ast.While)]
    repeated = {node for loop in loops for node in ast.walk(loop)}
    found: list[DroppedExpression] = []
    for statement in statements:
        match statement:
            case ast.Expr(ast.Call(ast.Name("print"), [text])):
                found.append(DroppedExpression(text, True, statement in repeated))
            case ast.Expr(ast.JoinedStr() | ast.BinOp() | ast.Constant(str()) as text):
                found.append(DroppedExpression(text))
            case ast.Expr(ast.Call(ast.Name("html" | "template")) as text):
                found.append(DroppedExpression(text))
    return max(found, key=lambda each: (not each.is_printed, each.text.lineno), default=None)


def find_only_return(code: CodeType, lines: Sequence[str]) -> Range | None:
    """Return the value that the function with *code* returns, if it has one ``return``."""
    tree = _parsed(lines)
    function = _function_of(tree, code) if tree else None
    statements = _own_statements(function) if function else ()
    found = [each.value for each in statements if isinstance(each, ast.Return) and each.value]
    return _range_of(found[0], lines) if len(found) == 1 else None


def _parsed(lines: Sequence[str]) -> ast.Module | None:
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _function_of(tree: ast.Module, code: CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first == code.co_firstlineno:
                return node
    return None


def _own_statements(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    """The statements of *function*, at any depth, without its docstring."""
    body = function.body[ast.get_docstring(function, clean=False) is not None :]
    return list(_statements(body))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for part in ast.iter_child_nodes(statement):
            if isinstance(part, ast.stmt):
                yield from _statements([part])
            else:
                yield from _statements(getattr(part, "body", ()) if _has_block(part) else ())


def _has_block(node: ast.AST) -> bool:
    return isinstance(node, ast.ExceptHandler | ast.match_case)


def _range_of(node: ast.expr, lines: Sequence[str]) -> Range:
    end_line = node.end_lineno or node.lineno
    start = _count_characters(lines[node.lineno - 1], node.col_offset)
    end = _count_characters(lines[end_line - 1], node.end_col_offset or 0)
    return Range(node.lineno, start, end_line, end)


def _count_characters(line: str, size: int) -> int:
    if line.isascii():
        return size
    return len(line.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore"))
