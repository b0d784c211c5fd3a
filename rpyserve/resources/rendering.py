"""From what a render method returns to a `Response`: every kind of result, sync and async.

The order matters twice. A coroutine is watched from before its first step, so that it is cancelled
when the client leaves; a nursery that is opened later would corrupt trio's scope stack. And the
head of the response is completed last, because until then the script may set headers or open a
session.

A result that cannot be sent is recognised here too, and described to the author of the method: one
sentence that names the method, and the line to write instead.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import numbers
import time
from collections.abc import Coroutine
from pathlib import PurePath
from types import ModuleType
from typing import Any, Final

import trio

from rpyserve.http.errors import ClientDisconnected, HTTPError, NotJSON, Redirect, WrongResult
from rpyserve.http.pending_response import PendingResponse
from rpyserve.http.request import Request
from rpyserve.http.response import HTML, ErrorHandler, IterableStream, Response
from rpyserve.resources.resource import FunctionResource, Resource
from rpyserve.util.slow_calls import slow_call_log

__all__ = [
    "NOT_DONE_YET",
    "app_kind",
    "apply_request_headers",
    "describe_wrong_result",
    "redirect_response",
    "render",
    "render_method",
]


class _Pending(enum.Enum):
    NOT_DONE_YET = enum.auto()

    def __repr__(self) -> str:
        return self.name


NOT_DONE_YET: Final = _Pending.NOT_DONE_YET
"""Return it from a render method that answers later, by ``request.write()`` and ``finish()``."""


async def render(resource: Resource, request: Request, error_handler: ErrorHandler) -> Response:
    """Have *resource* answer *request*.

    Args:
        error_handler: makes a page of an exception that a stream raises; see `IterableStream`.

    Raises:
        ClientDisconnected: the client left while an async method was at work; the method was
            cancelled.
        Exception: whatever the method raises.
        WrongResult: the method returned what cannot be sent.
    """
    began = time.perf_counter()
    try:
        result = resource.render(request)
    except Exception:
        _report_slow_call(resource, request, began)
        raise
    _report_slow_call(resource, request, began)
    if inspect.iscoroutine(result):
        result = await _cancel_on_disconnect(result, request)
    response = _response_of(result, request, resource)
    body = response.body
    if isinstance(body, IterableStream):
        body.complete_headers = request._response.complete_headers
        body.error_handler = error_handler
        return response
    return apply_request_headers(request, response)


def _report_slow_call(resource: Resource, request: Request, began: float) -> None:
    seconds = time.perf_counter() - began
    if seconds > slow_call_log.threshold and not _is_our_own(resource):
        slow_call_log.report_script(request.path, seconds - slow_call_log.own_seconds_since(began))


def _is_our_own(resource: Resource) -> bool:
    """Whether all code of *resource* is rpyserve's, so that no author can mend it."""
    is_function = isinstance(resource, FunctionResource)
    return not is_function and type(resource).__module__.partition(".")[0] == "rpyserve"


def apply_request_headers(request: Request, response: Response) -> Response:
    """Return *response* with what the script set on *request*. Once a request."""
    return request._response.complete_headers(response)


def redirect_response(redirect: Redirect, request: Request) -> Response:
    """Return the response for *redirect*: 303 after a POST, else 302, unless it says otherwise."""
    status = redirect.status or (303 if request.method == "POST" else 302)
    return Response(b"", status, [("Location", quote_location(redirect.url))])


