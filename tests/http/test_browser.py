"""Which requests a page of another origin makes.

One rule serves error details, live reload and WebSockets.
"""

from __future__ import annotations

from itertools import product

import pytest

from rpyserve.http.browser import is_cross_origin
from rpyserve.http.request import Request


def request_with(
    scheme: str = "http", uri: str = "/", host: str | None = "localhost:8080", **headers: str
) -> Request:
    fields = [] if host is None else [(b"host", host.encode())]
    fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request("GET", uri, fields, scheme=scheme)


@pytest.mark.parametrize("origin", ["http://localhost:8080", "HTTP://LOCALHOST:8080"])
def test_the_own_origin(origin: str) -> None:
    assert not is_cross_origin(request_with(origin=origin))


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:8081", "http://localhost", "http://evil.example", "https://localhost:8080", "null", "",
     "http://localhost:8080, http://localhost:8080", "localhost:8080", "://localhost:8080", "ws://localhost:8080",
     "http://evil.example/http://localhost:8080", "http://localhost:8080/"],
)  # fmt: skip
def test_other_origins(origin: str) -> None:
    assert is_cross_origin(request_with(origin=origin))
    assert is_cross_origin(request_with(origin=origin), allow_links=True)


def test_a_proxy_in_front_may_speak_tls_but_none_takes_it_away() -> None:
    assert not is_cross_origin(request_with(origin="https://localhost:8080"), allow_tls_proxy=True)
    assert is_cross_origin(
        request_with("https", origin="http://localhost:8080"), allow_tls_proxy=True
    )
    assert is_cross_origin(request_with(origin="https://localhost:8081"), allow_tls_proxy=True)
    assert is_cross_origin(request_with(origin="ws://localhost:8080"), allow_tls_proxy=True)


def test_a_request_without_a_host_is_of_no_origin() -> None:
    for origin in ("http://", "http://none", "null"):
        assert is_cross_origin(request_with(host=None, origin=origin), allow_tls_proxy=True)
    assert not is_cross_origin(request_with(host=None))


def test_the_authority_of_the_target_counts() -> None:
    request = request_with(
        uri="http://localhost:8080/", host="evil.example", origin="http://evil.example"
    )
    assert is_cross_origin(request)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "of-the-future", ""])
def test_fetch_metadata(site: str) -> None:
    assert is_cross_origin(request_with(sec_fetch_site=site))
    assert is_cross_origin(request_with(sec_fetch_site=site, origin="http://localhost:8080"))
    link = request_with(sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="document")
    assert is_cross_origin(link)
    assert not is_cross_origin(link, allow_links=True)
    frame = request_with(sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="iframe")
    assert is_cross_origin(frame, allow_links=True)


ORIGINS = [
    None,
    "http://localhost:8080",
    "https://localhost:8080",
    "http://localhost:9",
    "http://x.example",
    "null",
]
SITES = [None, "none", "same-origin", "same-site", "cross-site"]
DESTINATIONS = [
    (None, None),
    ("navigate", "document"),
    ("navigate", "iframe"),
    ("websocket", "empty"),
]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_is_let_in_whom_a_narrower_rule_would_refuse(scheme: str) -> None:
    for origin, site, (mode, destination) in product(ORIGINS, SITES, DESTINATIONS):
        given = {
            "origin": origin,
            "sec_fetch_site": site,
            "sec_fetch_mode": mode,
            "sec_fetch_dest": destination,
        }
        request = request_with(
            scheme, **{name: value for name, value in given.items() if value is not None}
        )
        other_host = origin is not None and origin.partition("://")[2] != "localhost:8080"
        other_origin = origin is not None and origin != f"{scheme}://localhost:8080"
        other_site = site in ("same-site", "cross-site")
        is_link = (mode, destination) == ("navigate", "document")
        if other_origin or (other_site and not is_link):  # may read details of errors
            assert is_cross_origin(request, allow_links=True), given
        if other_host or other_site:  # may follow changes
            assert is_cross_origin(request, allow_tls_proxy=True), given
        if not other_origin and not other_site:
            assert not is_cross_origin(request), given
