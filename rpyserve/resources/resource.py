"""The resource tree: `Resource`, its children, and the walk from a site's root to the one that answers.

Names and behaviour are Twisted Web's (``twisted.web.resource``). Nothing here knows of files, scripts or
connections; what a render method returns is `rendering`'s business.

A resource around another one: asked first, for every request to it and to all that is below it.

What guards, and what adds headers, is a `Wrapper`. It takes no segment of the path for itself, and leaves the body
unread until it has let the request pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request

__all__ = ["Around", "FunctionResource", "Resource", "Wrapper", "as_resource", "texts", "traverse"]


_NO_CHILDREN: dict[str, Resource] = {}


class Resource:
    """Something at a URL. Subclass it and write ``render_GET(self, request)``, ``render_POST``, ...

    A subclass need not call ``Resource.__init__``.

    Attributes:
        isLeaf: True if this resource takes all path segments that are left (they are in ``request.postpath``)
            instead of looking for a child.
        children: what `putChild` has put in, by name.

    "Twisted Web in 60 seconds": static URL dispatch, dynamic URL dispatch, generated pages.
    """

    isLeaf = False
    wants_body = True
    """Whether the walk reads the request's body before this resource's `getChild` or `render` is called."""

    children: dict[str, Resource] = _NO_CHILDREN

    def putChild(self, path: str | bytes, child: Any) -> None:
        """Put *child* at the URL segment *path* below this resource.

        Args:
            path: one decoded segment, without a slash; the empty one is what ``/here/`` names.
            child: a `Resource`, or a function of the request.

        Raises:
            ValueError: there is a slash in *path*.
            TypeError: *child* cannot be served.
        """
        name = path.decode() if isinstance(path, bytes) else path
        if "/" in name:
            raise ValueError(
                f"putChild() takes one path segment, and {name!r} has a slash in it; "
                "put a Resource at the first part, and the child into that"
            )
        if self.children is _NO_CHILDREN:
            self.children = {}
        self.children[name] = as_resource(child)

    def getChild(self, name: str, request: Request) -> Any:
        """Return the resource for the next URL segment. Override it for children that are made on demand.

        Args:
            name: the decoded segment; empty if the URL ends in a slash.
            request: its ``prepath`` ends with *name*, its ``postpath`` holds what is left.

        Raises:
            HTTPError: 404, there is no such child.
        """
        if not name and request.prepath == [""] and _answers(self):
            return self  # "/" is the only URL that a site's root has
        raise HTTPError(404, private=_nothing_after(request))

    def getChildWithDefault(self, name: str, request: Request) -> Any:
        """Return the child that was put at *name*, else what `getChild` gives."""
        child = self.children.get(name)
        return self.getChild(name, request) if child is None else child

    def error_page(self, status: int, request: Request) -> Resource | None:
        """Return the resource that makes the page for *status*, asked of a site's root; None for rpyserve's own page.

        Args:
            status: 404: the only one that is asked for.
            request: the request that has no other answer.
        """
        return None

    def render(self, request: Request) -> Any:
        """Answer *request*: call ``render_GET`` or the like. HEAD falls back to GET; its body is not sent.

        Returns:
            str, bytes, dict, list, `Response`, `Redirect`, a generator, an async generator, a coroutine that
            returns one of these, or `NOT_DONE_YET`.

        Raises:
            HTTPError: 405 with ``Allow`` if there is no method of that name (RFC 9110, section 15.5.6).
        """
        method = request.method
        handler = getattr(self, "render_" + method, None)
        if handler is None and method == "HEAD":
            handler = getattr(self, "render_GET", None)
        if handler is None:
            raise _not_allowed(self, method)
        return handler(request)


class Around(Resource):
    """A resource that takes no part in the walk, but says which one does: see `wrapping`."""

    async def inside(self, request: Request) -> Resource:
        """Return the resource that takes its place for *request*, or raise."""
        raise NotImplementedError


class FunctionResource(Resource):
    """A plain or async function of the request, as a resource: it answers GET, HEAD and POST."""

    def __init__(self, function: Callable[[Request], Any]) -> None:
        self.function = function

    def render_GET(self, request: Request) -> Any:
        return self.function(request)

    render_POST = render_GET


def as_resource(thing: Any) -> Resource:
    """Return *thing* as a resource: itself, or a function wrapped into one.

    Raises:
        TypeError: it is neither, with the line to write instead.
    """
    if isinstance(thing, Resource):
        return thing
    if inspect.isclass(thing):
        raise TypeError(
            f"this is the class {thing.__name__}, not an instance of it: write {thing.__name__}()"
        )
    if inspect.isroutine(thing):
        return FunctionResource(thing)
    raise TypeError(
        f"a resource is a Resource instance or a function of the request, not {thing!r:.80}"
    )


async def traverse(root: Resource, request: Request) -> Resource:
    """Walk from *root* along the request's path to the resource that answers.

    Raises:
        HTTPError: 404 where the path leads nowhere, 413 for too large a body.
        Disconnected: the client went away within its body.
    """
    if "\x00" in request.path or not _is_text(request.path):
        raise HTTPError(404, private="The path holds a NUL byte, or bytes that are no UTF-8.")
    resource = root
    while True:
        if isinstance(resource, Around):
            resource = await resource.inside(request)
            continue
        if resource.isLeaf or not request.postpath:
            break
        if (
            request.has_body
            and resource.wants_body
            and type(resource).getChild is not Resource.getChild
        ):
            await request.load_body(raw=True)  # what is below may want it as it is
        name = request.postpath.pop(0)
        request.prepath.append(name)
        child = resource.getChildWithDefault(name, request)
        if inspect.iscoroutine(child):
            child = await child
        if not isinstance(child, Resource):
            child = _adopted(child, resource)
        resource = child
    if resource.wants_body and request.has_body:
        await request.load_body()
    return resource


def _adopted(child: Any, parent: Resource) -> Resource:
    try:
        return as_resource(child)
    except TypeError as exc:
        raise TypeError(
            f"{type(parent).__name__}.getChild() returned {child!r:.80}: return a Resource, or raise HTTPError(404)"
        ) from exc


def _is_text(path: str) -> bool:
    return path.isascii() or not any("\ud800" <= char <= "\udfff" for char in path)


def _nothing_after(request: Request) -> str:
    """Why a page without children is not the answer, and which URL it has itself."""
    above = "/" + "/".join(filter(None, request.prepath[:-1]))
    return f"Nothing comes after {above} in this URL: try {above}" if above != "/" else ""


def _answers(resource: Resource) -> bool:
    """Whether *resource* is a page, not a mere branch of the tree."""
    return (
        hasattr(resource, "render_GET")
        or type(resource).render is not Resource.render
        or bool(_methods(resource))
    )


def _methods(resource: Resource) -> list[str]:
    names = {
        name[7:] for name in dir(resource) if name.startswith("render_") and name[7:].isupper()
    }
    return sorted(names | {"HEAD"} if "GET" in names else names)


def _not_allowed(resource: Resource, method: str) -> HTTPError:
    allowed = _methods(resource)
    if not allowed:
        return HTTPError(404)  # a mere branch of the tree
    wanted = ("render" + method).lower()
    near = [name for name in dir(resource) if name.replace("_", "").lower() == wanted]
    private = f"It has a method {near[0]}: the name must be render_{method}." if near else ""
    return HTTPError(
        405,
        f"This page answers {', '.join(allowed)}.",
        {"Allow": ", ".join(allowed)},
        private=private,
    )


class Wrapper(Around):
    """Override `enter`.

    Args:
        resource: what is inside: a `Resource`, such as a `Directory`, or a function of the request.

    Raises:
        TypeError: it can be none.
    """

    wants_body = False

    def __init__(self, resource: Any) -> None:
        self.wrapped = as_resource(resource)

    def enter(self, request: Request) -> Any:
        """Return None to let *request* pass, a `Resource` to have that answer instead, or raise. May be async."""
        raise NotImplementedError

    def error_page(self, status: int, request: Request) -> Resource | None:
        """The inner one's."""
        return self.wrapped.error_page(status, request)

    async def inside(self, request: Request) -> Resource:
        """Ask `enter`."""
        instead = self.enter(request)
        if inspect.isawaitable(instead):
            instead = await instead
        return self.wrapped if instead is None else instead

    async def render(self, request: Request) -> Any:
        """Answer with the inner one, for a resource that calls this itself instead of being walked through."""
        resource = await self.inside(request)
        if resource.wants_body and request.has_body:
            await request.load_body()
        result = resource.render(request)
        return await result if inspect.isawaitable(result) else result


def texts(given: str | Iterable[str]) -> list[str]:
    """Return one text, or several, as a list."""
    return [given] if isinstance(given, str) else list(given)
