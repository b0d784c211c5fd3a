"""Cookies: read leniently, sent strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve.http.cookies import cookie_pairs, format_set_cookie, parse_cookies
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.sessions.session import Session
from rpyserve.site import Site
from tests.support.in_process import Visitor


def test_reading() -> None:
    assert parse_cookies('a=1; b="x y"; a=2; =3; c; d=e=f') == {
        "a": "1",
        "b": "x y",
        "": "3",
        "d": "e=f",
    }


@pytest.mark.parametrize("blank", [*"\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0"])
def test_only_spaces_and_tabs_are_blanks(blank: str) -> None:
    """Bytes of UTF-8 are not, and no name becomes another one."""
    header = f" \ta=1{blank};\t{blank}__Host-id=x ;{blank}; __Host-id=y"
    assert parse_cookies(header) == {"a": f"1{blank}", f"{blank}__Host-id": "x", "__Host-id": "y"}
    city = "voilà".encode().decode("latin-1")
    assert parse_cookies(f"city={city}; a=1")["city"] == city


def test_cookies_of_one_name_come_in_their_order() -> None:
    assert list(cookie_pairs('a=1; b=2; a="3"; a')) == [("a", "1"), ("b", "2"), ("a", "3")]


def test_no_value_that_a_page_keeps_becomes_another_cookie() -> None:
    fields = [(b"cookie", b"note=hello, rpyserve_8080=stolen"), (b"cookie", b"a=1")]
    assert Request("GET", "/", fields).cookies == {"note": "hello, rpyserve_8080=stolen", "a": "1"}


@given(st.text(max_size=20), st.text(max_size=20))
def test_what_is_sent_is_read_again_or_refused(name: str, value: str) -> None:
    try:
        sent = format_set_cookie(name, value)
    except ValueError:
        return
    assert ";" not in sent and "," not in sent and sent.isprintable() and sent.isascii()
    assert parse_cookies(sent) == {name: value.strip('"') if value[:1] == '"' else value}


@pytest.mark.parametrize(
    ("name", "value", "more"),
    [
        ("a b", "1", {}),
        ("", "1", {}),
        ("a", "1; Path=/x", {}),
        ("a", "1\r\nX: y", {}),
        ("a", "1", {"Path": "/; Secure"}),
    ],
)
def test_no_value_adds_attributes(name: str, value: str, more: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        format_set_cookie(name, value, more)


async def test_a_script_sets_cookies() -> None:
    def resource(request: Request) -> Response:
        request.getSession()
        request.addCookie(
            "theme", b"dark", path="/", max_age=60, secure=True, httpOnly=True, sameSite="lax"
        )
        request.addCookie("lang", "en")
        return Response("ok", headers=[("Set-Cookie", "own=1")])

    answer = await Visitor(Site(resource)).get("/")
    cookies = [value for name, value in answer.headers if name == "Set-Cookie"]
    assert cookies[:3] == [
        "own=1",
        "theme=dark; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=lax",
        "lang=en",
    ]
    assert cookies[3].startswith("rpyserve_")


async def test_the_mend_for_a_value_that_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match=r"urllib\.parse\.quote"):
        Request("GET", "/").addCookie("name", "Grace Hopper")


async def test_a_session_class_cannot_add_attributes_to_its_cookie() -> None:
    class Careless(Session):
        cookiePath = "/; Domain=evil.example"

    site = Site(lambda request: str(request.getSession().new))
    site.sessionFactory = Careless
    answer = await Visitor(site).get("/")
    assert answer.status == 500
    assert answer.header("set-cookie") is None
