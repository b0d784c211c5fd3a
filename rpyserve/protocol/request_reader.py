"""The bytes that a client sends, and the heads of requests in them. No I/O.

`RequestReader.read_head` takes the next head from the front of the buffer, once it is whole, and
judges and reads it by `grammar`. What cannot become a head is refused as soon as that is certain. A
body is taken from the same buffer by `request_body`; the next head must not be read before the end
of that body has been taken.

Programs often send the same head again and again, and what equal bytes mean is the same. So good
heads that have come twice are kept with what they say, for all connections. Besides the header
lines that `grammar` keeps, they are the only memory of requests that connections share.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from rpyserve.http.errors import BadRequest
from rpyserve.protocol.grammar import (
    LONGEST_METHOD,
    RequestHead,
    check_request_line,
    explain_bad_head,
    parse_head,
)
from rpyserve.protocol.server_state import Limits

# How many bytes a head may have to be kept.
LONGEST_CACHED: Final = 4096

# How many heads are kept; for one more, all are dropped.
MOST_CACHED: Final = 256

# Of how many heads it is remembered that they came once; for one more, all are forgotten.
MOST_SEEN: Final = 4096

# What no line may have: control characters, and CR or LF that are not together.
_BAD_BYTE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")


class HeadCache:
    """The good heads that have come more than once. One that comes once is not worth its memory.

    Attributes:
        heads: what they say, by their bytes.
    """

    __slots__ = ("_seen", "heads")

    def __init__(self) -> None:
        self.heads: dict[bytes, RequestHead] = {}
        self._seen: set[int] = set()  # the hashes of what came once

    def add(self, data: bytes, head: RequestHead) -> None:
        """Keep *head*, of the bytes *data*, if they have come before."""
        if len(data) > LONGEST_CACHED:
            return
        number = hash(data)
        if number in self._seen:
            if len(self.heads) >= MOST_CACHED:
                self.heads.clear()
            self.heads[data] = head
            return
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen.add(number)


@functools.lru_cache(maxsize=8)
def _head_cache(limits: Limits, scheme: str) -> HeadCache:
    """The heads kept for connections with these limits and this scheme; others may differ."""
    return HeadCache()


class ReceiveBuffer:
    """Bytes that have come and not been taken.

    Each is searched once, however small the pieces that they come in.

    Attributes:
        data: the bytes. They are taken by the methods of this class only.
        ended: whether the client will send no more.
    """

    __slots__ = ("_searched", "data", "ended")

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self._searched = 0

    def __len__(self) -> int:
        return len(self.data)

    def feed(self, data: bytes | bytearray) -> None:
        """Add *data* at the end; empty data says that the client will send no more."""
        self.data += data
        self.ended = self.ended or not data

    def clear(self) -> None:
        self.data.clear()
        self._searched = 0

    def take(self, count: int) -> bytes:
        """Take the first *count* bytes, or all if there are fewer."""
        if not count:
            return b""
        self._searched = 0
        if count >= len(self.data):
            taken = bytes(self.data)
            self.data.clear()
            return taken
        taken = bytes(self.data[:count])
        del self.data[:count]
        return taken

    def skip_empty_lines(self) -> None:
        """Drop empty lines at the beginning."""
        if self.data.startswith(b"\r") and (empty := _EMPTY_LINES.match(self.data)):
            self.take(empty.end())

    def find_end_of_lines(self) -> int:
        """Return the size of all lines with the empty one that ends them; 0 if it has not come."""
        if self.data.startswith(b"\r\n"):
            return 2
        found = self.data.find(b"\r\n\r\n", max(self._searched - 3, 0))
        return found + 4 if found >= 0 else 0

    def has_bad_byte(self) -> bool:
        """Whether a byte that no line may have is among those not searched before."""
        found = _BAD_BYTE.search(self.data, max(self._searched - 1, 0))
        self._searched = len(self.data)
        return found is not None


class RequestReader:
    """Reads the heads of the requests on one connection.

    Args:
        limits: how long a request line and a head may be.
        scheme: ``"http"`` or ``"https"``, as the connection is.

    Attributes:
        buffer: what has come and not been read.
    """

    __slots__ = ("_cache", "_limits", "_line_is_good", "_refusal", "_scheme", "buffer")

    def __init__(self, limits: Limits, scheme: str = "http") -> None:
        self.buffer = ReceiveBuffer()
        self._limits = limits
        self._scheme = scheme
        self._cache = _head_cache(limits, scheme)
        self._refusal: BadRequest | None = None
        self._line_is_good = False  # the request line of a head that is not whole yet

    def __repr__(self) -> str:
        return f"<RequestReader, {len(self.buffer)} bytes buffered>"

    @property
    def has_begun_head(self) -> bool:
        """Whether a part of a head is there. Asked only where a head may begin."""
        return bool(self.buffer) and self.buffer.data != b"\r"

    def read_head(self) -> RequestHead | None:
        """Take the next head; None if it is not whole yet.

        Raises:
            BadRequest: what has come is no head, and cannot become one. Nothing after it is ever
                read.
        """
        if self._refusal is not None:
            raise self._refusal
        buffer = self.buffer
        if not buffer.data:
            return None
        buffer.skip_empty_lines()  # RFC 9112, section 2.2
        end = buffer.find_end_of_lines()
        head = buffer.take(end)
        try:
            if not head:
                self._check_begun_head()
                return None
            self._line_is_good = False
            return self._cache.heads.get(head) or self._parse(head)
        except BadRequest as refusal:
            refusal.note_request_line(head or buffer.data)
            self._refusal = refusal
            raise

    def _parse(self, data: bytes) -> RequestHead:
        self._check_size(data)
        head = parse_head(data, self._scheme)
        self._cache.add(data, head)
        return head

    def _check_begun_head(self) -> None:
        """Refuse at once what can never become a head: its sender may be waiting for an answer."""
        buffer = self.buffer
        if buffer.has_bad_byte():
            raise explain_bad_head(bytes(buffer.data))
        if not self._line_is_good and (end := buffer.data.find(b"\r\n")) >= 0:
            check_request_line(bytes(buffer.data[: end + 2]))
            self._line_is_good = True
        self._check_size(buffer.data)
        if buffer.ended and self.has_begun_head:
            raise BadRequest(400, "The request ended within its head.")

    def _check_size(self, head: bytes | bytearray) -> None:
        limits, size = self._limits, len(head)
        if size > LONGEST_METHOD and head.find(b" ", 0, LONGEST_METHOD + 1) < 0:
            raise BadRequest(501, "No method has so long a name.")
        if size > limits.line and head.find(b"\r\n", 0, limits.line) < 0:
            raise BadRequest(414, f"A request line may have {limits.line} bytes.")
        if size > limits.head:
            raise BadRequest(431, f"The head of a request may have {limits.head} bytes.")
        if size > limits.fields and head.count(b"\n") > limits.fields + 2:
            raise BadRequest(431, f"The head of a request may have {limits.fields} header lines.")
