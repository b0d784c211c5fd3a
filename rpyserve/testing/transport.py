"""Transports of httpx that have a site answer in this process, without a socket.

`SiteTransport` is for async clients and works in their event loop. `PortalTransport` is for the
plain ones, and passes each step to a `SiteTransport` in the thread of a `Portal`. The visitors of
one site have a transport each, and share its `SiteRunner`.

Each request is a task in the runner's nursery. The task waits with each chunk of the response until
the client takes it, so that a test can look at a page half-way. To close the response is to leave:
the task is cancelled, and has ended when the call returns.
"""

from __future__ import annotations

import io
import math
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from rpyserve.files.directory import Directory
from rpyserve.http.request import Request
from rpyserve.http.response import ChunkIterator, start_body
from rpyserve.site import Site
from rpyserve.testing.portal import Portal

# Bytes of a request body that arrive at a time.
CHUNK_SIZE: Final = 64 * 1024

# What tools keep beside a site.
NOT_COPIED: Final = frozenset({".git", ".rpyserve", "__pycache__", "node_modules"})


class SiteRunner:
    """A site, and the nursery in which its requests are answered.

    Args:
        given: a `Site`, a resource, a function of the request, or the path of a directory or a
            script.
        session_timeout: seconds; used unless *given* is a `Site`.

    Attributes:
        site: the site.
        page: the path of the script that was given, else ``"/"``.
        cwd: the site's directory, which is the current one while scripts run; None without one.

    Raises:
        FileNotFoundError: there is no such directory or script.
        TypeError: what is given cannot be served.
    """

    def __init__(self, given: Any, session_timeout: float | None = None) -> None:
        self.page = "/"
        self._nursery: trio.Nursery | None = None
        if isinstance(given, (str, os.PathLike)):
            path = Path(given).resolve()
            if not path.exists():
                raise FileNotFoundError(
                    f"there is no directory or script {str(given)!r} in {os.getcwd()!r}"
                )
            if not path.is_dir():
                self.page = f"/{path.name.removesuffix('.rpy')}"
                path = path.parent
            given = Directory(path)
        self.site = (
            given if isinstance(given, Site) else Site(given, sessionTimeout=session_timeout)
        )
        root = self.site.root
        self.cwd = root.path if isinstance(root, Directory) else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While inside, the site runs. Entered once more, by another visitor, it does nothing."""
        if self._nursery is not None:
            yield
            return
        async with self.site.running(), trio.open_nursery() as self._nursery:
            try:
                yield
            finally:
                self._nursery.cancel_scope.cancel()
                self._nursery = None

    @contextmanager
    def in_cwd(self) -> Iterator[None]:
        """While inside, the site's directory is the current one."""
        if self.cwd is None:
            yield
            return
        before = os.getcwd()
        os.chdir(self.cwd)
        try:
            yield
        finally:
            os.chdir(before)

    def start_soon(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run *task* while the site runs.

        Raises:
            RuntimeError: the site does not run.
        """
        if self._nursery is None:
            raise RuntimeError(
                "The site is not running: use `async with AsyncClient(...) as client:`"
            )
        self._nursery.start_soon(task)


class SiteTransport(httpx.AsyncBaseTransport):
    """Has a site answer the requests of one visitor. Entering it runs the site.

    Args:
        runner: the site.
        address: the visitor's IP address.
        raise_errors: whether an exception that a script raises is raised to the client.
    """

    def __init__(self, runner: SiteRunner, *, address: str, raise_errors: bool) -> None:
        self._runner = runner
        self._address = address
        self._raise_errors = raise_errors

    async def __aenter__(self) -> SiteTransport:
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(self, kind: Any = None, exc: Any = None, traceback: Any = None) -> None:
        if isinstance(exc, Exception):  # which the site's nursery would wrap into a group
            kind = exc = traceback = None
        await self._running.__aexit__(kind, exc, traceback)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        with self._runner.in_cwd():
            async with self._runner.running():
                yield

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, and return the response once its head is there.

        Raises:
            httpx.ReadTimeout: that took longer than the request's read timeout.
            Exception: what the script raised, unless ``raise_errors`` is False.
        """
        await request.aread()
        exchange = _Exchange(self._runner.site, request, self._address, self._raise_errors)
        self._runner.start_soon(exchange.run)
        return await exchange.wait_response()


class _Exchange(httpx.AsyncByteStream):
    """One request on its way: its task, and the body of its response."""

    def __init__(
        self, site: Site, request: httpx.Request, address: str, raise_errors: bool
    ) -> None:
        self._site = site
        self._client_left = trio.Event()
        self._request = _site_request(request, address, self._client_left.wait)
        self._request._on_failure = self._note_failure
        self._raise_errors = raise_errors
        limit = request.extensions.get("timeout", {}).get("read")
        self._limit = self._seconds_left = math.inf if limit is None else limit
        self._response: httpx.Response | None = None
        self._failure: BaseException | None = None
        self._scope = trio.CancelScope()
        self._head_ready = trio.Event()
        self._finished = trio.Event()
        self._send, self._receive = trio.open_memory_channel[bytes](0)

    # The task

    async def run(self) -> None:
        """Have the site answer, until the client has read all or leaves."""
        try:
            with self._scope, self._send, closing(self._request):
                await self._answer()
        except Exception as exc:
            self._failure = self._failure or exc
        finally:
            self._head_ready.set()
            self._finished.set()

    async def _answer(self) -> None:
        async with start_body(await self._site.respond(self._request)) as body:
            head = body.response
            self._response = response = httpx.Response(
                head.status, headers=list(head.headers), stream=self, extensions={"complete": False}
            )
            self._head_ready.set()
            if self._request.method != "HEAD":
                async for chunk in body.chunks:
                    if chunk:
                        await self._send.send(chunk)
        response.extensions["complete"] = True

    def _note_failure(self, exc: BaseException) -> None:
        self._failure = exc

    # The client

    async def wait_response(self) -> httpx.Response:
        """Wait for the response's head. See `SiteTransport.handle_async_request`."""
        try:
            with self._time_limit("no response"):
                await self._head_ready.wait()
            self._raise_failure()
        except BaseException:
            await self.aclose()
            raise
        assert self._response is not None
        return self._response

    def __aiter__(self) -> ChunkIterator:
        return ChunkIterator(self.receive)

    async def receive(self) -> bytes:
        """Return the next chunk of the body; empty bytes after the last one.

        Raises:
            httpx.ReadTimeout: all waits for this response took longer than the read timeout.
            Exception: what the script raised, unless ``raise_errors`` is False.
        """
        with self._time_limit("the response is not complete"):
            try:
                return await self._receive.receive()
            except trio.EndOfChannel:
                await self._finished.wait()
        self._raise_failure()
        return b""

    async def aclose(self) -> None:
        """Leave, and wait until nothing works for this request any more."""
        with trio.CancelScope(shield=True):
            self._client_left.set()
            self._scope.cancel()
            await self._finished.wait()

    @contextmanager
    def _time_limit(self, what: str) -> Iterator[None]:
        started = trio.current_time()
        with trio.CancelScope(deadline=started + self._seconds_left) as scope:
            yield
        self._seconds_left -= trio.current_time() - started
        if scope.cancelled_caught:
            request = self._request
            raise httpx.ReadTimeout(
                f"{request.method} {request.uri}: {what} after {self._limit:g} s; "
                "timeout=... allows more"
            )

    def _raise_failure(self) -> None:
        if self._failure is not None and (self._raise_errors or self._response is None):
            raise self._failure


class PortalTransport(httpx.BaseTransport):
    """A `SiteTransport` for plain functions.

    Args:
        transport: what has the site answer.
        portal: where the site runs.
        closes_portal: whether closing this stops the site.
    """

    def __init__(self, transport: SiteTransport, portal: Portal, *, closes_portal: bool) -> None:
        self._transport = transport
        self._portal = portal
        self._closes_portal = closes_portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        response = self._portal.call(self._transport.handle_async_request, request)
        assert isinstance(response.stream, _Exchange)
        response.stream = _PortalStream(response.stream, self._portal)
        return response

    def close(self) -> None:
        if self._closes_portal:
            self._portal.close()


class _PortalStream(httpx.SyncByteStream):
    def __init__(self, exchange: _Exchange, portal: Portal) -> None:
        self._exchange = exchange
        self._portal = portal

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._portal.call(self._exchange.receive):
            yield chunk

    def close(self) -> None:
        self._portal.call(self._exchange.aclose)


def _site_request(
    request: httpx.Request, address: str, wait_client_left: Callable[[], Awaitable[None]]
) -> Request:
    """The request as a protocol would make it. Its content has been read."""
    url, content = request.url, request.content
    return Request(
        request.method,
        url.raw_path.decode("ascii"),
        [(name.lower(), value) for name, value in request.headers.raw],
        client=(address, 50000),
        server=(url.host, url.port or (443 if url.scheme == "https" else 80)),
        scheme=url.scheme,
        body=body_chunks(content) if content else None,
        body_length=len(content),
        wait_client_left=wait_client_left,
    )


def body_chunks(body: bytes, size: int = CHUNK_SIZE) -> ChunkIterator:
    """Return *body* as it arrives over a network, *size* bytes at a time."""
    file = io.BytesIO(body)

    async def read() -> bytes:
        await trio.lowlevel.checkpoint()
        return file.read(size)

    return ChunkIterator(read)


def copy_site(site: Path, directory: Path) -> Path:
    """Copy *site* into *directory*, but for what tools have put beside it; return the copy."""

    def ignored(path: str, names: list[str]) -> set[str]:
        environments = (name for name in names if Path(path, name, "pyvenv.cfg").exists())
        return {*NOT_COPIED.intersection(names), *environments}

    copy = directory / site.name
    shutil.copytree(site, copy, ignore=ignored, symlinks=True)
    return copy
