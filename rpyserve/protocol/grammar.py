"""What a request's head must be (RFC 9112, and RFC 9110 for its fields), and what is said of one that is not.

Pure functions of bytes, for `guard`. One regular expression looks at the whole of a good head; only what it does not
match is taken apart, to find the words for it. Where the RFC lets a server choose between mending and refusing, this
one refuses: what two readers of the same bytes could understand differently is answered with a 400, and nothing
after it is read. Nothing here keeps a state, or knows of connections.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

from rpyserve.http.errors import BadRequest
from rpyserve.http.types import Limits
from rpyserve.protocol.parser import Fields

__all__ = [
    "CHUNKED",
    "FIELDS",
    "METHOD",
    "TOKEN",
    "check_line",
    "explain_bad_head",
    "number",
    "too_large",
    "validate_head",
    "with_host",
]  # fmt: skip

CHUNKED: Final = -1
"""The length of a body that does not say how long it is."""
DIGITS: Final = 16
"""The most digits of a body's or chunk's length: more of them are more than any limit."""
METHOD: Final = 32
"""The most letters of a method; longer ones do not exist (RFC 9112, section 3)."""

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
FIELDS: Final = rb"(?:" + TOKEN + rb":" + _VALUE + rb"\r\n)*+\r\n"

_HEAD = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]++) HTTP/1\.([0-9])\r\n" + FIELDS)
_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]++) HTTP/([0-9])\.[0-9]\r\n")
_FIELD = re.compile(TOKEN + rb":" + _VALUE)
# The fields that decide who is meant, and where the body ends; the rest of a head has been looked at by then.
_DECISIVE = re.compile(rb"\r\n((?i:host|content-length|transfer-encoding|expect)):[\t ]*+([^\r]*+)")

# What browsers send as it is, [ ] { } | ^ ` and in a query \, may pass although RFC 3986 would have it encoded.
_ORIGIN = re.compile(rb"/[^\"#<>\\?]*+(?:\?[^\"#<>]*+)?")
_ABSOLUTE = re.compile(
    rb"([A-Za-z][A-Za-z0-9+.\-]*+)://([^/?]*+)((?:/[^\"#<>\\?]*+)?(?:\?[^\"#<>]*+)?)"
)
_HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]++\]|\[[Vv][0-9A-Fa-f]++\.[A-Za-z0-9\-._~!$&'()*+,;=:]++\]"
    rb"|(?:[A-Za-z0-9\-._~!$&'()*+,;=]++|%[0-9A-Fa-f]{2})*+)(?::([0-9]{0,5}))?"
)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


# The whole head


def validate_head(head: bytes, scheme: str) -> int:
    """Return how long the body after *head* is: a number of bytes, or `CHUNKED`.

    Args:
        head: all of it, from the method to the empty line.
        scheme: ``"http"`` or ``"https"``, as the connection is.

    Raises:
        Refusal: it is no head of a request that can be answered.
    """
    found = _HEAD.fullmatch(head)
    if found is None:
        raise explain_bad_head(head)
    method, target, minor = found.groups()
    said: dict[bytes, list[bytes]] = {}
    for name, value in _DECISIVE.findall(head):
        said.setdefault(name.lower(), []).append(value.rstrip(b" \t"))
    _check_host(said.get(b"host", ()), minor)
    if not (target.startswith(b"/") and method != b"CONNECT" and _ORIGIN.fullmatch(target)):
        _check_target(method, target, scheme)
    if b"expect" in said:
        _check_expectations(said[b"expect"])
    return _length(said, minor)


def check_line(line: bytes) -> None:
    """See whether *line*, with the line break at its end, may be a request line, though no more has come yet.

    Raises:
        Refusal: 505 or 400.
    """
    found = _LINE.fullmatch(line)
    if found is None:
        raise _why_not_line(line)
    if found[3] != b"1":
        raise BadRequest(505, "This server speaks HTTP/1.1.")


def _check_host(hosts: list[bytes] | tuple[()], minor: bytes) -> None:
    if len(hosts) > 1:
        raise BadRequest(400, "There is more than one Host header.")
    if hosts:
        _check_authority(hosts[0], "The Host header is malformed.")
    elif minor != b"0":
        raise BadRequest(400, "The Host header is missing.")


def _check_authority(authority: bytes, complaint: str) -> bytes:
    """Return the host in *authority*."""
    found = _HOST.fullmatch(authority)
    if found is None:
        raise BadRequest(400, complaint)
    host: bytes = found[1]
    if host.startswith(b"[") and host[1:2] not in b"vV":
        try:
            IPv6Address(host[1:-1].decode("ascii"))
        except ValueError:
            raise BadRequest(400, complaint) from None
    return host


def _check_target(method: bytes, target: bytes, scheme: str) -> None:
    """Let only those targets pass that RFC 9112, section 3.2 has besides a path."""
    if method == b"CONNECT":
        host, _, port = target.rpartition(b":")
        if not (
            host and 0 < int(port if port.isdigit() else b"0") < 65536 and _HOST.fullmatch(target)
        ):
            raise BadRequest(400, "CONNECT takes HOST:PORT.")
        raise BadRequest(501, "This server is no proxy.")
    if target == b"*" and method == b"OPTIONS":
        return
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise _why_not_target(target)
    if not _check_authority(found[2], "The request target names no host that can be."):
        raise BadRequest(400, "The request target names no host.")
    if found[1].lower() != scheme.encode("ascii"):
        # RFC 9110, section 7.4: who asks for https must not be answered by less.
        raise BadRequest(421, f"This connection is for {scheme}:// only.")


def _check_expectations(values: list[bytes]) -> None:
    for value in values:
        for member in value.split(b","):
            if member.strip(b" \t").lower() not in (b"", b"100-continue"):
                raise BadRequest(417, "The one expectation that this server meets is 100-continue.")


def _length(said: dict[bytes, list[bytes]], minor: bytes) -> int:
    """Return the body's length (RFC 9112, section 6.3)."""
    lengths, codings = said.get(b"content-length"), said.get(b"transfer-encoding")
    if codings:
        if lengths or minor == b"0":
            raise BadRequest(
                400, "Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0."
            )
        _check_codings(b",".join(codings))
        return CHUNKED
    if not lengths:
        return 0
    if len(lengths) > 1:
        raise BadRequest(400, "There is more than one Content-Length header.")
    if not lengths[0].isdigit():
        raise BadRequest(400, "Content-Length is no number.")
    return number(lengths[0], 10)


