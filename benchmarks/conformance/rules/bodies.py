"""Rules of lengths, transfer codings and chunks."""

from __future__ import annotations

from benchmarks.conformance.rules.rule import (
    CHUNKED,
    ERROR,
    FIVE,
    HOST,
    POSTED,
    REFUSED,
    UNREAD,
    WAITS,
    Repeat,
    Rule,
    grammar,
    may,
    must,
    post,
    post_chunked,
    should,
)


def lengths() -> list[Rule]:
    lengths = [b"+5", b"-5", b"0x5", b"5_0", b"5 5", b"1e1", b"5.0", b"5, 6", b"", b"five", b"5;"]
    return [
        *must(
            "9112 6.3", "a body has the length that is given", POSTED, post(b"Content-Length: 5")
        ),
        *must(
            "9112 6",
            "a body is read whatever the method",
            "200 GET( abcde)?; 200 GET",
            [b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabcde"],
        ),
        *must(
            "9112 6.3", "without a length there is no body", "(200 POST|411); .*", post(body=b"")
        ),
        *must(
            "9112 6.3",
            "an invalid length is a 400, and closes",
            REFUSED,
            *[post(b"Content-Length: " + length) for length in lengths],
        ),
        *must(
            "9112 6.3",
            "different lengths are a 400, and close",
            REFUSED,
            post(b"Content-Length: 5", b"Content-Length: 6"),
        ),
        *must(
            "9110 8.6",
            "equal lengths are refused, or one",
            f"{REFUSED}|{POSTED}",
            post(b"Content-Length: 5", b"Content-Length: 5"),
            post(b"Content-Length: 5, 5"),
        ),
        *must(
            "9110 8.6",
            "no length overflows",
            WAITS,
            post(b"Content-Length: 18446744073709551621"),
            post(b"Content-Length: 340282366920938463463374607431768211461"),
        ),
        *must(
            "9112 6.1",
            "a length and a coding together close the connection",
            "400; closed|200 POST abcde; closed",
            post(b"Content-Length: 5", CHUNKED[:-2], body=FIVE),
            post(CHUNKED[:-2], b"Content-Length: 16", body=FIVE),
        ),
        *must(
            "9112 6.1",
            "Transfer-Encoding in HTTP/1.0 is faulty",
            "4\\d\\d; closed|200 POST (abcde)?; closed",
            post(CHUNKED[:-2], body=FIVE, version=b"1.0"),
        ),
        *grammar(
            "9112 6.1",
            "chunked is applied once",
            r"(400|501); closed",
            post(b"Transfer-Encoding: chunked, chunked", body=FIVE),
            post(CHUNKED[:-2], CHUNKED[:-2], body=FIVE),
        ),
        *must(
            "9112 6.3",
            "the last coding is chunked, or it is a 400, and closes",
            REFUSED,
            post(b"Transfer-Encoding: gzip"),
            post(b"Transfer-Encoding: chunked, gzip", body=FIVE),
            post(b"Transfer-Encoding: identity"),
            post(b"Transfer-Encoding: xchunked", body=FIVE),
            post(b"Transfer-Encoding: \x0bchunked", body=FIVE),
            post(b"Transfer-Encoding:"),
        ),
        *should(
            "9112 7",
            "a parameter of chunked is an error",
            REFUSED,
            post(b"Transfer-Encoding: chunked;a=b", body=FIVE),
        ),
        *should(
            "9112 6.1",
            "an unknown coding is a 501",
            "501; closed",
            post(b"Transfer-Encoding: gzip, chunked", body=FIVE),
        ),
        *must(
            "9112 7",
            "names of codings are case-insensitive",
            POSTED,
            post(b"Transfer-Encoding: cHuNkEd", body=FIVE),
        ),
        *must(
            "9112 8",
            "a body that is cut off is not complete",
            UNREAD,
            post(b"Content-Length: 10"),
            cut=True,
        ),
        *must(
            "9112 8",
            "a chunked body that is cut off is not complete",
            UNREAD,
            post_chunked(b"5\r\nabcde\r\n"),
            post_chunked(b"5\r\nabcde\r\n0\r\n"),
            cut=True,
        ),
        *may(
            "9112 8",
            "a head that is cut off may be answered",
            "(4\\d\\d; )?closed",
            [b"GET / HTTP/1.1\r\nHo"],
            cut=True,
        ),
        *may(
            "9110 15.5.14",
            "a body over the limit is a 413",
            "413; closed",
            post(b"Content-Length: 9999999999999999"),
        ),
        *grammar(
            "9112 7",
            "empty members of a list of codings are ignored",
            f"{REFUSED}|{POSTED}",
            post(b"Transfer-Encoding: chunked,", body=FIVE),
        ),
    ]


def chunked() -> list[Rule]:
    sizes = [b"-5", b"+5", b"0x5", b"5_", b" 5", b"5 ", b"", b"g", b"5,5", b"5\x00"]
    bad = [size + b"\r\nabcde\r\n0\r\n\r\n" for size in sizes]
    return [
        *must(
            "9112 7.1",
            "chunks are understood",
            POSTED,
            post_chunked(b"2\r\nab\r\n003\r\ncde\r\n0\r\n\r\n"),
        ),
        *must(
            "9112 7.1",
            "chunks are understood",
            "200 POST abcdefghij; 200 GET",
            post_chunked(b"A\r\nabcdefghij\r\n00\r\n\r\n"),
        ),
        *grammar(
            "9112 7.1",
            "the size of a chunk is hexadecimal digits",
            REFUSED,
            *[post_chunked(body) for body in bad],
        ),
        *must(
            "9112 7.1",
            "no chunk size overflows",
            WAITS,
            post_chunked(b"10000000000000005\r\nabcde\r\n0\r\n\r\n"),
            post_chunked(b"FFFFFFFFFFFFFFFF5\r\nabcde\r\n0\r\n\r\n"),
            post_chunked(b"fffffffffffffffb\r\nabcde\r\n0\r\n\r\n"),
        ),
        *grammar(
            "9112 7.1",
            "the data of a chunk has its size",
            REFUSED,
            post_chunked(b"5\r\nabcdefgh\r\n0\r\n\r\n"),
            post_chunked(b"5\r\nabcde0\r\n\r\n"),
            post_chunked(b"5\r\nabcde\n0\r\n\r\n"),
        ),
        *may(
            "9112 2.2",
            "the line of a chunk size may end with LF alone",
            f"{REFUSED}|{POSTED}",
            post_chunked(b"5\nabcde\r\n0\r\n\r\n"),
        ),
        *must(
            "9112 2.2",
            "a bare CR is invalid, or a space",
            f"{REFUSED}|closed|{POSTED}",
            post_chunked(b"5;a\rb\r\nabcde\r\n0\r\n\r\n"),
        ),
        *must(
            "9112 7.1.1",
            "unknown extensions are ignored",
            POSTED,
            post_chunked(b"5;a;b=c\r\nabcde\r\n0;d\r\n\r\n"),
        ),
        *must(
            "9112 7.1.1",
            "whitespace in extensions is ignored",
            POSTED,
            post_chunked(b"5 ; a = b\r\nabcde\r\n0\r\n\r\n"),
        ),
        *must(
            "9112 7.1.1",
            "unknown extensions are ignored",
            POSTED,
            post_chunked(b'5;a="x;\\"y"\r\nabcde\r\n0\r\n\r\n'),
        ),
        *grammar(
            "9112 7.1.1",
            "an extension has a name",
            REFUSED,
            post_chunked(b"5;\r\nabcde\r\n0\r\n\r\n"),
        ),
        *grammar(
            "9112 7.1.1",
            "an extension has no control characters",
            REFUSED,
            post_chunked(b"5;a=\x01\r\nabcde\r\n0\r\n\r\n"),
        ),
        *grammar(
            "9112 7.1.1",
            "a quoted value of an extension ends",
            REFUSED,
            post_chunked(b'5;a="b\r\nabcde\r\n0\r\n\r\n'),
        ),
        *may(
            "9112 7.1.1",
            "extensions are limited",
            f"{ERROR}|{POSTED}",
            [*post_chunked(b""), b"5;", Repeat(b"a", 100000), b"\r\nabcde\r\n0\r\n\r\n"],
        ),
        *must(
            "9112 7.1.2",
            "trailers do not become headers",
            POSTED,
            post_chunked(b"5\r\nabcde\r\n0\r\nX: a\r\n\r\n"),
        ),
        *must(
            "9110 6.5.1",
            "trailers do not change the framing",
            POSTED,
            post_chunked(b"5\r\nabcde\r\n0\r\nContent-Length: 50\r\n\r\n"),
        ),
        *grammar(
            "9112 7.1.2",
            "trailers are header lines",
            REFUSED,
            post_chunked(b"5\r\nabcde\r\n0\r\nX\r\n\r\n"),
            post_chunked(b"5\r\nabcde\r\n0\r\n X: a\r\n\r\n"),
            post_chunked(b"5\r\nabcde\r\n0\r\nX: a\x00b\r\n\r\n"),
        ),
        *may(
            "9112 7.1.2",
            "trailers are limited",
            f"{ERROR}|{POSTED}",
            [*post_chunked(b"5\r\nabcde\r\n0\r\n"), Repeat(b"X: a\r\n", 40000), b"\r\n"],
        ),
    ]
