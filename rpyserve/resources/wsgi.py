"""A WSGI application, such as one of Flask or Django, as a resource (PEP 3333).

The application runs in a worker thread, one for each request, and hands its chunks to the event
loop one by one, so that a slow client slows it down and memory stays flat. When the client leaves,
the thread is abandoned: its next chunk is refused, which ends it. Whatever the application raises
is handled by the site, as if a render method had raised it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import closing, nullcontext
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

import trio

from rpyserve._names import public
from rpyserve.http.request import Request
from rpyserve.http.response import IterableStream, Response
from rpyserve.resources.resource import Resource, raw_path_segments

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

# Status, reason and headers, as the application gave them to ``start_response``.
Head = tuple[int, str, list[tuple[str, str]]]

# How many requests one application works on at the same time, by default.
THREADS: Final = 20

# Headers without a variable ``HTTP_*``: two have other names, and the body is not chunked.
_NOT_HTTP_VARIABLES: Final = frozenset({b"content-length", b"content-type", b"transfer-encoding"})


@public
class WSGIResource(Resource):
    """The resource that *app* is, with all that is below it.

    Args:
        app: the application: a callable with the parameters ``environ`` and ``start_response``.
        threads: how many requests it may work on at the same time; further ones wait.

    Raises:
        TypeError: *app* cannot be called.

    The name is Twisted Web's (``twisted.web.wsgi``). "Twisted Web in 60 seconds": WSGI.
    """

    isLeaf = True
    _wants_body = False
    _wants_session = False

    def __init__(self, app: Callable[..., Iterable[bytes]], threads: int = THREADS) -> None:
        if not callable(app):
            raise TypeError(
                "WSGIResource(app) takes the application itself, such as a Flask object, "
                f"not {app!r:.60}"
            )
        self.app = app
        self._limiter = trio.CapacityLimiter(threads)

    async def render(self, request: Request) -> Response:
        await request.load_body(raw=True)
        run = _AppRun(self.app, environment(request), self._limiter)
        request.start_soon(run.run)
        first_chunk = await run.first_chunk()
        status, reason, headers = run.head
        request.setResponseCode(status, reason)
        length = next((value for name, value in headers if name.lower() == "content-length"), "")
        if request.method != "HEAD" and length == str(len(first_chunk)):
            return Response(first_chunk, status, headers)
        stream = IterableStream(run.chunks(first_chunk))
        stream.length = int(length) if length.isdecimal() else None
        return Response(stream, status, headers)


def environment(request: Request) -> dict[str, Any]:
    """Return the ``environ`` for *request*, whose walk has reached the application."""
    mounted_at, left_over = raw_path_segments(request)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": request.root_path + _decode_path(mounted_at),
        "PATH_INFO": _decode_path(left_over),
        "QUERY_STRING": request.query,
        "SERVER_NAME": request.server[0],
        "SERVER_PORT": str(request.server[1]),
        "SERVER_PROTOCOL": f"HTTP/{request.http_version}",
        "REMOTE_ADDR": request.client[0],
        "REMOTE_PORT": str(request.client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": request.content,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    if request.user is not None:
        environ["REMOTE_USER"] = request.user
        environ["AUTH_TYPE"] = "Basic"
    _add_content_headers(environ, request)
    for name, value in request.raw_headers.values.items():
        # "_" would be taken for "-", and so the client could pretend to be a proxy.
        if name not in _NOT_HTTP_VARIABLES and b"_" not in name:
            variable = name.decode("latin-1").upper().replace("-", "_")
            environ[f"HTTP_{variable}"] = value.decode("latin-1")
    return environ


def _decode_path(segments: list[str]) -> str:
    """Return *segments* as PEP 3333 has them: decoded to bytes, and those shown as Latin-1."""
    decoded = (unquote_to_bytes(segment.encode("latin-1")) for segment in segments)
    return "".join("/" + segment.decode("latin-1") for segment in decoded)


def _add_content_headers(environ: dict[str, Any], request: Request) -> None:
    size = request.content.seek(0, 2)
    request.content.seek(0)
    if size or request.getHeader("content-length") is not None:
        # Of a chunked body too, so that the application can read it.
        environ["CONTENT_LENGTH"] = str(size)
    media_type = request.getHeader("content-type")
    if media_type is not None:
        environ["CONTENT_TYPE"] = media_type


class _AppRun:
    """One call of the application, seen from the loop and from its thread."""

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        environ: dict[str, Any],
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._app = app
        self._environ = environ
        self._limiter = limiter
        self._send, self._receive = trio.open_memory_channel[bytes](1)
        self._head: Head | None = None
        self._started = False
        self._failure: BaseException | None = None

    # In the loop

    async def run(self) -> None:
        async with self._send:
            try:
                await trio.to_thread.run_sync(
                    self._run_in_thread, abandon_on_cancel=True, limiter=self._limiter
                )
            except Exception as exc:
                self._failure = exc

    async def first_chunk(self) -> bytes:
        """Wait for the first chunk; empty if there is none.

        Raises what the application raises before it.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from None
            return b""

    @property
    def head(self) -> Head:
        """Status, reason, and headers, once the first chunk is there."""
        assert self._head is not None
        return self._head

    async def chunks(self, first: bytes) -> AsyncIterator[bytes]:
        """Yield *first*, and the others. Raises what the application raises after them."""
        yield first
        async for chunk in self._receive:
            yield chunk
        if self._failure is not None:
            raise self._failure

    # In the thread

    def _run_in_thread(self) -> None:
        result: Any = self._app(self._environ, self._start_response)
        with closing(result) if hasattr(result, "close") else nullcontext():
            for chunk in result:
                self._write(chunk)
            if self._head is None:
                raise RuntimeError(
                    "the WSGI application returned without having called start_response()"
                )

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._started:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._head is not None:
            raise RuntimeError("the WSGI application called start_response() twice")
        code, _, reason = status.partition(" ")
        if not (len(code) == 3 and code.isdecimal()):
            raise ValueError(f"a WSGI status is like '200 OK', not {status!r:.60}")
        self._head = int(code), reason, list(headers)
        return self._write

    def _write(self, chunk: bytes) -> None:
        if not isinstance(chunk, bytes):
            kind = type(chunk).__name__
            raise TypeError(f"a WSGI application gives bytes, not {kind}: {chunk!r:.60}")
        if not chunk:
            return
        if self._head is None:
            raise RuntimeError("the WSGI application gave data before it called start_response()")
        self._started = True
        trio.from_thread.run(self._send.send, chunk)
