"""What a proxy changes in heads, both ways."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest

from rpyserve.http.request import Request
from rpyserve.resources.proxy_headers import Mount, downstream_headers, upstream_headers

ORIGIN = "http://127.0.0.1:5000"


def asked(uri: str = "/api/a", *fields: tuple[str, str], mounted: int = 1) -> Request:
    headers = [
        (b"host", b"localhost:8080"),
        *((name.lower().encode(), value.encode()) for name, value in fields),
    ]
    request = Request("GET", uri, headers, client=("127.0.0.9", 1))
    for _ in range(mounted):
        request.prepath.append(request.postpath.pop(0))
    return request


@pytest.mark.parametrize(
    ("uri", "mounted", "base", "target"),
    [
        ("/api", 1, "", "/"),
        ("/api/", 1, "", "/"),
        ("/api/a%2Fb/%c3%a9//c?x=1&y=%20", 1, "/v1", "/v1/a%2Fb/%c3%a9//c?x=1&y=%20"),
        ("/api?", 1, "/v1", "/v1?"),
        ("/api/", 1, "/v1", "/v1/"),
        ("/", 1, "/v1", "/v1/"),
        ("/a/b", 0, "", "/a/b"),
        ("http://localhost:8080/api/a?b", 1, "", "/a?b"),
    ],
)
def test_targets(uri: str, mounted: int, base: str, target: str) -> None:
    request = asked(uri, mounted=mounted)
    assert Mount.of(request, ORIGIN, base).target(request) == target.encode()


def test_who_asked_is_told() -> None:
    mount = Mount.of(asked(), ORIGIN, "")
    sent = dict(upstream_headers(asked(), mount, "p", keep_host=False))
    assert sent == {
        b"host": b"127.0.0.1:5000", b"x-forwarded-for": b"127.0.0.9", b"x-forwarded-host": b"localhost:8080",
        b"x-forwarded-proto": b"http", b"x-forwarded-prefix": b"/api", b"via": b"1.1 p",
        b"forwarded": b'for=127.0.0.9;host="localhost:8080";proto=http',
    }  # fmt: skip
    before = [("X-Forwarded-For", "1.2.3.4"), ("Forwarded", "for=1.2.3.4"), ("Via", "1.0 other")]
    sent = dict(upstream_headers(asked("/api/a", *before), mount, "p", keep_host=True))
    assert sent[b"host"] == b"localhost:8080" and sent[b"x-forwarded-for"] == b"1.2.3.4, 127.0.0.9"
    assert (
        sent[b"forwarded"].startswith(b"for=1.2.3.4, for=127.0.0.9;")
        and sent[b"via"] == b"1.0 other, 1.1 p"
    )


def test_what_belongs_to_one_connection_stays_there() -> None:
    mount = Mount.of(asked(), ORIGIN, "")
    hop = [
        ("Connection", "keep-alive, X-Own"), ("X-Own", "1"), ("Keep-Alive", "5"), ("TE", "trailers"),
        ("Upgrade", "h2c"), ("Proxy-Authorization", "x"), ("Transfer-Encoding", "chunked"),
        ("Expect", "100-continue"), ("Cookie", "a=1"),
    ]  # fmt: skip
    sent = dict(upstream_headers(asked("/api/a", *hop), mount, "p", keep_host=False))
    assert sent[b"cookie"] == b"a=1"
    assert not {name.lower().encode() for name, _ in hop} - {b"cookie"} & sent.keys()
    back = downstream_headers(
        [(b"Connection", b"close, X-B"), (b"X-B", b"1"), (b"ETag", b"x"), (b"Trailer", b"y")], mount
    )
    assert back == ((b"ETag", b"x"),)


def test_what_a_backend_could_take_for_ours() -> None:
    fields = [
        ("X_Forwarded_For", "1.2.3.4"),
        ("Content_Length", "5"),
        ("X_Forwarded-Host", "evil"),
        ("X_Own", "1"),
    ]
    sent = dict(
        upstream_headers(
            asked("/api/a", *fields), Mount.of(asked(), ORIGIN, ""), "p", keep_host=False
        )
    )
    assert (
        sent[b"x_own"] == b"1"
        and not {b"x_forwarded_for", b"content_length", b"x_forwarded-host"} & sent.keys()
    )


def test_a_websocket_is_asked_for_anew() -> None:
    request = asked("/api/a", ("Connection", "Upgrade"), ("Upgrade", "websocket"))
    sent = dict(upstream_headers(request, Mount.of(request, ORIGIN, ""), "p", keep_host=False))
    assert sent[b"connection"] == b"Upgrade" and sent[b"upgrade"] == b"websocket"


@pytest.mark.parametrize(
    ("address", "base", "ours"),
    [
        ("http://127.0.0.1:5000/login?a", "", "/api/login?a"),
        ("http://127.0.0.1:5000", "", "/api"),
        ("/login", "", "/api/login"),
        ("/", "", "/api/"),
        ("/v1/login", "/v1", "/api/login"),
        ("/v1", "/v1", "/api"),
        ("/v10/login", "/v1", "/v10/login"),
        ("/other", "/v1", "/other"),
        ("login", "", "login"),
        ("?page=2", "", "?page=2"),
        ("//other.example/x", "", "//other.example/x"),
        ("https://other.example/x", "", "https://other.example/x"),
        ("http://127.0.0.1:50001/x", "", "http://127.0.0.1:50001/x"),
        ("http://127.0.0.1:5000.evil.example/", "", "http://127.0.0.1:5000.evil.example/"),
    ],
)
def test_addresses_lead_through_the_proxy(address: str, base: str, ours: str) -> None:
    mount = Mount("/api", ORIGIN, base, "")
    assert mount.translate(address) == ours
    assert downstream_headers([(b"Location", address.encode())], mount) == (
        (b"Location", ours.encode()),
    )


# Opening a redirect to somewhere else


@pytest.mark.parametrize("prefix", ["", "/", "//evil.example", "/api"])
@pytest.mark.parametrize("base", ["", "/v1"])
@pytest.mark.parametrize("origin", ["", ORIGIN])
@pytest.mark.parametrize("slashes", ["//", "///", "/\\", "/\t/", "/\t\\", "/\\/"])
@pytest.mark.parametrize("before", ["", "0; url="])
def test_no_address_of_the_upstream_server_becomes_one_of_another_host(
    prefix: str, base: str, origin: str, slashes: str, before: str
) -> None:
    address = f"{origin}{base}{slashes}evil.example/x"
    if not origin and address.startswith("//"):
        return  # the upstream server itself redirects to another host
    name = b"Refresh" if before else b"Location"
    mount = Mount(prefix, ORIGIN, base, "")
    ((_, value),) = downstream_headers([(name, (before + address).encode())], mount)
    ours = value.decode().removeprefix(before)
    assert urljoin("http://localhost:8080/a", browser_form(ours)).startswith(
        "http://localhost:8080/"
    )


def browser_form(address: str) -> str:
    """*address* as browsers read it (URL Standard, section 4.4)."""
    return address.replace("\t", "").replace("\\", "/")


def test_no_prefix_is_that_of_another_host() -> None:
    for path in ("//evil.example/x", "///evil.example/x"):
        request = asked(path, mounted=3)
        mount = Mount.of(request, ORIGIN, "")
        sent = dict(upstream_headers(request, mount, "p", keep_host=False))
        assert sent[b"x-forwarded-prefix"].startswith(b"/evil.example")
        assert mount.translate("/login").startswith("/evil.example")


@pytest.mark.parametrize(
    ("refresh", "ours"),
    [
        ("5", "5"),
        ("0; url=/login", "0; url=/api/login"),
        ("0;URL=/login", "0;URL=/api/login"),
        ("0, Url = '/login'", "0, Url = '/api/login'"),
        ("1.5 /login", "1.5 /api/login"),
        ("0; url=/login?url=/x", "0; url=/api/login?url=/x"),
        ("0; url=http://127.0.0.1:5000/x", "0; url=/api/x"),
        ("0; url=https://other.example/?url=/x", "0; url=https://other.example/?url=/x"),
    ],
)
def test_a_refresh(refresh: str, ours: str) -> None:
    mount = Mount("/api", ORIGIN, "", "")
    assert downstream_headers([(b"Refresh", refresh.encode())], mount) == (
        (b"Refresh", ours.encode()),
    )


# Upgrades


@pytest.mark.parametrize(
    ("method", "version", "connection", "upgrade", "passes"),
    [
        ("GET", "1.1", "Upgrade", "websocket", True),
        ("GET", "1.1", "keep-alive, UPGRADE", "h2c, WebSocket", True),
        ("GET", "1.1", "keep-alive", "websocket", False),
        ("GET", "1.1", None, "websocket", False),
        ("GET", "1.1", "Upgrade", "h2c", False),
        ("GET", "1.1", "Upgrade", None, False),
        ("GET", "1.0", "Upgrade", "websocket", False),
        ("HEAD", "1.1", "Upgrade", "websocket", False),
        ("POST", "1.1", "Upgrade", "websocket", False),
    ],
)
def test_only_who_asks_for_an_upgrade_may_get_one(
    method: str, version: str, connection: str | None, upgrade: str | None, passes: bool
) -> None:
    given = {b"connection": connection, b"upgrade": upgrade}
    fields = [(name, value.encode()) for name, value in given.items() if value]
    request = Request(method, "/api/a", fields, http_version=version)
    request.prepath.append(request.postpath.pop(0))
    sent = dict(upstream_headers(request, Mount.of(request, ORIGIN, ""), "p", keep_host=False))
    assert (b"connection" in sent, b"upgrade" in sent) == (passes, passes)


def test_cookies_come_back() -> None:
    mount = Mount("/api", ORIGIN, "", "")
    fields = [
        (b"Set-Cookie", b"a=1; Path=/; HttpOnly"),
        (b"Set-Cookie", b"b=2; Domain=127.0.0.1; path=/x; Secure"),
    ]
    assert downstream_headers(fields, mount) == (
        (b"Set-Cookie", b"a=1; Path=/; HttpOnly"),
        (b"Set-Cookie", b"b=2; path=/api/x; Secure"),
    )
    assert downstream_headers(
        [(b"Set-Cookie", b"c=3; Path=/x")], Mount("/api", ORIGIN, "/v1", "")
    ) == ((b"Set-Cookie", b"c=3; Path=/x"),)
