"""The chunked transfer coding, strictly (RFC 9112, section 7.1).

Each step takes what is whole from the buffer. Extensions and trailers are checked and dropped, as
nothing here knows what they mean (RFC 9112, section 7.1.1; RFC 9110, section 6.5.1). A body is done
only when its trailers have come and are good, so that one which is cut or broken anywhere never
looks whole. How it was divided into chunks means nothing, so thousands of tiny ones come out as one
piece.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Final

from rpyserve.http.errors import BadRequest
from rpyserve.protocol.grammar import FIELD_LINES, TOKEN, parse_length, too_large
from rpyserve.protocol.request_reader import ReceiveBuffer
from rpyserve.protocol.server_state import Limits

# How many bytes the extensions of all chunks of one body may have (RFC 9112, section 7.1.1).
MOST_EXTENSIONS: Final = 4096

# Steps that are done at once, three for each chunk: others must have their turn.
MOST_STEPS: Final = 3000

# How many bytes the line before a chunk may have.
LONGEST_LINE: Final = 1024

_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_EXTENSION: Final = (
    rb"[ \t]*+;[ \t]*+" + TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + TOKEN + rb"|" + _QUOTED + rb"))?+"
)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]++)((?:" + _EXTENSION + rb")*+)\r\n")
_TRAILERS = re.compile(FIELD_LINES)


class _State(enum.Enum):
    """What the next bytes are."""

    LINE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()
    END = enum.auto()


class ChunkedDecoder:
    """Takes one chunked body from the buffer.

    Args:
        buffer: the bytes that have come.
        limits: how long the body, and its trailers, may be.

    Attributes:
        refusal: why no more data comes, if the body is malformed or too long.
    """

    def __init__(self, buffer: ReceiveBuffer, limits: Limits) -> None:
        self.refusal: BadRequest | None = None
        self._buffer = buffer
        self._limits = limits
        self._state = _State.LINE
        self._left = 0  # bytes of this chunk
        self._total = 0  # bytes of all chunks so far
        self._extensions = 0  # bytes of all extensions so far

    @property
    def done(self) -> bool:
        """Whether the body is over."""
        return self._state is _State.END

    def take(self) -> bytes:
        """Take the data that has come, up to what is refused; empty if there is none yet.

        Of very many small chunks not all are taken at once.
        """
        pieces: list[bytes] = []
        try:
            while len(pieces) < MOST_STEPS and self.refusal is None:
                piece = _STEPS[self._state](self)
                if piece is None:
                    break
                pieces.append(piece)
        except BadRequest as refusal:
            self.refusal = refusal
        return b"".join(pieces)

    # Each step returns the data that it took, perhaps none; or None, if more bytes must come first.

    def _take_line(self) -> bytes | None:
        buffer = self._buffer
        end = buffer.data.find(b"\r\n", 0, LONGEST_LINE)
        if end < 0 and len(buffer) < LONGEST_LINE and not buffer.has_bad_byte():
            return None
        match = _CHUNK_LINE.fullmatch(buffer.take(end + 2))
        if match is None:
            raise BadRequest(400, "The size of a chunk of the request's body is malformed.")
        self._left = parse_length(match[1], 16)
        self._total += self._left
        self._extensions += len(match[2])
        if self._extensions > MOST_EXTENSIONS:
            raise BadRequest(
                400, f"The extensions of chunks may have {MOST_EXTENSIONS} bytes in all."
            )
        if self._total > self._limits.body:
            raise BadRequest(413, too_large(self._limits))
        self._state = _State.DATA if self._left else _State.TRAILERS
        return b""

    def _take_data(self) -> bytes | None:
        if not self._buffer:
            return None
        piece = self._buffer.take(self._left)
        self._left -= len(piece)
        if not self._left:
            self._state = _State.DATA_END
        return piece

    def _take_data_end(self) -> bytes | None:
        buffer = self._buffer
        if not b"\r\n".startswith(buffer.data[:2]):
            raise BadRequest(400, "A chunk of the request's body is longer than it says.")
        if len(buffer) < 2:
            return None
        buffer.take(2)
        self._state = _State.LINE
        return b""

    def _take_trailers(self) -> bytes | None:
        limits, buffer = self._limits, self._buffer
        end = buffer.find_end_of_lines()
        lines = buffer.data.count(b"\n", 0, end)
        if (end or len(buffer)) > limits.head or lines > limits.fields + 1:
            raise BadRequest(
                431, f"Trailers may have {limits.head} bytes and {limits.fields} lines."
            )
        if not end and not buffer.has_bad_byte():
            return None
        if not end or not _TRAILERS.fullmatch(buffer.take(end)):
            raise BadRequest(400, "The trailers of the request's body are malformed.")
        self._state = _State.END
        return b""

    def _take_nothing(self) -> None:
        return None


_STEPS: Final[dict[_State, Callable[[ChunkedDecoder], bytes | None]]] = {
    _State.LINE: ChunkedDecoder._take_line,
    _State.DATA: ChunkedDecoder._take_data,
    _State.DATA_END: ChunkedDecoder._take_data_end,
    _State.TRAILERS: ChunkedDecoder._take_trailers,
    _State.END: ChunkedDecoder._take_nothing,
}
