"""The chunked transfer coding, strictly (RFC 9112, section 7.1): the data in it, and whether its end has come.

A step takes what is whole from the bytes that are held. Extensions and trailers are looked at and dropped, as nothing
here knows what they mean (RFC 9112, section 7.1.1; RFC 9110, section 6.5.1). A body is done only when its trailers have
come and are good, so that one which is cut or broken anywhere never looks whole. How it was divided into chunks
means nothing, so thousands of tiny ones come out as one piece.

Bytes that are held until an element of a message, a head, a line, trailers, is whole.

Each byte is searched once, however small the pieces that it comes in. Knows the line breaks of HTTP/1.1 and nothing
else of it; `guard` and `chunks` share one of these.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Final

from rpyserve.http.errors import BadRequest
from rpyserve.http.types import Limits
from rpyserve.protocol.grammar import FIELDS, TOKEN, number, too_large

__all__ = ["ChunkedDecoder", "ReceiveBuffer"]


# No element that is read by lines may have these: control characters, CR and LF that are not together.
_FAULT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")


class ReceiveBuffer:
    """What has come and not been taken.

    Attributes:
        data: the bytes. Only what is here may take any.
    """

    __slots__ = ("_searched", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        return len(self.data)

    def take(self, count: int) -> bytes:
        """Take the first *count* bytes, or all if there are fewer."""
        taken = bytes(self.data[:count])
        del self.data[:count]
        self._searched = 0
        return taken

    def clear(self) -> None:
        """Forget all of it."""
        self.data.clear()
        self._searched = 0

    def drop_empty_lines(self) -> None:
        """Forget empty lines at the beginning."""
        if self.data.startswith(b"\r") and (empty := _EMPTY_LINES.match(self.data)):
            self.take(empty.end())

    def lines(self) -> int:
        """How many bytes the lines have that end with an empty one, that one included; 0 if it has not come."""
        if self.data.startswith(b"\r\n"):
            return 2
        found = self.data.find(b"\r\n\r\n", max(self._searched - 3, 0))
        return found + 4 if found >= 0 else 0

    def has_fault(self) -> bool:
        """Whether a byte has come that no line may have. Says so of each byte once."""
        found = _FAULT.search(self.data, max(self._searched - 1, 0))
        self._searched = len(self.data)
        return found is not None


EXTENSIONS: Final = 4096
"""How many bytes the extensions of all chunks of one body may have (RFC 9112, section 7.1.1)."""
LINE: Final = 1024
"""How many bytes the line before a chunk may have."""

_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_EXTENSION: Final = (
    rb"[ \t]*+;[ \t]*+" + TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + TOKEN + rb"|" + _QUOTED + rb"))?+"
)
_CHUNK = re.compile(rb"([0-9A-Fa-f]++)((?:" + _EXTENSION + rb")*+)\r\n")
_TRAILERS = re.compile(FIELDS)


class _At(enum.Enum):
    """What the next bytes are."""

    LINE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()
    END = enum.auto()


class ChunkedDecoder:
    """One chunked body on its way through.

    Args:
        held: the bytes that have come.
        limits: how long the body, and its trailers, may be.

    Attributes:
        refusal: why no more data comes, if so.
    """

    def __init__(self, held: ReceiveBuffer, limits: Limits) -> None:
        self.refusal: BadRequest | None = None
        self._held = held
        self._limits = limits
        self._at = _At.LINE
        self._left = 0  # bytes of this chunk
        self._total = 0  # bytes of all chunks so far
        self._extensions = 0
        self._steps: dict[_At, Callable[[], bytes | None]] = {
            _At.LINE: self._line,
            _At.DATA: self._data,
            _At.DATA_END: self._data_end,
            _At.TRAILERS: self._trailers,
            _At.END: self._nothing,
        }

    @property
    def done(self) -> bool:
        """Whether the body is over."""
        return self._at is _At.END

    def data(self) -> bytes:
        """Take the data of the chunks that have come, up to what is refused; empty if there is none yet."""
        pieces = []
        try:
            while self.refusal is None and (piece := self._steps[self._at]()) is not None:
                pieces.append(piece)
        except BadRequest as refusal:
            self.refusal = refusal
        return b"".join(pieces)

    def _nothing(self) -> None:
        return None

    def _line(self) -> bytes | None:
        end = self._held.data.find(b"\r\n", 0, LINE)
        if end < 0 and len(self._held) < LINE and not self._held.has_fault():
            return None
        found = _CHUNK.fullmatch(self._held.take(end + 2))
        if found is None:
            raise BadRequest(400, "The size of a chunk of the request's body is malformed.")
        self._left = number(found[1], 16)
        self._total += self._left
        self._extensions += len(found[2])
        if self._extensions > EXTENSIONS:
            raise BadRequest(400, f"The extensions of chunks may have {EXTENSIONS} bytes in all.")
        if self._total > self._limits.body:
            raise BadRequest(413, too_large(self._limits))
        self._at = _At.DATA if self._left else _At.TRAILERS
        return b""

    def _data(self) -> bytes | None:
        if not self._held:
            return None
        piece = self._held.take(self._left)
        self._left -= len(piece)
        if not self._left:
            self._at = _At.DATA_END
        return piece

    def _data_end(self) -> bytes | None:
        if not b"\r\n".startswith(self._held.data[:2]):
            raise BadRequest(400, "A chunk of the request's body is longer than it says.")
        if len(self._held) < 2:
            return None
        self._at = _At.LINE
        self._held.take(2)
        return b""

    def _trailers(self) -> bytes | None:
        limits, held = self._limits, self._held
        end = held.lines()
        if (end or len(held)) > limits.head or held.data.count(b"\n", 0, end) > limits.fields + 1:
            raise BadRequest(
                431, f"Trailers may have {limits.head} bytes and {limits.fields} lines."
            )
        if not end and not held.has_fault():
            return None
        if not end or not _TRAILERS.fullmatch(held.take(end)):
            raise BadRequest(400, "The trailers of the request's body are malformed.")
        self._at = _At.END
        return b""
