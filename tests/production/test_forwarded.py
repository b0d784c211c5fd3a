"""Who is believed about whose request it is, and what is refused."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve import HTTPError, Redirect, Request, Resource, Site
from rpyserve.http.browser import is_cross_origin
from rpyserve.http.hosts import TrustedClients
from rpyserve.http.response import Response
from rpyserve.production.forwarded import (
    LONGEST,
    TrustedProxies,
    behind_proxy,
    below_root_path,
    parse_root_path,
    read_forwarded,
)
from rpyserve.resources.pages import error_page
from rpyserve.serving.listen import Settings, as_deployed
from tests.support.in_process import Answer, read

PROXIES = TrustedProxies((ip_network("10.0.0.0/8"), ip_network("fd00::/8")))
NAMES = ("forwarded", "for", "proto", "host", "port", "prefix")
HEADERS = {"forwarded": "forwarded"} | {name: f"x-forwarded-{name}" for name in NAMES[1:]}


def said(**fields: str) -> Any:
    """What the proxies say by these fields: ``forwarded`` or the end of ``X-Forwarded-...``."""
    return read_forwarded([fields.get(name, "").encode("latin-1") for name in NAMES], PROXIES)


async def ask(
    site: Any, target: str = "/", *, peer: str = "10.0.0.1", method: str = "GET", **fields: str
) -> tuple[Request, Answer]:
    """One request that *peer* sends, as the site saw it, and the answer."""
    raw = [
        (name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in fields.items()
    ]
    if not any(name == b"host" for name, _ in raw):
        raw.append((b"host", b"localhost:9001"))
    request = Request(method, target, raw, client=(peer, 4321), server=("10.0.0.9", 9001))
    return request, await read(await site(request))


def behind(respond: Any, proxies: TrustedProxies = PROXIES) -> Any:
    return behind_proxy(respond, proxies, partial(error_page, trusted=False))


async def ok(request: Request) -> Response:
    return Response(b"ok")


# From the right to the first address that is not known


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=192.0.2.60", ("192.0.2.60", 0)),
        ("For=192.0.2.60;Proto=http;By=203.0.113.43", ("192.0.2.60", 0)),
        ('for="192.0.2.60:4711"', ("192.0.2.60", 4711)),
        ("for=192.0.2.60:4711", ("192.0.2.60", 4711)),
        ('for="[2001:db8:cafe::17]:4711"', ("2001:db8:cafe::17", 4711)),
        ('for="[2001:DB8:CAFE::17]"', ("2001:db8:cafe::17", 0)),
        ("for=_gazonk", ("_gazonk", 0)),
        ('for="_gazonk:_port"', ("_gazonk", 0)),
        ("for=unknown", ("unknown", 0)),
        ("for=192.0.2.43, for=198.51.100.17", ("198.51.100.17", 0)),
        ("for=192.0.2.43, for=198.51.100.17, for=10.1.2.3", ("198.51.100.17", 0)),
        ('for=127.0.0.1, for=_hidden;by=10.0.0.1 , for="[fd00::1]"', ("_hidden", 0)),
        ("for=10.0.0.7, for=10.0.0.8", ("10.0.0.7", 0)),  # a proxy's own request
        ('for="\\192.0.2.60"', ("192.0.2.60", 0)),  # quoted pairs
        (" , for=192.0.2.60,, ;", ("192.0.2.60", 0)),  # empty elements
        ('host="a,b;c", for=192.0.2.60', ("192.0.2.60", 0)),
        ("for=192.0.2.60;secret=x", ("192.0.2.60", 0)),
        ("proto=https", ("unknown", 0)),
    ],
)
def test_forwarded(value: str, client: tuple[str, int]) -> None:
    assert said(forwarded=value).client == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("192.0.2.60", ("192.0.2.60", 0)),
        ("127.0.0.1, 192.0.2.60", ("192.0.2.60", 0)),
        ("127.0.0.1, 192.0.2.60, 10.0.0.5", ("192.0.2.60", 0)),
        ("192.0.2.60:80", ("192.0.2.60", 80)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("::ffff:192.0.2.60", ("192.0.2.60", 0)),
        ("unknown", ("unknown", 0)),
        ("10.0.0.3", ("10.0.0.3", 0)),
        (",192.0.2.60,", ("192.0.2.60", 0)),
        ("evil<script>, 192.0.2.60", ("192.0.2.60", 0)),  # what is further left is not read
    ],
)
def test_x_forwarded_for(value: str, client: tuple[str, int]) -> None:
    assert said(**{"for": value}).client == client


@pytest.mark.parametrize(
    "fields",
    [
        {"forwarded": "for"},
        {"forwarded": 'for="192.0.2.1'},
        {"forwarded": 'for=", for=192.0.2.1'},
        {"forwarded": "for=192.0.2.1 proto=http"},
        {"forwarded": "for=192.0.2.1;for=192.0.2.2"},
        {"forwarded": "for=example.com"},
        {"forwarded": 'for="[192.0.2.1"'},
        {"forwarded": 'for="192.0.2.1:99999"'},
        {"forwarded": "for=192.0.2.1;proto=ftp"},
        {"forwarded": 'for=192.0.2.1;host="a/b"'},
        {"for": "example.com"},
        {"for": "192.0.2.1:0"},
        {"for": "192.0.2.300"},
        {"for": "192.0.2.1", "proto": "gopher"},
        {"for": "192.0.2.1", "host": "a b"},
        {"for": "192.0.2.1", "host": "user@example.com"},
        {"for": "192.0.2.1", "host": "example.com:0"},
        {"for": "192.0.2.1", "port": "0"},
        {"for": "192.0.2.1", "port": "65536"},
        {"for": "192.0.2.1", "port": "-1"},
        {"for": "192.0.2.1", "port": "\xb2"},
        {"for": "192.0.2.1", "prefix": "/a/../b"},
        {"for": "192.0.2.1", "prefix": "/a/%2e%2e"},
        {"for": "192.0.2.1", "prefix": "//evil.example"},
        {"for": "192.0.2.1", "prefix": "/\\evil.example"},
        {"for": "192.0.2.1", "prefix": "app"},
        {"for": ", ".join(["10.0.0.1"] * 10_000)},
        {"forwarded": ", ".join(["for=10.0.0.1"] * 10_000)},
        {"forwarded": "for=192.0.2.1", "for": "192.0.2.2"},
    ],
)
async def test_what_cannot_be_read_is_a_400_and_reaches_nobody(
    fields: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError):
        said(**fields)

    async def never(request: Request) -> Response:
        raise AssertionError

    _, answer = await ask(behind(never), **{HEADERS[name]: text for name, text in fields.items()})
    assert answer.status == 400
    assert "192.0.2" not in answer.text
    assert "the proxy says what cannot be believed" in caplog.text


@given(st.text(alphabet='for=;, "\\[]:_.1a\t', max_size=80), st.booleans())
def test_no_text_is_read_in_two_ways(text: str, x: bool) -> None:
    """Whatever a client sends, what the proxy adds to its right decides, or it is refused."""
    fields = {"for": f"{text}, 192.0.2.9"} if x else {"forwarded": f"{text}, for=192.0.2.9"}
    try:
        client = said(**fields).client
    except ValueError:
        return
    assert client == ("192.0.2.9", 0)


def test_a_hundred_proxies_are_few_enough() -> None:
    many = ", ".join(["192.0.2.1", *["10.0.0.1"] * 99])
    assert len(many) < LONGEST
    assert said(**{"for": many}).client == ("192.0.2.1", 0)


# Scheme, host, port, prefix


@pytest.mark.parametrize(
    ("fields", "scheme", "authority", "port"),
    [
        ({}, "http", "localhost:9001", 9001),
        ({"proto": "https"}, "https", "localhost:9001", 9001),
        ({"proto": "https", "host": "example.com"}, "https", "example.com", 443),
        ({"proto": "HTTPS", "host": "example.com:8443"}, "https", "example.com:8443", 8443),
        ({"host": "example.com:8443", "port": "443"}, "http", "example.com:8443", 8443),
        ({"proto": "https", "host": "example.com", "port": "8443"}, "https", "example.com:8443", 8443),
        ({"proto": "https", "port": "443"}, "https", "localhost", 443),
        ({"proto": "wss", "host": "[2001:db8::1]"}, "https", "[2001:db8::1]", 443),
        ({"for": "192.0.2.1, 10.0.0.2", "proto": "https, http"}, "https", "localhost:9001", 9001),
        ({"for": "192.0.2.1", "proto": "https, http"}, "http", "localhost:9001", 9001),
        ({"for": "192.0.2.1, 10.0.0.2", "proto": "https"}, "https", "localhost:9001", 9001),
        ({"forwarded": "for=192.0.2.1;proto=https;host=example.com"}, "https", "example.com", 443),
        ({"forwarded": 'for=192.0.2.1;host="example.com:81"', "for": "192.0.2.1"}, "http", "example.com:81", 81),
        ({"forwarded": "proto=http;host=evil, for=192.0.2.1;proto=https"}, "https", "localhost:9001", 9001),
    ],
)  # fmt: skip
async def test_where_the_client_asked(
    fields: dict[str, str], scheme: str, authority: str, port: int
) -> None:
    request, answer = await ask(behind(ok), "/a?b", **{HEADERS[k]: v for k, v in fields.items()})
    assert answer.status == 200
    assert (request.scheme, request.authority, request.server[1]) == (scheme, authority, port)
    assert request.getHeader("host") == authority
    assert request.url == f"{scheme}://{authority}/a?b"


async def test_the_host_in_an_absolute_target_gives_way() -> None:
    request, _ = await ask(behind(ok), "http://inner:9001/a", x_forwarded_host="example.com")
    assert request.authority == "example.com" and request.path == "/a"


async def test_prefixes_of_several_proxies_are_joined() -> None:
    request, _ = await ask(
        behind(ok), "/a", x_forwarded_for="192.0.2.1, 10.0.0.2", x_forwarded_prefix="/evil, /outer/, /inner"
    )  # fmt: skip
    assert request.root_path == "/outer/inner"
    assert request.path == "/a"


# Who is believed


async def test_an_unknown_peer_is_ignored_and_the_console_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    respond = behind(ok)
    for _ in range(3):
        request, _ = await ask(
            respond, peer="192.0.2.7", x_forwarded_for="127.0.0.1", x_forwarded_proto="https",
            x_forwarded_host="evil.example", x_forwarded_prefix="/evil", forwarded="for=127.0.0.1",
        )  # fmt: skip
        assert request.client == ("192.0.2.7", 4321)
        assert (request.scheme, request.authority) == ("http", "localhost:9001")
        assert (request.server, request.root_path) == (("10.0.0.9", 9001), "")
    assert [record.getMessage() for record in caplog.records] == [
        "192.0.2.7 sends the header fields of a proxy, such as X-Forwarded-For. They are ignored, "
        "because --behind-proxy does not name it."
    ]


@pytest.mark.parametrize("peer", ["", "unix:", "10.0.0.1x", "::1"])
async def test_a_peer_without_an_address_is_no_proxy(peer: str) -> None:
    request, _ = await ask(behind(ok), peer=peer, x_forwarded_for="192.0.2.1")
    assert request.client == (peer, 4321)


async def test_a_unix_socket_is_one_where_that_is_said() -> None:
    respond = behind(ok, TrustedProxies((), unix=True))
    request, _ = await ask(respond, peer="unix:", x_forwarded_for="192.0.2.1, unix:")
    assert request.client == ("192.0.2.1", 0)
    request, _ = await ask(respond, peer="10.0.0.1", x_forwarded_for="192.0.2.1")
    assert request.client == ("10.0.0.1", 4321)


async def test_an_ipv4_proxy_on_a_dual_stack_socket() -> None:
    request, _ = await ask(behind(ok), peer="::ffff:10.0.0.1", x_forwarded_for="192.0.2.1")
    assert request.client == ("192.0.2.1", 0)


@pytest.mark.parametrize("claimed", ["127.0.0.1", "::1", "172.17.0.1", "10.0.0.9", ""])
async def test_nothing_makes_a_client_trusted(claimed: str) -> None:
    trusts = TrustedClients([ip_network("172.17.0.0/16"), ip_network("10.0.0.0/8")])
    fields = {"x_forwarded_for": claimed} if claimed else {}
    request, _ = await ask(behind(ok), **fields)
    assert not trusts(request)


class Failing(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> str:
        raise RuntimeError("a secret detail")


async def test_nobody_sees_details_through_a_proxy(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(Failing())
    site.trusts = TrustedClients([ip_network("0.0.0.0/0")])
    _, answer = await ask(behind(site.respond), x_forwarded_for="127.0.0.1")
    assert answer.status == 500 and "secret" not in answer.text
    assert "127.0.0.1 sees only a bare 500, like all who come through a proxy" in caplog.text
    assert "--trust" not in caplog.text


# What goes by it


class Login(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> str:
        request.getSession()
        return str(request.client[0])

    def render_POST(self, request: Request) -> Redirect:
        if is_cross_origin(request):
            raise HTTPError(403)
        return Redirect("/done")


def deployed(site: Site, **settings: Any) -> Any:
    return as_deployed(site.respond, ["example.com"], Settings(proxies=PROXIES, **settings))


async def test_cookies_are_secure_and_have_one_name_at_all_workers() -> None:
    respond = deployed(Site(Login()))
    fields = {"host": "example.com", "x_forwarded_for": "192.0.2.1", "x_forwarded_proto": "https"}
    _, answer = await ask(respond, **fields)
    cookie = answer.header("set-cookie") or ""
    assert cookie.startswith("rpyserve_443=") and cookie.endswith("; Secure")
    fields["x_forwarded_proto"] = "http"
    _, answer = await ask(respond, **fields)
    cookie = answer.header("set-cookie") or ""
    assert cookie.startswith("rpyserve_80=") and "Secure" not in cookie


async def test_a_cookie_of_a_given_name() -> None:
    site = Site(Login())
    site.cookieName = "visit"
    _, answer = await ask(deployed(site), host="example.com")
    assert (answer.header("set-cookie") or "").startswith("visit=")


@pytest.mark.parametrize(
    ("origin", "proto", "status"),
    [
        ("https://example.com", "https", 303),
        ("http://example.com", "https", 403),
        ("https://example.com", "http", 403),
        ("https://example.com:444", "https", 403),
        ("https://evil.example", "https", 403),
    ],
)
async def test_forms_behind_tls_are_of_the_same_origin(
    origin: str, proto: str, status: int
) -> None:
    _, answer = await ask(
        deployed(Site(Login())), method="POST", host="example.com", origin=origin, x_forwarded_proto=proto
    )  # fmt: skip
    assert answer.status == status


async def test_a_spoofed_host_is_refused() -> None:
    _, answer = await ask(
        deployed(Site(Login())), host="example.com", x_forwarded_host="evil.example"
    )
    assert answer.status == 403 and "--allowed-host evil.example" in answer.text
    _, answer = await ask(
        deployed(Site(Login()), production=True), host="example.com", x_forwarded_host="evil.example"
    )  # fmt: skip
    assert answer.status == 403 and "evil" not in answer.text and "--" not in answer.text


# Below a root path


class Deep(Resource):
    def getChild(self, name: str, request: Request) -> Resource:
        return self

    def render_GET(self, request: Request) -> str:
        request.getSession()
        request.addCookie("a", "1", path="/")
        request.addCookie("b", "1", path="/shop/")
        request.addCookie("c", "1")
        return f"{request.root_path} {request.path} {request.url}"

    def render_POST(self, request: Request) -> Redirect:
        return Redirect(request.field("to"))


@pytest.mark.parametrize("target", ["/app/a/b?c", "/a/b?c"])
async def test_a_proxy_may_take_the_root_path_off_or_not(target: str) -> None:
    _, answer = await ask(below_root_path(Site(Deep()).respond, "/app"), target, host="localhost")
    assert answer.text == "/app /a/b http://localhost/app/a/b?c"
    cookies = [value for name, value in answer.headers if name == "Set-Cookie"]
    paths = sorted(cookie.partition("Path=")[2].partition(";")[0] for cookie in cookies)
    assert paths == ["", "/app", "/app", "/app/shop/"]


@pytest.mark.parametrize(
    ("target", "method", "status", "location"),
    [
        ("/app", "GET", 302, "/app/"),
        ("/app?a=b", "GET", 302, "/app/?a=b"),
        ("/app", "POST", 307, "/app/"),
        ("/app/x?to=/y", "POST", 303, "/app/y"),
        ("/x?to=/", "POST", 303, "/app/"),
        ("/x?to=/app/y", "POST", 303, "/app/app/y"),
        ("/x?to=y", "POST", 303, "y"),
        ("/x?to=//example.com/", "POST", 303, "//example.com/"),
        ("/x?to=https://example.com/", "POST", 303, "https://example.com/"),
    ],
)
async def test_redirects_stay_below_it(
    target: str, method: str, status: int, location: str
) -> None:
    _, answer = await ask(below_root_path(Site(Deep()).respond, "/app"), target, method=method)
    assert (answer.status, answer.header("location")) == (status, location)


async def test_what_only_begins_like_it_is_not_below_it() -> None:
    _, answer = await ask(below_root_path(Site(Deep()).respond, "/app"), "/apple")
    assert answer.text.startswith("/app /apple ")


async def test_the_option_wins_over_what_the_proxy_says() -> None:
    request, _ = await ask(
        deployed(Site(Deep()), root_path="/app"), "/app/x", host="example.com", x_forwarded_prefix="/evil"
    )  # fmt: skip
    assert (request.root_path, request.path) == ("/app", "/x")


@pytest.mark.parametrize(
    ("text", "path"),
    [("", ""), ("/", ""), ("/app", "/app"), ("/app/", "/app"), ("/a/b-c_d.e~f", "/a/b-c_d.e~f")],
)
def test_root_paths(text: str, path: str) -> None:
    assert parse_root_path(text) == path


@given(st.text(max_size=30))
def test_a_root_path_never_leads_elsewhere(text: str) -> None:
    try:
        path = parse_root_path(text)
    except ValueError:
        return
    assert not path.startswith("//") and not path.endswith("/")
    assert not {".", "..", ""} & set(path.split("/")[1:])
    assert path.isascii() and path.isprintable()