def _check_codings(value: bytes) -> None:
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    if codings == [b"chunked"]:
        return
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or b"" in codings:
        raise BadRequest(
            400,
            "The last transfer coding is chunked, once; otherwise nobody knows where the body ends.",
        )
    raise BadRequest(501, "The one transfer coding that this server knows is chunked.")


def number(digits: bytes, base: int) -> int:
    """Return what *digits* say; a length that no limit allows is refused, and one that only looks like it."""
    if len(digits) <= DIGITS:
        return int(digits, base)
    if digits.startswith(b"0"):
        raise BadRequest(400, f"A length has {DIGITS} digits at most.")
    raise BadRequest(413, "No body can be that long.")


def too_large(limits: Limits) -> str:
    """What is said of a body that is too large."""
    return f"A request's body may have {limits.body} bytes (--max-body); this one is longer."


def with_host(headers: Fields, target: bytes) -> Fields:
    """Return *headers*, their names in small letters, with the host in *target* in place of what ``Host`` says.

    RFC 9112, section 3.2.2: a target that is a whole URL says itself which host is meant.
    """
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return headers
    return Fields((name, found[2] if name == b"host" else value) for name, value in headers)


# What is said of others


def explain_bad_head(head: bytes) -> BadRequest:
    """Say what is wrong with *head*, or the beginning of one, that is none."""
    line, separator, rest = head.partition(b"\r\n")
    if not separator or b"\n" in line or not _LINE.fullmatch(line + separator):
        return _why_not_line(line)
    try:
        check_line(line + separator)
    except BadRequest as refusal:
        return refusal
    for field in rest.split(b"\r\n"):
        if field and not _FIELD.fullmatch(field):
            return BadRequest(400, _why_not_field(field))
    return BadRequest(400, "The head of the request is malformed.")


def _why_not_line(line: bytes) -> BadRequest:
    if line.startswith(b"\x16"):
        return BadRequest(400, "This port speaks http://, not https://.", tls=True)
    if re.match(TOKEN + rb" [^\r\n]*\n", line):
        return BadRequest(
            400, "Lines of a request's head end with CR LF; this one ends with LF alone."
        )
    words = line.rstrip(b"\r\n").split(b" ")
    if (
        len(words) == 3
        and re.fullmatch(TOKEN, words[0])
        and re.fullmatch(rb"HTTP/[0-9]\.[0-9]", words[2])
    ):
        return _why_not_target(words[1])
    return BadRequest(
        400,
        "The request line is malformed; it is METHOD, target and HTTP/1.1, with one blank between them.",
    )


def _why_not_target(target: bytes) -> BadRequest:
    if b"#" in target:
        return BadRequest(400, "A request target has no fragment: nothing from # on is sent.")
    if re.search(rb"[^\x21-\x7e]|[\"<>\\]", target):
        return BadRequest(
            400, "The request target has a character in it that must be percent-encoded."
        )
    return BadRequest(400, "The request target is malformed; it begins with a slash.")


def _why_not_field(field: bytes) -> str:
    name, colon, _ = field.partition(b":")
    if field.startswith((b" ", b"\t")):
        return "A line of the head begins with a blank; folded lines are not accepted."
    if b"\n" in field and not _CONTROL.search(field.replace(b"\n", b"")):
        return "Lines of a request's head end with CR LF; one ends with LF alone."
    if not colon:
        return "A line of the head has no colon."
    if name.endswith((b" ", b"\t")):
        return "There is a blank between a header's name and its colon."
    if not re.fullmatch(TOKEN, name):
        return "The name of a header is malformed."
    return "The value of a header has a control character in it."
