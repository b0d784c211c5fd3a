"""``rpyserve --inspect [VIEW]``: what a running server says of itself, on the terminal.

A view is a path below ``/-/``: with ``.json`` it is printed as it comes, else as a table. What is
no view but an action is done. Only the server knows which is which: what it does not answer to GET
(405) it is told to do, with its token.

Must not know how servers are found. What a server says is printed with nothing in it that controls
a terminal.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

from rpyserve.http.headers import reason_phrase
from rpyserve.inspector.views import LONGEST_WAIT, TOKEN_FIELD
from rpyserve.util.text import escape_unprintable

# Seconds that an answer may take, which may wait for news.
TIME_LIMIT: Final = 2 * LONGEST_WAIT

# Characters of a cell of a table.
WIDEST: Final = 48

# What is left out where people read.
_FOR_PROGRAMS: Final = frozenset({"at", "boot", "url", "phases"})

# What is printed as it comes.
_AS_IT_IS: Final = (".json", ".curl", ".ps1", ".httpx", ".py")


class Server(Protocol):
    """A server of the site."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int: ...


AnyServer = TypeVar("AnyServer", bound=Server)


class CannotInspect(Exception):
    """There is nothing to print; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted.

    Args:
        path: the path below ``/-/``, encoded; empty for what there is.
        query: the query, encoded.
    """

    path: str
    query: str


def target_of(view: str) -> Target:
    """Return what *view* means, as it was typed.

    Raises:
        ValueError: it is no path of a view.
    """
    path, _, query = view.removeprefix("/-/").removeprefix("/").partition("?")
    if not view.isprintable() or any(part in (".", "..") for part in path.split("/")):
        raise ValueError(
            f"{view[:60]!r} is no view; requests and sessions/ID/expire are such paths"
        )
    if "://" in path or "#" in view:
        raise ValueError(f"{view[:60]!r} is no view, which is a path below /-/ of the site")
    return Target(quote(path, safe="/%:@+,;=-"), quote(query, safe="/?&=%:@+,;-"))


def choose(servers: Sequence[AnyServer], port: int | None, directory: Path) -> AnyServer:
    """Return the one of *servers* that listens on *port*, or the only one.

    Raises:
        CannotInspect: there is none, or more than one.
    """
    if not servers:
        raise CannotInspect(f"No server of {str(directory)!r} is running. Start one: rpyserve SITE")
    wanted = [each for each in servers if port is None or _port_of(each.url) == port]
    if len(wanted) == 1:
        return wanted[0]
    urls = " and ".join(each.url for each in servers)
    if not wanted:
        raise CannotInspect(f"No server of this site has port {port}: it is at {urls}.")
    raise CannotInspect(f"{len(wanted)} servers of this site are running, at {urls}: say --port.")


