"""A filter in front of h11: bytes come in, and those go out that h11 may have. No I/O.

h11 is lenient where RFC 9112 is strict; what passes here is strict, and h11 stays the only parser. A head is held
until it is whole, and then judged by `rules`; bodies pass as they come. What may not pass is never raised here: it
stays in `refusal` until whoever reads has had all that came before it. After the end of a message nothing passes
until `resume`, so a request is not looked at before the one ahead of it is answered. After a refusal nothing passes
any more.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Final

from rpyserve.http.errors import BadRequest
from rpyserve.http.types import Limits
from rpyserve.protocol.chunked import ChunkedDecoder, ReceiveBuffer
from rpyserve.protocol.grammar import CHUNKED, METHOD, check_line, explain_bad_head, validate_head

__all__ = ["RequestValidator"]

REMEMBERED: Final = 4096
"""How many bytes a head may have to be remembered."""


class _At(enum.Enum):
    """What the next bytes belong to."""

    HEAD = enum.auto()
    BODY = enum.auto()
    CHUNKS = enum.auto()
    PAUSE = enum.auto()
    REFUSED = enum.auto()


class RequestValidator:
    """What stands between one connection and its h11.

    Args:
        limits: how long a request line, a head, and what is like a head, may be.
        scheme: ``"http"`` or ``"https"``, as the connection is.

    Attributes:
        refusal: why nothing passes any more, if so.
        length: how many bytes the body of the last request that passed has, or `CHUNKED`.
    """

    __slots__ = (
        "_at", "_chunks", "_ended", "_held", "_last_head", "_left", "_limits", "_line_is_good", "_scheme", "length",
        "refusal",
    )  # fmt: skip

    def __init__(self, limits: Limits, scheme: str = "http") -> None:
        self.refusal: BadRequest | None = None
        self.length = 0
        self._limits = limits
        self._scheme = scheme
        self._at = _At.HEAD
        self._held = ReceiveBuffer()
        self._line_is_good = False
        self._left = 0  # bytes of the body
        self._chunks: ChunkedDecoder | None = None
        self._ended = False
        self._last_head = (
            b""  # without a body; a client that asks again mostly sends the same bytes
        )

    def __repr__(self) -> str:
        return f"<Guard at {self._at.name}, {len(self._held)} bytes held>"

    @property
    def waiting(self) -> int:
        """How many bytes have come and not passed yet."""
        return len(self._held)

    @property
    def begun(self) -> bool:
        """Whether a part of a head is there."""
        return self._at is _At.HEAD and bool(self._held) and self._held.data != b"\r"

    @property
    def at_eof(self) -> bool:
        """Whether the client's end has been reached: it will send no more, and all that it sent has passed."""
        return (
            self._ended
            and self._at is not _At.REFUSED
            and not (self._at is _At.PAUSE and self._held)
        )

    def feed(self, data: bytes | bytearray) -> bytes:
        """Take *data*, empty if the client will send no more; return what may pass now."""
        if data and data == self._last_head and self._at is _At.HEAD and not self._held:
            self.length, self._at = 0, _At.PAUSE
            return self._last_head
        self._ended = self._ended or not data
        if self._at is not _At.REFUSED:
            self._held.data += data
        return self._advance()

    def resume(self) -> bytes:
        """The message has been answered; return what may pass of the next one."""
        self._at = _At.HEAD
        return self._advance() if self._held else b""

    def take_buffered(self) -> bytes:
        """Another protocol takes the connection over; return what has come of it already."""
        return self._held.take(len(self._held))

    def _advance(self) -> bytes:
        passed = []
        try:
            while (piece := _STEPS[self._at](self)) is not None:
                passed.append(piece)
        except BadRequest as refusal:
            self.refusal = refusal
            self._at = _At.REFUSED
            self._held.clear()
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def _nothing(self) -> None:
        return None

    def _body(self) -> bytes | None:
        if self._left and not self._held:
            return None
        piece = self._held.take(self._left)
        self._left -= len(piece)
        if not self._left:
            self._at = _At.PAUSE
        return piece

    def _chunked_body(self) -> bytes | None:
        chunks = self._chunks
        assert chunks is not None  # `_begin_body` has made them
        data = chunks.data()
        passing = b"%x\r\n%s\r\n" % (len(data), data) if data else b""
        if chunks.done:
            self._at = _At.PAUSE
            return passing + b"0\r\n\r\n"
        if not passing and chunks.refusal is not None:
            raise chunks.refusal
        return passing or None

    # The head

    def _head(self) -> bytes | None:
        held = self._held
        held.drop_empty_lines()  # RFC 9112, section 2.2
        try:
            if not (end := held.lines()):
                self._check_begun_head()
                return None
            head = bytes(held.data[:end])
            self._check_size(head)
            if end > REMEMBERED:
                length = validate_head(head, self._scheme)
            else:
                head, length = _judge_often(head, self._scheme)
        except BadRequest as refusal:
            refusal.name(held.data)
            raise
        held.take(end)
        self._begin_body(length)
        if not length:
            self._last_head = head
        return head

    def _begin_body(self, length: int) -> None:
        self.length = length
        self._line_is_good = False
        if length == CHUNKED:
            self._chunks = ChunkedDecoder(self._held, self._limits)
            self._at = _At.CHUNKS
        else:
            self._left = length
            self._at = _At.BODY if length else _At.PAUSE

    def _check_begun_head(self) -> None:
        """See at once what can never become a head, as whoever sent it may be waiting for an answer."""
        held = self._held
        if held.has_fault():
            raise explain_bad_head(bytes(held.data))
        if not self._line_is_good and (end := held.data.find(b"\r\n")) >= 0:
            check_line(bytes(held.data[: end + 2]))
            self._line_is_good = True
        self._check_size(held.data)
        if self._ended and self.begun:
            raise BadRequest(400, "The request ended within its head.")

    def _check_size(self, head: bytes | bytearray) -> None:
        limits = self._limits
        if len(head) > METHOD and head.find(b" ", 0, METHOD + 1) < 0:
            raise BadRequest(501, "No method has so long a name.")
        if len(head) > limits.line and head.find(b"\r\n", 0, limits.line) < 0:
            raise BadRequest(414, f"A request line may have {limits.line} bytes.")
        if len(head) > limits.head:
            raise BadRequest(431, f"The head of a request may have {limits.head} bytes.")
        if len(head) > limits.fields and head.count(b"\n") > limits.fields + 2:
            raise BadRequest(431, f"The head of a request may have {limits.fields} header lines.")


_STEPS: Final[dict[_At, Callable[[RequestValidator], bytes | None]]] = {
    _At.HEAD: RequestValidator._head,
    _At.BODY: RequestValidator._body,
    _At.CHUNKS: RequestValidator._chunked_body,
    _At.PAUSE: RequestValidator._nothing,
    _At.REFUSED: RequestValidator._nothing,
}


@functools.lru_cache(maxsize=256)
def _judge_often(head: bytes, scheme: str) -> tuple[bytes, int]:
    """`validate_head`, for heads that come again: a browser's differ little, and looking at one is the dearest part.

    With the length comes the head, the same object each time: connections that rest keep theirs.
    """
    return head, validate_head(head, scheme)
