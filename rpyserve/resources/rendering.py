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
from collections.abc import Callable, Coroutine
from pathlib import PurePath
from types import ModuleType
from typing import Any, Final

import trio

from rpyserve.http.errors import ClientDisconnected, HTTPError, NotJSON, Redirect, WrongResult
from rpyserve.http.pending_response import PendingResponse
from rpyserve.http.request import Request
from rpyserve.http.response import HTML, ErrorHandler, IterableStream, Response
from rpyserve.resources.resource import ForeignResource, FunctionResource, Resource
from rpyserve.util.html import is_t_string
from rpyserve.util.slow_calls import slow_call_log


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
        _note_call(resource, request, began)
        raise
    _note_call(resource, request, began)
    if inspect.iscoroutine(result):
        result = await _finished(result, request, began)
    response = _response_of(result, request, resource)
    body = response.body
    if isinstance(body, IterableStream):
        pending = request._response
        is_result = isinstance(result, Response)  # which says its status itself
        body.complete_headers = pending.complete_headers if is_result else pending.complete_head
        body.error_handler = error_handler
        return response
    return apply_request_headers(request, response)


async def _finished(work: Coroutine[Any, Any, Any], request: Request, began: float) -> Any:
    try:
        return await cancel_on_disconnect(work, request)
    finally:
        if (record := request._record) is not None:
            record.waited = time.perf_counter() - began - (record.render or 0.0)


def _note_call(resource: Resource, request: Request, began: float) -> None:
    """Note how long the event loop was held, and report it if that was too long."""
    seconds = time.perf_counter() - began
    if (record := request._record) is not None:
        record.render = seconds
    if seconds > slow_call_log.threshold and not _is_our_own(resource):
        slow_call_log.report_script(request.path, seconds - slow_call_log.own_seconds_since(began))


def _is_our_own(resource: Resource) -> bool:
    """Whether all code of *resource* is rpyserve's, so that no author can mend it."""
    is_wrapper = isinstance(resource, FunctionResource | ForeignResource)
    return not is_wrapper and type(resource).__module__.partition(".")[0] == "rpyserve"


def apply_request_headers(request: Request, response: Response) -> Response:
    """Return *response* with what the script set on *request*. Once a request."""
    return request._response.complete_headers(response)


def redirect_response(redirect: Redirect, request: Request) -> Response:
    """Return the response for *redirect*: 303 after a POST, else 302, unless it says otherwise."""
    request._response.redirect = redirect
    status = redirect.status or (303 if request.method == "POST" else 302)
    is_path = redirect.url.startswith("/") and not redirect.url.startswith("//")
    url = request.root_path + redirect.url if is_path else redirect.url
    return Response(b"", status, [("Location", quote_location(url))])


def quote_location(url: str) -> str:
    """Return *url* with all but printable ASCII percent-encoded (RFC 3986, section 2.1)."""
    return "".join(
        char if "!" <= char <= "~" else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in url
    )


async def cancel_on_disconnect(work: Coroutine[Any, Any, Any], request: Request) -> Any:
    """Run *work*, a coroutine that has not begun, until it returns or the client leaves.

    Raises:
        ClientDisconnected: the client has left; *work* was cancelled.
        Exception: what *work* raises.
    """
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
    """Return the response: as *result* says, or else as the script said on *request*."""
    pending = request._response
    match result:
        case HTTPError():
            raise result
        case Redirect():
            return redirect_response(result, request)
        case Response():
            # Its own headers win over those that were set on the request.
            pending.remove_headers({name.lower() for name, _ in result.headers})
            return result
    if pending.redirect is not None:
        return redirect_response(pending.redirect, request)
    if result is NOT_DONE_YET or (result is None and pending.finished):
        return _written_response(pending)
    return _after_what_was_written(pending, _body_response(result, request, resource))


def _written_response(pending: PendingResponse) -> Response:
    """The response of a method that uses `Request.write`, now or later."""
    body = b"".join(pending.chunks) if pending.finished else pending.start_stream()
    return Response.trusted(body, pending.status, (HTML,))


def _after_what_was_written(pending: PendingResponse, response: Response) -> Response:
    if not pending.chunks or not isinstance(response.body, bytes):
        return response
    body = b"".join([*pending.chunks, response.body])
    return Response.trusted(body, pending.status, response.headers)


