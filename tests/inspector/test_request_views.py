"""What the inspector shows of requests, scripts and errors, and does with them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve.inspector.recorder import MOST_RECORDS, MOST_SHOWN, NOBODY_LOOKED
from tests.support.inspected_site import InspectedSite, inspected

COUNTER = """
from rpyserve import cache, Attribute, Interface, Resource, Session, implementer, registerAdapter

cache()


class ICounter(Interface):
    value = Attribute("how often")


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)


def resource(request):
    counter = ICounter(request.getSession())
    counter.value += 1
    return str(counter.value)
"""
ECHO = """
def resource(request):
    return request.content.read()
"""


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[InspectedSite]:
    async with inspected(tmp_path) as served:
        served.write("counter.rpy", COUNTER)
        served.write("echo.rpy", ECHO)
        served.write("hello.rpy", "def resource(request):\n    return 'hello'\n")
        yield served


async def test_a_request_as_it_is_shown(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.get("/counter?a=1", "X-Colour: red")
    (one,) = (await browser.look("requests"))["items"]
    assert (one["number"], one["method"], one["target"]) == (1, "GET", "/counter?a=1")
    assert (one["status"], one["sent"], one["complete"]) == (200, 1, True)
    assert (one["script"], one["executed"]) == ("counter.rpy", "first use")
    assert one["error"] is None and one["waited_for"] == [] and not one["pinned"]
    details = await browser.look("requests/1")
    assert ["x-colour", "red"] in details["request"]["headers"]
    assert details["response"]["body"] == {"bytes": 1, "kept": 1, "whole": True, "text": "1"}
    assert details["session"] == next(iter(browser.cookies.values()))[:10]
    assert details["changed"] is None and details["note"] == NOBODY_LOOKED


async def test_who_looks_sees_what_a_request_changes(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.look("requests")
    served.write(
        "keep.rpy",
        "def resource(request):\n"
        "    session = request.getSession()\n"
        "    session['cart'] = session.get('cart', []) + ['pen']\n"
        "    session['password'] = request.args.get('p', ['x'])[0]\n"
        "    session.pop('old', None)\n"
        "    print('kept', session['cart'])\n"
        "    return 'kept'\n",
    )
    for target in ("/counter", "/counter", "/keep", "/keep?p=y"):
        await browser.get(target)
    changed = [(await browser.look(f"requests/{n}"))["changed"]["items"] for n in (1, 2, 3, 4)]
    paths = [{each["path"]: (each["was"], each["now"]) for each in items} for items in changed]
    assert paths[0]["ICounter.value"] == (None, "1")
    assert paths[1] == {"ICounter.value": ("1", "2")}
    assert paths[2]["session['cart'][0]"] == (None, "'pen'")
    assert paths[3] == {
        "session['cart']": ("list of 1", "list of 2"),
        "session['cart'][1]": (None, "'pen'"),
        "session['password']": ("•••", "•••"),
    }
    assert (await browser.look("requests/3"))["printed"] == "kept ['pen']\n"


async def test_what_an_uncached_script_makes_is_gone_with_the_request(
    served: InspectedSite,
) -> None:
    browser = served.browser()
    served.write("uncached.rpy", COUNTER.replace("cache()\n", ""))
    await browser.look("requests")
    await browser.get("/uncached")
    items = (await browser.look("requests/1"))["changed"]["items"]
    assert [each["path"] for each in items] == ["ICounter", "ICounter.value"]
    assert all("gone with the request" in each["note"] for each in items)


async def test_two_at_once_are_marked(served: InspectedSite, autojump_clock: Any) -> None:
    served.write(
        "slow.rpy",
        "import trio\n\n\nasync def resource(request):\n"
        "    session = request.getSession()\n    await trio.sleep(1)\n"
        "    session['n'] = session.get('n', 0) + 1\n    return 'done'\n",
    )
    browser = served.browser()
    await browser.get("/counter")
    await browser.look("requests")
    other = served.browser()
    other.cookies = browser.cookies
    async with trio.open_nursery() as nursery:
        nursery.start_soon(browser.get, "/slow")
        nursery.start_soon(other.get, "/slow")
    assert not (await browser.look("requests/2"))["changed"]["alone"]
    assert not (await browser.look("requests/3"))["changed"]["alone"]


async def test_the_list_is_filtered_and_has_pages(served: InspectedSite) -> None:
    browser = served.browser()
    for n in range(7):
        await browser.get(f"/hello?n={n}")
    await browser.get("/gone")
    await browser.get("/counter")

    async def numbers(**query: object) -> list[int]:
        return [each["number"] for each in (await browser.look("requests", **query))["items"]]

    assert await numbers() == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert await numbers(status=404) == await numbers(status="4xx") == [8]
    assert await numbers(script="counter.rpy") == [9]
    assert await numbers(q="n=3") == [4]
    assert await numbers(session=next(iter(browser.cookies.values()))[:5]) == [9]
    assert await numbers(slower="1h") == []
    assert await numbers(after=7) == [9, 8]
    first = await browser.look("requests", limit=4)
    assert [each["number"] for each in first["items"]] == [9, 8, 7, 6]
    assert await numbers(limit=4, before=first["next"]) == [5, 4, 3, 2]
    assert (await browser.look("requests", before=2))["next"] is None


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"status": "40"}, "status is three digits; an x is any of them: 404, 4xx."),
        ({"status": "4?4"}, "status is three digits; an x is any of them: 404, 4xx."),
        ({"slower": "soon"}, "slower: "),
        ({"after": "-1"}, "after is a whole number."),
        ({"limit": "0"}, "limit is a number from 1 to 500."),
        ({"wait": "x"}, "wait: "),
    ],
)
async def test_a_bad_query(served: InspectedSite, query: dict[str, str], detail: str) -> None:
    told = await served.browser().look("requests", **query)
    assert told["status"] == 400 and told["detail"].startswith(detail)


async def test_which_request_is_asked_for(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.get("/hello")
    await browser.look("requests")
    for _ in range(MOST_RECORDS):
        await browser.get("/hello")
    for name, detail in {
        "1": f"Request 1 is forgotten; the last {MOST_SHOWN} are kept.",
        "5000": "There was no request 5000 yet.",
        "x": "A request is named by its number, not by 'x'.",
        "9" * 400: "There was no request " + "9" * 20 + " yet.",
    }.items():
        told = await browser.look(f"requests/{name}")
        assert (told["status"], told["detail"]) == (404, detail)
    assert len((await browser.look("requests", limit=500))["items"]) == MOST_SHOWN


async def test_who_waits_is_told_of_the_next_request(
    served: InspectedSite, autojump_clock: Any
) -> None:
    browser, other = served.browser(), served.browser()
    await browser.get("/hello")
    began = trio.current_time()
    found = []

    async def wait() -> None:
        found.extend((await browser.look("requests", after=1, wait=20))["items"])
        found.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(2)
        await other.get("/hello")
    assert found[0]["number"] == 2 and found[0]["status"] == 200
    assert found[1] == 2
    assert (await browser.look("requests", after=2, wait=3))["items"] == []
    assert trio.current_time() - began == 5


async def test_a_request_that_runs_has_no_end(served: InspectedSite, autojump_clock: Any) -> None:
    served.write(
        "slow.rpy", "import trio\n\n\nasync def resource(request):\n    await trio.sleep(9)\n"
    )
    browser, other = served.browser(), served.browser()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.get, "/slow")
        await trio.sleep(1)
        (running,) = (await browser.look("requests"))["items"]
        assert (running["status"], running["seconds"], running["complete"]) == (None, None, None)
        nursery.cancel_scope.cancel()


async def test_who_held_the_loop_is_named(served: InspectedSite, autojump_clock: Any) -> None:
    served.write("busy.rpy", "import time\n\n\ndef resource(request):\n    time.sleep(0.1)\n")
    served.write(
        "slow.rpy", "import trio\n\n\nasync def resource(request):\n    await trio.sleep(9)\n"
    )
    browser, other = served.browser(), served.browser()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.get, "/slow")
        await trio.sleep(1)
        await browser.get("/busy")
    by_target = {each["target"]: each for each in (await browser.look("requests"))["items"]}
    assert by_target["/slow"]["waited_for"] == [by_target["/busy"]["number"]]
    assert by_target["/busy"]["waited_for"] == []
    assert by_target["/busy"]["held"] >= 0.1


async def test_what_is_printed_is_masked(served: InspectedSite) -> None:
    served.write(
        "says.rpy",
        "def resource(request):\n    print(request.getHeader('authorization'), 'password=hunter2')\n"
        "    return 'said'\n",
    )
    browser = served.browser()
    await browser.look("requests")
    await browser.get("/says", "Authorization: Bearer abcdefghijkl")
    printed = (await browser.look("requests/1"))["printed"]
    assert "password=" in printed
    assert "hunter2" not in printed and "abcdefghijkl" not in printed


async def test_secrets_are_masked(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.get("/counter")
    await browser.ask(
        "POST",
        "/echo?api_key=k3y-of-mine",
        b"user=ada&password=hunter2",
        "Content-Type: application/x-www-form-urlencoded",
        "Authorization: Bearer abcdefghijkl",
    )
    uid = next(iter(browser.cookies.values()))
    for view in ("requests", "requests/1", "requests/2", "requests/2.curl", "requests/2.httpx"):
        for ending in ("", ".json"):
            reply = await browser.get(f"/-/{view}{ending}")
            for secret in ("k3y-of-mine", "hunter2", "abcdefghijkl", uid):
                assert secret not in reply.text, (view, secret)
            assert uid not in str(reply.headers)
    assert (await browser.get("/-/requests/2.curl?secrets=1")).status == 403


async def test_a_request_as_text(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.get("/hello")
    reply = await browser.get("/-/requests/1.curl")
    assert reply.text == "curl http://site/hello \\\n  -H user-agent: \\\n  -H accept:\n"
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert "httpx.Request" in (await browser.get("/-/requests/1.httpx")).text
    assert "HttpRequestMessage" in (await browser.get("/-/requests/1.ps1")).text
    assert (await browser.get("/-/requests/1.curl.json")).status == 404
    await browser.ask("POST", "/echo", b"x" * 70_000)
    reply = await browser.get("/-/requests/2.curl", "Accept: application/json")
    assert reply.status == 409 and "not kept whole" in reply.text


# Actions


async def test_pins(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.get("/hello")
    assert (await browser.act("requests/1/pin"))["done"] == "Request 1 is pinned."
    for _ in range(MOST_RECORDS + 1):
        await browser.get("/hello")
    assert (await browser.look("requests/1"))["pinned"]
    assert (await browser.act("requests/clear"))["done"] == "1,024 requests are forgotten."
    assert [each["number"] for each in (await browser.look("requests"))["items"]] == [1]
    await browser.act("requests/1/unpin")
    assert (await browser.look("requests/1"))["status"] == 404


async def test_a_replay_as_each_visitor(served: InspectedSite) -> None:
    browser = served.browser()
    for _ in range(3):
        await browser.get("/counter")
    same = await browser.act("requests/3/replay")
    assert same["done"] == "Request 3 was replayed as request 4: 200, it was 200."
    assert same["before"]["response"]["body"]["text"] == "3"
    assert same["after"]["response"]["body"]["text"] == "4"
    assert same["after"]["replay_of"] == 3
    assert same["after"]["changed"]["items"] == [
        {"path": "ICounter.value", "was": "3", "now": "4", "note": ""}
    ]
    new = await browser.act("requests/3/replay", visitor="new")
    assert new["after"]["response"]["body"]["text"] == "1"
    other = await browser.act("requests/3/replay", target="/hello?x=1")
    assert (other["after"]["target"], other["after"]["response"]["body"]["text"]) == (
        "/hello?x=1",
        "hello",
    )
    assert (await browser.get("/counter")).text == "5"


async def test_a_replay_with_a_body(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.ask("POST", "/echo", b"first")
    refused = await browser.act("requests/1/replay")
    assert refused["status"] == 409 and "confirm" in refused["detail"]
    same = await browser.act("requests/1/replay", confirm="yes")
    assert same["after"]["response"]["body"]["text"] == "first"
    other = await browser.act("requests/1/replay", confirm="yes", body="second")
    assert other["after"]["response"]["body"]["text"] == "second"
    assert other["after"]["request"]["body"]["text"] == "second"


async def test_what_is_not_replayed(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.get("/counter")
    await browser.ask("POST", "/echo", b"x" * 70_000)
    await browser.get("/hello", "Upgrade: websocket", "Connection: upgrade")
    cases: list[tuple[int, dict[str, str], int, str]] = [
        (1, {"visitor": "nobody else"}, 400, "visitor is same, new or nobody."),
        (1, {"target": "/-/sessions"}, 409, "The server's own pages"),
        (1, {"target": "no path"}, 409, "'no path' is no path"),
        (1, {"method": "GET IT"}, 409, "'GET IT' is no method."),
        (2, {"confirm": "yes"}, 409, "The body of this request was not kept whole."),
        (3, {}, 409, "An upgrade"),
        (99, {}, 404, "There was no request 99 yet."),
    ]
    for number, fields, status, detail in cases:
        told = await browser.act(f"requests/{number}/replay", **fields)
        assert told["status"] == status and told["detail"].startswith(detail), told
    served.site.sessions.end(next(iter(served.site.sessions)))
    told = await browser.act("requests/1/replay")
    assert told["detail"] == "The session of this visitor has ended: replay as a new one."
    assert len(served.recorder.records()) == 3


async def test_a_replay_that_fails_or_never_ends(
    served: InspectedSite, autojump_clock: Any
) -> None:
    served.write("fails.rpy", "def resource(request):\n    return 1 / 0\n")
    served.write(
        "never.rpy",
        "import trio\n\n\nasync def resource(request):\n    await trio.sleep_forever()\n",
    )
    browser = served.browser()
    await browser.get("/fails")
    done = await browser.act("requests/1/replay")
    assert done["done"] == "Request 1 was replayed as request 2: ZeroDivisionError."
    assert done["after"]["error"] == 2
    done = await browser.act("requests/1/replay", target="/never")
    assert done["cancelled"] and done["done"].endswith("cancelled after 30 seconds.")


async def test_a_test_is_made_after_a_question(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.get("/hello")
    told = await browser.act("requests/1/test")
    assert told["status"] == 409 and "confirm" in told["detail"]
    assert (await browser.act("sessions/0123456789/test"))["status"] == 404


async def test_a_session_lists_what_its_requests_did(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.get("/counter")
    await browser.look("requests")
    await browser.get("/counter")
    handle = next(iter(browser.cookies.values()))[:10]
    session = await browser.look(f"sessions/{handle}")
    assert [each["number"] for each in session["requests"]] == [2, 1]
    assert session["requests"][1]["changed"] is None
    page = (await browser.get(f"/-/sessions/{handle}")).text
    assert "<code>ICounter.value</code> <code>1</code> → <code>2</code>" in page
    assert "not recorded: nobody was looking" in page
    assert "Make a test of this visit" in page
    next(iter(served.site.sessions)).expire()
    ended = await browser.look(f"sessions/{handle}")
    assert [each["number"] for each in ended["requests"]] == [2, 1]


async def test_requests_are_lines_of_the_timeline(served: InspectedSite) -> None:
    browser = served.browser()
    for target in ("/hello?a", "/hello?b", "/gone", "/hello"):
        await browser.get(target)
    items = (await browser.look("timeline"))["items"]
    assert [each["text"] for each in items if each["kind"] == "request"] == [
        "GET /hello 200, 2 times",
        "GET /gone 404",
        "GET /hello 200",
    ]
    assert "GET /hello 200, 2 times" in (await browser.get("/-/timeline")).text
    later = (await browser.look("timeline", after=0))["items"]
    assert not any(each["kind"] == "request" for each in later)


# Scripts and errors


async def test_scripts_say_why_they_were_executed(served: InspectedSite) -> None:
    browser = served.browser()
    for target in ("/counter", "/counter", "/hello", "/hello"):
        await browser.get(target)
    items = {each["script"]: each for each in (await browser.look("scripts"))["items"]}
    counter, hello = items["counter.rpy"], items["hello.rpy"]
    assert (counter["cached"], counter["executions"], counter["requests"]) == (True, 1, 2)
    assert counter["last"]["why"] == "first use"
    assert (hello["cached"], hello["executions"], hello["last"]["why"]) == (False, 2, "not cached")
    one = await browser.look("scripts/hello.rpy")
    assert [each["why"] for each in one["history"]] == ["not cached", "first use"]
    assert [each["number"] for each in one["items"]] == [4, 3]
    for name in ("nothing.rpy", "../secret.rpy", "%2e%2e/x"):
        assert (await browser.look(f"scripts/{name}"))["status"] == 404


async def test_errors_are_kept_as_text(served: InspectedSite) -> None:
    served.write("fails.rpy", "def resource(request):\n    return 1 / 0\n")
    browser = served.browser()
    await browser.get("/fails")
    (error,) = (await browser.look("errors"))["items"]
    assert (error["title"], error["page"], error["request"]) == (
        "ZeroDivisionError: division by zero",
        "/fails",
        1,
    )
    assert (await browser.look("requests/1"))["error"] == error["number"]
    assert "return 1 / 0" in (await browser.look(f"errors/{error['number']}"))["text"]
    assert (await browser.look("errors/7"))["status"] == 404


async def test_what_the_server_does_now(served: InspectedSite, autojump_clock: Any) -> None:
    served.write("fails.rpy", "def resource(request):\n    return 1 / 0\n")
    served.write(
        "slow.rpy",
        "import trio\n\n\nasync def resource(request):\n    await trio.sleep(9)\n    return 'slow'\n",
    )
    browser, other = served.browser(), served.browser()
    for _ in range(2):
        await browser.get("/fails")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.get, "/slow")
        await trio.sleep(1)
        now = await browser.look("")
        (running,) = now["running"]
        assert (running["target"], running["running"]) == ("/slow", pytest.approx(1, abs=0.1))
    (broken,) = now["broken"]
    assert (broken["page"], broken["times"]) == ("/fails", 2)
    assert broken["title"] == "ZeroDivisionError: division by zero"
    assert now["minute"]["requests"] == 2 and now["last"][0]["target"] == "/fails"
    served.write("fails.rpy", "def resource(request):\n    return 'mended'\n")
    await browser.get("/fails")
    assert (await browser.look(""))["broken"] == []


async def test_what_the_site_is(served: InspectedSite) -> None:
    served.write("util.py", "WORDS = []\n")
    served.write(
        "uses.rpy",
        "import util\nfrom rpyserve import registry, background, cache\nimport trio\ncache()\n"
        "registry['colour'] = 'red'\n\n\n@background\nasync def tick():\n    await trio.sleep_forever()\n"
        "\n\ndef resource(request):\n    return 'used'\n",
    )
    browser = served.browser()
    assert (await browser.get("/uses")).text == "used"
    site = await browser.look("site")
    assert site["directories"] == [str(served.root)]
    assert site["modules"] == ["util.py"]
    (colour,) = site["registry"]
    assert (colour["path"], colour["shown"]) == ("registry['colour']", "'red'")
    assert site["tasks"][0]["name"] == "tick" and site["tasks"][0]["state"] == "running"
    assert site["versions"]["trio"] == trio.__version__
    assert site["session_store"] == "memory"


async def test_one_that_fails_has_its_place_among_the_others(served: InspectedSite) -> None:
    served.write("fails.rpy", "def resource(request):\n    return 1 / 0\n")
    browser = served.browser()
    for target in ("/hello", "/hello?b", "/fails", "/hello?d"):
        await browser.get(target)
    items = (await browser.look("requests"))["items"]
    assert [each["target"] for each in items] == ["/hello?d", "/fails", "/hello?b", "/hello"]
    assert [each["number"] for each in items] == [4, 3, 2, 1]


async def test_nothing_of_a_request_is_kept_alive(served: InspectedSite) -> None:
    browser = served.browser()
    await browser.look("requests")
    served.write(
        "uncached.rpy",
        COUNTER.replace("cache()\n", "") + "\n\nclass Marker:\n    pass\n\n\n"
        "markers = __import__('builtins').__dict__.setdefault('test_markers', [])\n"
        "marker = Marker()\nmarkers.append(__import__('weakref').ref(marker))\n",
    )
    import builtins

    try:
        for _ in range(50):
            await browser.get("/uncached")
        markers: list[weakref.ref[Any]] = builtins.test_markers  # type: ignore[attr-defined]
        assert len(markers) == 50
        for session in served.site.sessions:
            session.expire()
        gc.collect()
        assert sum(marker() is not None for marker in markers) <= 1
    finally:
        del builtins.test_markers  # type: ignore[attr-defined]
