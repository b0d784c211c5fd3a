"""From the bytes of a Python file to code: what scripts and the site's modules have in common.

Owns how a source is decoded (PEP 263: coding lines, a byte order mark; any line ends) and what is said when that
fails: always a `SyntaxError` with file and line, as for any other mistake in it. Executes nothing.
"""

from __future__ import annotations

import ast
import linecache
import tokenize
from dataclasses import dataclass
from io import BytesIO
from types import CodeType
from typing import NoReturn

__all__ = ["Source", "compile_source"]

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Source:
    """A compiled source: its *data*, *code* and syntax *tree*, and the first names of the modules that it *imports*.

    "." is its own package.
    """

    data: bytes
    code: CodeType
    imports: frozenset[str]
    tree: ast.Module


def compile_source(data: bytes, path: str) -> Source:
    """Compile *data*, the contents of the file at *path*.

    Raises:
        SyntaxError: it is no Python, or not text; with the file's name, and the line where one is known.
    """
    linecache.cache.pop(
        path, None
    )  # it trusts size and mtime, which an edit may leave as they were
    text = _text(data, path)
    tree = ast.parse(text, path)  # of bytes, the parser would count columns in bytes
    code: CodeType = compile(tree, path, "exec", dont_inherit=True)
    return Source(data, code, frozenset(_imports(tree)), tree)


def _imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else (node.module or "").partition(".")[0])
    return found


def _text(data: bytes, path: str) -> str:
    if data.startswith(_UTF16):
        _fail("this file is saved as UTF-16; save it as UTF-8", path, 1)
    if b"\0" in data:
        _fail(
            "there is a NUL byte in this file, so it is no text",
            path,
            _line(data, data.index(b"\0")),
        )
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
    except SyntaxError as exc:
        if "unknown encoding" in str(exc) or "encoding problem" in str(exc):
            _fail(str(exc), path, 1)
        encoding = "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        line = _line(data, exc.start)
        _fail(
            f"line {line} is not {encoding.upper()} (byte 0x{data[exc.start]:02x}); save the file as UTF-8",
            path,
            line,
        )


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def _fail(message: str, path: str, line: int) -> NoReturn:
    raise SyntaxError(message, (path, line, None, None))
