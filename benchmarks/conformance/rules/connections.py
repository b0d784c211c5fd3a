"""Rules of connections, and of responses."""

from __future__ import annotations

from benchmarks.conformance.rules.rule import (
    AWAIT,
    HOST,
    PAGE,
    Rule,
    get,
    may,
    must,
    post,
    request_line,
)


def persistence() -> list[Rule]:
    expecting = b"Expect: 100-continue"
    return [
        *must(
            "9112 9.3.2",
            "pipelined requests are answered in order",
            "200 localhost(; 200 POST abcde; 200 GET|; closed)",
            [*get(target=b"/host"), *post(b"Content-Length: 5")],
        ),
        *must(
            "9112 9.3.2",
            "a bad request does not get another's answer",
            "200 localhost; (400; )?closed",
            [*get(target=b"/host"), b"nonsense\r\n\r\n"],
            [*get(target=b"/host"), *get(b"X : a")],
        ),
        *must(
            "9112 9.6",
            "after close no more requests are answered",
            "200 GET; closed",
            get(b"Connection: close"),
            get(b"Connection: x, CLOSE"),
            [*get(b"Connection: close"), *get(target=b"/host")],
        ),
        *must(
            "9112 9.3",
            "HTTP/1.0 closes by default",
            "200 GET; closed",
            [b"GET / HTTP/1.0\r\n" + HOST + b"\r\n"],
        ),
        *may(
            "9110 7.8",
            "Upgrade may be ignored",
            PAGE,
            get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: "),
        ),
        *must(
            "9110 7.8",
            "Upgrade in HTTP/1.0 is ignored",
            "200 GET; closed",
            [b"GET / HTTP/1.0\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"],
        ),
        *may("9110 10.1.4", "TE may be ignored", PAGE, get(b"Connection: TE", b"TE: trailers")),
        *must(
            "9110 10.1.1",
            "100-continue gets 100, or an answer",
            "(100; )+200 POST abcde; 200 GET|4\\d\\d; closed",
            [
                b"POST / HTTP/1.1\r\n" + HOST + expecting + b"\r\nContent-Length: 5\r\n\r\n",
                AWAIT,
                b"abcde",
            ],
        ),
        *must(
            "9110 10.1.1",
            "100-continue in HTTP/1.0 is ignored",
            "200 POST abcde; closed",
            post(expecting, b"Content-Length: 5", version=b"1.0"),
        ),
        *may("9110 10.1.1", "100 is not needed without a body", f"(100; )?{PAGE}", get(expecting)),
        *may(
            "9110 10.1.1",
            "an unknown expectation is a 417",
            "417; closed",
            post(b"Expect: a-miracle", b"Content-Length: 5"),
        ),
    ]


def responses() -> list[Rule]:
    lengths = ("content-length", "transfer-encoding")
    return [
        *must(
            "9110 9.3.2",
            "a response to HEAD has no body",
            "200; 200 GET",
            [b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n"],
        ),
        *must(
            "9110 9.3.2",
            "a refused HEAD has no body, either",
            "400; closed|200; .*",
            [b"HEAD / HTTP/1.1\r\n\r\n"],
        ),
        *must(
            "9110 8.6",
            "a 204 has neither body nor length",
            "204; 200 GET",
            get(target=b"/204"),
            shown=lengths,
        ),
        *must(
            "9110 15.4.5",
            "a 304 has no body",
            "304; 200 GET",
            get(target=b"/304"),
            shown=("transfer-encoding",),
        ),
        *must(
            "9110 15.3.6",
            "a 205 has no body",
            "205 \\(content-length: 0\\); 200 GET",
            get(target=b"/205"),
            shown=lengths,
        ),
        *must(
            "9110 15.5.6",
            "a 405 has Allow",
            "405 \\(allow: .*\\); 200 GET|501; .*",
            request_line(b"BREW / HTTP/1.1"),
            shown=("allow",),
        ),
        *must(
            "9112 6.1",
            "HTTP/1.0 gets no chunked response",
            "200 streamed; closed",
            [b"GET /stream HTTP/1.0\r\n" + HOST + b"\r\n"],
            shown=("transfer-encoding",),
        ),
        *must(
            "9112 6.1",
            "a wrong length set by a script is not sent",
            "200 GET \\(content-length: 3\\); 200 GET|500.*",
            get(target=b"/length"),
            shown=lengths,
        ),
        *must(
            "9112 6.1",
            "a coding set by a script is not sent",
            "200 GET \\(content-length: 3\\); 200 GET|500.*",
            get(target=b"/coding"),
            shown=lengths,
        ),
        *must(
            "9110 5.5",
            "a script cannot split a head",
            "(200 GET|500.*); .*|closed",
            get(target=b"/split"),
            shown=("split",),
        ),
        *must(
            "9110 6.6.1",
            "a response has Date",
            "200 GET \\(date: GMT\\); 200 GET",
            get(),
            shown=("date",),
        ),
        *must(
            "9110 6.6.1",
            "a refusal has Date, too",
            "(400|200 GET) \\(date: GMT\\); .*",
            get(host=b""),
            shown=("date",),
        ),
    ]
