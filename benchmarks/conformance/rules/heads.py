"""Rules of request lines, targets and header fields."""

from __future__ import annotations

from benchmarks.conformance.rules.rule import (
    FIVE,
    HOST,
    PAGE,
    POSTED,
    REFUSED,
    Repeat,
    Rule,
    get,
    grammar,
    may,
    must,
    post,
    request_line,
    should,
)


def request_lines() -> list[Rule]:
    return [
        *should("9112 2.2", "an empty line before a request is ignored", PAGE, [b"\r\n", *get()]),
        *may(
            "9112 2.2",
            "a line may end with LF alone",
            f"{REFUSED}|{PAGE}",
            [b"GET / HTTP/1.1\nHost: localhost\n\n"],
        ),
        *may(
            "9112 2.2",
            "a line may end with LF alone",
            f"{REFUSED}|200 GET X=a; 200 GET",
            get(b"X: a\nY: b"),
        ),
        *must(
            "9112 2.2",
            "a bare CR is invalid, or a space",
            f"{REFUSED}|closed|200 GET X=a b; 200 GET",
            get(b"X: a\rb"),
        ),
        *must(
            "9112 2.2",
            "a bare CR is invalid, or a space",
            f"{REFUSED}|closed|200 GET X=a  b; 200 GET",
            get(b"X: a\r\rb"),
        ),
        *must(
            "9112 2.2",
            "a bare CR is invalid, or a space",
            f"{REFUSED}|closed",
            request_line(b"GET /\r HTTP/1.1"),
            [b"GET / HTTP/1.1\rHost: localhost\r\n\r\n"],
        ),
        *must(
            "9112 2.2",
            "no whitespace before the first header",
            f"{REFUSED}|200 GET; .*",
            [b"GET / HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n"],
        ),
        *should(
            "9112 2.2",
            "anything but a request is a 400",
            REFUSED,
            [b"hello\r\n\r\n"],
            [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
        ),
        *grammar(
            "9112 2.3",
            "the version is HTTP/digit.digit, in upper case",
            REFUSED,
            request_line(b"GET / http/1.1"),
            request_line(b"GET / HTTP/1.10"),
            request_line(b"GET / HTTP/1"),
            request_line(b"GET / HTTP/11"),
        ),
        *grammar("9112 2.3", "HTTP/0.9 is not supported", REFUSED, [b"GET /\r\n"]),
        *should(
            "9110 2.5",
            "a higher minor version is served as 1.1",
            PAGE,
            request_line(b"GET / HTTP/1.2"),
        ),
        *should(
            "9110 15.6.6",
            "another major version is a 505",
            "505; closed",
            request_line(b"GET / HTTP/2.0"),
            request_line(b"GET / HTTP/0.9"),
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
        ),
        *grammar(
            "9112 3",
            "a single space between the parts of a request line",
            REFUSED,
            request_line(b"GET  / HTTP/1.1"),
            request_line(b"GET\t/\tHTTP/1.1"),
            request_line(b"GET / HTTP/1.1 "),
            request_line(b" GET / HTTP/1.1"),
        ),
        *should(
            "9112 3", "a space in the target is a 400", REFUSED, request_line(b"GET /a b HTTP/1.1")
        ),
        *grammar("9112 3", "a method is a token", REFUSED, request_line(b"G@T / HTTP/1.1")),
        *must(
            "9112 3",
            "a target that is too long is a 414",
            "414; closed",
            [b"GET /", Repeat(b"x", 200000), b" HTTP/1.1\r\n" + HOST + b"\r\n"],
        ),
        *should(
            "9112 3",
            "a method that is too long is a 501",
            "501; closed",
            [Repeat(b"A", 200), b" / HTTP/1.1\r\n" + HOST + b"\r\n"],
        ),
        *must(
            "9110 9.1",
            "methods are case-sensitive",
            "(405|501|400); .*",
            request_line(b"get / HTTP/1.1"),
        ),
    ]


def targets() -> list[Rule]:
    return [
        *must("9112 3.2", "a missing Host is a 400", REFUSED, get(host=b"")),
        *must(
            "9112 3.2",
            "two Hosts are a 400",
            REFUSED,
            get(host=HOST * 2),
            get(host=HOST + b"hOST: other\r\n"),
        ),
        *must(
            "9112 3.2",
            "an invalid Host is a 400",
            REFUSED,
            get(host=b"Host: local host\r\n"),
            get(host=b"Host: localhost/x\r\n"),
            get(host=b"Host: me@localhost\r\n"),
            get(host=b"Host: localhost:80x\r\n"),
            get(host=b"Host: [::1\r\n"),
            get(host=b"Host: [1:::2]\r\n"),
            get(host=b"Host: local%zzhost\r\n"),
            get(host=b"Host: local\xe9host\r\n"),
        ),
        *must(
            "9112 3.2",
            "an invalid Host is a 400 in HTTP/1.0, too",
            REFUSED,
            [b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n"],
        ),
        *grammar(
            "9112 3.2", "a target begins with a slash", REFUSED, request_line(b"GET index HTTP/1.1")
        ),
        *grammar(
            "9112 3.2", "a target has no fragment", REFUSED, request_line(b"GET /#x HTTP/1.1")
        ),
        *grammar(
            "9112 3.2",
            "a target has only the characters of a URI",
            REFUSED,
            request_line(b"GET /<x> HTTP/1.1"),
            request_line(b"GET /\xc3\xa9 HTTP/1.1"),
            request_line(b"GET /\x01 HTTP/1.1"),
            request_line(b"GET /\x00 HTTP/1.1"),
        ),
        *must(
            "9112 3.2.2",
            "a target may be an absolute URL",
            PAGE,
            request_line(b"GET http://localhost/ HTTP/1.1"),
        ),
        *must(
            "9112 3.2.2",
            "the host of an absolute URL replaces Host",
            "200 localhost; 200 GET",
            get(target=b"http://localhost/host", host=b"Host: elsewhere\r\n"),
        ),
        *must(
            "9110 4.2.1",
            "a URL without a host is invalid",
            "400; .*",
            request_line(b"GET http:///x HTTP/1.1"),
        ),
        *should(
            "9110 4.2.4",
            "a URL with a user name is an error",
            "400; .*",
            request_line(b"GET http://me@localhost/ HTTP/1.1"),
        ),
        *must(
            "9110 7.4",
            "https over a plain connection is refused",
            "4\\d\\d; .*",
            request_line(b"GET https://localhost/ HTTP/1.1"),
        ),
        *must(
            "9112 3.2.3",
            "HOST:PORT is for CONNECT only",
            REFUSED,
            request_line(b"GET localhost:80 HTTP/1.1"),
        ),
        *must(
            "9110 9.3.6",
            "CONNECT without a port is refused",
            "(4|5)\\d\\d; .*",
            request_line(b"CONNECT localhost: HTTP/1.1"),
        ),
        *must(
            "9110 9.3.6",
            "CONNECT to an invalid port is refused",
            "(4|5)\\d\\d; .*",
            request_line(b"CONNECT localhost:99999 HTTP/1.1"),
        ),
        *may(
            "9110 9.3.6",
            "CONNECT need not be supported",
            "(501|405|400); .*",
            request_line(b"CONNECT localhost:80 HTTP/1.1"),
        ),
        *must(
            "9112 3.2.4",
            "* is for OPTIONS",
            "(2\\d\\d|40[45]|501).*; 200 GET",
            request_line(b"OPTIONS * HTTP/1.1"),
        ),
        *must("9112 3.2.4", "* is for OPTIONS only", REFUSED, request_line(b"GET * HTTP/1.1")),
    ]


def fields() -> list[Rule]:
    return [
        *must(
            "9112 5.1",
            "no whitespace between name and colon",
            REFUSED,
            get(b"X : a"),
            get(b"X\t: a"),
            post(b"Content-Length : 5"),
        ),
        *must(
            "9112 5.1",
            "whitespace around a value is not part of it",
            "200 GET X=a; 200 GET",
            get(b"X: \t a \t "),
        ),
        *grammar("9112 5.1", "a header has a colon", REFUSED, get(b"X")),
        *grammar("9110 5.1", "a header has a name", REFUSED, get(b": a")),
        *grammar(
            "9110 5.1",
            "a header's name is a token",
            REFUSED,
            get(b"X(Y): a"),
            get(b"X\x00: a"),
            get(b"X\xe9: a"),
        ),
        *must("9110 5.1", "header names are case-insensitive", POSTED, post(b"cOnTeNt-LeNgTh: 5")),
        *must(
            "9112 5.2",
            "a folded line is a 400, or a space",
            f"{REFUSED}|200 GET X=a b; 200 GET",
            get(b"X: a\r\n b"),
        ),
        *must(
            "9112 5.2",
            "a folded line is a 400, or a space",
            f"{REFUSED}|{POSTED}",
            post(b"Content-Length:\r\n 5"),
            post(b"Transfer-Encoding:\r\n\tchunked", body=FIVE),
        ),
        *must(
            "9110 5.5",
            "NUL in a value is refused, or a space",
            f"{REFUSED}|200 GET X=a b; 200 GET",
            get(b"X: a\x00b"),
        ),
        *grammar(
            "9110 5.5",
            "other control characters are invalid",
            REFUSED,
            get(b"X: a\x01b"),
            get(b"X: a\x7fb"),
        ),
        *should(
            "9110 5.5", "bytes over 127 are opaque", "200 GET X=.*; 200 GET", get(b"X: a\xe9b")
        ),
        *must(
            "9110 5.4",
            "too large a head is a 4xx",
            "4\\d\\d; closed",
            [b"GET / HTTP/1.1\r\n" + HOST + b"X: ", Repeat(b"a", 200000), b"\r\n\r\n"],
            [b"GET / HTTP/1.1\r\n" + HOST, Repeat(b"X: a\r\n", 40000), b"\r\n"],
        ),
        *must(
            "9110 5.6.1.2",
            "empty members of a list are ignored",
            "200 GET; closed",
            get(b"Connection: , close ,"),
        ),
    ]
