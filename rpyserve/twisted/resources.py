"""Genuine resources in our tree, and our tree in theirs.

Owns the walk through genuine resources: from the first of them, at a path of ours, to the one that
answers. If that is a resource of ours, which a genuine one has for a child, our own walk goes on
from there.

Must not import ``twisted.web.server`` before it is needed: that imports the module that is adopted
here.
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any

from twisted.web.resource import IResource

from rpyserve.http.request import Request
from rpyserve.resources.resource import (
    ForeignResource,
    Library,
    Resource,
    as_resource,
    libraries,
    traverse,
)
from rpyserve.twisted.texts import encoded
from rpyserve.twisted.tree import SiteTree

if TYPE_CHECKING:
    from rpyserve.twisted.requests import HostedRequest


def adopt(module: Any) -> None:
    """Have *module*, which is ``twisted.web.resource``, take `str`, and its resources count."""
    genuine = module.Resource.putChild

    @wraps(genuine)
    def putChild(self: Any, path: Any, child: Any) -> None:
        genuine(self, encoded(path), child)

    module.Resource.putChild = putChild
    libraries["twisted"] = Library(module.Resource, genuine_resource)


def genuine_resource(thing: Any) -> Resource | None:
    """Return a resource of ours for what is, or adapts to, Twisted's ``IResource``; else None."""
    if inspect.isclass(thing):
        return None
    found = thing if IResource.providedBy(thing) else IResource(thing, None)
    if isinstance(found, SiteTree):
        return found.root
    return None if found is None else GenuineResource(found)


class GenuineResource(ForeignResource):
    """A genuine resource, and all that is below it, at a place of our tree."""

    async def descend(self, request: Request) -> Resource:
        """Return what answers *request*: a `GenuinePage`, or a resource of ours.

        Raises:
            HTTPError: see `traverse`.
            TypeError: a genuine resource has a child that cannot be served.
        """
        from rpyserve.twisted.requests import hosted_request

        await request.load_body(raw=True)
        hosted = hosted_request(request)
        found = _walk(self.wrapped, hosted)
        if hosted.uri != request.uri:  # a virtual host of Twisted's has changed it
            request.uri = _decoded(hosted.uri)
            request.raw_path, request.path = request.uri.partition("?")[0], _decoded(hosted.path)
        request.prepath = [_decoded(name) for name in hosted.prepath]
        request.postpath = [_decoded(name) for name in hosted.postpath]
        if isinstance(found, Resource):
            return await traverse(found, request)
        return GenuinePage(found, hosted)


class GenuinePage(ForeignResource):
    """The genuine resource that answers one request."""

    def __init__(self, wrapped: Any, hosted: HostedRequest) -> None:
        super().__init__(wrapped)
        self._hosted = hosted

    async def descend(self, request: Request) -> Resource:
        return self

    def render(self, request: Request) -> Any:
        from rpyserve.twisted.channel import answer

        return answer(self._hosted, self.wrapped)


def _walk(resource: Any, request: HostedRequest) -> Any:
    """The resource that answers *request*, or the first of ours on the way there.

    As ``twisted.web.resource.getChildForRequest``.
    """
    while request.postpath and not resource.isLeaf:
        name = request.postpath.pop(0)
        request.prepath.append(name)
        parent, resource = resource, resource.getChildWithDefault(name, request)
        if isinstance(resource, SiteTree):
            return resource.root
        if not IResource.providedBy(resource):
            return _child(parent, resource)
    return resource


def _child(parent: Any, child: Any) -> Any:
    try:
        found = as_resource(child)
    except TypeError as exc:
        raise TypeError(
            f"{type(parent).__name__}.getChild() returned {child!r:.80}: return a Resource"
        ) from exc
    return found


def _decoded(name: bytes) -> str:
    return bytes(name).decode("utf-8", "surrogateescape")
