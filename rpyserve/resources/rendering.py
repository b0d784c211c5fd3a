"""From what a render method gives to a `Response`: every kind of result, sync and async.

The order matters twice. A coroutine is watched from before its first step, so that it is cancelled when the
client leaves; a nursery opened later would corrupt trio's scope stack. And a head is settled last, because
until then the script may set headers or open a session.

What to say to the author of a render method that returned something that cannot be sent.

One sentence that names the method, and the line to write instead.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import PurePath
from typing import Any, Final

import trio

from rpyserve.http.errors import ClientDisconnected, HTTPError, Redirect, WrongResult
from rpyserve.http.request import Request
from rpyserve.http.response import HTML, IterableStream, Response, WriteStream
from rpyserve.resources.resource import FunctionResource, Resource
from rpyserve.scripts.validation import app_kind
from rpyserve.serving import watchdog

__all__ = [
    "NOT_DONE_YET",
    "Rescue",
    "apply_request_headers",
    "for_result",
    "method_of",
    "redirect_response",
    "render",
]


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
        rescue: what makes a page of an exception that a stream raises; see `streaming.IterableStream`.

    Raises:
        Disconnected: the client left while an async method was at work; the method was cancelled.
        Exception: whatever the method raises; TypeError, with the line to write, for a result of no use.
    """
    with watchdog.timed(request.path):
        result = resource.render(request)
    if inspect.iscoroutine(result):
        result = await _cancel_on_disconnect(result, request)
    response = _answer(result, request, resource)
    body = response.body
    if isinstance(body, IterableStream):
        body.settle = partial(apply_request_headers, request)
        body.rescue = rescue
        return response
    return apply_request_headers(request, response)


def apply_request_headers(request: Request, response: Response) -> Response:
    """Return *response* with the headers and the cookie that the script set on *request*. Once a request."""
    request.settled = True
    if request.response_headers:
        response = response.with_headers(*request.response_headers)
    if request.added_headers:
        response = Response.trusted(
            response.body, response.status, response.headers + tuple(request.added_headers)
        )
    if request.session_cookie is not None:
        response = response.with_headers((b"Set-Cookie", request.session_cookie))
    return response


def redirect_response(redirect: Redirect, request: Request) -> Response:
    """The answer for *redirect*: 303 after a POST, else 302, unless it has a status of its own."""
    status = redirect.status or (303 if request.method == "POST" else 302)
    return Response(b"", status, [("Location", quote_location(redirect.url))])


def quote_location(url: str) -> str:
    """Return *url* as a header may hold it: characters outside ASCII and controls percent-encoded (RFC 3986, 2.1)."""
    return "".join(
        c if "!" <= c <= "~" else "".join(f"%{byte:02X}" for byte in c.encode()) for c in url
    )


async def _cancel_on_disconnect(work: Coroutine[Any, Any, Any], request: Request) -> Any:
    """Run *work*, a coroutine that has not begun, until it returns or the client leaves."""
    failure: Exception | None = None
    left = False
    result = None

    async def watch() -> None:
        nonlocal left
        await request.wait_client_left()
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
        raise ClientDisconnected
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
        return Response.trusted(
            b"".join([*request.written, response.body]), request.code, response.headers
        )
    return response


def _own_response(response: Response, request: Request) -> Response:
    """A `Response` made by the script: what it says itself goes before what was said on the request."""
    said = {name.lower() for name, _ in response.headers}
    request.response_headers = [
        pair for pair in request.response_headers if pair[0].lower() not in said
    ]
    return response


def _written(request: Request) -> Response:
    """The answer of a method that uses `request.write`, now or later."""
    if request.finished:
        return Response.trusted(b"".join(request.written), request.code, (HTML,))
    if request.failure is not None:
        raise request.failure
    request.pipe = pipe = WriteStream()
    for chunk in request.written:
        pipe.write(chunk)
    return Response.trusted(pipe, request.code, (HTML,))


def _response(result: Any, request: Request, resource: Resource) -> Response:
    if isinstance(result, str):
        return Response.trusted(result.encode(), request.code, (HTML,))
    if (
        isinstance(result, (bytes, bytearray, memoryview, dict, list))
        or inspect.isgenerator(result)
        or inspect.isasyncgen(result)
    ):
        return Response(result, request.code)
    from rpyserve.diagnostics import advice

    raise WrongResult(
        advice.for_result(result, request, resource), advice.method_of(request, resource)
    )


_CAN: Final = "A method returns str, bytes, a dict or list (sent as JSON), a Response, a Redirect, or it yields text."


