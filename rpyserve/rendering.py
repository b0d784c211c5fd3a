"""From what a render method gives to a `Response`: every kind of result, sync and async.

The order matters twice. A coroutine is watched from before its first step, so that it is cancelled when the
client leaves; a nursery opened later would corrupt trio's scope stack. And a head is settled last, because
until then the script may set headers or open a session.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import trio

from rpyserve import watchdog
from rpyserve.http.errors import Disconnected, HTTPError, Redirect, WrongResult
from rpyserve.http.request import Request
from rpyserve.http.response import HTML, IterStream, Pipe, Response
from rpyserve.resource import Resource

__all__ = ["NOT_DONE_YET", "Rescue", "redirect_response", "render", "settle"]

Rescue = Callable[[BaseException, bool], Response | None]


class _Pending(enum.Enum):
    NOT_DONE_YET = enum.auto()

    def __repr__(self) -> str:
        return self.name


NOT_DONE_YET: Final = _Pending.NOT_DONE_YET
"""Return it from a render method that will answer later, by ``request.write()`` and ``request.finish()``."""


async def render(resource: Resource, request: Request, rescue: Rescue) -> Response:
    """Have *resource* answer *request*.

    Args:
        rescue: what makes a page of an exception that a stream raises; see `streaming.IterStream`.

    Raises:
        Disconnected: the client left while an async method was at work; the method was cancelled.
        Exception: whatever the method raises; TypeError, with the line to write, for a result of no use.
    """
    with watchdog.timed(request.path):
        result = resource.render(request)
    if inspect.iscoroutine(result):
        result = await _attended(result, request)
    response = _answer(result, request, resource)
    body = response.body
    if isinstance(body, IterStream):
        body.settle = partial(settle, request)
        body.rescue = rescue
        return response
    return settle(request, response)


def settle(request: Request, response: Response) -> Response:
    """Return *response* with the headers and the cookie that the script set on *request*. Once a request."""
    request.settled = True
    if request.response_headers:
        response = response.with_headers(*request.response_headers)
    if request.added_headers:
        response = Response.ready(response.body, response.status, response.headers + tuple(request.added_headers))
    if request.session_cookie is not None:
        response = response.with_headers((b"Set-Cookie", request.session_cookie))
    return response


def redirect_response(redirect: Redirect, request: Request) -> Response:
    """The answer for *redirect*: 303 after a POST, else 302, unless it has a status of its own."""
    status = redirect.status or (303 if request.method == "POST" else 302)
    return Response(b"", status, [("Location", quote_location(redirect.url))])


def quote_location(url: str) -> str:
    """Return *url* as a header may hold it: characters outside ASCII and controls percent-encoded (RFC 3986, 2.1)."""
    return "".join(c if "!" <= c <= "~" else "".join(f"%{byte:02X}" for byte in c.encode()) for c in url)


async def _attended(work: Coroutine[Any, Any, Any], request: Request) -> Any:
    """Run *work*, a coroutine that has not begun, until it returns or the client leaves."""
    failure: Exception | None = None
    left = False
    result = None

    async def watch() -> None:
        nonlocal left
        await request.client_left()
        left = True
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            result = await work
        except Exception as exc:
            failure = exc  # raised below, so that the nursery does not wrap it into a group
        nursery.cancel_scope.cancel()
    if left:
        raise Disconnected
    if failure is not None:
        raise failure
    return result


def _answer(result: Any, request: Request, resource: Resource) -> Response:
    if isinstance(result, Redirect):
        return redirect_response(result, request)
    if isinstance(result, HTTPError):
        raise result
    if isinstance(result, Response):
        return _own_response(result, request)
    if request.redirection is not None:
        return redirect_response(request.redirection, request)
    if result is NOT_DONE_YET or (result is None and request.finished):
        return _written(request)
    response = _response(result, request, resource)
    if request.written and isinstance(response.body, bytes):
        return Response.ready(b"".join([*request.written, response.body]), request.code, response.headers)
    return response


def _own_response(response: Response, request: Request) -> Response:
    """A `Response` made by the script: what it says itself goes before what was said on the request."""
    said = {name.lower() for name, _ in response.headers}
    request.response_headers = [pair for pair in request.response_headers if pair[0].lower() not in said]
    return response


def _written(request: Request) -> Response:
    """The answer of a method that uses `request.write`, now or later."""
    if request.finished:
        return Response.ready(b"".join(request.written), request.code, (HTML,))
    if request.failure is not None:
        raise request.failure
    request.pipe = pipe = Pipe()
    for chunk in request.written:
        pipe.write(chunk)
    return Response.ready(pipe, request.code, (HTML,))


def _response(result: Any, request: Request, resource: Resource) -> Response:
    if isinstance(result, str):
        return Response.ready(result.encode(), request.code, (HTML,))
    if (
        isinstance(result, (bytes, bytearray, memoryview, dict, list))
        or inspect.isgenerator(result)
        or inspect.isasyncgen(result)
    ):
        return Response(result, request.code)
    from rpyserve import hints

    raise WrongResult(hints.for_result(result, request, resource), hints.method_of(request, resource))
