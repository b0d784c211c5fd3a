"""Our tree as a genuine resource: what ``request.site.resource`` is.

A virtual host of Twisted's begins there anew. For Twisted it is a leaf, so that the walk through it
is ours.
"""

from __future__ import annotations

from typing import Any

from twisted.web.resource import IResource
from zope.interface import implementer

from rpyserve.resources.resource import Resource


@implementer(IResource)
class SiteTree:
    """The whole tree of a site, as a genuine resource: what ``request.site.resource`` is.

    Args:
        root: the site's root.
    """

    isLeaf = True

    def __init__(self, root: Resource) -> None:
        self.root = root

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        """Return the tree itself, with *name* still to be looked for."""
        request.postpath.insert(0, request.prepath.pop())
        return self

    def putChild(self, path: Any, child: Any) -> None:
        """Put *child* at *path* below the root."""
        self.root.putChild(path, child)

    def render(self, request: Any) -> Any:
        raise TypeError("the tree of a site is rendered by rpyserve: return it from getChild")
