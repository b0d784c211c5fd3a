"""One request, as a script sees it: what the client sent, and what the script says to it.

A protocol makes a `Request` of values, and gives it two capabilities: the body, as chunks that come
in, and a function that waits until the client has left. What the script says about the response is
kept in a `PendingResponse`. A `Responder` answers it, and a `RequestRecord` says how it goes, and
how it went.

Nothing here waits, except for `Request.load_body`, which is called before a script runs. Attributes
with an underscore are for rpyserve's own packages.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
import sys
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Final,
    Protocol,
    TypeVar,
    cast,
    overload,
)
from urllib.parse import unquote_to_bytes

import trio

from rpyserve._names import public
from rpyserve.http.cookies import format_set_cookie, parse_cookies
from rpyserve.http.errors import HTTPError, Redirect
from rpyserve.http.forms import (
    MultipartForm,
    disk_full_as_507,
    form_fields,
    is_multipart,
    parse_json,
    query_fields,
    spooled_file,
)
from rpyserve.http.headers import HeaderFields
from rpyserve.http.pending_response import PendingResponse
from rpyserve.http.response import ChunkIterator, Response
from rpyserve.util.author_code import ServerObject, display_position, innermost_author_frame

if TYPE_CHECKING:
    from rpyserve import Session  # by its public name, as this package must not know `sessions`
    from rpyserve.http.forms import Upload
    from rpyserve.util.exceptions import ErrorReporter

# An IP address and a port.
Address = tuple[str, int]

# Bytes that are read at once of a body on disk.
READ_SIZE: Final = 2**20

# Bytes of a form on disk that are parsed before other tasks have their turn.
CHUNK_SIZE: Final = 64 * 1024

_ABSOLUTE_FORM: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")
_AUTHORITY_END: Final = re.compile(r"[/?#\\]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_MISSING: Final[Any] = object()
# What a text that is no such value is called, by the type that it was to have.
_WANTED: Final[dict[object, str]] = {int: "a whole number", float: "a number"}

Value = TypeVar("Value")
Default = TypeVar("Default")


class RequestSite(Protocol):
    """What a request, those who answer it, and scripts use of the site; `rpyserve.Site` is one.

    Attributes:
        sessionFactory: makes sessions.
        registry: what all visitors share.
        sessions: the living sessions.
        trusts: says of a request whether its client may see details of errors.
    """

    sessionFactory: Callable[[Any, str], Any]
    registry: Any
    sessions: Any
    trusts: Callable[[Request], bool]

    @property
    def errors(self) -> ErrorReporter:
        """Hears of failures that belong to no request."""

    def session_for(self, request: Request) -> Any:
        """Return the session of the visitor who makes *request*."""

    def session_held(self, request: Request) -> AbstractAsyncContextManager[Any]:
        """Have that session inside of a block; what is changed in it is stored at its end."""

    def background(self, function: Callable[..., object], *args: Any) -> Any:
        """Run ``function(*args)`` beside the site."""

    def start_task(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work*, which must not raise, beside the site."""

    def start_request_task(
        self, request: Request, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]
    ) -> None:
        """Run ``function(*args)`` until the response to *request* has ended."""


_current: ContextVar[Request | None] = ContextVar("current request", default=None)


def current_request() -> Request | None:
    """Return the request that the running code answers, if it asked for a session; else None."""
    return _current.get()


