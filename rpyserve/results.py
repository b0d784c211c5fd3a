"""What to say to the author of a render method that returned something that cannot be sent.

One sentence that names the method, and the line to write instead.
"""

from __future__ import annotations

import inspect
from pathlib import PurePath
from typing import Any, Final

from rpyserve.nearmiss import app_kind
from rpyserve.resource import FunctionResource, Resource

__all__ = ["for_result", "method_of"]

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
        extra = " If 1 stood for NOT_DONE_YET: write `from rpyserve import NOT_DONE_YET`." if value == 1 else ""
        return f"the number {value}", f"Write return str({value!r}).{extra}"
    if inspect.isclass(value):
        return f"the class {value.__name__}, not an instance of it", f"Write return {value.__name__}(...)."
    if inspect.isroutine(value):
        call = f"await {value.__name__}(...)" if inspect.iscoroutinefunction(value) else f"{value.__name__}(...)"
        return f"the function {value.__name__} without calling it", f"Write return {call}."
    if inspect.iscoroutine(value):
        value.close()
        return f"a coroutine of {value.__name__} that nobody awaited", f"Write return await {value.__name__}(...)."
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
        return "a path", 'Write return path.read_text(encoding="utf-8"), or return path.read_bytes().'
    if isinstance(value, (set, frozenset)):
        return "a set", "Write return sorted(...): a list is sent as JSON."
    if kind.__name__ == "Deferred":
        return "a Deferred", "Write `async def`, and await in it; trio takes the place of Twisted's reactor."
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
        return f"an iterator ({kind.__name__})", 'Write return "".join(...) for text, or return list(...) for JSON.'
    return None


def _shown(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