def _port_of(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None


def show(url: str, token: str, target: Target) -> int:
    """Print what the server at *url* says of *target*; return the exit status, 0 or 1.

    Raises:
        CannotInspect: it cannot be asked, or says what is no answer.
    """
    query = f"?{target.query}" if target.query else ""
    if target.path.endswith(_AS_IT_IS):
        status, body = _ask(url, "GET", target.path + query)
        return _print_answer(status, body, as_it_is=True)
    twin = f"{target.path}.json" if target.path else ".json"
    status, body = _ask(url, "GET", twin + query)
    if status == 404 and target.path:
        probe, _ = _ask(url, "GET", target.path + query)
        if probe == 405:
            fields = json.dumps(dict(parse_qsl(target.query, keep_blank_values=True)))
            status, body = _ask(url, "POST", target.path, fields, token)
            return _print_answer(status, body, as_it_is=False)
    return _print_answer(status, body, as_it_is=False)


def _ask(
    url: str, method: str, path: str, body: str | None = None, token: str = ""
) -> tuple[int, bytes]:
    headers = {"Accept": "application/json"}
    if body is not None:
        headers |= {"Content-Type": "application/json", TOKEN_FIELD: token}
    try:
        connection, base = _connect(url)
        with closing(connection):
            connection.request(method, f"{base}/-/{path}", body, headers)
            response = connection.getresponse()
            return response.status, response.read()
    except (OSError, http.client.HTTPException, ValueError) as exc:
        why = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        raise CannotInspect(f"The server at {url} does not answer: {why}.") from None


def _connect(url: str) -> tuple[http.client.HTTPConnection, str]:
    """A connection to the server at *url*, and the path at which its site is."""
    if url.startswith("unix:"):
        return _UnixConnection(url.removeprefix("unix:")), ""
    parts = urlsplit(url)
    base = parts.path.rstrip("/")
    if parts.scheme == "https":
        # Its certificate may be its own; that it is the right one, the run file says.
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection(parts.netloc, timeout=TIME_LIMIT, context=context), base
    return http.client.HTTPConnection(parts.netloc, timeout=TIME_LIMIT), base


class _UnixConnection(http.client.HTTPConnection):
    """A connection by the socket at *path*."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIME_LIMIT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


# What is printed


def _print_answer(status: int, body: bytes, *, as_it_is: bool) -> int:
    text = body.decode("utf-8", "backslashreplace")
    if as_it_is:
        _write(text if text.endswith("\n") or not text else f"{text}\n")
        return int(status >= 400)
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if status >= 400:
        _write(f"{_error_line(status, answer)}\n", sys.stderr)
        return 1
    if answer is None:
        raise CannotInspect(f"The server answers {status}, but with no JSON.")
    if isinstance(answer, dict) and isinstance(answer.get("done"), str):
        return _print_done(answer)
    _write("".join(f"{line}\n" for line in lines_of(answer)))
    return 0


def _print_done(answer: dict[str, Any]) -> int:
    """Print what an action did. Text that it made, such as a test, is all that goes to stdout."""
    text = answer.get("text")
    if isinstance(text, str):
        _write(f"{answer['done']}\n", sys.stderr)
        _write(text)
    else:
        _write("".join(f"{line}\n" for line in [answer["done"], *_details(answer)]))
    return 0


def _details(answer: dict[str, Any]) -> Iterator[str]:
    """What a replay was like, beside the request that it repeats."""
    changed = (answer.get("after") or {}).get("changed")
    if isinstance(changed, dict) and changed.get("items"):
        yield from ("", "changed in the session:", *lines_of(changed["items"], "  "))


def _error_line(status: int, answer: Any) -> str:
    known = answer if isinstance(answer, dict) else {}
    title = known.get("title") or reason_phrase(status)
    detail = known.get("detail")
    return f"Error: {status} {title}{f': {detail}' if detail else ''}"


def _write(text: str, stream: Any = None) -> None:
    shown = escape_unprintable(text, keep="\n\t")
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def lines_of(answer: Any, indent: str = "") -> Iterator[str]:
    """Yield the lines that say what *answer* does, which is JSON: lists of objects are tables.

    What is not known, or empty, is left out, and what only programs need.
    """
    if _is_table(answer):
        yield from (f"{indent}{line}".rstrip() for line in _table(answer))
    elif isinstance(answer, dict):
        yield from _lines_of_fields(answer, indent)
    else:
        yield f"{indent}{_text(answer)}"


def _lines_of_fields(fields: dict[str, Any], indent: str) -> Iterator[str]:
    told = {name: value for name, value in fields.items() if not _says_nothing(name, value)}
    plain = {name: value for name, value in told.items() if not _has_lines(value)}
    width = max((len(_cell(name)) for name in plain), default=0)
    for name, value in plain.items():
        yield f"{indent}{_cell(name):{width}}  {_text(value)}".rstrip()
    for name, value in told.items():
        if name in plain:
            continue
        if not indent:
            yield ""
        yield f"{indent}{_cell(name)}:"
        deeper = f"{indent}  "
        if isinstance(value, str):
            yield from (f"{deeper}{_text(line)}".rstrip() for line in value.splitlines())
        elif _is_pairs(value):
            yield from (f"{deeper}{_text(key)}: {_text(text)}" for key, text in value)
        else:
            yield from lines_of(value, deeper if indent or not _is_table(value) else "")


def _says_nothing(name: str, value: Any) -> bool:
    if isinstance(value, dict):
        return all(_says_nothing(*item) for item in value.items())
    return name in _FOR_PROGRAMS or value is None or value in ("", [])


def _has_lines(value: Any) -> bool:
    is_text = isinstance(value, str) and "\n" in value.strip()
    return is_text or isinstance(value, dict) or _is_table(value) or _is_pairs(value)


def _is_pairs(value: Any) -> bool:
    """Whether *value* is a list of header fields, or the like."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, list) and len(each) == 2 for each in value)
    )


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    columns = [
        column
        for column in dict.fromkeys(key for row in rows for key in row)
        if any(_is_for_cell(column, row.get(column)) for row in rows)
    ]
    cells = [[_cell(_text(row.get(column))) for column in columns] for row in rows]
    heads = [*map(_cell, columns)]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in (heads, *cells):
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _is_for_cell(name: str, value: Any) -> bool:
    """Whether *value* says something in a column of a table."""
    return not _says_nothing(name, value) and value is not False and not _has_lines(value)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape_unprintable(text)


def _cell(text: str) -> str:
    shown = re.sub(r"\s", " ", escape_unprintable(text))
    return shown if len(shown) <= WIDEST else f"{shown[: WIDEST - 1]}…"
