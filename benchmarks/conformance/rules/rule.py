"""How a rule is written down, and the shorthand for the bytes that most of them begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How much it is asked for."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    GRAMMAR = "grammar"
    """What the grammar does not have; a server may mend it (RFC 9110, section 2.4), or refuse."""
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
class Must:
    """One rule.

    Args:
        section: of which RFC it is.
        level: how much it is asked for.
        rule: what it says, in short.
        sent: the bytes.
        good: a regular expression of the answers that keep the rule.
        shown: response headers that belong to the answer.
        cut: whether the client closes its side then, instead of sending another request.
    """

    section: str
    level: Level
    rule: str
    sent: Sequence[Part]
    good: str
    shown: tuple[str, ...] = ()
    cut: bool = False

    @property
    def key(self) -> str:
        return f"{self.section}: {shown_bytes(self.sent)}"


def raw(parts: Sequence[Part]) -> bytes:
    """The bytes themselves."""
    return b"".join(part if isinstance(part, bytes) else part.data * part.times for part in parts)


def shown_bytes(parts: Sequence[Part]) -> str:
    """The bytes, readable."""
    return "".join(_shown(part) for part in parts)


def _shown(part: Part) -> str:
    if part is AWAIT:
        return " (answer) "
    data = part if isinstance(part, bytes) else part.data
    text = "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else _escaped(byte) for byte in data)
    return text if isinstance(part, bytes) else f"({text} * {part.times})"


def _escaped(byte: int) -> str:
    return {9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\"}.get(byte, f"\\x{byte:02x}")


HOST = b"Host: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FIVE = b"5\r\nabcde\r\n0\r\n\r\n"

REFUSED = r"400; closed"
ERROR = r"4\d\d; closed"
WAITS = rf"{ERROR}|no answer"  # for so many bytes as were told
PAGE = r"200 GET; 200 GET"
POSTED = r"200 POST abcde; 200 GET"
UNREAD = r"([45]\d\d; |)closed"  # what was cut is not answered as if it were whole


def get(*fields: bytes, target: bytes = b"/", host: bytes = HOST) -> list[Part]:
    return [b"GET " + target + b" HTTP/1.1\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"]


def each(
    section: str, level: Level, rule: str, good: str, *sent: list[Part], shown: tuple[str, ...] = (), cut: bool = False
) -> list[Must]:
    return [Must(section, level, rule, parts, good, shown, cut) for parts in sent]


def line(request_line: bytes) -> list[Part]:
    return [request_line + b"\r\n" + HOST + b"\r\n"]


def post(*fields: bytes, body: bytes = b"abcde", version: bytes = b"1.1") -> list[Part]:
    head = b"POST / HTTP/" + version + b"\r\n" + HOST + b"".join(field + b"\r\n" for field in fields)
    return [head + b"\r\n" + body]


def chunks(body: bytes, *fields: bytes) -> list[Part]:
    return post(CHUNKED[:-2], *fields, body=body)