@public
class Request(ServerObject):
    """What the client asked, and what the script wants to say besides the body that it returns.

    Attributes:
        method: ``"GET"``, ``"POST"``, ...
        uri: the request target as it was sent, such as ``"/a%20b?x=1"``.
        path: the path without the query, decoded: ``"/a b"``.
        query: what follows the first ``?``, as it was sent.
        prepath: the decoded path segments that led to this resource.
        postpath: the decoded segments that are left over for it.
        client: the client's IP address and port. Behind a proxy that the server knows
            (``--behind-proxy``), what that says; a client that it does not know by an address has
            another name there, and port 0.
        server: our own address, and the port that the client connected to.
        scheme: ``"http"`` or ``"https"``.
        root_path: the path below which the site is, such as ``"/app"``; empty at the root of its
            host. It is no part of `path`.
        content: the whole body as a binary file, at its start. For a multipart form it is usually
            empty: see `args` and `files`.
        site: the `Site` that answers.
        id: what logs call this request (``--access-log json``, ``--production``), as it is in
            ``X-Request-ID``; else empty.
        user: the name of the user that a `BasicAuth` around this resource has accepted; else None.
        error: in a site's own ``404.rpy``: the `HTTPError` that it answers, with its ``detail``;
            else None.
        closed: whether the response has been sent or given up.

    The names are Twisted Web's (``IRequest``); texts are `str`.
    """

    site: RequestSite
    root_path: str = ""
    id: str = ""
    user: str | None = None
    error: HTTPError | None = None
    closed: bool = False

    _loaded_form: MultipartForm | None = None
    """The multipart form, if it has been parsed."""

    _has_raw_form: bool = False
    """Whether `content` holds a multipart form that has not been parsed."""

    _session: Any = None
    """The session that it has used so far."""

    _id_changes: int = 0
    """How many sessions of the site had got a new id when the request was taken up."""

    _follows: bool = False
    """Whether a browser loads a page that will follow edits."""

    _logged: bool = True
    """Whether the response gets a line in the access log."""

    _on_failure: Callable[[BaseException], object] | None = None
    """Called with what a script raised for this request, before a page is made of it."""

    _proxy: Address | None = None
    """Where the connection comes from, if that is a proxy that the server knows."""

    _own_lines: bytes = b""
    """Lines that the head of the response has besides what the site says."""

    _hands_over: bool = False
    """Whether large files are sent by the proxy, which judges conditions and ranges then."""

    _authority: str | None = None
    """The host and port that the client asked for, if a proxy says so."""

    _may_wait: bool = False
    """Whether `NotReady` may be raised: whoever asks for a child waits, and asks again."""

    _looked_at: tuple[Any, bool] = (None, False)
    """The many files of a script that were looked at for this request; whether any has changed."""

    _foreign: Any = None
    """The request that another library's resources see in place of this one."""

    _watch: Any = None
    """What looks at the sessions that this request uses, if its script calls for that."""

    _has_tasks = False
    """Whether `start_soon` has started something."""

    _record: RequestRecord | None = None
    """What is noted of it while it is answered; None if nobody keeps that."""

    _observer: Any = None
    """What looks at what its script does; None if nobody wants to know."""

    _use: Any = None
    """What this request has of the store outside of the process, if the site has one."""

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
        body_length: int | None = None,
        wait_client_left: Callable[[], Awaitable[None]] = trio.sleep_forever,
    ) -> None:
        self.method = method
        self.uri = uri
        self.raw_headers = headers if isinstance(headers, HeaderFields) else HeaderFields(headers)
        self.http_version = http_version
        self.client = client
        self.server = server
        self.scheme = scheme
        self.wait_client_left = wait_client_left

        absolute = None if uri.startswith("/") else _ABSOLUTE_FORM.match(uri)
        target = uri[absolute.end() :] if absolute else uri
        raw_path, _, self.query = target.partition("?")
        self._set_path(raw_path or "/")

        self.content: BinaryIO = io.BytesIO()
        self._body = body
        self._body_length = body_length  # None: nobody knows before its end
        self._closers: list[Callable[[], object]] = []

        # What the script has said about the response.
        self._response = PendingResponse()
        # Files and directories, as absolute paths, that the response is known to depend on.
        self._sources: list[str] = []

    def _set_path(self, raw_path: str) -> None:
        self.raw_path = raw_path
        self.path = _percent_decode(raw_path)
        self.prepath: list[str] = []
        self.postpath = raw_path.split("/")[1:]
        if self.path is not raw_path:
            self.postpath = [_percent_decode(segment) for segment in self.postpath]

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"

    # The head

    def getHeader(self, name: str | bytes) -> str | None:
        """Return the value of the request header *name*, or None.

        Letter case does not matter. If the header was sent more than once, the values are joined by
        commas (RFC 9110, section 5.3); cookies by semicolons.
        """
        wanted = (name.encode("latin-1") if isinstance(name, str) else name).lower()
        value = self.raw_headers.values.get(wanted)
        return None if value is None else value.decode("latin-1")

    @property
    def authority(self) -> str | None:
        """The host and port that the request is for, as sent; None if it names none (HTTP/1.0).

        The authority of the target takes precedence over the ``Host`` field (RFC 9112, section
        3.2.2), and what a proxy that the server knows says over both.
        """
        if self._authority is not None:
            return self._authority
        if self.uri.startswith("/") or "://" not in self.uri:
            return self.raw_headers.host
        after_scheme = self.uri.partition("://")[2]
        return _AUTHORITY_END.split(after_scheme, maxsplit=1)[0].rpartition("@")[2]

    @property
    def url(self) -> str:
        """The whole URL, as the visitor's browser shows it: ``"https://example.com/app/a?b=1"``."""
        mark = "?" if self.query else ""
        host = self.authority or ""
        return f"{self.scheme}://{host}{self.root_path}{self.raw_path}{mark}{self.query}"

    @cached_property
    def cookies(self) -> dict[str, str]:
        """The cookies that came with the request, by name (RFC 6265, section 5.4).

        Of two with one name the first counts.
        """
        return parse_cookies(self.raw_headers.text(b"cookie"))

    def getCookie(self, name: str) -> str | None:
        """Return the value of the cookie *name*, or None."""
        return self.cookies.get(name)

    @property
    def credentials(self) -> tuple[str, str] | None:
        """The user name and password for Basic authentication (RFC 7617), checked or not.

        None if there are none, or none that can be read.
        """
        return _parse_basic(self.raw_headers.text(b"authorization"))

    def getUser(self) -> str:
        """Return the user name for HTTP authentication, checked or not; empty if there is none."""
        return (self.credentials or ("", ""))[0]

    def getPassword(self) -> str:
        """Return the password that was sent for HTTP authentication; empty if there is none."""
        return (self.credentials or ("", ""))[1]

    # The query and the body

    @cached_property
    def args(self) -> dict[str, list[str]]:
        """The fields of the query and of a form: each name with the list of its values.

        A field of the form replaces one of the query that has the same name. Blank values are kept.
        Files are in `files`.
        """
        form = self._form
        in_body = form_fields(self._content_type, self.content) if form is None else form.fields
        return query_fields(self.query) | in_body

    @overload
    def field(self, name: str) -> str: ...
    @overload
    def field(self, name: str, default: Default) -> str | Default: ...
    @overload
    def field(self, name: str, *, type: Callable[[str], Value]) -> Value: ...
    @overload
    def field(
        self, name: str, default: Default, *, type: Callable[[str], Value]
    ) -> Value | Default: ...

    def field(self, name: str, default: Any = _MISSING, *, type: Any = str) -> Any:
        """Return the first value of the query or form field *name*.

        Args:
            name: the field's name.
            default: what to return if there is no such field, or, with a *type*, if it is blank.
            type: makes the value of the text that the visitor sent, such as ``int``, ``float`` or a
                function of your own that raises ValueError for what it does not accept.

        Raises:
            HTTPError: 400, naming the field, if it is missing and there is no default, or if *type*
                does not accept it.
        """
        values = self.args.get(name)
        if values and (type is str or default is _MISSING or values[0].strip()):
            return values[0] if type is str else _converted(name, values[0], type)
        if default is not _MISSING:
            return default
        raise HTTPError(
            400,
            f"This page needs a field called {name!r}, in the query or in a form.",
            private=_give_a_default("field", name, '""' if type is str else "0"),
        )

    @property
    def files(self) -> dict[str, list[Upload]]:
        """The files that came with a form: each field's name with the list of its `Upload` values.

        The form must say ``enctype="multipart/form-data"``.
        """
        form = self._form
        return {} if form is None else form.files

    @overload
    def file(self, name: str) -> Upload: ...
    @overload
    def file(self, name: str, default: Default) -> Upload | Default: ...

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
        if default is not _MISSING:
            return default
        detail = f"This page needs a file in the field {name!r}."
        if self._form is None:
            detail += ' The form must say enctype="multipart/form-data".'
        raise HTTPError(400, detail, private=_give_a_default("file", name, "None"))

    def json(self) -> Any:
        """Return the body, which must be JSON (RFC 8259), as Python objects.

        Raises:
            HTTPError: 400, the body is empty or not JSON, saying where; 413, it is too long.
        """
        return parse_json(self.content)

    @property
    def _content_type(self) -> str:
        return self.raw_headers.text(b"content-type")

    @property
    def _form(self) -> MultipartForm | None:
        """The multipart form; parsed now if the body was loaded as it is."""
        if self._loaded_form is not None or not is_multipart(self._content_type):
            return self._loaded_form
        if not self.content.read(1):
            return None
        self.content.seek(0)
        form = MultipartForm(self._content_type, self.on_close)
        with disk_full_as_507():
            while chunk := self.content.read(READ_SIZE):
                form.write(chunk)
            form.finish()
        self.content.seek(0)
        self._loaded_form, self._has_raw_form = form, False
        return form

    # The session

    @overload
    def getSession(self) -> Session: ...
    @overload
    def getSession(self, sessionInterface: Any) -> Any: ...

    def getSession(self, sessionInterface: Any = None) -> Any:
        """Return the visitor's `Session`, made on first use.

        This counts as an access: the session lives on.

        Args:
            sessionInterface: if given, return the session's component for this interface instead
                (None if there is no adapter).

        "Twisted Web in 60 seconds": session basics.
        """
        session = self._session
        if session is None or not session.touch():
            session = self._session = self.site.session_for(self)
            if self._observer is not None:
                self._observer.note_session(session)
        _current.set(self)
        return session if sessionInterface is None else sessionInterface(session, None)

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Have the visitor's session for a while: ``async with request.session() as session:``.

        It is that of `getSession`. What was changed is stored when the block is left, whatever the
        response is doing. Streams and WebSockets need it where sessions are kept outside of the
        process (``--session-store``): they have given theirs back when the head of their response
        went out. Elsewhere it is of no harm.

        Raises:
            HTTPError: 503, the session cannot be had, or not be stored.
        """
        return self.site.session_held(self)

    # The response

    @property
    def code(self) -> int:
        """The status code for what the method returns or writes; see `setResponseCode`."""
        return self._response.status

    def setResponseCode(self, code: int, message: str | bytes | None = None) -> None:
        """Set the status code, and perhaps its words, for what the method returns or writes.

        Raises:
            ValueError: not a number from 200 to 599, or words with a line break in them.
        """
        self._response.set_status(code, message)

    def setHeader(self, name: str | bytes, value: str | bytes | int) -> None:
        """Set a response header; it replaces one of the same name.

        Raises:
            ValueError: the name or value cannot be sent: a line break, a control character, or not
                Latin-1.
        """
        self._response.set_header(name, value)

    def addHeader(self, name: str | bytes, value: str | bytes | int) -> None:
        """Add a response header beside those of the same name, such as a second ``Link``.

        Raises:
            ValueError: the name or value cannot be sent; see `setHeader`.
        """
        self._response.add_header(name, value)

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
        """Have the visitor's browser keep a cookie (RFC 6265, section 4.1).

        Read it later with `getCookie`.

        Args:
            k: its name.
            v: its value: no blanks, quotes, commas, semicolons or backslashes; use
                `urllib.parse.quote`.
            expires: an HTTP date at which it ends. Without it, and without *max_age*, it ends with
                the browser.
            domain: the host to which the browser sends it, and all hosts below; by default only
                this host.
            path: the path of the site below which the browser sends it; by default this page's
                directory.
            max_age: seconds that it lives.
            comment: accepted for Twisted's sake, and sent.
            secure: send it over https only.
            httpOnly: keep it from scripts in the page.
            sameSite: ``"lax"``, ``"strict"`` or ``"none"``.

        Raises:
            ValueError: a part cannot be sent.
        """
        attributes = {
            "Expires": expires,
            "Domain": domain,
            "Path": None if path is None else cookie_path(self, path),
            "Max-Age": max_age,
            "Comment": comment,
            "Secure": secure or None,
            "HttpOnly": httpOnly or None,
            "SameSite": sameSite,
        }
        self.addHeader("Set-Cookie", format_set_cookie(k, v, attributes))

    def redirect(self, url: str | bytes, status: int | None = None) -> None:
        """Answer with a redirect to *url*: 303 after a POST, 302 otherwise.

        A path that begins with a slash is one of the site, wherever that is. The method need not
        return anything then.
        """
        self._response.redirect = Redirect(url.decode() if isinstance(url, bytes) else url, status)

    def write(self, data: str | bytes) -> None:
        """Send *data* as the next part of the body. For methods that return `NOT_DONE_YET`.

        Never waits: what the client has not read is kept in memory. A client that falls behind by
        more than 16 MiB is given up, as if it had left; a generator waits for its client instead.
        After `finish`, or when the client has gone, this does nothing.
        """
        self._response.write(data)

    def finish(self) -> None:
        """Say that the body is complete. Doing so twice does nothing."""
        self._response.finish()

    # Beside the response

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run ``function(*args)``, an async function, until the response has ended.

        If it raises, a response that waits for `finish` ends with that error; otherwise the console
        reports it.

        Raises:
            TypeError: *function* is not an async function.
            RuntimeError: the response has ended already.
        """
        if self.closed:
            raise RuntimeError(
                "request.start_soon(): the response has ended; "
                "for longer work, use site.background(f)"
            )
        self.site.start_request_task(self, function, args)
        self._has_tasks = True

    def on_close(self, closer: Callable[[], object]) -> None:
        """Have *closer* called when the response has been sent or given up."""
        self._closers.append(closer)

    # For the layers around the script

    @property
    def may_begin_again(self) -> bool:
        """Whether whoever answers it may do so from the beginning, as nothing has come of it."""
        response = self._response
        is_untouched = response.stream is None and not (response.chunks or response.headers_sent)
        return self.method in ("GET", "HEAD") and is_untouched and not self._has_tasks

    def begin_again(self) -> None:
        """Forget what has been said about the response, but for the cookie of a new session."""
        self._set_path(self.raw_path)
        self._foreign = None
        self._response = PendingResponse(session_cookie=self._response.session_cookie)

    @property
    def has_body(self) -> bool:
        """Whether there is a body, or a form in `content`, that has not been read yet."""
        return self._body is not None or self._has_raw_form

    def body_chunks(self) -> AsyncIterable[bytes] | None:
        """Take over the body, as chunks that come in; None if there is none left.

        It will not be in `content`.
        """
        body, self._body = self._body, None
        return body

    async def load_body(self, limit: int | None = None, *, raw: bool = False) -> None:
        """Read the whole body: a multipart form into `args` and `files`, others into `content`.

        What is large goes to disk. If *raw*, a form goes into `content` too; a later call that is
        not *raw* parses it. Other than that, a second call does nothing.

        Raises:
            HTTPError: 413, the body is longer than the server (or *limit*, in bytes) allows; 400, a
                malformed form; 507, the disk is full.
            ClientDisconnected: the body was cut off.
        """
        body = self.body_chunks()
        if body is None and self._has_raw_form and not raw:
            body = ChunkIterator(self._read_content)
        if body is None:
            return
        is_form = is_multipart(self._content_type)
        if is_form and not raw:
            self._has_raw_form = False
            form = self._loaded_form = MultipartForm(self._content_type, self.on_close)
            with disk_full_as_507():
                await self._copy(body, form, limit)
                form.finish()
            self.content.seek(0)
            return
        self.content = spooled_file(self.on_close, length=self._body_length)
        with disk_full_as_507():
            await self._copy(body, self.content, limit)
            self._has_raw_form = is_form and self.content.tell() > 0
            self.content.seek(0)  # writes what is still buffered

    async def _copy(
        self, body: AsyncIterable[bytes], sink: BinaryIO | MultipartForm, limit: int | None
    ) -> None:
        size, began = 0, trio.current_time()
        try:
            async for chunk in body:
                size += len(chunk)
                if limit is not None and size > limit:
                    raise HTTPError(413, f"The body may have {limit} bytes; this one is longer.")
                sink.write(chunk)
        finally:
            if self._record is not None:
                self._record.body = trio.current_time() - began

    async def _read_content(self) -> bytes:
        await trio.lowlevel.checkpoint()  # others have their turn while a large form is parsed
        return self.content.read(CHUNK_SIZE)

    def close(self) -> None:
        """Release what this request held: its body's file, and what others left with `on_close`."""
        self.closed = True
        if self._session is not None:
            _current.set(None)  # or the connection would keep this request until the next
        closers = self._closers
        try:
            while closers:
                closers.pop()()
        finally:
            if closers:  # one that fails must not keep the others from being called
                self.close()