def for_result(value: Any, request: Any, resource: Any) -> str:
    """Say what is wrong with *value*, which *resource* returned for *request*."""
    name = _method(request, resource)
    said = _said(value)
    if said is None:
        return f"{name} returned {_shown(value)}, which cannot be sent. {_CAN}"
    what, mend = said
    return f"{name} returned {what}. {mend}"


def _method(request: Any, resource: Any) -> str:
    if isinstance(resource, FunctionResource):
        return f"{getattr(resource.function, '__name__', 'resource')}()"
    kind, method = type(resource), request.method
    if kind.render is not Resource.render:
        return f"{kind.__name__}.render"
    if method == "HEAD" and not hasattr(resource, "render_HEAD"):
        method = "GET"
    return f"{kind.__name__}.render_{method}"


def method_of(request: Any, resource: Any) -> object:
    """Return the function that *resource* answered *request* with; None if that cannot be told."""
    if isinstance(resource, FunctionResource):
        return resource.function
    kind = type(resource)
    if kind.render is not Resource.render:
        return kind.render
    method = getattr(kind, f"render_{request.method}", None)
    return getattr(kind, "render_GET", None) if method is None else method


def _said(value: Any) -> tuple[str, str] | None:
    if value is None:
        return "nothing (None)", 'Probably a `return` is missing: end it with return "...".'
    if isinstance(value, tuple):
        return _tuple(value)
    if isinstance(value, bool):
        return f"the truth value {value}", "Write return str(...), or return a dict for JSON."
    if isinstance(value, (int, float, complex)):
        extra = (
            " If 1 stood for NOT_DONE_YET: write `from rpyserve import NOT_DONE_YET`."
            if value == 1
            else ""
        )
        return f"the number {value}", f"Write return str({value!r}).{extra}"
    if inspect.isclass(value):
        return (
            f"the class {value.__name__}, not an instance of it",
            f"Write return {value.__name__}(...).",
        )
    if inspect.isroutine(value):
        call = (
            f"await {value.__name__}(...)"
            if inspect.iscoroutinefunction(value)
            else f"{value.__name__}(...)"
        )
        return f"the function {value.__name__} without calling it", f"Write return {call}."
    if inspect.iscoroutine(value):
        value.close()
        return (
            f"a coroutine of {value.__name__} that nobody awaited",
            f"Write return await {value.__name__}(...).",
        )
    return _object(value)


def _tuple(value: tuple[Any, ...]) -> tuple[str, str]:
    if len(value) > 1 and isinstance(value[1], int):
        return (
            "a tuple, as Flask's views do",
            f"Write request.setResponseCode({value[1]}) before the return, or return Response(..., {value[1]}), or "
            f"raise HTTPError({value[1] if value[1] >= 400 else 404}) for an error page.",
        )
    if len(value) == 1:
        return "a tuple of one", "There is a comma too many after what it returns."
    return "a tuple", 'Write return "".join(...) for text, or return a list for JSON.'


def _object(value: Any) -> tuple[str, str] | None:
    kind = type(value)
    if isinstance(value, Resource):
        return (
            f"a resource ({kind.__name__})",
            "A resource belongs into getChild, putChild or `resource`; or write "
            f"return {kind.__name__}(...).render(request).",
        )
    if isinstance(value, BaseException):
        return f"an exception ({kind.__name__})", f"Write raise {kind.__name__}(...)."
    if isinstance(value, PurePath):
        return (
            "a path",
            'Write return path.read_text(encoding="utf-8"), or return path.read_bytes().',
        )
    if isinstance(value, (set, frozenset)):
        return "a set", "Write return sorted(...): a list is sent as JSON."
    if kind.__name__ == "Deferred":
        return (
            "a Deferred",
            "Write `async def`, and await in it; trio takes the place of Twisted's reactor.",
        )
    if kind.__module__.partition(".")[0] != "rpyserve" and (
        kind.__name__.endswith("Response") or app_kind(value) is not None
    ):
        return (
            f"a {kind.__name__} of {kind.__module__.partition('.')[0]}",
            "Write return Response(body, status) with rpyserve's own Response.",
        )
    if callable(getattr(value, "getvalue", None)):
        return f"a {kind.__name__}", "Write return it.getvalue()."
    if callable(getattr(value, "read", None)):
        return (
            f"an open file ({kind.__name__})",
            "Write return file.read(), and close the file (`with open(...) as file:`).",
        )
    if hasattr(value, "__next__") or isinstance(value, range):
        return (
            f"an iterator ({kind.__name__})",
            'Write return "".join(...) for text, or return list(...) for JSON.',
        )
    return None


def _shown(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
