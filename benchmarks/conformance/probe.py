"""Sends the bytes of one rule over any stream, and tells in a few words what came back.

``200 POST abcde; 200 GET`` are two responses, the second that to the plain request which follows; ``closed`` says that
the server closed the connection, ``no answer`` that nothing came in time. The bodies of errors are not shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import trio

from benchmarks.conformance.rules import AWAIT, HOST, Must, Repeat, raw, shown_bytes

PROBE = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
QUIET = 1.0
"""Seconds without a byte after which nothing more is expected of a server that has answered."""


class Over(Exception):
    """No more will come."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False

    def told(self, shown: tuple[str, ...]) -> str:
        words = [str(self.status)]
        if self.status < 300 and self.body:
            words.append(shown_bytes([self.body[:40].strip()]))
        fields = [f"{name}: {_value(name, self.headers[name])}" for name in shown if name in self.headers]
        if fields:
            words.append(f"({', '.join(fields)})")
        if self.cut:
            words.append("cut")
        return " ".join(words)


def _value(name: str, value: str) -> str:
    return value.rpartition(" ")[2] if name == "date" else value


class Answers:
    """What comes over *stream*, response by response."""

    def __init__(self, stream: Any, patience: float) -> None:
        self._stream = stream
        self._patience = patience
        self._left = b""
        self.begun = trio.Event()
        self.closed = False

    async def _more(self) -> None:
        if self.closed:
            raise Over
        with trio.move_on_after(QUIET if self.begun.is_set() and not self._left else self._patience):
            try:
                data = bytes(await self._stream.receive_some(65536))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self.closed = not data
            self._left += data
            if data:
                self.begun.set()
                return
        raise Over

    async def next(self, method: str) -> Answer:
        """The next response.

        Raises:
            Over: there is none.
        """
        while b"\r\n\r\n" not in self._left:
            await self._more()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        words = status.split(" ")
        answer = Answer(int(words[1]) if words[0].startswith("HTTP/") and words[1].isdigit() else 0)
        for line in lines:
            name, _, value = line.partition(":")
            answer.headers[name.lower()] = value.strip()
        if not (method == "HEAD" or answer.status in (204, 304) or answer.status < 200):
            try:
                await self._body(answer)
            except (Over, ValueError):
                answer.cut = "content-length" in answer.headers or "transfer-encoding" in answer.headers
                answer.body, self._left = answer.body or self._left, b""
        return answer

    async def _body(self, answer: Answer) -> None:
        if "chunked" in answer.headers.get("transfer-encoding", ""):
            while size := int((await self._line()).partition(b";")[0], 16):
                answer.body += (await self._exactly(size + 2))[:-2]
            await self._line()
        elif "content-length" in answer.headers:
            answer.body = await self._exactly(int(answer.headers["content-length"]))
        else:
            while True:
                await self._more()

    async def _line(self) -> bytes:
        while b"\r\n" not in self._left:
            await self._more()
        line, _, self._left = self._left.partition(b"\r\n")
        return line

    async def _exactly(self, size: int) -> bytes:
        while len(self._left) < size:
            await self._more()
        data, self._left = self._left[:size], self._left[size:]
        return data


async def told(stream: Any, must: Must, patience: float = 3) -> str:
    """Send the bytes of *must*, and what follows them, over *stream*; return what came back."""
    answers = Answers(stream, patience)
    words: list[str] = []
    closing = False
    method = raw(must.sent).partition(b" ")[0].decode("latin-1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, stream, must, answers)
        try:
            while len(words) < 5:
                answer = await answers.next(method)
                words.append(answer.told(must.shown if not words else ()))
                closing = answer.headers.get("connection", "").lower() == "close"
                method = method if answer.status < 200 else "GET"
        except Over:
            pass
        nursery.cancel_scope.cancel()
    if answers.closed or closing:  # some wait for the client to do it
        words.append("closed")
    return "; ".join(words) or "no answer"


async def _send(stream: Any, must: Must, answers: Answers) -> None:
    try:
        for part in must.sent:
            if part is AWAIT:
                with trio.move_on_after(QUIET):
                    await answers.begun.wait()
            await stream.send_all(part.data * part.times if isinstance(part, Repeat) else part)
        if must.cut:
            await stream.send_eof()
        else:
            # Not at once: a server that closes while bytes are unread resets the connection, answer and all.
            with trio.move_on_after(QUIET / 2):
                await answers.begun.wait()
            await stream.send_all(PROBE)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it has been answered already
