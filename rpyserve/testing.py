"""Tests of scripts and sites: a client that asks without a network, and time that a test can move.

`Client` is for plain test functions, `AsyncClient` for async ones. Both ask the site itself, as a protocol would, so
all that a visitor could notice is there but the wire: statuses, headers, cookies, sessions that end, streams, and
that the visitor leaves. This module works without pytest; the fixtures for that are in `pytestplugin`.

"Twisted Web in 60 seconds" says of rpy scripts that they are hard to test. Here they are not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, Unpack

import trio

from rpyserve.asking import Answer, Headers, Sent
from rpyserve.asyncclient import TIMEOUT, AsyncClient, AsyncStreaming, Visiting, within
from rpyserve.portal import Portal

__all__ = ["Answer", "AsyncClient", "AsyncStreaming", "Client", "Headers", "Sent", "Streaming", "Visitor"]

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
