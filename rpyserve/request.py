"""One request, as a script sees it.

A protocol makes a `Request` from values, and puts two capabilities on it: the body, as chunks that come in, and
`client_left`. It knows nothing of sockets. What a script says about its answer (status, headers, `write`)
is only noted here; `rendering` turns it into a `Response`.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast
from urllib.parse import unquote_to_bytes

import trio

from rpyserve.errors import HTTPError, Redirect
from rpyserve.forms import form_fields, query_fields
from rpyserve.response import encode_header

if TYPE_CHECKING:
    from rpyserve.session import Session
    from rpyserve.site import Site
    from rpyserve.streaming import Pipe

__all__ = ["Address", "Request"]

Address = tuple[str, int]
"""An IP address and a port."""

SPOOL_SIZE: Final = 2**19
"""How many bytes of a body stay in memory; a larger one goes to a temporary file."""

_MISSING: Any = object()
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")


async def _never() -> None:
    await trio.sleep_forever()


class Request:
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
        content: the whole body as a binary file, at its start.
        site: the `Site` that answers.

    The names are Twisted Web's (``IRequest``); texts are `str`.
    """

    site: Site

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
    ) -> None:
        self.method = method
        self.uri = uri
        self.raw_headers = headers if isinstance(headers, list) else list(headers)
        self.http_version = http_version
        self.client = client
        self.server = server
        self.scheme = scheme
        self.client_left = client_left
        self.content: BinaryIO = io.BytesIO()
        absolute = _ABSOLUTE.match(uri) if not uri.startswith("/") else None
        raw_path, _, self.query = (uri[absolute.end() :] if absolute else uri).partition("?")
        self.raw_path = raw_path or "/"
        self.path = _decode(self.raw_path)
        self.prepath: list[str] = []
        self.postpath = [_decode(segment) for segment in self.raw_path.split("/")[1:]]
        self._body = body
        self._session: Session | None = None
        self._closers: list[Callable[[], object]] = []
        # What the script says about its answer, for `rendering`:
        self.code = 200
        self.reason = b""
        self.response_headers: list[tuple[bytes, bytes]] = []
        self.redirection: Redirect | None = None
        self.pipe: Pipe | None = None
        self.written: list[bytes] = []
        self.finished = False
        self.session_cookie: bytes | None = None
        self.settled = False  # the head is made: what is said about it from now on comes too late

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"

    # What the client sent

    def getHeader(self, name: str | bytes) -> str | None:
        """Return the value of the request header *name*, or None.

        Letter case does not matter. If the header was sent more than once, the values are joined with commas, as
        RFC 9110, section 5.3 has it.
        """
        wanted = (name.encode("latin-1") if isinstance(name, str) else name).lower()
        values = [value for key, value in self.raw_headers if key == wanted]
        return b", ".join(values).decode("latin-1") if values else None

    @cached_property
    def args(self) -> dict[str, list[str]]:
        """The fields of the query and of a urlencoded body: each name with the list of its values.

        A field of the body replaces one of the query that has the same name. Blank values are kept.
        """
        return query_fields(self.query) | form_fields(self.getHeader("content-type") or "", self.content)

    def field(self, name: str, default: Any = _MISSING) -> Any:
        """Return the first value of the query or form field *name*, as text.

        Args:
            name: the field's name.
            default: what to return if there is no such field.

        Raises:
            HTTPError: 400, naming the field, if it is missing and there is no default.
        """
        values = self.args.get(name)
        if values:
            return values[0]
        if default is _MISSING:
            raise HTTPError(400, f"This page needs a field called {name!r}, in the query or in a form.")
        return default

    @cached_property
    def cookies(self) -> dict[str, str]:
        """The cookies that came with the request, by name; of two with one name the first counts (RFC 6265, 5.4)."""
        found: dict[str, str] = {}
        for pair in (self.getHeader("cookie") or "").replace(", ", ";").split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals:
                quoted = len(value) > 1 and value[0] == value[-1] == '"'
                found.setdefault(name, value[1:-1] if quoted else value)
        return found

    def getCookie(self, name: str) -> str | None:
        """Return the value of the cookie *name*, or None."""
        return self.cookies.get(name)

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
        return session if sessionInterface is None else sessionInterface(session, None)

    @property
    def session(self) -> Session | None:
        """The session that this request has used so far, if any; looking at it is no access."""
        return self._session

    # What the script says about its answer

    def setResponseCode(self, code: int, message: str | bytes | None = None) -> None:
        """Set the status code, and perhaps the words beside it, for what the method returns or writes.

        Raises:
            ValueError: not a number from 200 to 599, or words with a line break in them.
        """
        if not (isinstance(code, int) and 200 <= code <= 599):
            raise ValueError(f"a status code is a number from 200 to 599, not {code!r}")
        self.code = code
        self.reason = encode_header("status", message)[1] if message is not None else b""

    def setHeader(self, name: str | bytes, value: str | bytes | int) -> None:
        """Set a response header; it replaces one of the same name.

        Raises:
            ValueError: the name or value cannot be sent: a line break, a control character, or not Latin-1.
        """
        field = encode_header(name, value)
        lower = field[0].lower()
        self.response_headers = [pair for pair in self.response_headers if pair[0].lower() != lower]
        self.response_headers.append(field)

    def redirect(self, url: str | bytes, status: int | None = None) -> None:
        """Answer with a redirect to *url* (303 after a POST, 302 otherwise); the method need return nothing then."""
        self.redirection = Redirect(url.decode() if isinstance(url, bytes) else url, status)

    def write(self, data: str | bytes) -> None:
        """Send *data* as the next part of the body. For methods that return `NOT_DONE_YET`.

        Never blocks. After `finish`, or when the client has gone, it does nothing.
        """
        if not isinstance(data, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"request.write() takes str or bytes, not {type(data).__name__}")
        chunk = data.encode() if isinstance(data, str) else bytes(data)
        if self.finished or not chunk:
            return
        if self.pipe is not None:
            self.pipe.write(chunk)
        else:
            self.written.append(chunk)

    def finish(self) -> None:
        """Say that the body is complete. Doing so twice does nothing."""
        self.finished = True
        if self.pipe is not None:
            self.pipe.close()

    # For the layers around the script

    @property
    def has_body(self) -> bool:
        """Whether there is a body that nobody has read."""
        return self._body is not None

    async def load_body(self, limit: int | None = None) -> None:
        """Read the whole body into `content`, which spills to disk when it is large. Once only; then it does nothing.

        Raises:
            HTTPError: 413, the body is longer than the server (or *limit*, in bytes) allows.
            Disconnected: the body was cut off.
        """
        if self._body is None:
            return
        body, self._body = self._body, None
        # S SIM: the file lives as long as the request, and is closed by `close`.
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=SPOOL_SIZE))  # noqa: SIM115
        self.on_close(file.close)
        size = 0
        async for chunk in body:
            size += len(chunk)
            if limit is not None and size > limit:
                raise HTTPError(413, f"The body may have {limit} bytes; this one is longer.")
            file.write(chunk)
        file.seek(0)
        self.content = file

    def on_close(self, closer: Callable[[], object]) -> None:
        """Have *closer* called when the response has been sent or given up."""
        self._closers.append(closer)

    def close(self) -> None:
        """Let go of what this request held: its body's file, and what others left with `on_close`."""
        closers, self._closers = self._closers, []
        for closer in reversed(closers):
            closer()


def _decode(raw: str) -> str:
    """Percent-decode once. What is no UTF-8 becomes surrogates, which name no file and no child."""
    if "%" not in raw and raw.isascii():
        return raw
    return unquote_to_bytes(raw.encode("latin-1", "replace")).decode("utf-8", "surrogateescape")
