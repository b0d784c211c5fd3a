"""What the head of a request must be, what it says, and what is said of one that is not good.

Functions of bytes (RFC 9112, and RFC 9110 for the fields). A head is cut into lines, and a regular
expression for each kind of line says whether it is good, and what it says; only what it does not
match is taken apart, to find the words for what is wrong. Header lines that came lately are kept
with what they say, for all connections: each browser sends most of its own again and again. What
proves who a visitor is, such as cookies, is not kept. Where the RFC lets a server choose between
mending and refusing, this one refuses: what two readers of the same bytes could understand
differently is answered with a 400, and nothing after it is read.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final, NamedTuple, NoReturn

from rpyserve.http.errors import BadRequest
from rpyserve.http.headers import HeaderFields
from rpyserve.protocol.server_state import Limits

# Stands for the length of a body in chunks, which is not known before its end.
CHUNKED: Final = -1

# How many digits the length of a body or chunk may have. A number with more is above any limit.
MOST_DIGITS: Final = 16

# How many letters a method may have; no longer one exists (RFC 9112, section 3).
LONGEST_METHOD: Final = 32

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
# Header fields or trailers, and the empty line that ends them.
FIELD_LINES: Final = rb"(?:" + TOKEN + rb":" + _VALUE + rb"\r\n)*+\r\n"

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]++) HTTP/1\.([0-9])")
_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]++) HTTP/([0-9])\.[0-9]\r\n")
_FIELD_LINE = re.compile(rb"(" + TOKEN + rb"):(" + _VALUE + rb")")

# What browsers send as it is, [ ] { } | ^ ` and in a query \, may pass, although RFC 3986 would
# have it encoded.
_ORIGIN = re.compile(rb"/[^\"#<>\\?]*+(?:\?[^\"#<>]*+)?")
_ABSOLUTE = re.compile(
    rb"([A-Za-z][A-Za-z0-9+.\-]*+)://([^/?]*+)((?:/[^\"#<>\\?]*+)?(?:\?[^\"#<>]*+)?)"
)
_HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]++\]|\[[Vv][0-9A-Fa-f]++\.[A-Za-z0-9\-._~!$&'()*+,;=:]++\]"
    rb"|(?:[A-Za-z0-9\-._~!$&'()*+,;=]++|%[0-9A-Fa-f]{2})*+)(?::([0-9]{0,5}))?"
)

# How many header lines are kept (for one more, all are dropped), and how long they may be.
MOST_KNOWN: Final = 1024
LONGEST_KNOWN: Final = 256
_known_fields: Final[dict[bytes, tuple[bytes, bytes]]] = {}
# The names of those that are not: they say who the visitor is, and there are as many as visitors.
_SECRETS: Final = frozenset({b"cookie", b"authorization", b"proxy-authorization"})

_Explanations = tuple[tuple[bytes, str], ...]

# Patterns for what a malformed target or line begins with, or is, and what is wrong with it. The
# first that matches counts.
_BAD_TARGETS: Final[_Explanations] = (
    (rb"[^#]*#", "A request target has no fragment: nothing from # on is sent."),
    (
        rb"[\x21-\x7e]*?([^\x21-\x7e]|[\"<>\\])",
        "The request target has a character in it that must be percent-encoded.",
    ),
    (b"", "The request target is malformed; it begins with a slash."),
)
_BAD_FIELDS: Final[_Explanations] = (
    (
        rb"[ \t]",
        "A line of the head begins with a blank; folded lines are not accepted.",
    ),
    (
        rb"(?=[^\n]*\n)[^\x00-\x08\x0b-\x1f\x7f]*\Z",
        "Lines of a request's head end with CR LF; one ends with LF alone.",
    ),
    (rb"[^:]*\Z", "A line of the head has no colon."),
    (rb"[^:]*[ \t]:", "There is a blank between a header's name and its colon."),
    (b"(?!" + TOKEN + b":)", "The name of a header is malformed."),
    (b"", "The value of a header has a control character in it."),
)


# The whole head


class RequestHead(NamedTuple):
    """What a head says. Requests with equal heads share one, so nothing in it may change.

    Args:
        method: the method as it was sent.
        target: the request target as it was sent.
        headers: the fields. ``Host`` says which host is meant, also where the target is a whole
            URL.
        http_version: such as ``"1.1"``.
        body_length: how many bytes the body has, or `CHUNKED`.
        keep_alive: whether the client lets another request follow (RFC 9112, section 9.3).
        expects_continue: whether the client may wait for a 100 before it sends the body.
        raw: the whole head as it was sent.
    """

    method: str
    target: str
    headers: HeaderFields
    http_version: str
    body_length: int = 0
    keep_alive: bool = True
    expects_continue: bool = False
    raw: bytes = b""


_METHODS: Final = {method: method.decode() for method in (b"GET", b"HEAD", b"POST")}
"""The usual methods as text, so that each is one text for all requests."""


def parse_head(head: bytes, scheme: str) -> RequestHead:
    """Read *head*: all of it, from the method to the empty line.

    Args:
        scheme: ``"http"`` or ``"https"``, as the connection is.

    Raises:
        BadRequest: it is no head of a request that can be answered.
    """
    line, *lines, _, _ = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise explain_bad_head(head)
    method, target, minor = match.groups()
    headers = HeaderFields([_known_fields.get(line) or _read_field(line, head) for line in lines])
    values = headers.values
    is_old = minor == b"0"  # HTTP/1.0

    # Which host and which resource are meant?
    _check_host(_values_of(headers, b"host"), is_old)
    if method == b"CONNECT" or not _ORIGIN.fullmatch(target):
        authority = _check_target(method, target, scheme)
        headers = _with_host(headers, authority)

    # How long is the body, and what does the client expect?
    expects_continue = b"expect" in values and _check_expectations(values[b"expect"])
    body_length = 0
    if b"content-length" in values or b"transfer-encoding" in values:
        lengths = _values_of(headers, b"content-length")
        body_length = _body_length(lengths, values.get(b"transfer-encoding"), is_old)
    keep_alive = not (is_old or (b"connection" in values and _asks_to_close(values)))
    return RequestHead(
        _METHODS.get(method) or method.decode("ascii"),
        target.decode("ascii"),
        headers,
        f"1.{minor.decode('ascii')}",
        body_length,
        keep_alive,
        expects_continue and not is_old,
        head,
    )


def _read_field(line: bytes, head: bytes) -> tuple[bytes, bytes]:
    match = _FIELD_LINE.fullmatch(line)
    if match is None:
        raise explain_bad_head(head)
    field = match[1].lower(), match[2].strip()
    if len(line) <= LONGEST_KNOWN and field[0] not in _SECRETS:
        if len(_known_fields) >= MOST_KNOWN:
            _known_fields.clear()
        _known_fields[line] = field
    return field


def check_request_line(line: bytes) -> None:
    """See whether *line*, with its line break, may be a request line; no more has come yet.

    Raises:
        BadRequest: 505 or 400.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise _explain_bad_line(line)
    if match[3] != b"1":
        raise BadRequest(505, "This server speaks HTTP/1.1.")


