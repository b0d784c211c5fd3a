"""The resource tree: `Resource`, its children, and the walk to the one that answers.

Names and behaviour are Twisted Web's (``twisted.web.resource``). This module must not know files,
scripts or connections; what a render method returns is the business of `rendering`.

A `Wrapper` stands around another resource and is asked before it, for every request to it and to
all that is below it. It takes no segment of the path, and leaves the body unread until it has let
the request pass.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from rpyserve._names import public
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import Response

# The methods that pages usually have.
HTTP_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")

# Matches the methods that have a render method; other names of methods may be those of helpers.
_METHOD: Final = re.compile("[A-Z]+")

# The children of all resources that have none: a subclass need not call ``Resource.__init__``.
_NO_CHILDREN: Final[dict[str, Resource]] = {}


MOST_WAITS: Final = 5
"""How often `traverse` waits for a child; once for each edit that is made meanwhile."""


class NotReady(BaseException):
    """Raised by `getChild` where something takes long that must be done before.

    That is for `traverse` only, which says by ``request._may_wait`` that it waits and asks again.

    Args:
        wait: returns when it is done.
    """

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.wait = wait


@public
class Resource:
    """Something at a URL. Subclass it and write ``render_GET(self, request)``, ``render_POST``, ...

    A subclass need not call ``Resource.__init__``.

    Attributes:
        isLeaf: True if this resource takes all path segments that are left (they are in
            ``request.postpath``) instead of looking for a child.
        children: what `putChild` has put in, by name.

    "Twisted Web in 60 seconds": static URL dispatch, dynamic URL dispatch, generated pages.
    """

    isLeaf = False

    # Whether the request's body is read before `getChild` or `render` is called.
    _wants_body = True

    # Whether the visitor's session and the registry may be asked for while it is rendered. Matters
    # where they are kept outside of the process: then they are fetched before. Of what a script
    # leaves it is known from its code.
    _wants_session = True

    children: dict[str, Resource] = _NO_CHILDREN

    def putChild(self, path: str | bytes, child: Any) -> None:
        """Put *child* at the URL segment *path* below this resource.

        Args:
            path: one decoded segment, without a slash; the empty one is what ``/here/`` names.
            child: a `Resource`, a function of the request, or a resource of Twisted's.

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
        """Return the resource for the next URL segment. Override it to make children on demand.

        Args:
            name: the decoded segment; empty if the URL ends in a slash.
            request: its ``prepath`` ends with *name*, its ``postpath`` holds what is left.

        Raises:
            HTTPError: 404, there is no such child.
        """
        if not name and request.prepath == [""] and _can_answer(self):
            return self  # "/" is the only URL that a site's root has
        raise HTTPError(404, private=_no_children_hint(request))

    def getChildWithDefault(self, name: str, request: Request) -> Any:
        """Return the child that was put at *name*, else what `getChild` gives."""
        child = self.children.get(name)
        return self.getChild(name, request) if child is None else child

    def error_page(self, status: int, request: Request) -> Resource | None:
        """Return the resource that makes the page for *status*, or None for rpyserve's own page.

        Only a site's root is asked, and only for 404: every other error has rpyserve's page.

        Args:
            status: 404.
            request: the request that has no other answer.
        """
        return None

    def render(self, request: Request) -> Any:
        """Answer *request*: call ``render_GET`` or the like.

        HEAD falls back to GET; its body is not sent. Without a ``render_OPTIONS``, the answer to
        OPTIONS is a 204 with ``Allow`` (RFC 9110, section 9.3.7). Methods are letters A to Z only.

        Returns:
            str, bytes, dict, list, `Response`, `Redirect`, a generator, an async generator, a
            coroutine that returns one of these, or `NOT_DONE_YET`.

        Raises:
            HTTPError: 405 with ``Allow`` if there is no method of that name (RFC 9110, section
                15.5.6).
        """
        method = request.method
        handler = _render_method(self, method)
        if handler is None and method == "HEAD":
            handler = _render_method(self, "GET")
        if handler is not None:
            return handler(request)
        allowed = _allowed_methods(self)
        if method == "OPTIONS" and allowed:
            return options_response(allowed)
        raise _method_not_allowed(self, method, allowed)


class FunctionResource(Resource):
    """A plain or async function of the request, as a resource.

    It answers GET, HEAD and POST.
    """

    def __init__(self, function: Callable[[Request], Any]) -> None:
        self.function = function

    def render_GET(self, request: Request) -> Any:
        return self.function(request)

    render_POST = render_GET


