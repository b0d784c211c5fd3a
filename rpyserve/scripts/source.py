"""From the bytes of a Python file to code: for scripts and the site's modules alike.

Owns how a source is decoded (PEP 263: coding lines, a byte order mark; any line ends). Where that
fails, there is a `SyntaxError` with file and line, as for any other mistake in it. Executes
nothing.
"""

from __future__ import annotations

import ast
import linecache
import tokenize
from dataclasses import dataclass
from io import BytesIO
from types import CodeType
from typing import Final, NoReturn

__all__ = ["Source", "compile_source"]

_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


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
    tree = ast.parse(text, path)  # of bytes, the parser would count columns in bytes
    code: CodeType = compile(tree, path, "exec", dont_inherit=True)
    return Source(data, code, frozenset(_imported_names(tree)), tree)


def _imported_names(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else (node.module or "").partition(".")[0])
    return found


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
