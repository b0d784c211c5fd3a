"""Rules of connections, and of responses."""

from __future__ import annotations

from benchmarks.conformance.rules.rule import AWAIT, HOST, PAGE, Level, Must, each, get, line, post


def persistence() -> list[Must]:
    expecting = b"Expect: 100-continue"
    return [
        *each(
            "9112 9.3.2",
            Level.MUST,
            "pipelined requests are answered in order",
            "200 localhost(; 200 POST abcde; 200 GET|; closed)",
            [*get(target=b"/host"), *post(b"Content-Length: 5")],
        ),
        *each(
            "9112 9.3.2",
            Level.MUST,
            "a bad request takes no other's answer",
            "200 localhost; (400; )?closed",
            [*get(target=b"/host"), b"nonsense\r\n\r\n"],
            [*get(target=b"/host"), *get(b"X : a")],
        ),
        *each(
            "9112 9.6",
            Level.MUST,
            "after close no more requests are taken",
            "200 GET; closed",
            get(b"Connection: close"),
            get(b"Connection: x, CLOSE"),
            [*get(b"Connection: close"), *get(target=b"/host")],
        ),
        *each(
            "9112 9.3",
            Level.MUST,
            "HTTP/1.0 closes by itself",
            "200 GET; closed",
            [b"GET / HTTP/1.0\r\n" + HOST + b"\r\n"],
        ),
        *each(
            "9110 7.8",
            Level.MAY,
            "Upgrade may be ignored",
            PAGE,
            get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: "),
        ),
        *each(
            "9110 7.8",
            Level.MUST,
            "Upgrade in HTTP/1.0 is ignored",
            "200 GET; closed",
            [b"GET / HTTP/1.0\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"],
        ),
        *each("9110 10.1.4", Level.MAY, "TE may be ignored", PAGE, get(b"Connection: TE", b"TE: trailers")),
        *each(
            "9110 10.1.1",
            Level.MUST,
            "100-continue gets 100, or an answer",
            "(100; )+200 POST abcde; 200 GET|4\\d\\d; closed",
            [b"POST / HTTP/1.1\r\n" + HOST + expecting + b"\r\nContent-Length: 5\r\n\r\n", AWAIT, b"abcde"],
        ),
        *each(
            "9110 10.1.1",
            Level.MUST,
            "100-continue in HTTP/1.0 is ignored",
            "200 POST abcde; closed",
            post(expecting, b"Content-Length: 5", version=b"1.0"),
        ),
        *each("9110 10.1.1", Level.MAY, "100 is not needed without a body", f"(100; )?{PAGE}", get(expecting)),
        *each(
            "9110 10.1.1",
            Level.MAY,
            "another expectation is a 417",
            "417; closed",
            post(b"Expect: a-miracle", b"Content-Length: 5"),
        ),
    ]


def responses() -> list[Must]:
    lengths = ("content-length", "transfer-encoding")
    return [
        *each(
            "9110 9.3.2",
            Level.MUST,
            "the answer to HEAD has no body",
            "200; 200 GET",
            [b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n"],
        ),
        *each(
            "9110 9.3.2", Level.MUST, "... when it is refused, too", "400; closed|200; .*", [b"HEAD / HTTP/1.1\r\n\r\n"]
        ),
        *each(
            "9110 8.6",
            Level.MUST,
            "a 204 has neither body nor length",
            "204; 200 GET",
            get(target=b"/204"),
            shown=lengths,
        ),
        *each(
            "9110 15.4.5",
            Level.MUST,
            "a 304 has no body",
            "304; 200 GET",
            get(target=b"/304"),
            shown=("transfer-encoding",),
        ),
        *each(
            "9110 15.3.6",
            Level.MUST,
            "a 205 has no body",
            "205 \\(content-length: 0\\); 200 GET",
            get(target=b"/205"),
            shown=lengths,
        ),
        *each(
            "9110 15.5.6",
            Level.MUST,
            "a 405 says what is allowed",
            "405 \\(allow: .*\\); 200 GET|501; .*",
            line(b"BREW / HTTP/1.1"),
            shown=("allow",),
        ),
        *each(
            "9112 6.1",
            Level.MUST,
            "HTTP/1.0 gets no chunks",
            "200 streamed; closed",
            [b"GET /stream HTTP/1.0\r\n" + HOST + b"\r\n"],
            shown=("transfer-encoding",),
        ),
        *each(
            "9112 6.1",
            Level.MUST,
            "a length of a script's own does not count",
            "200 GET \\(content-length: 3\\); 200 GET|500.*",
            get(target=b"/length"),
            shown=lengths,
        ),
        *each(
            "9112 6.1",
            Level.MUST,
            "a coding of a script's own does not count",
            "200 GET \\(content-length: 3\\); 200 GET|500.*",
            get(target=b"/coding"),
            shown=lengths,
        ),
        *each(
            "9110 5.5",
            Level.MUST,
            "a script cannot split a head",
            "(200 GET|500.*); .*|closed",
            get(target=b"/split"),
            shown=("split",),
        ),
        *each("9110 6.6.1", Level.MUST, "Date is there", "200 GET \\(date: GMT\\); 200 GET", get(), shown=("date",)),
        *each(
            "9110 6.6.1",
            Level.MUST,
            "... in a refusal, too",
            "(400|200 GET) \\(date: GMT\\); .*",
            get(host=b""),
            shown=("date",),
        ),
    ]
