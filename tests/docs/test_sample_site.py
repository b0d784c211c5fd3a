"""Each page of the tour, through the real site, and the whole of it in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
import trio

from rpyserve import Directory, Request, Site
from rpyserve.http.response import Stream
from tests.http.test_forms import form
from tests.support.in_process import Visitor

SAMPLE = Path(__file__).parent.parent.parent / "sample_site"


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.chdir(SAMPLE)  # as the command does
    site = Site(Directory(SAMPLE), sessionTimeout=5)
    async with site.running():
        yield site


@pytest.fixture
def visitor(site: Site) -> Visitor:
    return Visitor(site)


def links(page: str) -> set[str]:
    return set(re.findall(r'(?:href|src)="([^"]*)"', page))


async def test_the_index_leads_to_every_script(visitor: Visitor) -> None:
    index = await visitor.get("/")
    assert index.status == 200
    assert index.header("content-type") == "text/html; charset=utf-8"
    shown = set(re.findall(r"<code>([\w/]+\.rpy)</code>", index.text))
    assert shown == {path.name for path in SAMPLE.glob("*.rpy")} - {"index.rpy"}


async def test_no_link_is_broken(visitor: Visitor, autojump_clock: object) -> None:
    seen, todo = set(), {"/"}
    while todo:
        path = todo.pop()
        seen.add(path)
        answer = await visitor.get(path, headers=[("Accept", "text/html")])
        if path == "/members":
            assert answer.status == 401
            continue
        if path.startswith("/mirror"):
            assert answer.status in (500, 502)  # there is no server here to be mirrored, and perhaps no httpx
            continue
        assert answer.status == 200, path
        if (answer.header("content-type") or "").startswith("text/html"):
            for link in links(answer.text):
                if path == "/twins" and link.startswith("//pollux.localhost:"):
                    continue
                assert "//" not in link, f"{path} needs the network for {link}"
                target = urljoin(path, link)
                if len(seen | todo) < 200:
                    todo |= {target} - seen
    assert {"/counter", "/almanac/2026/11", "/images/quilt.png", "/style.css", "/sayings.txt"} <= seen


async def test_pages_have_no_script_and_no_inline_style(visitor: Visitor, autojump_clock: object) -> None:
    for script in SAMPLE.glob("*.rpy"):
        if script.stem in ("mirror", "parrot", "ticker"):  # another's page, and two about a script of their own
            continue
        page = (await visitor.get(f"/{script.stem}")).text
        markup = page.partition('<section class="source">')[0]
        assert "<script" not in markup and "style=" not in markup and "<style" not in markup, script.name


async def test_hello(visitor: Visitor) -> None:
    assert (await visitor.get("/hello")).text == "<h1>Hello world!</h1>"
    assert (await visitor.get("/hello?name=%3Cb%3E")).text == "<h1>Hello &lt;b&gt;!</h1>"


async def test_counter(visitor: Visitor, site: Site) -> None:
    for number in range(1, 4):
        page = (await visitor.get("/counter")).text
        assert f"Visit #{number} for you!" in page
        assert re.findall(r"(?<!&)#\d+", page) == [f"#{number}"]
    assert "Visit #1 for you!" in (await Visitor(site).get("/counter")).text


async def test_counter_uncached_stays_at_one_and_says_why(visitor: Visitor) -> None:
    for _ in range(3):
        page = (await visitor.get("/counter_uncached")).text
        assert re.findall(r"(?<!&)#\d+", page) == ["#1"]
        assert "Visit #1 for you!" in page and "<code>cache()</code>" in page


async def test_visits(visitor: Visitor) -> None:
    first, second = [(await visitor.get("/visits")).text for _ in range(2)]
    assert "<strong>1</strong>" in first and "began your session" in first
    assert "<strong>2</strong>" in second and "began your session:" not in second.partition("<section")[0]


async def test_logme_prints_once(visitor: Visitor, autojump_clock: object, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        await visitor.get("/logme")
        await trio.sleep(2)
    assert "expired" not in capfd.readouterr().out
    uid = next(iter(visitor.cookies.values()))
    await trio.sleep(2.9)
    assert "expired" not in capfd.readouterr().out
    await trio.sleep(0.2)
    assert capfd.readouterr().out == f"Session {uid} has expired.\n"
    await trio.sleep(60)
    assert capfd.readouterr().out == ""


async def test_login_remembers_and_forgets(visitor: Visitor) -> None:
    assert "Say who you are" in (await visitor.get("/login")).text
    answer = await visitor.post("/login", "user=%3Ci%3EAda")
    assert (answer.status, answer.header("location")) == (303, "/login")
    assert "Hello, <strong>&lt;i&gt;Ada</strong>" in (await visitor.get("/login")).text
    assert (await visitor.post("/login", "leave=yes")).status == 303
    assert "Say who you are" in (await visitor.get("/login")).text


async def test_login_without_a_name_is_a_400_that_names_the_field(visitor: Visitor) -> None:
    answer = await visitor.post("/login", "name=Ada")
    assert answer.status == 400 and "'user'" in answer.text


async def test_guestbook_is_shared_escaped_and_signed(visitor: Visitor, site: Site) -> None:
    await visitor.post("/login", "user=Ada")
    answer = await visitor.post("/guestbook", "text=%3Cscript%3Ehi")
    assert (answer.status, answer.header("location")) == (303, "/guestbook")
    await visitor.post("/guestbook", "text=++")
    other = (await Visitor(site).get("/guestbook")).text.partition("<section")[0]
    assert "<p>&lt;script&gt;hi</p><small>Ada, at " in other
    assert other.count("<li>") == 1 and "a stranger" in other


async def test_almanac(visitor: Visitor) -> None:
    month = await visitor.get("/almanac/2026/11")
    assert "<h1>November 2026</h1>" in month.text and "<td>30</td>" in month.text and "<td>31</td>" not in month.text
    assert "/almanac/2026/2" in (await visitor.get("/almanac/2026/")).text
    assert "/almanac/2026" in (await visitor.get("/almanac/")).text


@pytest.mark.parametrize("path", ["0", "99999", "x", "2026/13", "2026/01", "2026/0", "%C2%B2", "2026/%3Cb%3E"])
async def test_almanac_has_no_such_page(visitor: Visitor, path: str) -> None:
    answer = await visitor.ask("GET", f"/almanac/{path}", headers=[("Accept", "text/html")])
    assert answer.status == 404 and "<b>" not in answer.text
    assert "The almanac has the years" in answer.text or "A year has the months" in answer.text


async def test_status_is_json(visitor: Visitor) -> None:
    await visitor.get("/visits")
    answer = await visitor.get("/status?a=1&a=2")
    assert answer.header("content-type") == "application/json"
    status = json.loads(answer.body)
    assert status["sessions"] == 1
    assert status["asked"] == {"method": "GET", "path": "/status", "query": {"a": ["1", "2"]}}


async def test_parcel_weighs_a_file(visitor: Visitor) -> None:
    content_type, body = form({"note": "<hi>"}, [("parcel", ("a.txt", b"hello"))])
    page = (await visitor.ask("POST", "/parcel", body, [("Content-Type", content_type)])).text
    assert "a.txt: 5 bytes" in page and hashlib.sha256(b"hello").hexdigest() in page and "&lt;hi&gt;" in page
    assert (await visitor.post("/parcel", "note=x")).status == 400


async def test_abacus_adds_up(visitor: Visitor) -> None:
    assert json.loads((await visitor.post("/abacus", b"[1, 2, 3.5]")).body) == {"numbers": 3, "sum": 6.5}
    for body in (b"", b"{}", b'["a"]', b"[1,"):
        assert (await visitor.post("/abacus", body)).status == 400


async def test_ticker_goes_on_until_the_visitor_leaves(site: Site, autojump_clock: object) -> None:
    assert "EventSource" in (await Visitor(site).get("/ticker")).text
    request = Request("GET", "/ticker?events")
    response = await site.respond(request)
    assert dict(response.headers)[b"Content-Type"] == b"text/event-stream"
    assert isinstance(response.body, Stream)
    async with response.body.opened(response) as opened:
        for _ in range(3):
            assert re.fullmatch(rb"data: \d\d:\d\d:\d\d\n\n", await anext(opened.chunks))
    request.close()


async def test_tide_rises_by_itself(visitor: Visitor, site: Site, autojump_clock: object) -> None:
    await visitor.get("/tide")
    levels = set()
    for _ in range(5):
        await trio.sleep(3)
        levels.update(re.findall(r"(-?\d+) cm", (await visitor.get("/tide")).text))
    assert len(levels) == 5 and site.tasks.sources()


async def test_members_get_in(visitor: Visitor) -> None:
    ada = ("Authorization", "Basic " + base64.b64encode(b"ada:lovelace").decode())
    assert "needs a name and a password" in (await visitor.get("/members/")).text
    assert "You are in." in (await visitor.get("/members/", headers=[ada])).text
    assert (await visitor.get("/.members/")).status == 404


async def test_relic_beacon_and_twins(visitor: Visitor) -> None:
    assert "You asked for /of/old below /relic." in (await visitor.get("/relic/of/old")).text
    beacon = await visitor.get("/beacon", headers=[("Origin", "http://example.com")])
    assert beacon.header("access-control-allow-origin") == "*" and b"example.com" in beacon.body
    for name, other in [("castor", "pollux"), ("pollux", "castor")]:
        twin = (await visitor.get("/twins", headers=[("Host", f"{name}.localhost:8080")])).text
        assert f"<h1>I am {name}</h1>" in twin and f'href="//{other}.localhost:8080/twins"' in twin


async def test_countdown_takes_its_time(visitor: Visitor, autojump_clock: object) -> None:
    began = trio.current_time()
    page = (await visitor.get("/countdown")).text
    assert trio.current_time() - began == pytest.approx(2.5)
    assert re.findall(r"(\d) …", page.partition("<section")[0]) == ["5", "4", "3", "2", "1"]
    assert page.rstrip().endswith("</html>")


async def test_poem_and_sayings(visitor: Visitor) -> None:
    poem = (await visitor.get("/poem")).text
    assert re.search(r'<p class="poem">[^<]+<br>\n[^<]+<br>\n[^<]+</p>', poem)
    sayings = (SAMPLE / "sayings.txt").read_text(encoding="utf-8").splitlines()
    shown = re.search("<blockquote>(.*)</blockquote>", (await visitor.get("/sayings")).text)
    assert shown and shown[1] in sayings


async def test_postcard_is_a_template(visitor: Visitor) -> None:
    pytest.importorskip("jinja2")
    card = (await visitor.get("/postcard?to=%3Cb%3E")).text
    assert "<p>Dear &lt;b&gt;,</p>" in card and "the harbour, the &lt;old&gt; mill." in card


async def test_files_have_their_types(visitor: Visitor) -> None:
    for path, kind in {
        "/style.css": "text/css; charset=utf-8",
        "/images/hills.svg": "image/svg+xml",
        "/images/quilt.png": "image/png",
        "/sayings.txt": "text/plain; charset=utf-8",
    }.items():
        answer = await visitor.get(path)
        assert (answer.status, answer.header("content-type")) == (200, kind)


async def test_modules_are_not_served(visitor: Visitor) -> None:
    for name in ("words.py", "tour.py"):
        assert (await visitor.get(f"/{name}")).status == 404
