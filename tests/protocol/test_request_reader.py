"""What is read is what was sent, however it comes; what is no request is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.conformance.rules import RULES, Rule, raw
from rpyserve.http.errors import BadRequest
from rpyserve.protocol import grammar, request_reader
from rpyserve.protocol.chunked import ChunkedDecoder
from rpyserve.protocol.grammar import CHUNKED
from rpyserve.protocol.request_reader import ReceiveBuffer, RequestReader
from rpyserve.protocol.server_state import Limits
from tests.support.http_client import chunked, head, post
from tests.support.validated import Read, Reading, read

SMALL = Limits(line=200, head=1000, fields=10, body=10_000)


def reader_of(data: bytes) -> RequestReader:
    reader = RequestReader(Limits())
    reader.buffer.feed(data)
    return reader


def in_bytes(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    pieces = []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    return [*pieces, data]


def seen(reading: Reading) -> tuple[list[Read], bool]:
    return reading.requests, reading.status is None


# However it comes


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if len(raw(rule.sent)) < 1000], ids=lambda rule: rule.section
)
def test_where_it_is_split_makes_no_difference(rule: Rule) -> None:
    data = raw(rule.sent) + head("GET", "/next")
    whole = read([data])
    bytewise = read(in_bytes(data))
    assert (seen(bytewise), bytewise.status) == (seen(whole), whole.status)
    for at in range(1, len(data)):
        assert seen(read([data[:at], data[at:]])) == seen(whole)


def test_a_request_is_not_looked_at_before_the_one_ahead_of_it_is_taken() -> None:
    reader = reader_of(head("GET", "/") * 2 + b"nonsense\r\n\r\n")
    assert reader.read_head() == reader.read_head() is not None
    with pytest.raises(BadRequest):
        reader.read_head()


def test_a_refusal_waits_for_the_requests_before_it() -> None:
    reading = read(
        [head("GET", "/one") + post(b"abc") + b"nonsense\r\n\r\n" + head("GET", "/three")]
    )
    assert [(request.target, request.body) for request in reading.requests] == [
        (b"/one", b""),
        (b"/", b"abc"),
    ]
    assert reading.status == 400


def test_nothing_is_read_after_a_refusal() -> None:
    reader = reader_of(b"nonsense\r\n\r\n" + head("GET", "/"))
    for _ in range(2):
        with pytest.raises(BadRequest):
            reader.read_head()
        reader.buffer.feed(head("GET", "/"))


def test_body_before_its_fault_passes_but_not_its_end() -> None:
    reading = read(
        [head("POST", "/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n2\r\ndefg\r\n0\r\n\r\n"]
    )
    assert [(request.body, request.whole) for request in reading.requests] == [(b"abcde", False)]
    assert reading.status == 400


def test_end_passes_only_after_good_trailers() -> None:
    for trailers, whole in [
        (b"", True),
        (b"X: a\r\n", True),
        (b"X\r\n", False),
        (b"X: \x00\r\n", False),
    ]:
        reading = read(
            [
                head("POST", "/", "Transfer-Encoding: chunked")
                + chunked(b"abc", end=b"0\r\n" + trailers + b"\r\n")
            ]
        )
        assert reading.requests[0].whole == whole


def test_tiny_chunks_come_as_one() -> None:
    buffer = ReceiveBuffer()
    decoder = ChunkedDecoder(buffer, Limits())
    buffer.feed(b"1;a=b\r\nx\r\n" * 17 + b"2\r\ny")
    assert (decoder.take(), decoder.done) == (b"x" * 17 + b"y", False)
    buffer.feed(b"z\r\n0\r\nX: a\r\n\r\n")
    assert (decoder.take(), decoder.done) == (b"z", True)
    assert decoder.take() == b""


def test_the_same_head_says_the_same_each_time() -> None:
    reader = RequestReader(Limits())
    one, other = head("GET", "/"), head("GET", "/other")
    for data in (one, one, other, one + b"\r\n", b"\r\n" + one, one):
        reader.buffer.feed(bytearray(data))
        found = reader.read_head()
        assert found is not None
        assert (found.target, found.body_length) == ("/other" if data is other else "/", 0)
        assert reader.read_head() is None
    for fields, length in [("Content-Length: 3", 3), ("Transfer-Encoding: chunked", CHUNKED)] * 2:
        reader.buffer.feed(head("POST", "/", fields))
        found = reader.read_head()
        assert found is not None and found.body_length == length


def test_what_a_head_says_of_the_connection() -> None:
    for fields, keep_alive, expects_continue in [
        ((), True, False),
        (("Connection: close",), False, False),
        (("Connection: a,", "connection: keep-alive ,\tCLOSE"), False, False),
        (("Connection: closed",), True, False),
        (("Expect: 100-Continue",), True, True),
    ]:
        found = reader_of(head("GET", "/", *fields)).read_head()
        assert found is not None
        assert (found.keep_alive, found.expects_continue) == (keep_alive, expects_continue)
        old = reader_of(head("GET", "/", *fields, version="1.0")).read_head()
        assert old is not None
        assert (old.keep_alive, old.expects_continue) == (False, False)


def test_few_heads_are_kept_only_those_that_come_twice_and_no_long_ones() -> None:
    limits = Limits(line=12345)
    reader, kept = RequestReader(limits), request_reader._head_cache(limits, "http").heads
    for number in range(3 * request_reader.MOST_CACHED):
        reader.buffer.feed(head("GET", f"/{number}"))
        assert reader.read_head() is not None
    assert not kept
    for number in range(3 * request_reader.MOST_CACHED):
        reader.buffer.feed(head("GET", f"/{number}"))
        assert reader.read_head() is not None
        assert head("GET", f"/{number}") in kept
    assert 0 < len(kept) <= request_reader.MOST_CACHED
    kept.clear()
    for _ in range(2):
        reader.buffer.feed(head("GET", "/" + "x" * request_reader.LONGEST_CACHED))
        assert reader.read_head() is not None
    assert not kept


def test_few_header_lines_are_kept_no_long_ones_and_no_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: dict[bytes, tuple[bytes, bytes]] = {}
    monkeypatch.setattr(grammar, "_known_fields", kept)
    long = "X: " + "x" * grammar.LONGEST_KNOWN
    for number in range(2 * grammar.MOST_KNOWN):
        secrets = f"cookie: c={number}", "Authorization: Basic eDp5", "Proxy-Authorization: x"
        lines = f"A: {number} ", "a:b", *secrets, long
        found = reader_of(head("GET", f"/{number}", *lines)).read_head()
        assert found is not None
        assert found.headers[-6:] == (
            (b"a", b"%d" % number),
            (b"a", b"b"),
            (b"cookie", b"c=%d" % number),
            (b"authorization", b"Basic eDp5"),
            (b"proxy-authorization", b"x"),
            (b"x", long[3:].encode()),
        )
    assert 1 < len(kept) <= grammar.MOST_KNOWN
    assert not any(line.startswith((b"cookie", b"Authorization", b"Proxy", b"X")) for line in kept)


def test_of_heads_that_come_once_few_are_remembered() -> None:
    cache = request_reader.HeadCache()
    found = reader_of(head("GET", "/")).read_head()
    assert found is not None
    for number in range(2 * request_reader.MOST_SEEN):
        cache.add(b"%d" % number, found)
    assert len(cache._seen) <= request_reader.MOST_SEEN
    assert not cache.heads


def test_a_head_that_others_may_send_is_refused_where_limits_are_smaller() -> None:
    data = head("GET", "/" + "x" * SMALL.line)
    for _ in range(2):
        assert read([data]).status is None
        assert read([data], SMALL).status == 414
    url = head("GET", "http://site/")
    for _ in range(2):
        assert read([url]).status is None
        assert read([url], scheme="https").status == 421


def test_a_head_in_pieces_is_known_when_it_is_whole() -> None:
    reader = RequestReader(Limits())
    data = head("GET", "/pieces")
    for _ in range(2):
        for piece in (data[:-2], data[-2:]):
            assert reader.read_head() is None
            reader.buffer.feed(piece)
        assert reader.read_head() is not None
    reader.buffer.feed(b"GET / HTTP/2.0\r\n")
    with pytest.raises(BadRequest) as refused:
        reader.read_head()
    assert refused.value.status == 505


def test_the_reader_shows_how_much_it_holds() -> None:
    assert repr(reader_of(b"GET /")) == "<RequestReader, 5 bytes buffered>"


@pytest.mark.parametrize(
    ("data", "begun"),
    [(b"", False), (b"\r", False), (b"\r\n", False), (b"\r\n\r\n\r", False), (b"\r\nG", True)],
)
def test_empty_lines_begin_no_head(data: bytes, begun: bool) -> None:
    reader = reader_of(data)
    assert reader.read_head() is None
    assert reader.has_begun_head == begun


# The end of what is sent


@pytest.mark.parametrize("data", [b"", b"\r", b"\r\n", head("GET", "/"), post(b"abc")])
def test_end_between_requests_is_an_end(data: bytes) -> None:
    assert read([data], end=True).status is None


@pytest.mark.parametrize(
    "data", [b"G", b"GET / HTTP/1.1\r\n", head("GET", "/")[:-1], head("GET", "/") + b"GET"]
)
def test_end_within_a_head_is_refused(data: bytes) -> None:
    reading = read([data], end=True)
    assert (reading.status, reading.text) == (400, "The request ended within its head.")


@pytest.mark.parametrize(
    "data",
    [
        head("POST", "/", "Content-Length: 5") + b"abcd",
        head("POST", "/", "Transfer-Encoding: chunked") + b"5",
        head("POST", "/", "Transfer-Encoding: chunked") + chunked(b"abc", end=b""),
        head("POST", "/", "Transfer-Encoding: chunked") + chunked(b"abc", end=b"0\r\n"),
        head("POST", "/", "Transfer-Encoding: chunked") + chunked(b"abc", end=b"0\r\nX: a\r\n"),
    ],
)
def test_end_within_a_body_is_no_end_of_it(data: bytes) -> None:
    reading = read([data], end=True)
    assert (reading.status, [request.whole for request in reading.requests]) == (None, [False])


def test_end_behind_requests_that_wait_comes_after_them() -> None:
    assert len(read([head("GET", "/one") + head("GET", "/two")], end=True).requests) == 2


# What is said


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", "LF alone"),
        (head("GET", "/", "X: a\nY: b"), "LF alone"),
        (b"\x16\x03\x01", "http://, not https://"),
        (b"GET /a b HTTP/1.1\r\n", "one blank between them"),
        (head("GET", "/#a"), "no fragment"),
        (head("GET", "/\xe9"), "percent-encoded"),
        (head("GET", '/"a"'), "percent-encoded"),
        (head("GET", "/a\\b"), "percent-encoded"),
        (head("GET", "a"), "begins with a slash"),
        (head("GET", "/", " X: a"), "folded"),
        (head("GET", "/", "X"), "no colon"),
        (head("GET", "/", "X : a"), "between a header's name and its colon"),
        (head("GET", "/", "X(: a"), "name of a header"),
        (head("GET", "/", ": a"), "name of a header"),
        (head("GET", "/", "X: \x07"), "control character"),
        (head("GET", "/", "Host: b"), "more than one Host"),
        (head("GET", "/").replace(b"Host: site\r\n", b""), "missing"),
        (head("GET", "/").replace(b"Host: site", b"Host:"), "names no host"),
        (head("GET", "/").replace(b"Host: site", b"Host: \t"), "names no host"),
        (head("GET", "/").replace(b"Host: site", b"Host: :80"), "names no host"),
        (head("GET", "http://a/").replace(b"Host: site", b"Host:"), "names no host"),
        (b"GET / HTTP/1.0\r\nHost:\r\n\r\n", "names no host"),
        (head("CONNECT", "/"), "HOST:PORT"),
        (
            head("POST", "/", "Content-Length: 5", "Content-Length: 5"),
            "more than one Content-Length",
        ),
        (head("POST", "/", "Content-Length: 00000000000000005"), "16 digits"),
        (head("POST", "/", "Content-Length: 99999999999999999"), "that long"),
    ],
)
def test_refusals_say_what_is_wrong(data: bytes, text: str) -> None:
    reading = read([data])
    assert text in reading.text
    assert re.fullmatch(r"[A-Z].*[.]", reading.text)


def test_refusal_names_the_request_if_it_can() -> None:
    for data, named in [
        (head("GET", "/a", "X : b"), (b"GET", b"/a")),
        (head("HEAD", "/a", "Host: b"), (b"HEAD", b"/a")),
        (b"GET / HTTP/2.0\r\n", (b"GET", b"/")),
        (b"GET /a b HTTP/1.1\r\n", (b"", b"")),
        (b"hello\r\n\r\n", (b"", b"")),
    ]:
        with pytest.raises(BadRequest) as refused:
            reader_of(data).read_head()
        assert (refused.value.method, refused.value.target) == named


@pytest.mark.parametrize(
    ("target", "scheme", "status"),
    [
        ("http://a/", "http", None),
        ("HTTP://a", "http", None),
        ("https://a/", "https", None),
        ("http://a?b", "http", None),
        ("https://a/", "http", 421),
        ("http://a/", "https", 421),
        ("ftp://a/", "http", 421),
        ("http://", "http", 400),
        ("http://:80/", "http", 400),
        ("http://a#b", "http", 400),
        ("http:/a", "http", 400),
        ("mailto:a", "http", 400),
    ],
)
def test_whole_urls(target: str, scheme: str, status: int | None) -> None:
    assert read([head("GET", target)], scheme=scheme).status == status


@pytest.mark.parametrize(
    "target", ["/?a={b}|[c]^`\\", "/a|b", "/[a]", "/%zz", "//a", "/a?b?c", "/'", "/*"]
)
def test_what_browsers_send_unencoded_passes(target: str) -> None:
    assert read([head("GET", target)]).status is None


@pytest.mark.parametrize("host", ["[::1]", "[v1.a:b]", "a%20:", "1.2.3.4:80", "a,b"])
def test_hosts_that_are_odd_but_good(host: str) -> None:
    assert read([b"GET / HTTP/1.1\r\nHost:" + host.encode() + b"\r\n\r\n"]).status is None


@pytest.mark.parametrize(
    "value", ["100-continue", "100-CONTINUE", "", "100-continue, 100-continue"]
)
def test_expectations_that_are_met(value: str) -> None:
    assert read([head("POST", "/", "Content-Length: 0", f"Expect: {value}")]).status is None
    assert read([head("POST", "/", f"Expect: {value}", "Expect: more")]).status == 417


# Limits, to the byte


def test_line_limit() -> None:
    line = SMALL.line - len("GET / HTTP/1.1\r\n")
    for extra, status in [(0, None), (1, 414)]:
        data = head("GET", "/" + "x" * (line + extra))
        assert read([data], SMALL).status == status
        assert read(in_bytes(data), SMALL).status == status
    assert read([b"GET /" + b"x" * SMALL.line], SMALL).status == 414


def test_head_limit() -> None:
    for extra, status in [(0, None), (1, 431)]:
        data = head("GET", "/", "X: ")
        data = data.replace(b"X: ", b"X: " + b"y" * (SMALL.head - len(data) + extra))
        assert read([data], SMALL).status == status
        assert read(in_bytes(data), SMALL).status == status
    assert read([b"GET / HTTP/1.1\r\nX: " + b"y" * SMALL.head], SMALL).status == 431


def test_field_limit() -> None:
    for count, status in [(SMALL.fields - 1, None), (SMALL.fields, 431)]:  # one is Host
        data = head("GET", "/", *["X: y"] * count)
        assert read([data], SMALL).status == status
        assert read(in_bytes(data), SMALL).status == status


def test_method_limit() -> None:
    assert read([head("M" * 32, "/")]).status is None
    assert read([head("M" * 33, "/")]).status == 501
    assert read([b"M" * 33]).status == 501


def test_trailer_limits() -> None:
    start = head("POST", "/", "Transfer-Encoding: chunked")
    for fields, status in [
        ([b"X: y"] * SMALL.fields, None),
        ([b"X: y"] * (SMALL.fields + 1), 431),
        ([b"X: " + b"y" * (SMALL.head - 7)], None),
        ([b"X: " + b"y" * (SMALL.head - 6)], 431),
    ]:
        data = start + chunked(
            b"abc", end=b"0\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n"
        )
        assert read([data], SMALL).status == status
        assert read(in_bytes(data), SMALL).status == status


def test_extension_limits() -> None:
    start = head("POST", "/", "Transfer-Encoding: chunked")
    line = b"1;" + b"a" * 1020 + b"\r\nx\r\n"
    assert read([start + line * 4 + b"0\r\n\r\n"]).status is None
    assert read([start + line * 5 + b"0\r\n\r\n"]).status == 400
    assert read([start + b"1;" + b"a" * 1021 + b"\r\n"]).status == 400
    assert read([start + b"1;" + b"a" * 2000]).status == 400


def test_body_limit_is_seen_when_a_chunk_says_so() -> None:
    start = head("POST", "/", "Transfer-Encoding: chunked")
    assert read([start + b"2710\r\n"], SMALL).status is None
    assert read([start + b"2711\r\n"], SMALL).status == 413
    assert read([start + chunked(b"x" * 6000, b"y" * 4001)], SMALL).status == 413


# Anything that is a request


TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PATH = "/?:@-._~!$&'()*+,;=%[]{}|^`0aZ"
RESERVED = {"host", "content-length", "transfer-encoding", "expect", "connection", "upgrade"}
names = st.text(TOKEN, min_size=1, max_size=12).filter(lambda name: name.lower() not in RESERVED)
visible = st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f").filter(
    lambda char: not "\x7f" <= char < "\x80"
)
values = st.text(visible, max_size=20).map(lambda text: text.strip(" \t"))
blanks = st.text(" \t", max_size=2)
extensions = st.sampled_from([b"", b";a", b" ; a = b", b';a="x;\\"\xe9 y"', b";a=b;c"])


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Read]:
    """The bytes of a request, and what must be read of it."""
    method = draw(
        st.text(TOKEN, min_size=1, max_size=8).filter(lambda text: text not in ("CONNECT", "HEAD"))
    )
    urls = st.sampled_from(["http://a:1/b?c", "HTTP://[::1]"])
    target = draw(st.text(PATH, max_size=12).map(lambda text: "/" + text) | urls)
    fields = [("Host", "site"), *draw(st.lists(st.tuples(names, values), max_size=4))]
    body = draw(st.binary(max_size=40))
    framing = draw(st.sampled_from(["none", "length", "chunks"]))
    if framing == "length":
        fields.append(("content-LENGTH", draw(st.sampled_from(["", "0"])) + str(len(body))))
    elif framing == "chunks":
        fields.append(
            (draw(st.sampled_from(["Transfer-Encoding", "TRANSFER-encoding"])), "chunked")
        )
    lines = [f"{name}:{draw(blanks)}{value}{draw(blanks)}" for name, value in fields]
    data = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")
    expected = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    if not target.startswith("/"):  # the target says which host is meant
        expected[0] = (b"host", target.partition("://")[2].partition("/")[0].encode())
    if framing == "none":
        body = b""
    elif framing == "chunks":
        data += draw(chunkings(body))
    else:
        data += body
    return data, Read(method.encode(), target.encode(), expected, body, whole=True)


@st.composite
def chunkings(draw: st.DrawFn, body: bytes) -> bytes:
    data = b""
    while body:
        size = draw(st.integers(1, len(body)))
        digits = draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % size
        data += digits + draw(extensions) + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    trailers = draw(st.lists(st.tuples(names, values), max_size=2))
    lines = "".join(f"{name}: {value}\r\n" for name, value in trailers).encode("latin-1")
    return data + b"0" + draw(extensions) + b"\r\n" + lines + b"\r\n"


@given(
    sent=st.lists(requests(), min_size=1, max_size=3), cuts=st.lists(st.integers(0, 60), max_size=8)
)
def test_good_requests_are_read_as_they_were_sent(
    sent: list[tuple[bytes, Read]], cuts: list[int]
) -> None:
    data = b"\r\n".join(data for data, _ in sent)
    for pieces in ([data], split(data, cuts), in_bytes(data)):
        reading = read(pieces, end=True)
        assert reading.status is None, reading.text
        assert reading.requests == [request for _, request in sent]


# Anything at all


LINES = [
    b"GET",
    b"POST",
    b" ",
    b"/",
    b"*",
    b"http://a",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"HTTP/2.0",
]
BREAKS = [b"\r\n", b"\n", b"\r", b":", b";", b'"', b"\x00"]
FIELDS = [
    b"Host: a",
    b"Host:",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Connection: close",
    b"Upgrade: x",
]
CHUNKS = [
    b"5\r\nabcde\r\n",
    b"5;a=b\r\nabcde\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"5",
    b"abcde",
]
WHOLE = [
    head("GET", "/"),
    post(b"abc"),
    head("POST", "/", "Transfer-Encoding: chunked"),
    chunked(b"abc", b"d"),
]
BITS = st.sampled_from(
    LINES + BREAKS + [field + b"\r\n" for field in FIELDS] + CHUNKS + WHOLE
) | st.binary(max_size=8)


@given(
    data=st.lists(BITS, max_size=12).map(b"".join),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
@example(data=head("GET", "/") + b"\r", cuts=[5])
@example(data=head("POST", "/", "Transfer-Encoding: chunked") + b"0\r\nX: a\r\n\r\n\n", cuts=[])
def test_pieces_make_no_difference_whatever_comes(data: bytes, cuts: list[int]) -> None:
    whole = read([data], SMALL)
    assert seen(read(split(data, cuts), SMALL)) == seen(whole)
    assert seen(read(in_bytes(data), SMALL)) == seen(whole)


@given(st.data())
def test_a_changed_byte_in_a_request_is_refused_or_read_as_it_is(data: st.DataObject) -> None:
    """Wherever it is; and what is read of it does not depend on the pieces it comes in."""
    sent, _ = data.draw(requests())
    at = data.draw(st.integers(0, len(sent) - 1))
    changed = sent[:at] + data.draw(st.binary(min_size=1, max_size=1)) + sent[at + 1 :]
    whole = read([changed])
    assert seen(read(in_bytes(changed))) == seen(whole)