def cookie_path(request: Request, path: str | bytes) -> str:
    """Return the ``Path`` of a cookie for the site's *path*: below the site's own `root_path`."""
    text = path.decode("latin-1") if isinstance(path, bytes) else path
    if not request.root_path or not text.startswith("/"):
        return text
    return request.root_path + (text if text != "/" else "")


def _converted(name: str, text: str, convert: Callable[[str], Any]) -> Any:
    try:
        value = convert(text)
        if not isinstance(value, float) or math.isfinite(value):
            return value
    except ValueError:
        pass
    wanted = _WANTED.get(convert, "valid")
    raise HTTPError(400, f"The field {name!r} must be {wanted}, not {text[:60]!r}.")


def _give_a_default(method: str, name: str, default: str) -> str:
    """What the author of the line that asks for the field *name* may write."""
    frame = innermost_author_frame(sys._getframe(2))
    place = "" if frame is None else f" ({display_position(frame)})"
    return f"To do without it, give a default{place}: request.{method}({_quoted(name)}, {default})."


def _quoted(name: str) -> str:
    return repr(name) if '"' in name else f'"{name}"'


def _percent_decode(raw: str) -> str:
    """Percent-decode once. What is not UTF-8 becomes surrogates, which name no file or child."""
    if "%" not in raw and raw.isascii():
        return raw
    return unquote_to_bytes(raw.encode("latin-1", "replace")).decode("utf-8", "surrogateescape")


