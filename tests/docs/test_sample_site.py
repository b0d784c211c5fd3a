"""Each page of the tour, through the real site."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
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


@pytest.fixture
def port_of_nobody() -> Iterator[int]:
    """A port that is taken, and at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def links(page: str) -> set[str]:
    return set(re.findall(r'<[^<>]*\b(?:href|src)="([^"]*)"', page))


async def test_the_index_leads_to_every_script(visitor: Visitor) -> None:
    index = await visitor.get("/")
    assert index.status == 200
    assert index.header("content-type") == "text/html; charset=utf-8"
    shown = set(re.findall(r"<code>([\w/]+\.rpy)</code>", index.text))
    assert shown == {path.name for path in SAMPLE.glob("*.rpy")} - {"index.rpy"}


async def test_no_link_is_broken(site: Site, port_of_nobody: int, autojump_clock: object) -> None:
    visitor = Visitor(site, server=("127.0.0.1", port_of_nobody))
    seen, todo = set(), {"/"}
    while todo:
        path = todo.pop()
        seen.add(path)
        answer = await visitor.get(path, headers=[("Accept", "text/html")])
        if path == "/basic_auth":
            assert answer.status == 401
            continue
        if path.startswith("/proxy"):
            # It forwards to the server that was asked, and there is none; or there is no httpx.
            assert answer.status in (500, 502)
            continue
        assert answer.status == 200, path
        if (answer.header("content-type") or "").startswith("text/html"):
            for link in links(answer.text):
                if path == "/virtual_hosts" and link.startswith("//shop.localhost:"):
                    continue
                assert "//" not in link, f"{path} needs the network for {link}"
                target = urljoin(path, link)
                if len(seen | todo) < 200:
                    todo |= {target} - seen
    assert {
        "/counter",
        "/child_pages/2026/11",
        "/images/quilt.png",
        "/style.css",
        "/quotes.txt",
    } <= seen


async def test_pages_have_no_script_and_no_inline_style(
    visitor: Visitor, autojump_clock: object
) -> None:
    for script in SAMPLE.glob("*.rpy"):
        # One is the page of another site, and two show a script.
        if script.stem in ("proxy", "websocket", "server_sent_events"):
            continue
        page = (await visitor.get(f"/{script.stem}")).text
        markup = page.partition('<section class="source">')[0]
        assert "<script" not in markup and "style=" not in markup and "<style" not in markup, (
            script.name
        )


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


async def test_session(visitor: Visitor) -> None:
    first, second = [(await visitor.get("/session")).text for _ in range(2)]
    assert "<strong>1</strong>" in first and "Your session is new" in first
    assert (
        "<strong>2</strong>" in second
        and "Your session is new:" not in second.partition("<section")[0]
    )