def _asks_to_close(values: dict[bytes, bytes]) -> bool:
    options = values[b"connection"].lower().split(b",")
    return b"close" in [option.strip() for option in options]


def _values_of(headers: HeaderFields, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _check_host(hosts: list[bytes], is_old: bool) -> None:
    if len(hosts) > 1:
        raise BadRequest(400, "There is more than one Host header.")
    if hosts:
        # An http URL has a host (RFC 9110, section 4.2.1), so the field is never empty.
        if not _check_authority(hosts[0], "The Host header is malformed."):
            raise BadRequest(400, "The Host header names no host.")
    elif not is_old:
        raise BadRequest(400, "The Host header is missing.")


def _check_authority(authority: bytes, complaint: str) -> bytes:
    """Return the host in *authority*."""
    match = _HOST.fullmatch(authority)
    if match is None:
        raise BadRequest(400, complaint)
    host: bytes = match[1]
    if host.startswith(b"[") and host[1:2] not in b"vV":
        try:
            IPv6Address(host[1:-1].decode("ascii"))
        except ValueError:
            raise BadRequest(400, complaint) from None
    return host


def _check_target(method: bytes, target: bytes, scheme: str) -> bytes | None:
    """Accept what is no path (RFC 9112, section 3.2). Returns the authority in the target."""
    if method == b"CONNECT":
        _refuse_connect(target)
    if target == b"*" and method == b"OPTIONS":
        return None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise _explain_bad_target(target)
    if not _check_authority(match[2], "The request target names no host that can be."):
        raise BadRequest(400, "The request target names no host.")
    if match[1].lower() != scheme.encode("ascii"):
        # RFC 9110, section 7.4: a client that wants https must not be answered by less.
        raise BadRequest(421, f"This connection is for {scheme}:// only.")
    return match[2]


def _refuse_connect(target: bytes) -> NoReturn:
    host, _, port = target.rpartition(b":")
    is_port = port.isdigit() and 0 < int(port) < 65536
    if not (host and is_port and _HOST.fullmatch(target)):
        raise BadRequest(400, "CONNECT takes HOST:PORT.")
    raise BadRequest(501, "This server is no proxy.")


def _with_host(headers: HeaderFields, authority: bytes | None) -> HeaderFields:
    """A target that is a whole URL says itself which host is meant (RFC 9112, section 3.2.2)."""
    if authority is None:
        return headers
    return HeaderFields((name, authority if name == b"host" else value) for name, value in headers)


def _check_expectations(value: bytes) -> bool:
    """Whether the client expects a 100, the one expectation that there is."""
    members = {member.strip(b" \t").lower() for member in value.split(b",")} - {b""}
    if members - {b"100-continue"}:
        raise BadRequest(417, "The one expectation that this server meets is 100-continue.")
    return bool(members)


def _body_length(lengths: list[bytes], codings: bytes | None, is_old: bool) -> int:
    """Return the body's length (RFC 9112, section 6.3)."""
    if codings is not None:
        if lengths or is_old:
            raise BadRequest(
                400, "Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0."
            )
        _check_codings(codings)
        return CHUNKED
    if not lengths:
        return 0
    if len(lengths) > 1:
        raise BadRequest(400, "There is more than one Content-Length header.")
    if not lengths[0].isdigit():
        raise BadRequest(400, "Content-Length is no number.")
    return parse_length(lengths[0], 10)


def _check_codings(value: bytes) -> None:
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    if codings == [b"chunked"]:
        return
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or b"" in codings:
        raise BadRequest(
            400,
            "The last transfer coding is chunked, once; "
            "otherwise nobody knows where the body ends.",
        )
    raise BadRequest(501, "The one transfer coding that this server knows is chunked.")


def parse_length(digits: bytes, base: int) -> int:
    """Return the length that *digits* say, unless no limit allows as many of them."""
    if len(digits) <= MOST_DIGITS:
        return int(digits, base)
    if digits.startswith(b"0"):
        raise BadRequest(400, f"A length has {MOST_DIGITS} digits at most.")
    raise BadRequest(413, "No body can be that long.")


def too_large(limits: Limits) -> str:
    """What is said of a body that is too large."""
    return f"A request's body may have {limits.body} bytes (--max-body); this one is longer."


# What is wrong


def explain_bad_head(head: bytes) -> BadRequest:
    """Say what is wrong with *head*, which is neither a good head nor the beginning of one."""
    line, separator, rest = head.partition(b"\r\n")
    if not separator or b"\n" in line or not _LINE.fullmatch(line + separator):
        return _explain_bad_line(line)
    try:
        check_request_line(line + separator)
    except BadRequest as refusal:
        return refusal
    for field in rest.split(b"\r\n"):
        if field and not _FIELD_LINE.fullmatch(field):
            return BadRequest(400, _first_that_matches(_BAD_FIELDS, field))
    return BadRequest(400, "The head of the request is malformed.")


def _explain_bad_line(line: bytes) -> BadRequest:
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
        return _explain_bad_target(words[1])
    return BadRequest(
        400,
        "The request line is malformed; "
        "it is METHOD, target and HTTP/1.1, with one blank between them.",
    )


def _explain_bad_target(target: bytes) -> BadRequest:
    return BadRequest(400, _first_that_matches(_BAD_TARGETS, target))


def _first_that_matches(rows: _Explanations, text: bytes) -> str:
    return next(explanation for pattern, explanation in rows if re.match(pattern, text))
