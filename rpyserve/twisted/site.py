"""The genuine ``Site`` of a site of ours: what ``request.site`` is in a genuine resource.

Its ``resource`` is our tree, its ``sessions`` are our sessions, and its ``sessionFactory`` is the
author's to set. A program may have made it; for scripts it is made here.
"""

from __future__ import annotations

from typing import Any

from twisted.web import server

from rpyserve.http.request import Request, RequestSite
from rpyserve.twisted.sessions import GenuineSessions
from rpyserve.twisted.tree import SiteTree
from rpyserve.util.author_code import ServerObject
from rpyserve.util.exceptions import reporting_errors


class Hosting:
    """What a site of ours has of Twisted.

    Args:
        native: the site of ours.
        site: the genuine ``Site``; None for one whose ``resource`` is our tree.

    Attributes:
        site: the genuine ``Site``.
        sessions: the genuine sessions.
    """

    def __init__(self, native: Any, site: Any = None) -> None:
        self._native = native
        self.site = SiteOfScripts(native.root) if site is None else site
        self.sessions = GenuineSessions(native, self.site)
        self.site.sessions = self.sessions

    def report(self, request: Request, exc: BaseException) -> None:
        """Tell the console of *exc*, a failure of *request* that no page can show any more."""
        what = f"{request.method} {request.path}"
        with reporting_errors(lambda failure: self._native.errors.report_exception(what, failure)):
            raise exc


class SiteOfScripts(server.Site, ServerObject):  # type: ignore[misc]
    """The genuine ``Site`` of a site that a program did not make with Twisted.

    Args:
        root: the root of our tree.
    """

    def __init__(self, root: Any) -> None:
        # Without a reactor, the constructor would install one.
        super().__init__(SiteTree(root), reactor=_NO_REACTOR)
        del self.reactor

    def __getattr__(self, name: str) -> Any:
        """Import Twisted's reactor when somebody asks for it."""
        if name != "reactor":
            raise AttributeError(name, name=name, obj=self)
        from twisted.internet import reactor

        return reactor


_NO_REACTOR = object()


def hosting_of(native: RequestSite) -> Hosting:
    """Return what the site *native* has of Twisted, made when it is first asked for."""
    hosting: Hosting | None = getattr(native, "_hosting", None)
    return use(native) if hosting is None else hosting


def use(native: Any, site: Any = None) -> Hosting:
    """Have *native* serve with *site*, a genuine ``Site``, from now on."""
    hosting: Hosting = Hosting(native, site)
    native._hosting = hosting
    return hosting
