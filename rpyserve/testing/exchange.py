"""One request of a test's client, on its way: a task that has the site answer, and what comes out chunk by chunk.

The task waits until each chunk has been taken, so that a test can look at a page half-way. It ends when the visitor
leaves, and whatever the script raised is then known. Knows sites, but no clients.
"""

from __future__ import annotations

import trio

from rpyserve.http.request import Request
from rpyserve.http.response import start_body
from rpyserve.site import Site
from rpyserve.testing.messages import Answer

__all__ = ["Serves"]


class Serves:
    """Has *site* answer *request*.

    Args:
        left: set when the visitor goes: the request's ``wait_client_left``.
        raise_errors: whether what the script raises is raised to whoever reads.

    Attributes:
        answer: status and headers, once it has begun.
    """

    answer: Answer

    def __init__(self, site: Site, request: Request, left: trio.Event, raise_errors: bool) -> None:
        self._site = site
        self._request = request
        self._left = left
        self._raise_errors = raise_errors
        self._failure: BaseException | None = None
        self._cut = False
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        self._begun = trio.Event()
        self._send, self._receive = trio.open_memory_channel[bytes](0)
        request._on_failure = self._note

    async def begin(self, nursery: trio.Nursery, seconds: float) -> None:
        """Start, and wait until there is a head.

        Raises:
            TimeoutError: that took longer than *seconds*.
            Exception: what the script raised.
        """
        nursery.start_soon(self._run)
        with trio.move_on_after(seconds) as scope:
            await self._begun.wait()
        if scope.cancelled_caught:
            raise TimeoutError(f"{self._request.method} {self._request.uri} has no answer after {seconds} s")
        self._raise()

    async def chunk(self, seconds: float) -> bytes:
        """Return the next chunk; empty when there are no more.

        Raises:
            TimeoutError: that took longer than *seconds*.
            Exception: what the script raised.
        """
        with trio.move_on_after(seconds) as scope:
            try:
                return await self._receive.receive()
            except trio.EndOfChannel:
                await self._over.wait()
        if scope.cancelled_caught:
            raise TimeoutError(f"{self._request.method} {self._request.uri} has no more to say after {seconds} s")
        self._raise()
        return b""

    async def rest(self, seconds: float) -> Answer:
        """Read to the end.

        Raises:
            TimeoutError: that took longer than *seconds*.
            Exception: what the script raised.
        """
        chunks = []
        with trio.move_on_after(seconds) as scope:
            while chunk := await self.chunk(seconds):
                chunks.append(chunk)
        if scope.cancelled_caught:
            raise TimeoutError(
                f"{self._request.method} {self._request.uri} is not complete after {seconds} s: read it step by "
                "step, by client.stream(...)"
            )
        return Answer(self.answer.status, self.answer.headers, b"".join(chunks), not self._cut)

    async def leave(self) -> None:
        """Go away, and wait until nothing works for this request any more."""
        with trio.CancelScope(shield=True):
            self._left.set()
            self._scope.cancel()
            await self._over.wait()

    async def _run(self) -> None:
        try:
            with self._scope, self._send:
                await self._serve()
        except Exception as exc:
            self._cut = True
            self._failure = self._failure or exc
        finally:
            self._request.close()
            self._begun.set()
            self._over.set()

    async def _serve(self) -> None:
        async with start_body(await self._site.respond(self._request)) as body:
            self.answer = Answer.of(body.response)
            self._begun.set()
            if self._request.method != "HEAD":
                async for chunk in body.chunks:
                    if chunk:
                        await self._send.send(chunk)

    def _note(self, exc: BaseException) -> None:
        self._failure = exc

    def _raise(self) -> None:
        if self._failure is not None and (self._raise_errors or not hasattr(self, "answer")):
            raise self._failure