def _parse_basic(header: str) -> tuple[str, str] | None:
    """Return the user name and password in an ``Authorization`` header (RFC 7617, section 2)."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        raw = base64.b64decode(token.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # sent by clients that do not know charset="UTF-8"
    name, colon, password = text.partition(":")
    if not colon or _CONTROL.search(text):
        return None
    return name, password


# Who answers, and what came of it

# What makes a response of a request: a site, or a wrapper of one.
Responder = Callable[[Request], Awaitable[Response]]


# Bytes of bodies that are kept whole, by themselves; of what is longer, the first `BODY_START`.
MOST_OF_REQUEST: Final = 64 * 1024
MOST_OF_RESPONSE: Final = 16 * 1024
BODY_START: Final = 4 * 1024


def beginning_of(data: bytes, size: int, most: int = MOST_OF_RESPONSE) -> bytes:
    """Return what is kept of the body, of *size* bytes, that begins with *data*."""
    return data if size <= most else data[:BODY_START]


# How many characters of a session's id name it: 132 of its 192 bits stay secret.
SESSION_NAME: Final = 10

# Seconds by which the clocks must differ for the machine to have slept.
LEAST_SLEEP: Final = 60.0

# Stands for the status of a response that was never begun, as nginx has it.
ABANDONED: Final = 499


@dataclass(frozen=True, slots=True)
class Body:
    """What is kept of a body.

    Args:
        size: how many bytes came or went, without framing.
        kept: the beginning, or all of it; None if it was dropped to make room.
        whole: whether that is all.
    """

    size: int
    kept: bytes | None
    whole: bool


class ResponseHeadRecord(Protocol):
    """The head of a response, after it was sent."""

    @property
    def second(self) -> int:
        """When it was made, in seconds since the epoch."""

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The fields, names in lower case."""