def _body_response(result: Any, request: Request, resource: Resource) -> Response:
    if isinstance(result, str):
        request._response.is_text = True
        return Response.trusted(result.encode(), request.code, (HTML,))
    if not _is_body(result):
        message = describe_wrong_result(result, request, resource)
        raise WrongResult(message, render_method(request, resource), is_nothing=result is None)
    try:
        return Response(result, request.code)
    except NotJSON as exc:
        message = f"{_method_name(request, resource)} returned what JSON cannot hold: {exc}"
        raise WrongResult(message, render_method(request, resource)) from None


def _is_body(result: object) -> bool:
    is_data = isinstance(result, (bytes, bytearray, memoryview, dict, list))
    return is_data or inspect.isgenerator(result) or inspect.isasyncgen(result)


# Results that cannot be sent

ALLOWED_RESULTS: Final = (
    "A method returns str, bytes, a dict or list (sent as JSON), a Response, a Redirect, "
    "or it yields text."
)
"""What is said of a result of which nothing else is known."""

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
_APP_SIGNATURES: Final = {
    ("environ", "start_response"): "a WSGI application",
    ("scope", "receive", "send"): "an ASGI app",
}


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _has_method(name: str) -> Callable[[Any], bool]:
    return lambda value: callable(getattr(value, name, None))


def _class_has_method(name: str) -> Callable[[Any], bool]:
    """Whether objects have a method *name*; none of their own code is called to find out."""
    return lambda value: callable(getattr(type(value), name, None))


def _is_foreign_response(value: Any) -> bool:
    kind = type(value)
    is_response = kind.__name__.endswith("Response") or app_kind(value) is not None
    return is_response and _package_of(kind) != "rpyserve"


_SAVED: Final = (
    "Write file = io.BytesIO(), save it there with it.{}, "
    'and return Response(file.getvalue(), 200, {{{{"Content-Type": "image/png"}}}}).'
)
_JSON_OR_TEXT: Final = 'Write return "".join(...) for text, or return {} for JSON.'

# When a row applies, what was returned, and what to write instead. The first that applies wins.
# The texts may have the value, its own name, and the name and package of its class.
_EXPLANATIONS: Final[tuple[tuple[Callable[[Any], object], str, str], ...]] = (
    # What Python's own syntax makes
    (
        _is(type(None)),
        "nothing (None)",
        'Probably a `return` is missing: end it with return "...".',
    ),
    (
        lambda value: isinstance(value, tuple) and any(map(_is(int), value[1:2])),
        "a tuple, as Flask's views do",
        "Write request.setResponseCode({value[1]}) before the return, "
        "or return Response(..., {value[1]}), or raise HTTPError(404) for an error page.",
    ),
    (
        lambda value: isinstance(value, tuple) and len(value) == 1,
        "a tuple of one",
        "There is a comma too many after what it returns.",
    ),
    (_is(tuple), "a tuple", _JSON_OR_TEXT.format("a list")),
    (
        _is(bool),
        "the truth value {value}",
        "Write return str(...), or return a dict for JSON.",
    ),
    (
        lambda value: isinstance(value, int | float | complex) and value == 1,
        "the number {value}",
        "Write return str({value!r}). "
        "If 1 stood for NOT_DONE_YET: write `from rpyserve import NOT_DONE_YET`.",
    ),
    # Those of numpy are none of Python's.
    (_is(numbers.Number), "the number {value}", "Write return str({value})."),
    (_is(set, frozenset), "a set", "Write return sorted(...): a list is sent as JSON."),
    (is_t_string, "a t-string", 'Write return html(t"..."), which escapes the values in it.'),
    # What should have been called, or awaited
    (inspect.isclass, "the class {name}, not an instance of it", "Write return {name}(...)."),
    (
        lambda value: inspect.isroutine(value) and inspect.iscoroutinefunction(value),
        "the function {name} without calling it",
        "Write return await {name}(...).",
    ),
    (inspect.isroutine, "the function {name} without calling it", "Write return {name}(...)."),
    (
        inspect.iscoroutine,
        "a coroutine of {name} that nobody awaited",
        "Write return await {name}(...).",
    ),
    # Objects
    (
        _is(Resource),
        "a resource ({kind})",
        "A resource belongs into getChild, putChild or `resource`; "
        "or write return {kind}(...).render(request).",
    ),
    (_is(BaseException), "an exception ({kind})", "Write raise {kind}(...)."),
    (
        _is(PurePath),
        "a path",
        'Write return path.read_text(encoding="utf-8"), or return path.read_bytes().',
    ),
    (
        lambda value: type(value).__name__ == "Deferred",
        "a Deferred",
        "Write `async def`, and await in it; trio takes the place of Twisted's reactor.",
    ),
    (
        _is_foreign_response,
        "a {kind} of {package}",
        "Write return Response(body, status) with rpyserve's own Response.",
    ),
    # Tables, figures, pictures and records, which have a method that gives what can be sent
    (_class_has_method("to_html"), "{article} {kind}", "Write return it.to_html()."),
    (
        _class_has_method("savefig"),
        "{article} {kind}",
        _SAVED.format('savefig(file, format="png")'),
    ),
    (
        _class_has_method("_repr_png_"),
        "{article} {kind}",
        _SAVED.format('save(file, format="png")'),
    ),
    (
        _class_has_method("tolist"),
        "{article} {kind}",
        "Write return it.tolist(): a list is sent as JSON.",
    ),
    (
        _class_has_method("model_dump"),
        "{article} {kind}",
        'Write return it.model_dump(mode="json"): a dict is sent as JSON.',
    ),
    (_class_has_method("_repr_html_"), "{article} {kind}", "Write return it._repr_html_()."),
    (_class_has_method("isoformat"), "{article} {kind}", "Write return it.isoformat()."),
    (
        lambda value: dataclasses.is_dataclass(type(value)),
        "{article} {kind}",
        "Write return dataclasses.asdict(it): a dict is sent as JSON.",
    ),
    (_has_method("getvalue"), "a {kind}", "Write return it.getvalue()."),
    (
        _has_method("read"),
        "an open file ({kind})",
        "Write return file.read(), and close the file (`with open(...) as file:`).",
    ),
    (
        lambda value: hasattr(value, "__next__") or isinstance(value, range),
        "an iterator ({kind})",
        _JSON_OR_TEXT.format("list(...)"),
    ),
)


