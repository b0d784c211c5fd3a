"""``/-/phone``: the session goes along to a phone, once and within a minute."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
import trio.testing

from rpyserve import Site
from rpyserve.inspector.phone import LIFETIME, MOST, Codes, PhonePage, qr_text
from rpyserve.livereload import endpoints
from rpyserve.livereload.change_feed import ChangeFeed
from rpyserve.livereload.script_tag import SentPages
from tests.support.in_process import Visitor

URL = "http://192.0.2.7:8080/"


def counting(request: Any) -> str:
    session = request.getSession()
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


@pytest.fixture
def site() -> Site:
    return Site(counting)


def visitor(site: Site, urls: list[str] | None = None) -> tuple[Visitor, Visitor]:
    """A browser of the site, and the same one at what is below ``/-/``."""
    tools = {"phone": lambda: PhonePage(site, [URL] if urls is None else urls)}
    feed = ChangeFeed()
    audience = endpoints.Audience(site, [])
    own = Site(endpoints.tree(feed, audience, SentPages(), tools=tools))
    one, other = Visitor(site), Visitor(own)
    other.cookies = one.cookies
    return one, other


def code_in(text: str) -> str:
    found = re.search(rf"{URL}(-/phone/[\w-]+)", text)
    assert found, text
    return "/" + found[1]


async def test_the_phone_goes_on_with_the_session(site: Site) -> None:
    one, tool = visitor(site)
    await one.get("/")
    code = code_in((await tool.get("/-/phone")).text)
    phone, phone_tool = Visitor(site, "192.0.2.8"), Visitor(tool.site, "192.0.2.8")
    phone_tool.cookies = phone.cookies
    answer = await phone_tool.get(code)
    assert (answer.status, answer.header("location")) == (302, "/")
    assert (await phone.get("/")).text == "2"
    assert (await one.get("/")).text == "3", "it is one session"


async def test_a_code_is_used_once(site: Site) -> None:
    _, tool = visitor(site)
    code = code_in((await tool.get("/-/phone")).text)
    assert (await Visitor(tool.site).get(code)).status == 302
    again = await Visitor(tool.site).get(code)
    assert again.status == 404 and "used, or is too old" in again.text
    assert "set-cookie" not in {name.lower() for name, _ in again.headers}


async def test_a_code_lives_for_a_minute(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    codes = Codes()
    first = codes.make(site.sessions.make())
    await trio.sleep(LIFETIME - 1)
    second = codes.make(site.sessions.make())
    await trio.sleep(2)
    assert codes.take(first) is None
    assert codes.take(second) is not None


async def test_an_ended_session_is_nobodys(site: Site) -> None:
    codes, session = Codes(), site.sessions.make()
    word = codes.make(session)
    session.expire()
    assert codes.take(word) is None


async def test_there_are_not_many_codes(site: Site) -> None:
    codes = Codes()
    words = [codes.make(site.sessions.make()) for _ in range(MOST + 1)]
    assert codes.take(words[0]) is None
    assert codes.take(words[1]) is not None


async def test_it_is_for_pages_of_this_server_only(site: Site) -> None:
    _, tool = visitor(site)
    assert (await tool.get("/-/phone", headers=[("Origin", "http://evil.example")])).status == 403
    assert (await tool.get("/-/phone/x/y")).status == 404


async def test_where_no_phone_can_come(site: Site) -> None:
    _, tool = visitor(site, [])
    text = (await tool.get("/-/phone")).text
    assert "Start it with --phone" in text and "/-/phone/" not in text


async def test_the_page_has_a_code_for_the_camera(site: Site) -> None:
    _, tool = visitor(site)
    text = (await tool.get("/-/phone", headers=[("Accept", "text/html")])).text
    assert text.count("<svg") == 1 and " style=" not in text, "its policy allows no style"


def test_the_code_on_a_terminal() -> None:
    lines = qr_text(URL).splitlines()
    assert len(lines) > 12 and len({len(line) for line in lines}) == 1
