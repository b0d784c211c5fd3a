"""The client for async tests: a visitor of a site that runs in the test's own loop. See `testing`.

It asks the site itself, as a protocol would: no sockets, and all else as it is. The plain client is built on this one.

Tests of scripts and sites: a client that asks without a network, and time that a test can move.

`Client` is for plain test functions, `AsyncClient` for async ones. Both ask the site itself, as a protocol would, so
all that a visitor could notice is there but the wire: statuses, headers, cookies, sessions that end, streams, and
that the visitor leaves. This module works without pytest; the fixtures for that are in `pytestplugin`.

"Twisted Web in 60 seconds" says of rpy scripts that they are hard to test. Here they are not.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

import trio

from rpyserve.files.directory import Directory
from rpyserve.sessions.session import Registry, Session
from rpyserve.site import Site
from rpyserve.testing.exchange import Serves
from rpyserve.testing.messages import Answer, Headers, Sent, Writer
from rpyserve.testing.portal import Portal

__all__ = [
    "TIMEOUT",
    "Answer",
    "AsyncClient",
    "AsyncStreaming",
    "Client",
    "Headers",
    "Sent",
    "Streaming",
    "Visiting",
    "Visitor",
    "within",
]


TIMEOUT: Final = 600.0
"""Seconds that an answer may take: of time that passes at once, mostly."""
REDIRECTS: Final = 20
"""How many redirects are followed, one after the other."""


class Visiting:
    """What the clients have in common: a site, and one visitor of it."""

    site: Site
    _writer: Writer

    @property
    def cookies(self) -> dict[str, str]:
        """The visitor's cookies, by name."""
        return self._writer.cookies

    @property
    def session(self) -> Session | None:
        """The visitor's session, if it lives. Looking at it is no visit."""
        uids = (uid for uid in self.cookies.values() if uid in self.site.sessions)
        return next((self.site.sessions[uid] for uid in uids), None)

    @property
    def registry(self) -> Registry:
        """What all visitors share."""
        return self.site.registry


