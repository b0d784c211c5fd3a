"""One request, as a script sees it.

A protocol makes a `Request` from values, and puts two capabilities on it: the body, as chunks that come in, and
`client_left`. It knows nothing of sockets. What the body holds is `receiving`'s business, and what a script says about
its answer is noted in `answering`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import trio

from rpyserve.answering import Answering
from rpyserve.asked import Fields
from rpyserve.cookies import read_cookies
from rpyserve.receiving import Receiving

if TYPE_CHECKING:
    from rpyserve.session import Session
    from rpyserve.site import Site

__all__ = ["Address", "Request", "current_request"]

Address = tuple[str, int]
"""An IP address and a port."""

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")


_current: ContextVar[Request | None] = ContextVar("current request", default=None)


def current_request() -> Request | None:
    """Return the request that the running code answers, if it has asked that request for its session; else None."""
    return _current.get()


async def _never() -> None:
    await trio.sleep_forever()


def _ignored(exc: BaseException) -> None:
    pass


class Request(Receiving, Answering):
    """What the client asked, and what the script wants to say besides the body that it returns.

    Attributes:
        method: ``"GET"``, ``"POST"``, ...
        uri: the request target as it was sent, such as ``"/a%20b?x=1"``.
        path: the path without the query, decoded: ``"/a b"``.
        query: what follows the first ``?``, as it was sent.
        prepath: the decoded path segments that led to this resource.
        postpath: the decoded segments that are left over for it.
        client: the client's IP address and port.
        server: the address and port that the client connected to.
        scheme: ``"http"`` or ``"https"``.
        content: the whole body as a binary file, at its start; a multipart form is in `args` and `files` instead.
        site: the `Site` that answers.
        user: the name that a `BasicAuth` around this resource has let pass; else None.
        sources: the files and directories, as absolute paths, that the answer depends on as far as is known.
        logged: whether the answer gets a line in the access log.
        moment: the round of the server's loop in which it was taken up; see `rounds`.
        on_failure: called with what a script has raised for this request, before a page is made of it.

    The names are Twisted Web's (``IRequest``); texts are `str`.
    """

    site: Site
    user: str | None = None

    def __init__(
        self,
        method: str,
        uri: str,
        headers: Iterable[tuple[bytes, bytes]] = (),
        *,
        http_version: str = "1.1",
        client: Address = ("127.0.0.1", 0),
        server: Address = ("127.0.0.1", 8080),
        scheme: str = "http",
        body: AsyncIterable[bytes] | None = None,
        client_left: Callable[[], Awaitable[None]] = _never,
        moment: object | None = None,
    ) -> None:
        self.method = method
        self.uri = uri
        self.raw_headers = headers if isinstance(headers, Fields) else Fields(headers)
        self.http_version = http_version
        self.client = client
        self.server = server
        self.scheme = scheme
        self.client_left = client_left
        self.moment = moment
        absolute = _ABSOLUTE.match(uri) if not uri.startswith("/") else None
        raw_path, _, self.query = (uri[absolute.end() :] if absolute else uri).partition("?")
        self.raw_path = raw_path or "/"
        self.path = _decode(self.raw_path)
        self.prepath: list[str] = []
        self.postpath = [_decode(segment) for segment in self.raw_path.split("/")[1:]]
        self.sources: list[str] = []
        self.logged = True
        self._session: Session | None = None
        self.on_failure: Callable[[BaseException], object] = _ignored
        self._closers: list[Callable[[], object]] = []
        self.closed = False
        Receiving.__init__(self, body)
        Answering.__init__(self)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"

    # What the client sent

    def getHeader(self, name: str | bytes) -> str | None:
        """Return the value of the request header *name*, or None.

        Letter case does not matter. If the header was sent more than once, the values are joined with commas, as
        RFC 9110, section 5.3 has it; cookies with semicolons.
        """
        wanted = (name.encode("latin-1") if isinstance(name, str) else name).lower()
        value = self.raw_headers.values.get(wanted)
        return None if value is None else value.decode("latin-1")

    @cached_property
    def cookies(self) -> dict[str, str]:
        """The cookies that came with the request, by name; of two with one name the first counts (RFC 6265, 5.4)."""
        return read_cookies(self.getHeader("cookie") or "")

    def getCookie(self, name: str) -> str | None:
        """Return the value of the cookie *name*, or None."""
        return self.cookies.get(name)

    def getUser(self) -> str:
        """Return the user name that was sent for HTTP authentication, checked or not; empty if there is none."""
        return self._credentials[0]

    def getPassword(self) -> str:
        """Return the password that was sent for HTTP authentication; empty if there is none."""
        return self._credentials[1]

    @property
    def _credentials(self) -> tuple[str, str]:
        from rpyserve.auth import credentials  # which is built on this module

        return credentials(self) or ("", "")

    def getSession(self, sessionInterface: Any = None) -> Any:
        """Return the visitor's `Session`, made on first use. Counts as an access: the session lives on.

        Args:
            sessionInterface: if given, return the session's component for this interface instead (None if there is
                no adapter).

        "Twisted Web in 60 seconds": session basics.
        """
        session = self._session
        if session is None or not session.touch():
            session = self._session = self.site.session_for(self)
        _current.set(self)
        return session if sessionInterface is None else sessionInterface(session, None)

    @property
    def session(self) -> Session | None:
        """The session that this request has used so far, if any; looking at it is no access."""
        return self._session

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run ``function(*args)``, an async function, beside this request, until its response has ended.

        What it raises ends a response that waits for `finish`; else it is told on the console.

        Raises:
            TypeError: *function* is no async function.
            RuntimeError: the response has ended already.
        """
        if self.closed:
            raise RuntimeError("request.start_soon(): the response has ended; for longer work, use site.background(f)")
        self.site.request_tasks.start(self, function, args)

    # For the layers around the script

    def on_close(self, closer: Callable[[], object]) -> None:
        """Have *closer* called when the response has been sent or given up."""
        self._closers.append(closer)

    def close(self) -> None:
        """Let go of what this request held: its body's file, and what others left with `on_close`."""
        self.closed = True
        if self._session is not None:
            _current.set(None)  # or the connection would keep this request until the next
        closers = self._closers
        try:
            while closers:
                closers.pop()()
        finally:
            if closers:  # one that fails must not keep the others
                self.close()


def _decode(raw: str) -> str:
    """Percent-decode once. What is no UTF-8 becomes surrogates, which name no file and no child."""
    if "%" not in raw and raw.isascii():
        return raw
    return unquote_to_bytes(raw.encode("latin-1", "replace")).decode("utf-8", "surrogateescape")