async def test_session_expiry_prints_once(
    visitor: Visitor, autojump_clock: object, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(5):
        await visitor.get("/session_expiry")
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
    assert "Enter your name" in (await visitor.get("/login")).text
    answer = await visitor.post("/login", "user=%3Ci%3EAda")
    assert (answer.status, answer.header("location")) == (303, "/login")
    assert "Hello, <strong>&lt;i&gt;Ada</strong>" in (await visitor.get("/login")).text
    assert (await visitor.post("/login", "logout=yes")).status == 303
    assert "Enter your name" in (await visitor.get("/login")).text


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


async def test_child_pages(visitor: Visitor) -> None:
    month = await visitor.get("/child_pages/2026/11")
    assert (
        "<h1>November 2026</h1>" in month.text
        and "<td>30</td>" in month.text
        and "<td>31</td>" not in month.text
    )
    assert "/child_pages/2026/2" in (await visitor.get("/child_pages/2026/")).text
    assert "/child_pages/2026" in (await visitor.get("/child_pages/")).text


@pytest.mark.parametrize(
    "path", ["0", "99999", "x", "2026/13", "2026/01", "2026/0", "%C2%B2", "2026/%3Cb%3E"]
)
async def test_child_pages_has_no_such_page(visitor: Visitor, path: str) -> None:
    answer = await visitor.ask("GET", f"/child_pages/{path}", headers=[("Accept", "text/html")])
    assert answer.status == 404 and "<b>" not in answer.text
    assert "The calendar has the years" in answer.text or "A year has the months" in answer.text


async def test_json_response(visitor: Visitor) -> None:
    await visitor.get("/session")
    answer = await visitor.get("/json_response?a=1&a=2")
    assert answer.header("content-type") == "application/json"
    status = json.loads(answer.body)
    assert status["sessions"] == 1
    assert status["request"] == {
        "method": "GET",
        "path": "/json_response",
        "query": {"a": ["1", "2"]},
    }


async def test_upload(visitor: Visitor) -> None:
    content_type, body = form({"note": "<hi>"}, [("upload", ("a.txt", b"hello"))])
    page = (await visitor.ask("POST", "/upload", body, [("Content-Type", content_type)])).text
    assert (
        "a.txt: 5 bytes" in page
        and hashlib.sha256(b"hello").hexdigest() in page
        and "&lt;hi&gt;" in page
    )
    assert (await visitor.post("/upload", "note=x")).status == 400


async def test_json_api_adds_up(visitor: Visitor) -> None:
    assert json.loads((await visitor.post("/json_api", b"[1, 2, 3.5]")).body) == {
        "numbers": 3,
        "sum": 6.5,
    }
    for body in (b"", b"{}", b'["a"]', b"[1,"):
        assert (await visitor.post("/json_api", body)).status == 400


async def test_server_sent_events_go_on_until_the_visitor_leaves(
    site: Site, autojump_clock: object
) -> None:
    assert "EventSource" in (await Visitor(site).get("/server_sent_events")).text
    request = Request("GET", "/server_sent_events?events")
    response = await site.respond(request)
    assert dict(response.headers)[b"Content-Type"] == b"text/event-stream"
    assert isinstance(response.body, Stream)
    async with response.body.start(response) as opened:
        for _ in range(3):
            assert re.fullmatch(rb"data: \d\d:\d\d:\d\d\n\n", await anext(opened.chunks))
    request.close()


async def test_background_task_goes_on_by_itself(
    visitor: Visitor, site: Site, autojump_clock: object
) -> None:
    await visitor.get("/background_task")
    levels = set()
    for _ in range(5):
        await trio.sleep(3)
        levels.update(re.findall(r"(-?\d+) cm", (await visitor.get("/background_task")).text))
    assert len(levels) == 5 and site.tasks.origins()


async def test_basic_auth_lets_ada_in(visitor: Visitor) -> None:
    ada = ("Authorization", "Basic " + base64.b64encode(b"ada:lovelace").decode())
    assert "requires a user name and a password" in (await visitor.get("/basic_auth/")).text
    assert "You are logged in." in (await visitor.get("/basic_auth/", headers=[ada])).text
    assert (await visitor.get("/.members/")).status == 404


async def test_wsgi_cors_and_virtual_hosts(visitor: Visitor) -> None:
    assert (
        "The path is /some/path, and the application is mounted at /wsgi."
        in (await visitor.get("/wsgi/some/path")).text
    )
    answer = await visitor.get("/cors", headers=[("Origin", "http://example.com")])
    assert answer.header("access-control-allow-origin") == "*" and b"example.com" in answer.body
    for name, other in [("blog", "shop"), ("shop", "blog")]:
        page = (
            await visitor.get("/virtual_hosts", headers=[("Host", f"{name}.localhost:8080")])
        ).text
        assert (
            f"<h1>This is {name}</h1>" in page
            and f'href="//{other}.localhost:8080/virtual_hosts"' in page
        )


async def test_streaming_takes_its_time(visitor: Visitor, autojump_clock: object) -> None:
    began = trio.current_time()
    page = (await visitor.get("/streaming")).text
    assert trio.current_time() - began == pytest.approx(2.5)
    assert re.findall(r"(\d) …", page.partition("<section")[0]) == ["5", "4", "3", "2", "1"]
    assert page.rstrip().endswith("</html>")


async def test_import_module_and_cached_file(visitor: Visitor) -> None:
    poem = (await visitor.get("/import_module")).text
    assert re.search(r'<p class="poem">[^<]+<br>\n[^<]+<br>\n[^<]+</p>', poem)
    quotes = (SAMPLE / "quotes.txt").read_text(encoding="utf-8").splitlines()
    shown = re.search("<blockquote>(.*)</blockquote>", (await visitor.get("/cached_file")).text)
    assert shown and shown[1] in quotes


async def test_template(visitor: Visitor) -> None:
    pytest.importorskip("jinja2")
    card = (await visitor.get("/template?to=%3Cb%3E")).text
    assert "<p>Dear &lt;b&gt;,</p>" in card and "the harbour, the &lt;old&gt; mill." in card


async def test_files_have_their_types(visitor: Visitor) -> None:
    for path, kind in {
        "/style.css": "text/css; charset=utf-8",
        "/images/hills.svg": "image/svg+xml",
        "/images/quilt.png": "image/png",
        "/quotes.txt": "text/plain; charset=utf-8",
    }.items():
        answer = await visitor.get(path)
        assert (answer.status, answer.header("content-type")) == (200, kind)


async def test_modules_are_not_served(visitor: Visitor) -> None:
    for name in ("words.py", "layout.py"):
        assert (await visitor.get(f"/{name}")).status == 404