class AsyncClient(Visiting):
    """A visitor of a site, for async tests: ``async with AsyncClient("site") as client: await client.get("/a")``.

    Time is that of the test: with pytest-trio, its fixture ``autojump_clock`` moves it.

    Args:
        site: a `Site`, a resource, a function of the request, the path of a directory, or of a script.
        session_timeout: seconds; for what is no `Site` yet.
        raise_errors: whether an exception that a script raises is raised here. False gives the page that is shown.
        timeout: seconds, of the test's time, that an answer may take.
        address: the visitor's IP address.

    Attributes:
        place: the directory that is the current one while the client is entered; None leaves it as it is.

    Raises:
        FileNotFoundError: there is no such directory or script.
        TypeError: what is given cannot be served.
    """

    def __init__(
        self,
        site: Any,
        *,
        session_timeout: float | None = None,
        raise_errors: bool = True,
        timeout: float = TIMEOUT,
        address: str = "127.0.0.1",
    ) -> None:
        self.site, base, self.place = _site_of(site, session_timeout)
        self._writer = Writer(base, address)
        self._raise_errors = raise_errors
        self._timeout = timeout
        self._nursery: trio.Nursery

    async def __aenter__(self) -> AsyncClient:
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._running.__aexit__(*exc_info)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        with within(self.place):
            async with self.site.running(), trio.open_nursery() as self._nursery:
                yield
                self._nursery.cancel_scope.cancel()

    def visitor(self, address: str | None = None) -> AsyncClient:
        """Return another visitor of the same site, without cookies. Not to be entered."""
        other = AsyncClient(self.site, raise_errors=self._raise_errors, timeout=self._timeout)
        other._writer = Writer(self._writer.base, address or self._writer.address)
        other._nursery = self._nursery
        return other

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass: sessions end, tasks go on."""
        await trio.sleep(seconds)

    async def get(self, target: str = "", **sent: Unpack[Sent]) -> Answer:
        """Ask by GET. See `request`."""
        return await self.request("GET", target, **sent)

    async def post(self, target: str = "", **sent: Unpack[Sent]) -> Answer:
        """Ask by POST. See `request`."""
        return await self.request("POST", target, **sent)

    async def request(self, method: str, target: str = "", **sent: Unpack[Sent]) -> Answer:
        """Ask for *target*, and read the answer to its end.

        Args:
            method: the HTTP method.
            target: a path, such as ``"/counter?x=1"``, or a URL. Empty is the page of the script that was given.
            sent: see `Sent`.

        Raises:
            TimeoutError: the answer took longer than the client's ``timeout``.
            Exception: whatever the script raised, unless ``raise_errors`` is False.
        """
        for _ in range(REDIRECTS):
            async with self._answering(method, target, sent) as serves:
                answer = await serves.rest(self._timeout)
            onward = self._writer.after(method, target, answer) if sent.get("follow") else None
            if onward is None:
                return answer
            if onward[0] != method:
                sent = {"headers": sent.get("headers", ()), "follow": True}
            method, target = onward
        raise RuntimeError(f"{target} leads from one redirect to another")

    @asynccontextmanager
    async def stream(self, method: str, target: str = "", **sent: Unpack[Sent]) -> AsyncIterator[AsyncStreaming]:
        """Ask for *target*, and read the answer step by step: ``async for chunk in answer``. To go out is to leave."""
        async with self._answering(method, target, sent) as serves:
            yield AsyncStreaming(serves, self._timeout)

    @asynccontextmanager
    async def _answering(self, method: str, target: str, sent: Sent) -> AsyncIterator[Serves]:
        left = trio.Event()
        serves = Serves(self.site, self._writer.request(method, target, sent, left), left, self._raise_errors)
        try:
            await serves.begin(self._nursery, self._timeout)
            self._writer.take(serves.answer.headers)
            yield serves
        finally:
            await serves.leave()


class AsyncStreaming:
    """An answer that is read step by step.

    Attributes:
        status: the status code.
        headers: the headers.
    """

    def __init__(self, serves: Serves, timeout: float) -> None:
        self._serves = serves
        self._timeout = timeout
        self.status = serves.answer.status
        self.headers = serves.answer.headers

    def __aiter__(self) -> AsyncStreaming:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._serves.chunk(self._timeout)
        if not chunk:
            raise StopAsyncIteration
        return chunk


def _site_of(given: Any, session_timeout: float | None) -> tuple[Site, str, Path | None]:
    """The site that *given* means, the page that it means, and the directory where its scripts run."""
    if isinstance(given, Site):
        root = given.root
        return given, "/", root.path if isinstance(root, Directory) else None
    if not isinstance(given, (str, os.PathLike)):
        return Site(given, sessionTimeout=session_timeout), "/", None
    path = Path(given).resolve()
    if not path.exists():
        raise FileNotFoundError(f"there is no directory or script {str(given)!r} in {os.getcwd()!r}")
    directory, base = (path, "/") if path.is_dir() else (path.parent, f"/{path.name.removesuffix('.rpy')}")
    return Site(Directory(directory), sessionTimeout=session_timeout), base, directory


@contextmanager
def within(place: Path | None) -> Iterator[None]:
    """While inside, *place* is the current directory."""
    if place is None:
        yield
        return
    before = os.getcwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


Result = TypeVar("Result")
Args = TypeVarTuple("Args")


class Visitor(Visiting):
    """A visitor of a site, for plain test functions. See `Client`, which is the first one."""

    def __init__(self, client: AsyncClient, portal: Portal) -> None:
        self._client = client
        self._portal = portal
        self._writer = client._writer
        self.site = client.site

    def visitor(self, address: str | None = None) -> Visitor:
        """Return another visitor of the same site, without cookies."""
        return Visitor(self._client.visitor(address), self._portal)

    def get(self, target: str = "", **sent: Unpack[Sent]) -> Answer:
        """Ask by GET. See `request`."""
        return self.request("GET", target, **sent)

    def post(self, target: str = "", **sent: Unpack[Sent]) -> Answer:
        """Ask by POST. See `request`."""
        return self.request("POST", target, **sent)

    def request(self, method: str, target: str = "", **sent: Unpack[Sent]) -> Answer:
        """Ask for *target*, and read the answer to its end. See `AsyncClient.request`."""

        async def ask() -> Answer:
            return await self._client.request(method, target, **sent)

        return self.run(ask)

    @contextmanager
    def stream(self, method: str, target: str = "", **sent: Unpack[Sent]) -> Iterator[Streaming]:
        """Ask for *target*, and read the answer step by step: ``for chunk in answer``. To go out is to leave."""
        manager = self._client.stream(method, target, **sent)
        answer = self.run(manager.__aenter__)
        try:
            yield Streaming(answer, self.run)
        finally:
            self.run(manager.__aexit__, None, None, None)

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass, which takes no time: sessions end, tasks beside the site go on."""
        self.run(trio.sleep, seconds)

    def run(self, function: Callable[[*Args], Awaitable[Result]], *args: *Args) -> Result:
        """Run an async function of the test's own where the site runs, and return what it returns."""
        with within(self._client.place):
            return self._portal.call(function, *args)


class Client(Visitor):
    """A site and a visitor of it, for plain test functions: ``with Client("site") as client: client.get("/a")``.

    Between two calls time stands still. Within one it passes as needed and takes none, also ``client.sleep(900)``.
    While a call lasts, the current directory is the site's.

    Args:
        site: a `Site`, a resource, a function of the request, the path of a directory, or of a script.
        session_timeout: seconds; for what is no `Site` yet.
        raise_errors: whether an exception that a script raises is raised here. False gives the page that is shown.
        timeout: seconds, of the client's time, that an answer may take.
        address: the visitor's IP address.

    Raises:
        FileNotFoundError: there is no such directory or script.
        TypeError: what is given cannot be served.
    """

    def __init__(
        self,
        site: Any,
        *,
        session_timeout: float | None = None,
        raise_errors: bool = True,
        timeout: float = TIMEOUT,
        address: str = "127.0.0.1",
    ) -> None:
        client = AsyncClient(
            site, session_timeout=session_timeout, raise_errors=raise_errors, timeout=timeout, address=address
        )
        place, client.place = client.place, None  # entered for each call, not for good

        async def main(until_closed: Callable[[], Awaitable[None]]) -> None:
            async with client:
                await until_closed()

        portal = Portal(main)
        client.place = place
        super().__init__(client, portal)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stop the site: sessions end, their callbacks included. Doing so twice does nothing."""
        with within(self._client.place):
            self._portal.close()


class Streaming:
    """An answer that is read step by step.

    Attributes:
        status: the status code.
        headers: the headers.
    """

    def __init__(self, answer: AsyncStreaming, run: Callable[..., bytes]) -> None:
        self._answer = answer
        self._run = run
        self.status = answer.status
        self.headers = answer.headers

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = self._run(anext, self._answer, b"")
        if not chunk:
            raise StopIteration
        return chunk