class Wrapper(Resource):
    """A resource around another one. Override `enter`.

    Args:
        resource: what is inside: a `Resource`, such as a `Directory`, or a function of the request.

    Raises:
        TypeError: *resource* cannot be served.
    """

    _wants_body = False

    def __init__(self, resource: Any) -> None:
        self.wrapped = as_resource(resource)

    def enter(self, request: Request) -> Any:
        """Return None to let *request* pass, or a `Resource` to answer instead. May be async."""
        raise NotImplementedError

    def inner(self) -> list[Resource]:
        """Return the resources that this one may let a request pass to."""
        return [self.wrapped]

    async def unwrap(self, request: Request) -> Resource:
        """Return the resource that takes the place of this one for *request*."""
        instead = self.enter(request)
        if inspect.isawaitable(instead):
            instead = await instead
        return self.wrapped if instead is None else instead

    def error_page(self, status: int, request: Request) -> Resource | None:
        return self.wrapped.error_page(status, request)

    async def render(self, request: Request) -> Any:
        """Answer with the inner resource, for callers that render this one without a walk."""
        resource = await self.unwrap(request)
        await _load_body_for(resource, request)
        result = resource.render(request)
        return await result if inspect.isawaitable(result) else result


class ForeignResource(Resource):
    """Another library's resource, and all that is below it, at a place of the tree.

    Args:
        wrapped: that resource.
    """

    isLeaf = True
    _wants_body = False

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped

    async def descend(self, request: Request) -> Resource:
        """Walk through what is below, and return the resource that answers *request*.

        It has loaded the body as it needs it.
        """
        raise NotImplementedError

    def render(self, request: Request) -> Any:
        """Answer with what `descend` finds, for callers that render this one without a walk."""
        return self._render_below(request)

    async def _render_below(self, request: Request) -> Any:
        result = (await self.descend(request)).render(request)
        return await result if inspect.isawaitable(result) else result


@dataclass(frozen=True, slots=True)
class Library:
    """Another library whose resources can be served.

    Args:
        base: the class of its resources that scripts inherit from.
        convert: returns a `ForeignResource` for what is a resource of the library, by whatever
            class; None for what is none.
    """

    base: type
    convert: Callable[[Any], Resource | None]


libraries: dict[str, Library] = {}
"""The libraries that are there, by their names."""


def foreign_resource(thing: Any) -> Resource | None:
    """Return what serves *thing* if it is a resource of another library; else None."""
    if "twisted.web.resource" in sys.modules and "twisted" not in libraries:
        # A program has imported it itself. Scripts, which look after that, are above this package.
        import_module("rpyserve.scripts.twisted_names").complete_loaded()
    found = (library.convert(thing) for library in libraries.values())
    return next((resource for resource in found if resource is not None), None)


def base_class_of(cls: type) -> type | None:
    """Return the class ``Resource``, ours or another library's, of which *cls* is a subclass."""
    bases = (Resource, *(library.base for library in libraries.values()))
    return next((base for base in bases if issubclass(cls, base)), None)


def as_resource(thing: Any) -> Resource:
    """Return *thing* as a resource: itself, or a function or another library's resource wrapped.

    Raises:
        TypeError: it is neither, with the line to write instead.
    """
    if isinstance(thing, Resource):
        return thing
    if inspect.isclass(thing):
        name = thing.__name__
        raise TypeError(f"this is the class {name}, not an instance of it: write {name}()")
    if inspect.isroutine(thing):
        return FunctionResource(thing)
    resource = foreign_resource(thing)
    if resource is not None:
        return resource
    raise TypeError(
        f"a resource is a Resource instance or a function of the request, not {thing!r:.80}"
    )


def as_list(given: str | Iterable[str]) -> list[str]:
    """Return one text, or several, as a list."""
    return [given] if isinstance(given, str) else list(given)


# The walk


async def traverse(root: Resource, request: Request) -> Resource:
    """Walk from *root* along the request's path to the resource that answers.

    Raises:
        HTTPError: 404 where the path leads nowhere, 413 for too large a body.
        ClientDisconnected: the client went away within its body.
    """
    check_path(request)
    resource = root
    while True:
        if isinstance(resource, Wrapper):
            resource = await resource.unwrap(request)
        elif resource.isLeaf or not request.postpath:
            break
        else:
            resource = await child_of(resource, request)
    if isinstance(resource, ForeignResource):
        return await resource.descend(request)
    await _load_body_for(resource, request)
    return resource