def quote_location(url: str) -> str:
    """Return *url* with all but printable ASCII percent-encoded (RFC 3986, section 2.1)."""
    return "".join(
        char if "!" <= char <= "~" else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in url
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


# From result to response


def _response_of(result: Any, request: Request, resource: Resource) -> Response:
    # What the result says by itself
    if isinstance(result, Redirect):
        return redirect_response(result, request)
    if isinstance(result, HTTPError):
        raise result
    if isinstance(result, Response):
        # Its own headers win over those that were set on the request.
        request._response.remove_headers({name.lower() for name, _ in result.headers})
        return result
    # What was said on the request
    pending = request._response
    if pending.redirect is not None:
        return redirect_response(pending.redirect, request)
    if result is NOT_DONE_YET or (result is None and pending.finished):
        return _written_response(pending)
    # The result is a body
    response = _body_response(result, request, resource)
    if pending.chunks and isinstance(response.body, bytes):
        body = b"".join([*pending.chunks, response.body])
        return Response.trusted(body, pending.status, response.headers)
    return response


def _written_response(pending: PendingResponse) -> Response:
    """The answer of a method that uses `request.write`, now or later."""
    body = b"".join(pending.chunks) if pending.finished else pending.start_stream()
    return Response.trusted(body, pending.status, (HTML,))


def _body_response(result: Any, request: Request, resource: Resource) -> Response:
    if isinstance(result, str):
        request._response.is_text = True
        return Response.trusted(result.encode(), request.code, (HTML,))
    if isinstance(result, (bytes, bytearray, memoryview, dict, list)):
        try:
            return Response(result, request.code)
        except NotJSON as exc:
            message = f"{_method_name(request, resource)} returned what JSON cannot hold: {exc}"
            raise WrongResult(message, render_method(request, resource)) from None
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        return Response(result, request.code)
    message = describe_wrong_result(result, request, resource)
    raise WrongResult(message, render_method(request, resource), is_nothing=result is None)


# Results that cannot be sent

_ALLOWED_RESULTS: Final = (
    "A method returns str, bytes, a dict or list (sent as JSON), a Response, a Redirect, "
    "or it yields text."
)

_FRAMEWORKS: Final = {
    "flask": "a Flask app",
    "quart": "a Quart app",
    "fastapi": "a FastAPI app",
    "starlette": "a Starlette app",
    "django": "a Django application",
    "bottle": "a Bottle app",
    "falcon": "a Falcon app",
    "aiohttp": "an aiohttp app",
    "sanic": "a Sanic app",
    "tornado": "a Tornado application",
    "litestar": "a Litestar app",
    "dash": "a Dash app",
}
_SAVED: Final = (
    "Write file = io.BytesIO(), save it there with {0}, "
    'and return Response(file.getvalue(), 200, {{"Content-Type": "image/png"}}).'
)
# The methods by which objects of other packages give what can be sent.
_CONVERSIONS: Final = {
    "to_html": "Write return it.to_html().",
    "savefig": _SAVED.format('it.savefig(file, format="png")'),
    "_repr_png_": _SAVED.format('it.save(file, format="png")'),
    "tolist": "Write return it.tolist(): a list is sent as JSON.",
    "model_dump": 'Write return it.model_dump(mode="json"): a dict is sent as JSON.',
    "isoformat": "Write return it.isoformat().",
}
_APP_SIGNATURES: Final = {
    ("environ", "start_response"): "a WSGI application",
    ("scope", "receive", "send"): "an ASGI app",
}

_Explanation = tuple[str, str]
"""What was returned, and what to write instead."""


def describe_wrong_result(value: Any, request: Request, resource: Resource) -> str:
    """Say what is wrong with *value*, which *resource* returned for *request*."""
    name = _method_name(request, resource)
    explanation = _explain_plain(value) or _explain_callable(value) or _explain_object(value)
    if explanation is None:
        return f"{name} returned {_with_article(value)}, which cannot be sent. {_ALLOWED_RESULTS}"
    returned, advice = explanation
    return f"{name} returned {returned}. {advice}"


def render_method(request: Request, resource: Resource) -> object:
    """Return the function by which *resource* answered *request*; None if that is not known."""
    if isinstance(resource, FunctionResource):
        return resource.function
    kind = type(resource)
    if kind.render is not Resource.render:
        return kind.render
    method = getattr(kind, f"render_{request.method}", None)
    return getattr(kind, "render_GET", None) if method is None else method


def app_kind(value: object) -> str | None:
    """Return what application of another framework *value* is, in words; None if it is none."""
    if isinstance(value, ModuleType) or not callable(value):
        return None
    for base in type(value).__mro__:
        package = base.__module__.partition(".")[0]
        if package in _FRAMEWORKS:
            return _FRAMEWORKS[package]
    if inspect.isclass(value):
        return None
    try:
        return _APP_SIGNATURES.get(tuple(inspect.signature(value).parameters))
    except (TypeError, ValueError):
        return None


def _method_name(request: Request, resource: Resource) -> str:
    if isinstance(resource, FunctionResource):
        return f"{getattr(resource.function, '__name__', 'resource')}()"
    kind, method = type(resource), request.method
    if kind.render is not Resource.render:
        return f"{kind.__name__}.render"
    if method == "HEAD" and not hasattr(resource, "render_HEAD"):
        method = "GET"
    return f"{kind.__name__}.render_{method}"


def _explain_plain(value: Any) -> _Explanation | None:
    """Explain None, numbers, and what Python's own syntax makes."""
    if value is None:
        return "nothing (None)", 'Probably a `return` is missing: end it with return "...".'
    if isinstance(value, tuple):
        return _explain_tuple(value)
    if isinstance(value, bool):
        return f"the truth value {value}", "Write return str(...), or return a dict for JSON."
    if isinstance(value, numbers.Number):  # those of numpy are none of Python's
        advice = f"Write return str({value})."
        if isinstance(value, int) and value == 1:
            advice += " If 1 stood for NOT_DONE_YET: write `from rpyserve import NOT_DONE_YET`."
        return f"the number {value}", advice
    if isinstance(value, (set, frozenset)):
        return "a set", "Write return sorted(...): a list is sent as JSON."
    return None


def _explain_tuple(value: tuple[Any, ...]) -> _Explanation:
    if len(value) > 1 and isinstance(value[1], int):
        status = value[1]
        return (
            "a tuple, as Flask's views do",
            f"Write request.setResponseCode({status}) before the return, "
            f"or return Response(..., {status}), "
            f"or raise HTTPError({status if status >= 400 else 404}) for an error page.",
        )
    if len(value) == 1:
        return "a tuple of one", "There is a comma too many after what it returns."
    return "a tuple", 'Write return "".join(...) for text, or return a list for JSON.'


def _explain_callable(value: Any) -> _Explanation | None:
    """Explain what should have been called, or awaited."""
    if inspect.isclass(value):
        name = value.__name__
        return f"the class {name}, not an instance of it", f"Write return {name}(...)."
    if inspect.isroutine(value):
        name = value.__name__
        call = "await " * inspect.iscoroutinefunction(value) + f"{name}(...)"
        return f"the function {name} without calling it", f"Write return {call}."
    if inspect.iscoroutine(value):
        value.close()
        name = value.__name__
        return f"a coroutine of {name} that nobody awaited", f"Write return await {name}(...)."
    return None


def _explain_object(value: Any) -> _Explanation | None:
    kind = type(value)
    if isinstance(value, Resource):
        return (
            f"a resource ({kind.__name__})",
            "A resource belongs into getChild, putChild or `resource`; "
            f"or write return {kind.__name__}(...).render(request).",
        )
    if isinstance(value, BaseException):
        return f"an exception ({kind.__name__})", f"Write raise {kind.__name__}(...)."
    if isinstance(value, PurePath):
        advice = 'Write return path.read_text(encoding="utf-8"), or return path.read_bytes().'
        return "a path", advice
    if kind.__name__ == "Deferred":
        advice = "Write `async def`, and await in it; trio takes the place of Twisted's reactor."
        return "a Deferred", advice
    return (
        _explain_foreign_response(value) or _explain_convertible(value) or _explain_file_like(value)
    )


def _explain_foreign_response(value: Any) -> _Explanation | None:
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    if package == "rpyserve":
        return None
    if kind.__name__.endswith("Response") or app_kind(value) is not None:
        advice = "Write return Response(body, status) with rpyserve's own Response."
        return f"a {kind.__name__} of {package}", advice
    return None


def _explain_convertible(value: Any) -> _Explanation | None:
    """Explain tables, figures, pictures and records, which have a method that gives what to send.

    Their classes are looked at; no code of theirs is called.
    """
    kind = type(value)
    for method, advice in _CONVERSIONS.items():
        if callable(getattr(kind, method, None)):
            return _with_article(value), advice
    if dataclasses.is_dataclass(kind):
        return _with_article(value), "Write return dataclasses.asdict(it): a dict is sent as JSON."
    return None


def _explain_file_like(value: Any) -> _Explanation | None:
    """Explain what has to be read or iterated over."""
    name = type(value).__name__
    if callable(getattr(value, "getvalue", None)):
        return f"a {name}", "Write return it.getvalue()."
    if callable(getattr(value, "read", None)):
        advice = "Write return file.read(), and close the file (`with open(...) as file:`)."
        return f"an open file ({name})", advice
    if hasattr(value, "__next__") or isinstance(value, range):
        advice = 'Write return "".join(...) for text, or return list(...) for JSON.'
        return f"an iterator ({name})", advice
    return None


def _with_article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