class RequestRecord:
    """One request and its response: made when the head has been read, filled as things happen.

    When the request is over, and has been logged, it lets go of `request`, and holds values only.

    Args:
        request: the request; None if what came was none.
        method: the method as it was sent; empty if it could not be read.
        target: the request target as it was sent; empty if it could not be read.
        request_head: the whole head as it was sent; empty if it could not be read.
        client: the client's IP address and port.
        started: when the head had been read, by trio's clock.

    Attributes:
        status: the status that was sent; 499 if the client left, or the server stopped, before
            there was one.
        sent: bytes of body that were sent, without chunked framing.
        complete: whether the whole response went out. A stream of events ends with its client.
        seconds: from the end of the request's head to the end of the response; None before that.
        number: of the requests that are recorded, from 1; 0 if it has none yet.
        scheme: ``"http"`` or ``"https"``.
        response_head: the head of the response, as the protocol has it; None if there was none.
        body: seconds in which its body was read before a script had it; None if there was none.
        execute: seconds in which its script was executed; None if it was not.
        render: seconds until the render method had returned; None if none was called.
        waited: seconds in which an async method was at work after that, or waited.
        send: seconds in which the response was sent; None if the system took it at once.
        script: the file that served it, relative to the site's directory.
        executed: why that was executed for it, such as ``"first use"``; None if it was not.
        error: the number of its failure; see `ConsoleReporter.failures`.
        changed: what it changed in its session; None if nobody looked.
        printed: what it printed and logged; None if nobody looked.
        replay_of: the number of the request that it repeats.
        pinned: whether it is kept however many come later.
    """

    # Each request makes one, and the last thousand stay: so they are small. Slots are for what each
    # has; those that are not set at once have their defaults in `_UNKNOWN`.
    __slots__ = (
        "__dict__",
        "_session_id",
        "client",
        "complete",
        "method",
        "number",
        "render",
        "request",
        "request_head",
        "response_head",
        "response_start",
        "scheme",
        "script",
        "seconds",
        "sent",
        "started",
        "status",
        "target",
    )

    render: float | None
    response_head: ResponseHeadRecord | None
    response_start: bytes
    scheme: str
    script: str | None
    _session_id: Any

    # Few have these.
    body: float | None = None
    changed: Any = None
    error: int | None = None
    execute: float | None = None
    executed: str | None = None
    lacks_bodies: bool = False
    pinned: bool = False
    printed: str | None = None
    replay_of: int | None = None
    request_size: int = 0
    request_start: bytes = b""
    send: float | None = None
    send_began: float | None = None
    waited: float = 0.0

    def __init__(
        self,
        request: Request | None,
        method: str,
        target: str,
        request_head: bytes,
        client: Address,
        started: float,
    ) -> None:
        self.request = request
        self.method = method
        self.target = target
        self.request_head = request_head
        self.client = client
        self.started = started
        self.status = ABANDONED
        self.sent = 0
        self.complete = False
        self.seconds: float | None = None
        self.number = 0

    def __getattr__(self, name: str) -> Any:
        try:
            return _UNKNOWN[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def at(self) -> float:
        """When it began, in seconds since the epoch."""
        began = time.time() - (trio.current_time() - self.started)
        if self.response_head is None:
            return began
        # The clock that it began by stands still while the machine sleeps.
        slept = began + (self.seconds or 0.0) - self.response_head.second
        return began if abs(slept) < LEAST_SLEEP else began - slept

    @property
    def session_id(self) -> str | None:
        """The id that its session had at last; None if it had none."""
        if self.request is None:
            return cast("str | None", self._session_id)
        session = self.request._session
        return None if session is None else session._uid

    @property
    def session(self) -> str | None:
        """The first characters of that."""
        uid = self.session_id
        return uid[:SESSION_NAME] if type(uid) is str else None

    @property
    def request_headers(self) -> list[tuple[bytes, bytes]]:
        """The fields of its head, names in lower case."""
        lines = self.request_head.split(b"\r\n")[1:]
        pairs = [line.partition(b":") for line in lines if line]
        return [(name.lower(), value.strip(b" \t")) for name, _, value in pairs]

    @property
    def response_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The fields of the head of the response, names in lower case."""
        return () if self.response_head is None else self.response_head.headers

    @property
    def held(self) -> float:
        """For how many seconds plain code of its script held the event loop."""
        return (self.execute or 0.0) + (self.render or 0.0)

    def __repr__(self) -> str:
        return f"<RequestRecord {self.number}: {self.method} {self.target} {self.status}>"

    @property
    def request_body(self) -> Body:
        """The body of the request, as far as somebody read it."""
        return self._body(self.request_size, self.request_start)

    @property
    def response_body(self) -> Body:
        """The body of the response, as far as it was sent."""
        return self._body(self.sent, self.response_start)

    def _body(self, size: int, start: bytes) -> Body:
        return Body(size, None if self.lacks_bodies and size else start, len(start) == size)


class Recording(Protocol):
    """Who wants to know more of requests than how they ended.

    Attributes:
        is_alert: whether `begin` is to be called.
    """

    is_alert: bool

    def begin(self, record: RequestRecord) -> None:
        """Hear of a request that begins; must not raise."""

    def weigh(self, record: RequestRecord) -> None:
        """Hear of a request that has a body."""


# What is known of a request of which nothing is known.
_UNKNOWN: Final[Mapping[str, Any]] = MappingProxyType({
    "render": None, "response_head": None, "response_start": b"", "scheme": "http", "script": None,
    "_session_id": None,
})  # fmt: skip