def check_path(request: Request) -> None:
    """Refuse paths that no resource need expect.

    Raises:
        HTTPError: 404.
    """
    if "\x00" in request.path or not _is_unicode(request.path):
        raise HTTPError(404, private="The path contains a NUL byte, or is not valid UTF-8.")


async def child_of(parent: Resource, request: Request) -> Resource:
    """Move one segment from `postpath` to `prepath`, and return the child of that name."""
    if type(parent).getChild is not Resource.getChild:
        # An overridden getChild may look at the body. Below, it may be wanted as it came.
        await _load_body_for(parent, request, raw=True)
    name = request.postpath.pop(0)
    request.prepath.append(name)
    request._may_wait = True
    try:
        child = parent.getChildWithDefault(name, request)
    except NotReady as exc:
        child = _ask_again(parent, name, request, exc)
    finally:
        request._may_wait = False
    if inspect.iscoroutine(child):
        child = await child
    return child if isinstance(child, Resource) else _child_resource(child, parent)


async def _ask_again(parent: Resource, name: str, request: Request, not_ready: NotReady) -> Any:
    for waits_left in reversed(range(MOST_WAITS)):
        await not_ready.wait()
        request._may_wait = waits_left > 0
        try:
            child = parent.getChildWithDefault(name, request)
            break
        except NotReady as exc:
            not_ready = exc
        finally:
            request._may_wait = False
    return await child if inspect.iscoroutine(child) else child


def _child_resource(child: Any, parent: Resource) -> Resource:
    try:
        return as_resource(child)
    except TypeError as exc:
        raise TypeError(
            f"{type(parent).__name__}.getChild() returned {child!r:.80}: "
            "return a Resource, or raise HTTPError(404)"
        ) from exc


def raw_path_segments(request: Request) -> tuple[list[str], list[str]]:
    """Return the segments of the path, as sent, that have led to a leaf, and those left over.

    The slash of a directory counts as left over: it is the business of what is mounted there.
    """
    segments = request.raw_path.split("/")[1:]
    count = len(request.prepath)
    if request.prepath[-1:] == [""]:
        count -= 1
    return segments[:count], segments[count:]


async def _load_body_for(resource: Resource, request: Request, *, raw: bool = False) -> None:
    if resource._wants_body and request.has_body:
        await request.load_body(raw=raw)


def _is_unicode(path: str) -> bool:
    return path.isascii() or not any("\ud800" <= char <= "\udfff" for char in path)


# What a resource cannot do, and why


def _no_children_hint(request: Request) -> str:
    """Why a page without children is not the answer, and which URL it has itself."""
    parent = "/" + "/".join(filter(None, request.prepath[:-1]))
    return f"There are no pages below {parent}: try {parent}" if parent != "/" else ""


def _can_answer(resource: Resource) -> bool:
    """Whether *resource* is a page, not a mere branch of the tree."""
    overrides_render = type(resource).render is not Resource.render
    return overrides_render or bool(_allowed_methods(resource))


def options_response(methods: Iterable[str]) -> Response:
    """Return the answer to OPTIONS for what supports *methods*."""
    return Response(b"", 204, {"Allow": ", ".join(methods)})


def _render_method(resource: Resource, method: str) -> Callable[[Request], Any] | None:
    if not _METHOD.fullmatch(method):
        return None
    found = getattr(resource, "render_" + method, None)
    return found if callable(found) else None


def _allowed_methods(resource: Resource) -> list[str]:
    """Return the methods that *resource* supports; none if it is a mere branch of the tree."""
    names = {name.removeprefix("render_") for name in dir(resource)}
    methods = {name for name in names if _render_method(resource, name)}
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods | {"OPTIONS"}) if methods else []


def _method_not_allowed(resource: Resource, method: str, allowed: list[str]) -> HTTPError:
    if not allowed:
        return HTTPError(404)
    wanted = f"render{method}".lower()
    misspelt = [name for name in dir(resource) if name.replace("_", "").lower() == wanted]
    private = ""
    if misspelt and _METHOD.fullmatch(method):
        private = f"It has a method {misspelt[0]}: the name must be render_{method}."
        if misspelt[0] == f"render_{method}":
            private = f"Its {misspelt[0]} is no method."
    listed = ", ".join(allowed)
    return HTTPError(405, f"This page only supports {listed}.", {"Allow": listed}, private=private)
