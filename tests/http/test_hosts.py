"""Who may ask, and who may see details."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve.http.browser import is_cross_origin
from rpyserve.http.hosts import TrustedClients, host_without_port, is_loopback, machine_names
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.serving.listen import trusted_hosts


def asked(host: str | None, uri: str = "/", **headers: str) -> Request:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if host is not None:
        fields.append((b"host", host.encode("latin-1", "replace")))
    return Request("GET", uri, fields)


async def answer(request: Request, *names: str) -> Response:
    async def respond(request: Request) -> Response:
        return Response("the page")

    return await trusted_hosts(respond, names)(request)


OURS = [
    "127.0.0.1", "127.0.0.1:8080", "192.168.1.5:80", "10.0.0.1.", "[::1]", "[::1]:8080", "[fe80::1]:1",
    "[::ffff:1.2.3.4]", "localhost", "localhost:8080", "LocalHost.", "localhost.:8080", "app.localhost",
    "a.b.localhost:1", "127.0.0.1:",
]  # fmt: skip
FOREIGN = [
    "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost",
    "2130706433", "0x7f.1", "[::1", "[evil]", "a b", "127.0.0.1:80:80", "127.0.0.1:x", ":80", "mine.example.evil", "*",
    "localhost:80.evil", "127.1", "127.0.1", "0177.0.0.1", "127.0.0.01", "0", "1.2.3.4.5", "256.0.0.1",
    "[::1%25lo].evil.example", "[::1%25lo]", "127.0.0.1\u3002evil.example", "localhost\u3002",
    "evil.example#.localhost:", "localhost@evil.example", "evil.example/.localhost", "[127.0.0.1", "[localhost]",
    "::1%.localhost",
    "[::ffff:7f00:1].x", "..localhost.x", "xn--localhost", "-", ".", "..",
]  # fmt: skip


@pytest.mark.parametrize("host", [*OURS, None, ""])
async def test_ours(host: str | None) -> None:
    assert (await answer(asked(host))).status == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_foreign_names_get_a_403_that_names_the_flag(host: str) -> None:
    response = await answer(asked(host), "mine.example")
    assert response.status == 403
    assert isinstance(response.body, bytes)
    assert b"--allowed-host" in response.body


@pytest.mark.parametrize("host", ["mine.example", "MINE.example.:8080", "mine.example:1"])
async def test_allowed_hosts(host: str) -> None:
    assert (await answer(asked(host), "Mine.Example.")).status == 200


async def test_a_dot_allows_all_names_below() -> None:
    for name in (".example.com", "*.example.com"):
        assert (await answer(asked("a.b.example.com"), name)).status == 200
        assert (await answer(asked("badexample.com"), name)).status == 403


async def test_the_403_says_what_to_type_and_cannot_be_markup() -> None:
    response = await answer(asked("my-laptop:8080"))
    assert b"--allowed-host my-laptop" in bytes(response.body)  # type: ignore[arg-type]
    page = await answer(asked("<script>alert(1)</script>", accept="text/html"))
    assert b"<script>" not in bytes(page.body)  # type: ignore[arg-type]


async def test_the_authority_of_the_target_goes_before_the_field() -> None:
    assert (await answer(asked("localhost", "http://evil.example/x"))).status == 403
    assert (await answer(asked("evil.example", "http://user@localhost:8080/x"))).status == 200
    assert asked("x", "http://[::1]:80?q=/").authority == "[::1]:80"
    assert (await answer(asked("evil.example", "/?u=http://localhost/"))).status == 403
    for uri in (
        "http://evil.example#@localhost/",
        "http://evil.example\\@localhost/",
        "http://localhost@evil.example/",
    ):
        assert (await answer(asked("localhost", uri))).status == 403, uri


async def test_two_host_fields_are_no_way_round() -> None:
    request = Request("GET", "/", [(b"host", b"localhost"), (b"host", b"evil.example")])
    assert (await answer(request)).status == 403


@given(st.text(max_size=30))
def test_any_host_is_read(authority: str) -> None:
    assert host_without_port(authority) == host_without_port(authority).lower()


def test_hosts_and_ports() -> None:
    assert host_without_port("A.Example.:8080") == "a.example"
    assert (
        host_without_port("[::1]:80")
        == host_without_port("[::1]:")
        == host_without_port("[::1]")
        == "[::1]"
    )


def test_machine_names() -> None:
    names = machine_names()
    assert all(name == name.lower() for name in names)
    assert not names or any(name.endswith(".local") for name in names)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.5", False), ("", False), ("example.com", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def client(address: str, server: str = "192.168.1.5", **headers: str) -> Request:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request("GET", "/", fields, client=(address, 5000), server=(server, 8080))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "192.168.1.5"]
)
def test_this_machine_is_trusted(address: str) -> None:
    assert TrustedClients()(client(address))


@pytest.mark.parametrize(
    ("host", "trusted"),
    [("127.0.0.1:8080", True), ("[::1]:8080", True), ("0.0.0.0:8080", True), ("localhost", True), ("a.localhost:1", True),
     ("203.0.113.5:8080", False), ("192.168.1.5:8080", False), ("[2001:db8::5]:8080", False)],
)  # fmt: skip
def test_what_a_tunnel_brings_from_another_address_is_not_from_this_machine(
    host: str, trusted: bool
) -> None:
    request = client("127.0.0.1", "127.0.0.1", host=host)
    assert TrustedClients()(request) is trusted
    assert TrustedClients([ip_network("127.0.0.1")])(request)


@pytest.mark.parametrize(
    "address", ["192.168.1.6", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "", "pipe"]
)
def test_others_are_not(address: str) -> None:
    assert not TrustedClients()(client(address))


@pytest.mark.parametrize(
    "header",
    ["forwarded", "x_forwarded_for", "x_forwarded_proto", "x_forwarded", "x_real_ip", "x_client_ip", "x_original_host",
     "true_client_ip", "cf_connecting_ip", "via"],
)  # fmt: skip
def test_what_a_proxy_passed_on_is_not_from_this_machine(header: str) -> None:
    assert not TrustedClients()(client("127.0.0.1", **{header: "127.0.0.1"}))
    assert not TrustedClients()(client("127.0.0.1", **{header: ""}))
    assert TrustedClients([ip_network("127.0.0.1")])(client("127.0.0.1", **{header: "203.0.113.7"}))


def framed(site: str, mode: str = "cors", dest: str = "empty", **more: str) -> Request:
    return client(
        "127.0.0.1", sec_fetch_site=site, sec_fetch_mode=mode, sec_fetch_dest=dest, **more
    )


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_page_of_another_origin_asks_for_is_not_trusted(site: str) -> None:
    trust = TrustedClients([ip_network("127.0.0.1")])
    assert not trust(framed(site))
    assert not trust(framed(site, "no-cors", "script"))
    assert not trust(framed(site, "navigate", "iframe"))


def test_a_link_that_is_followed_in_a_tab_of_its_own_is_trusted() -> None:
    assert TrustedClients()(framed("cross-site", "navigate", "document"))
    assert TrustedClients()(framed("same-origin"))
    assert TrustedClients()(framed("none", "navigate", "document"))


@pytest.mark.parametrize(
    ("origin", "trusted"),
    [("http://localhost:8080", True), ("HTTP://LOCALHOST:8080", True), ("http://localhost:3000", False),
     ("https://localhost:8080", False), ("http://evil.example", False), ("null", False), ("", False)],
)  # fmt: skip
def test_only_our_own_origin_is_trusted(origin: str, trusted: bool) -> None:
    request = client("127.0.0.1", host="localhost:8080", origin=origin)
    assert TrustedClients()(request) is trusted
    assert is_cross_origin(request, allow_links=True) is not trusted


def test_trusted_networks() -> None:
    trust = TrustedClients([ip_network("172.16.0.0/12"), ip_network("fd00::/8")])
    assert trust(client("172.17.0.1"))
    assert trust(client("::ffff:172.17.0.1"))
    assert trust(client("fd00::5"))
    assert not trust(client("172.32.0.1"))
    assert not trust(client("203.0.113.7", x_forwarded_for="172.17.0.1"))
