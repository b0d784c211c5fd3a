"""A genuine ``twisted.web.server.Request`` for a request of ours.

Its class is made of that of the site's ``requestFactory`` and of `HostedRequest`, which changes
four things: what comes out of it are `Text`s, it takes `str` where it takes bytes, its sessions are
those of our site, and what fails is raised, so that the page for it is ours.

Twisted fills it in itself, from the head and the body, so ``args`` and ``content`` are as Twisted
has them.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from twisted.web import server
from twisted.web.server import NOT_DONE_YET

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import HTML
from rpyserve.twisted.channel import Channel, exception_of
from rpyserve.twisted.results import refuse_result
from rpyserve.twisted.site import hosting_of
from rpyserve.twisted.texts import Text, as_text, encoded, segments_of

if TYPE_CHECKING:
    from typing import Any as _Genuine  # what it is mixed into has all that Twisted's requests have
else:
    _Genuine = object

_classes: dict[type, type] = {}


class HostedRequest(_Genuine):  # type: ignore[misc]
    """What is ours about a genuine request.

    Attributes:
        native: the request of ours.
    """

    native: Request
    channel: Channel
    args: Any

    # Filled in

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        super().requestReceived(Text(command), Text(path), version)

    def process(self) -> None:
        """Called by Twisted when the request is complete; who answers is decided elsewhere."""
        self.site = self.channel.site
        self.sitepath: list[bytes] = []
        if self.args:
            self.args = {Text(name): list(map(Text, values)) for name, values in self.args.items()}

    def getHeader(self, key: Any) -> Any:
        return as_text(super().getHeader(key))

    def getCookie(self, key: Any) -> Any:
        return as_text(super().getCookie(encoded(key)))

    def getUser(self) -> Any:
        return Text(super().getUser())

    def getPassword(self) -> Any:
        return Text(super().getPassword())

    # Sessions

    def getSession(self, sessionInterface: Any = None, forceNotSecure: bool = False) -> Any:
        """Return the visitor's genuine session, or its component for *sessionInterface*."""
        session = hosting_of(self.native.site).sessions.of_request(self.native)
        return session if sessionInterface is None else session.getComponent(sessionInterface)

    @property
    def session(self) -> Any:
        native = self.native._session
        return None if native is None else hosting_of(self.native.site).sessions.of(native)

    # Rendered

    def render(self, resrc: Any) -> None:
        """Have *resrc* answer; what is no result becomes an exception, not a page of Twisted's."""
        super().render(_Checked(resrc, self))

    def write(self, data: Any) -> None:
        if isinstance(data, str):
            self.say_utf8()
            data = data.encode()
        super().write(data)

    def say_utf8(self) -> None:
        """Say which characters there are, as the script gave text, not bytes."""
        if not self.startedWriting and not self.responseHeaders.hasHeader(b"content-type"):
            self.responseHeaders.setRawHeaders(b"Content-Type", [HTML[1]])

    def processingFailed(self, reason: Any) -> Any:
        """Answer with our page for *reason*, a ``Failure``."""
        self.fail(exception_of(reason))
        return reason

    def fail(self, exc: BaseException) -> None:
        """Give up the answer: its page is that for *exc*, or it is broken off."""
        channel = getattr(self, "channel", None)
        if channel is None:  # it has been answered, or its client has gone
            hosting_of(self.native.site).report(self.native, exc)
            return
        channel.fail(exc)
        if self.producer:
            self.unregisterProducer()
        if not self.finished:
            self.startedWriting = 1  # so that nothing more is written
            self.chunked = 0
            super().finish()


class _Checked:
    """A genuine resource whose results are such that Twisted takes them."""

    def __init__(self, resource: Any, request: Any) -> None:
        self._resource = resource
        self._request = request

    def render(self, request: Any) -> Any:
        result = self._resource.render(request)
        if isinstance(result, bytes) and not request.finished:
            return result
        if isinstance(result, str) and not request.finished:
            request.say_utf8()
            return result.encode()
        if result is NOT_DONE_YET or request.finished:
            return NOT_DONE_YET
        raise refuse_result(result, request.native, self._resource)

    def __repr__(self) -> str:
        return repr(self._resource)


def hosted_request(native: Request) -> Any:
    """Return the genuine request for *native*, whose body has been read. There is only one.

    Raises:
        HTTPError: 400, its form is malformed.
    """
    hosted = native._foreign
    if hosted is None:
        hosted = native._foreign = _new(native)
    hosted.prepath = segments_of(native.prepath)
    hosted.postpath = segments_of(native.postpath)
    return hosted


def _new(native: Request) -> Any:
    site = hosting_of(native.site).site
    channel = Channel(native, site)
    hosted = _make(site.requestFactory, channel)
    hosted.native = native
    for name, value in native.raw_headers:
        hosted.requestHeaders.addRawHeader(name, value)
    hosted.parseCookies()
    hosted.content = native.content
    native.content.seek(0, io.SEEK_END)
    # Paths are those of the site, also where it is below a root path.
    target = native.uri
    if native.root_path:
        _, mark, query = native.uri.partition("?")
        target = f"{native.raw_path}{mark}{query}"
    version = f"HTTP/{native.http_version}".encode()
    hosted.requestReceived(native.method.encode(), target.encode("latin-1", "replace"), version)
    if channel.is_malformed:
        raise HTTPError(400, "The form in the body of this request is malformed.")
    return hosted


def _make(factory: Any, channel: Channel) -> Any:
    if isinstance(factory, type) and issubclass(factory, server.Request):
        return _class_for(factory)(channel)
    hosted = factory(channel)
    hosted.__class__ = _class_for(type(hosted))
    return hosted


def _class_for(genuine: type) -> type:
    found = _classes.get(genuine)
    if found is None:
        found = _classes[genuine] = type(genuine.__name__, (HostedRequest, genuine), {})
    return found
