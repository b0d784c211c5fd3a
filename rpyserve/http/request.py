"""One request, as a script sees it.

A protocol makes a `Request` from values, and puts two capabilities on it: the body, as chunks that come in, and
`client_left`. It knows nothing of sockets. What the body holds is `receiving`'s business, and what a script says about
its answer is noted in `answering`.

What came with a request besides its head: the body, as fields, files, JSON, or as it is.

Half of a `Request`, whose methods these are. A protocol gives the body as chunks that come in; whoever walks the tree
has it read before a script that wants it runs, so that nothing here waits but `load_body`. Large bodies go to disk.

What a script says about its answer besides the body that it returns: status, headers, cookies, `write`, `finish`.

Half of a `Request`, whose methods these are in Twisted. All of it is only noted here, and checked while the script
that said it is on the stack; `rendering` turns it into a `Response`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    pass

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    pass

import base64
import binascii
import io
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import unquote_to_bytes

import trio

from rpyserve.http.cookies import format_set_cookie, parse_cookies
from rpyserve.http.errors import HTTPError, Redirect
from rpyserve.http.forms import (
    disk_full_as_507,
    form_fields,
    parse_json,
    query_fields,
    spooled_file,
)
from rpyserve.http.response import encode_header
from rpyserve.protocol.parser import Fields
from rpyserve.util.server_object import ServerObject

if TYPE_CHECKING:
    from rpyserve.http.forms import MultipartForm, Upload
    from rpyserve.http.response import WriteStream
    from rpyserve.sessions.session import Session
    from rpyserve.site import Site

__all__ = [
    "Address",
    "Answering",
    "Receiving",
    "Request",
    "authority_of",
    "credentials",
    "current_request",
]


PIECE: Final = 2**20

_MISSING: Any = object()


class Receiving:
    """The body of a request, and the fields of its query.

    Args:
        body: the chunks; None if there are none.

    Attributes:
        content: the whole body as a binary file, at its start. Of a multipart form it is empty as a rule: that is taken
            apart as it comes, into `args` and `files`.
    """

    query: str
    getHeader: Callable[[str], str | None]
    on_close: Callable[[Callable[[], object]], None]

    def __init__(self, body: AsyncIterable[bytes] | None) -> None:
        self.content: BinaryIO = io.BytesIO()
        self._body = body
        self._taken_apart: MultipartForm | None = None

    @cached_property
    def args(self) -> dict[str, list[str]]:
        """The fields of the query and of a form: each name with the list of its values. Files are in `files`.

        A field of the form replaces one of the query that has the same name. Blank values are kept.
        """
        form = self._form
        return query_fields(self.query) | (
            form_fields(self._kind, self.content) if form is None else form.fields
        )

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
            raise HTTPError(
                400, f"This page needs a field called {name!r}, in the query or in a form."
            )
        return default

    @property
    def files(self) -> dict[str, list[Upload]]:
        """The files that came with a form: each field's name with the list of its `Upload` values.

        The form must say ``enctype="multipart/form-data"``.
        """
        form = self._form
        return {} if form is None else form.files

    def file(self, name: str, default: Any = _MISSING) -> Any:
        """Return the first file of the form field *name*, an `Upload`.

        Args:
            name: the field's name.
            default: what to return if no file was chosen.

        Raises:
            HTTPError: 400, naming the field, if there is no file and no default.
        """
        uploads = self.files.get(name)
        if uploads:
            return uploads[0]
        if default is _MISSING:
            more = (
                ""
                if self._form is not None
                else ' The form must say enctype="multipart/form-data".'
            )
            raise HTTPError(400, f"This page needs a file in the field {name!r}.{more}")
        return default

    def json(self) -> Any:
        """Return what the body says as JSON (RFC 8259).

        Raises:
            HTTPError: 400, it is empty or no JSON, saying where; 413, it is too long.
        """
        return parse_json(self.content)

    # For the layers around the script

    @property
    def has_body(self) -> bool:
        """Whether there is a body that nobody has read."""
        return self._body is not None

    def body_chunks(self) -> AsyncIterable[bytes] | None:
        """Take the body over, as chunks that come in; None if there is none left. It will not be in `content` then."""
        body, self._body = self._body, None
        return body

    async def load_body(self, limit: int | None = None, *, raw: bool = False) -> None:
        """Read the whole body: a multipart form into `args` and `files`, unless *raw*; any other into `content`.

        What is large spills to disk. Once only; then it does nothing.

        Raises:
            HTTPError: 413, the body is longer than the server (or *limit*, in bytes) allows; 400, a malformed form;
                507, the disk is full.
            Disconnected: the body was cut off.
        """
        if self._body is None:
            return
        body, self._body = self._body, None
        form = None
        if self._is_multipart and not raw:
            form = self._taken_apart = self._new_form()
        else:
            self.content = spooled_file(self.on_close)
        sink = form or self.content
        size = 0
        with disk_full_as_507():
            async for chunk in body:
                size += len(chunk)
                if limit is not None and size > limit:
                    raise HTTPError(413, f"The body may have {limit} bytes; this one is longer.")
                sink.write(chunk)
            if form is not None:
                form.finish()
            else:
                self.content.seek(0)  # writes what waits to be written

    @property
    def _kind(self) -> str:
        return self.getHeader("content-type") or ""

    @property
    def _is_multipart(self) -> bool:
        return self._kind.partition(";")[0].strip().lower() == "multipart/form-data"

    @property
    def _form(self) -> MultipartForm | None:
        """The multipart form; taken apart now if the body was read as it is."""
        if self._taken_apart is None and self._is_multipart and self.content.read(1):
            self.content.seek(0)
            form = self._new_form()
            with disk_full_as_507():
                while chunk := self.content.read(PIECE):
                    form.write(chunk)
                form.finish()
            self.content.seek(0)
            self._taken_apart = form
        return self._taken_apart

    def _new_form(self) -> MultipartForm:
        from rpyserve.http.forms import MultipartForm

        return MultipartForm(self._kind, self.on_close)


class Answering:
    """What will be answered, as far as it has been said.

    Attributes:
        code: the status code for what the method returns or writes.
        reason: the words beside it; the usual ones if empty.
        response_headers: the headers so far that replace others of their names.
        added_headers: those that stand beside others of their names.
        redirection: where `redirect` sends the visitor.
        pipe: what takes the chunks of `write` once the head is made, and
        written: those from before.
        finished: whether the body is complete.
        error: in a site's own ``404.rpy``: the `HTTPError` that it answers, with its ``detail``; else None.
        failure: what one of the request's tasks has raised.
        session_cookie: the ``Set-Cookie`` of a session that this request made.
        settled: whether the head is made: what is said about it from then on comes too late.
    """

    def __init__(self) -> None:
        self.code = 200
        self.reason = b""
        self.response_headers: list[tuple[bytes, bytes]] = []
        self.added_headers: list[tuple[bytes, bytes]] = []
        self.redirection: Redirect | None = None
        self.pipe: WriteStream | None = None
        self.written: list[bytes] = []
        self.finished = False
        self.error: HTTPError | None = None
        self.failure: BaseException | None = None
        self.session_cookie: bytes | None = None
        self.settled = False

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

    def addHeader(self, name: str | bytes, value: str | bytes | int) -> None:
        """Add a response header beside those of the same name, such as a second ``Link`` or ``Vary``.

        Raises:
            ValueError: the name or value cannot be sent; see `setHeader`.
        """
        self.added_headers.append(encode_header(name, value))

    def addCookie(
        self,
        k: str | bytes,
        v: str | bytes,
        expires: str | bytes | None = None,
        domain: str | bytes | None = None,
        path: str | bytes | None = None,
        max_age: str | bytes | int | None = None,
        comment: str | bytes | None = None,
        secure: bool | None = None,
        httpOnly: bool = False,
        sameSite: str | bytes | None = None,
    ) -> None:
        """Have the visitor's browser keep a cookie (RFC 6265, section 4.1). Read it later with `getCookie`.

        Args:
            k, v: its name and value: no blanks, quotes, commas, semicolons or backslashes; use `urllib.parse.quote`.
            expires: an HTTP date at which it ends. Without it, and without *max_age*, it ends with the browser.
            domain, path: where the browser sends it; by default only to this host, and to this page's directory.
            max_age: seconds that it lives.
            comment: accepted for Twisted's sake, and sent.
            secure: send it over https only.
            httpOnly: keep it from scripts in the page.
            sameSite: ``"lax"``, ``"strict"`` or ``"none"``.

        Raises:
            ValueError: a part cannot be sent.
        """
        attributes = {
            "Expires": expires, "Domain": domain, "Path": path, "Max-Age": max_age, "Comment": comment,
            "Secure": secure or None, "HttpOnly": httpOnly or None, "SameSite": sameSite,
        }  # fmt: skip
        self.addHeader("Set-Cookie", format_set_cookie(k, v, attributes))

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

    def fail(self, exc: BaseException) -> bool:
        """Have the answer fail with *exc* if it waits for `finish`. Returns whether it does."""
        self.failure = exc
        if self.pipe is None or self.finished:
            return False
        self.pipe.fail(exc)
        return True


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


class Request(Receiving, Answering, ServerObject):
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
        self.wait_client_left = client_left
        self.loop_tick = moment
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
        return parse_cookies(self.getHeader("cookie") or "")

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
        # which is built on this module

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
            raise RuntimeError(
                "request.start_soon(): the response has ended; for longer work, use site.background(f)"
            )
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


def credentials(request: Request) -> tuple[str, str] | None:
    """Return the name and the password that came with *request*; None if there are none that can be read."""
    scheme, _, token = (request.getHeader("authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        raw = base64.b64decode(token.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # as some clients have it that do not know of charset="UTF-8"
    name, colon, password = text.partition(":")
    return None if not colon or _CONTROL.search(text) else (name, password)


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def authority_of(request: Request) -> str | None:
    """Return the host that *request* is for, as it was sent; None if it names none (HTTP/1.0).

    The target's own authority goes before the ``Host`` field (RFC 9112, section 3.2.2).
    """
    if request.uri.startswith("/") or "://" not in request.uri:
        return request.getHeader("host")
    return _AUTHORITY_ENDS.split(request.uri.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]


_AUTHORITY_ENDS: Final = re.compile(r"[/?#\\]")
