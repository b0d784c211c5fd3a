"""A request once more: by whom, how far, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from rpyserve import Resource, Response, Site
from rpyserve.inspector.copies import Sent
from rpyserve.inspector.replay import MOST_BYTES, CannotReplay, Visitor, changed, replay

ORIGIN = "http://localhost:8080"
HOST = (b"host", b"localhost:8080")
COOKIE = "rpyserve_8080"


def site_of(function: Any) -> Site:
    class Any_(Resource):
        isLeaf = True

        def render(self, request: Any) -> Any:
            return function(request)

    return Site(Any_())


def count(request: Any) -> str:
    session = request.getSession()
    session["n"] = session.get("n", 0) + 1
    return f"{session['n']} {request.getCookie('theme')} {request.getHeader('authorization')}"


async def test_as_the_same_visitor_a_new_one_and_nobody(autojump_clock: Any) -> None:
    site = site_of(count)
    async with site.running():
        session = site.sessions.make()
        session["n"] = 7
        fields = (
            HOST,
            (b"cookie", f"{COOKIE}=gone; theme=dark".encode()),
            (b"authorization", b"x"),
        )
        sent, cookie = Sent(ORIGIN, "GET", "/a", fields), (COOKIE, str(session.uid))
        said = [(await replay(site.respond, sent, who, cookie)).body for who in Visitor]
        assert said == [b"8 dark x", b"1 dark x", b"1 None None"]
        assert session["n"] == 8


async def test_a_body_and_a_change(autojump_clock: Any) -> None:
    site = site_of(lambda request: f"{request.method} {request.path} {request.args}")
    async with site.running():
        form = (HOST, (b"content-type", b"application/x-www-form-urlencoded"))
        sent = Sent(ORIGIN, "POST", "/a", (*form, (b"content-length", b"3")), b"a=b")
        answer = await replay(site.respond, sent, Visitor.NEW, (COOKIE, ""), confirmed=True)
        assert (answer.status, answer.body, answer.whole) == (200, b"POST /a {'a': ['b']}", True)
        other = changed(sent, method="PUT", target="/b?c=d", body=b"a=changed")
        answer = await replay(site.respond, other, Visitor.NEW, (COOKIE, ""), confirmed=True)
        assert answer.body == b"PUT /b {'c': ['d'], 'a': ['changed']}"


async def test_of_a_stream_the_beginning(autojump_clock: Any) -> None:
    left = trio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            left.set()

    site = site_of(lambda request: Response(chunks()))
    async with site.running():
        answer = await replay(
            site.respond, Sent(ORIGIN, "GET", "/", (HOST,)), Visitor.NEW, ("", "")
        )
        assert len(answer.body) == MOST_BYTES and not answer.whole and left.is_set()


async def test_what_never_ends_is_cancelled(autojump_clock: Any) -> None:
    async def forever(request: Any) -> str:
        await trio.sleep_forever()
        return ""

    async def slow_chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        await trio.sleep_forever()

    for function, body in ((forever, b""), (lambda request: Response(slow_chunks()), b"begun")):
        site = site_of(function)
        async with site.running():
            sent = Sent(ORIGIN, "GET", "/", (HOST,))
            answer = await replay(site.respond, sent, Visitor.NEW, ("", ""))
            assert answer.cancelled and answer.body == body and not answer.whole
            assert answer.seconds == pytest.approx(30)


async def test_one_that_fails_says_so(autojump_clock: Any) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"begun"
        await trio.sleep(1)
        raise KeyError("secret")

    for function, status in ((lambda request: 1 / 0, 500), (lambda r: Response(breaks()), 200)):
        site = site_of(function)
        async with site.running():
            sent = Sent(ORIGIN, "GET", "/", (HOST,))
            answer = await replay(site.respond, sent, Visitor.NEW, ("", ""))
            assert answer.status == status
            assert answer.error == ("ZeroDivisionError" if status == 500 else "KeyError")


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (Sent(ORIGIN, "GET", "/-/requests", (HOST,)), "below /-/"),
        (Sent(ORIGIN, "GET", "/%2D/requests", (HOST,)), "below /-/"),
        (Sent(ORIGIN, "GET", "http://localhost/-/", (HOST,)), "below /-/"),
        (Sent(ORIGIN, "GET", "/chat", (HOST, (b"upgrade", b"websocket"))), "upgrade"),
        (Sent(ORIGIN, "DELETE", "/a", (HOST,)), "A DELETE may change something"),
    ],
)
async def test_what_is_not_replayed(sent: Sent, why: str) -> None:
    async def never(request: Any) -> Any:
        raise AssertionError

    with pytest.raises(CannotReplay, match=why):
        await replay(never, sent, Visitor.NEW, ("", ""))


@pytest.mark.parametrize(
    "change", [{"method": "A B"}, {"target": "a"}, {"target": "/ä"}, {"target": "/\r\nX: y"}]
)
def test_what_is_no_change(change: dict[str, str]) -> None:
    with pytest.raises(CannotReplay):
        changed(Sent(ORIGIN, "GET", "/"), **change)
