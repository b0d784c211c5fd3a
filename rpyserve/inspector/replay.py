"""A request once more, in this process, by the responder that answered it.

Its visitor may be the same, a new one, or nobody. Whatever the script does, it does once more: who
wants to replay anything but GET and HEAD says that they know. The answer is a value; of a stream it
has the beginning, after which the visitor leaves. A plain function holds the server as any request
for it would.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final
from urllib.parse import unquote

import trio

from rpyserve.http.cookies import cookie_pairs
from rpyserve.http.request import Address, Request, Responder
from rpyserve.http.response import ChunkIterator, start_body
from rpyserve.inspector.copies import Field, Sent

# Bytes of an answer after which the visitor leaves, and seconds after which it is cancelled.
MOST_BYTES: Final = 64 * 1024
TIME_LIMIT: Final = 30.0

# Methods that change nothing (RFC 9110, section 9.2.1), as far as a site keeps to it.
SAFE: Final = frozenset({"GET", "HEAD"})

_TARGET: Final = re.compile(r"/[!-~]*")
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")


class CannotReplay(Exception):
    """The request is not replayed; the text says why."""


class Visitor(Enum):
    """Who makes the request."""

    SAME = "same"
    NEW = "new"
    NOBODY = "nobody"


@dataclass(slots=True)
class Answer:
    """What came of it.

    Args:
        status: the status; 0 if there was none.
        headers: the fields of its head.
        body: its body, or the beginning.
        whole: whether that is all.
        cancelled: whether it took more than `TIME_LIMIT`.
        error: the type of what the script raised; empty if it raised nothing.
        seconds: how long it took.
    """

    status: int = 0
    headers: list[Field] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False
    cancelled: bool = False
    error: str = ""
    seconds: float = 0.0


def changed(sent: Sent, *, method: str = "", target: str = "", body: bytes | None = None) -> Sent:
    """Return *sent* with another method, target or body.

    Raises:
        CannotReplay: that would be no request.
    """
    if method and not _METHOD.fullmatch(method):
        raise CannotReplay(f"{method[:40]!r} is no method.")
    if target and not _TARGET.fullmatch(target):
        raise CannotReplay(f"{target[:60]!r} is no path: it begins with a slash, and is encoded.")
    fields = [pair for pair in sent.fields if body is None or pair[0] not in _FRAMING]
    if body:
        fields.append((b"content-length", str(len(body)).encode()))
    return replace(
        sent,
        method=method or sent.method,
        target=target or sent.target,
        fields=tuple(fields),
        body=sent.body if body is None else body,
    )


_FRAMING: Final = (b"content-length", b"transfer-encoding")


async def replay(
    respond: Responder,
    sent: Sent,
    visitor: Visitor,
    cookie: tuple[str, str],
    *,
    client: Address = ("", 0),
    server: Address = ("localhost", 8080),
    confirmed: bool = False,
    on_request: Callable[[Request], object] = lambda request: None,
) -> Answer:
    """Have *respond* answer *sent* once more.

    Args:
        visitor: who makes the request.
        cookie: the name of the site's session cookie, and what it is for the same visitor now.
        client, server: the addresses of the connection that it seems to come over.
        on_request: called with the request that is made.
        confirmed: whether the author knows that it may change something.

    Raises:
        CannotReplay: it is for the server's own pages, an upgrade, or not confirmed.
    """
    _check(sent, confirmed)
    answer, left, started = Answer(), trio.Event(), trio.current_time()
    request = _request(replace(sent, fields=_fields(sent, visitor, cookie)), left, client, server)
    on_request(request)

    def note(exc: BaseException) -> None:
        answer.error = answer.error or type(exc).__name__

    request._on_failure = note
    with trio.move_on_after(TIME_LIMIT) as limit, closing(request):
        try:
            await _receive(respond, request, answer, left)
        except Exception as exc:  # a body that fails half-way: the site has told why
            note(exc)
    answer.cancelled = limit.cancelled_caught
    answer.seconds = trio.current_time() - started
    return answer


def _check(sent: Sent, confirmed: bool) -> None:
    path = unquote(sent.target.partition("?")[0])
    if re.match(r"(?:[A-Za-z][A-Za-z0-9+.\-]*://[^/]*)?/-(?:/|\Z)", path):
        raise CannotReplay("The server's own pages, below /-/, are not replayed.")
    if any(name == b"upgrade" for name, _ in sent.fields) or sent.method == "CONNECT":
        raise CannotReplay("An upgrade, such as to a WebSocket, cannot be replayed.")
    if sent.method not in SAFE and not confirmed:
        raise CannotReplay(f"A {sent.method} may change something: confirm that it is to be done.")


def _fields(sent: Sent, visitor: Visitor, cookie: tuple[str, str]) -> tuple[Field, ...]:
    """The fields that the visitor sends; all cookies in one."""
    gone = {b"cookie"} | ({b"authorization"} if visitor is Visitor.NOBODY else set())
    fields = [pair for pair in sent.fields if pair[0] not in gone]
    own, value = cookie
    cookies = [
        f"{name}={text}"
        for field_name, field_value in sent.fields
        if field_name == b"cookie" and visitor is not Visitor.NOBODY
        for name, text in cookie_pairs(field_value.decode("latin-1"))
        if name != own
    ]
    if visitor is Visitor.SAME and value:
        cookies.insert(0, f"{own}={value}")
    if cookies:
        fields.append((b"cookie", "; ".join(cookies).encode("latin-1")))
    return tuple(fields)


def _request(sent: Sent, left: trio.Event, client: Address, server: Address) -> Request:
    return Request(
        sent.method,
        sent.target,
        sent.fields,
        client=client,
        server=server,
        scheme=sent.origin.partition("://")[0],
        body=ChunkIterator(_Once(sent.body).read) if sent.body else None,
        wait_client_left=left.wait,
    )


@dataclass(slots=True)
class _Once:
    data: bytes

    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        data, self.data = self.data, b""
        return data


async def _receive(respond: Responder, request: Request, answer: Answer, left: trio.Event) -> None:
    async with start_body(await respond(request)) as body:
        answer.status, answer.headers = body.response.status, [*body.response.headers]
        if request.method != "HEAD":
            async for chunk in body.chunks:
                answer.body += chunk
                if len(answer.body) > MOST_BYTES:
                    answer.body = answer.body[:MOST_BYTES]
                    left.set()
                    return
    answer.whole = True
