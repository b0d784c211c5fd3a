"""How a rule is written down, and short forms for the bytes that most of them begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial


class Level(Enum):
    """How much the RFC asks for it."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    GRAMMAR = "grammar"
    """What is outside the grammar: a server may repair it (RFC 9110, section 2.4), or refuse."""
    MAY = "MAY"


@dataclass(frozen=True, slots=True)
class Repeat:
    """*data*, *times* over."""

    data: bytes
    times: int


AWAIT = Repeat(b"", 0)
"""Wait for an answer before the rest is sent."""

Part = bytes | Repeat


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Args:
        section: of which RFC it is.
        level: how much it is asked for.
        text: what it says, in short.
        sent: the bytes that test it.
        accepted: a regular expression of the answers that keep it; see `probe`.
        shown: response headers that belong to the answer.
        cut: whether the client closes its side then, instead of sending another request.
    """

    section: str
    level: Level
    text: str
    sent: Sequence[Part]
    accepted: str
    shown: tuple[str, ...] = ()
    cut: bool = False

    @property
    def key(self) -> str:
        return f"{self.section}: {readable(self.sent)}"


def raw(parts: Sequence[Part]) -> bytes:
    """The bytes themselves."""
    return b"".join(part if isinstance(part, bytes) else part.data * part.times for part in parts)


def readable(parts: Sequence[Part]) -> str:
    """The bytes as text; what is not printable is escaped."""
    return "".join(_readable(part) for part in parts)


def _readable(part: Part) -> str:
    if part is AWAIT:
        return " (answer) "
    data = part if isinstance(part, bytes) else part.data
    text = "".join(map(_escaped, data))
    return text if isinstance(part, bytes) else f"({text} * {part.times})"


def _escaped(byte: int) -> str:
    if byte in _ESCAPES:
        return _ESCAPES[byte]
    return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"


_ESCAPES = {9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\"}

HOST = b"Host: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FIVE = b"5\r\nabcde\r\n0\r\n\r\n"

REFUSED = r"400; closed"
ERROR = r"4\d\d; closed"
WAITS = rf"{ERROR}|no answer"
"""The server waits for as many bytes as were announced."""
PAGE = r"200 GET; 200 GET"
POSTED = r"200 POST abcde; 200 GET"
UNREAD = r"([45]\d\d; |)closed"
"""What was cut off is not answered as if it were complete."""


def rules(
    level: Level,
    section: str,
    text: str,
    accepted: str,
    *sent: list[Part],
    shown: tuple[str, ...] = (),
    cut: bool = False,
) -> list[Rule]:
    """Make one rule of each of *sent*."""
    return [Rule(section, level, text, parts, accepted, shown, cut) for parts in sent]


must = partial(rules, Level.MUST)
should = partial(rules, Level.SHOULD)
grammar = partial(rules, Level.GRAMMAR)
may = partial(rules, Level.MAY)


def get(*fields: bytes, target: bytes = b"/", host: bytes = HOST) -> list[Part]:
    head = b"GET " + target + b" HTTP/1.1\r\n" + host
    return [head + b"".join(field + b"\r\n" for field in fields) + b"\r\n"]


def request_line(line: bytes) -> list[Part]:
    return [line + b"\r\n" + HOST + b"\r\n"]


def post(*fields: bytes, body: bytes = b"abcde", version: bytes = b"1.1") -> list[Part]:
    head = b"POST / HTTP/" + version + b"\r\n" + HOST
    return [head + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body]


def post_chunked(body: bytes, *fields: bytes) -> list[Part]:
    return post(CHUNKED[:-2], *fields, body=body)