def describe_wrong_result(value: Any, request: Request, resource: Resource) -> str:
    """Say what is wrong with *value*, which *resource* returned for *request*."""
    method = _method_name(request, resource)
    kind = type(value)
    name = getattr(value, "__name__", "")
    article = "an" if kind.__name__[:1].lower() in "aeiou" else "a"
    package = _package_of(kind)
    names = {"name": name, "kind": kind.__name__, "package": package, "article": article}
    for applies, returned, advice in _EXPLANATIONS:
        if applies(value):
            if inspect.iscoroutine(value):
                value.close()  # nothing will await it
            text = f"returned {returned}. {advice}"
            return f"{method} {text.format(value=value, **names)}"
    returned = f"{article} {kind.__name__}, which cannot be sent"
    return f"{method} returned {returned}. {ALLOWED_RESULTS}"


def render_method(request: Request, resource: Resource) -> object:
    """Return the function by which *resource* answered *request*; None if that is not known."""
    if isinstance(resource, FunctionResource):
        return resource.function
    kind = type(_of_author(resource))
    if _overrides_render(kind):
        return kind.render
    method = getattr(kind, f"render_{request.method}", None)
    return getattr(kind, "render_GET", None) if method is None else method


def _of_author(resource: Any) -> Any:
    return resource.wrapped if isinstance(resource, ForeignResource) else resource


def _overrides_render(kind: Any) -> bool:
    return getattr(kind.render, "__module__", "") not in _RENDERS


_RENDERS: Final = (Resource.render.__module__, "twisted.web.resource")
"""Where the methods ``render`` are that call ``render_GET`` and its like."""


def app_kind(value: object) -> str | None:
    """Return what application of another framework *value* is, in words; None if it is none."""
    if isinstance(value, ModuleType) or not callable(value):
        return None
    for base in type(value).__mro__:
        if _package_of(base) in _FRAMEWORKS:
            return _FRAMEWORKS[_package_of(base)]
    if inspect.isclass(value):
        return None
    try:
        return _APP_SIGNATURES.get(tuple(inspect.signature(value).parameters))
    except (TypeError, ValueError):
        return None


def _method_name(request: Request, resource: Resource) -> str:
    if isinstance(resource, FunctionResource):
        return f"{getattr(resource.function, '__name__', 'resource')}()"
    kind, method = type(_of_author(resource)), request.method
    if _overrides_render(kind):
        return f"{kind.__name__}.render"
    if method == "HEAD" and not hasattr(kind, "render_HEAD"):
        method = "GET"
    return f"{kind.__name__}.render_{method}"


def _package_of(kind: type) -> str:
    return kind.__module__.partition(".")[0]
