"""How many connections a browser needs so that its tabs follow, and who is told of what, in real
browsers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route

from tests.support.browsers import (
    asked,
    engine_of,
    expect,
    new_tab,
    open_tab,
    page_of,
    save,
    wait_for_quiet,
    wait_until_following,
    was_loaded_again,
)
from tests.support.real_process import Server, serving

pytestmark = [pytest.mark.browser, pytest.mark.process]

# In the access log, where a stream is named when it has ended.
EVENTS = "GET /-/events?"
STREAM = r"GET /-/events\?(?!\S*\bonce\b)\S* "
WITHOUT_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', { get: () => undefined });"
HIDEABLE = """
Object.defineProperty(Document.prototype, 'hidden', { get: () => window.away === true });
window.turn = (away) => {
    window.away = away;
    document.dispatchEvent(new Event('visibilitychange'));
};
"""


@pytest.fixture
def verbose_server(root: Path, tmp_path: Path) -> Iterator[Server]:
    """One whose access log has requests of live reload, too."""
    with serving(root, tmp_path, "--verbose") as server:
        yield server


def expect_all(pages: list[Page], text: str) -> None:
    for page in pages:
        expect(page.locator("p")).to_have_text(text)


# One stream a browser


def test_twelve_tabs_follow_by_one_stream(
    root: Path, verbose_server: Server, context: BrowserContext
) -> None:
    server = verbose_server
    save(root, "page.rpy", page_of("<p>first</p>"))
    save(root, "other.rpy", page_of("<p>first</p><script></script>"))
    pages = [open_tab(context, f"{server.url}/{name}") for name in ["page", "other"] * 6]
    save(root, "page.rpy", page_of("<p>second</p>"))
    expect_all(pages[::2], "second")
    server.wait_for(r"page\.rpy changed, 6 pages updated")
    save(root, "other.rpy", page_of("<p>third</p><script></script>"))
    expect_all(pages[1::2], "third")
    server.wait_for(r"other\.rpy changed, \d pages updated")
    assert not any(was_loaded_again(page) for page in pages[::2])
    for page in reversed(pages):  # the first one has the stream: nobody is there to follow it
        page.close()
    server.wait_for(STREAM)
    assert len(re.findall(STREAM, server.output())) == 1


@pytest.mark.not_in("firefox", "webkit", reason="their drivers cannot freeze a tab")
def test_another_tab_takes_over(root: Path, server: Server, context: BrowserContext) -> None:
    save(root, "page.rpy", page_of("<p>0</p>"))
    pages = [open_tab(context, f"{server.url}/page") for _ in range(4)]
    pages.pop(0).close()
    save(root, "page.rpy", page_of("<p>1</p>"))
    expect_all(pages, "1")
    pages.pop(0).goto("about:blank")
    save(root, "page.rpy", page_of("<p>2</p>"))
    expect_all(pages, "2")
    frozen = pages.pop(0)
    lifecycle = context.new_cdp_session(frozen)
    lifecycle.send("Page.setWebLifecycleState", {"state": "frozen"})
    save(root, "page.rpy", page_of("<p>3</p>"))
    expect_all(pages, "3")
    lifecycle.send("Page.setWebLifecycleState", {"state": "active"})
    expect_all([frozen], "3")
    save(root, "page.rpy", page_of("<p>4</p>"))
    expect_all([frozen, *pages], "4")


@pytest.mark.not_in("firefox", "webkit", reason="their tabs may share a process")
def test_a_tab_that_is_stuck_does_not_keep_others_from_following(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "page.rpy", page_of("<p>first</p>"))
    save(root, "stuck.rpy", page_of("<p>stuck</p>"))
    stuck = open_tab(context, f"{server.url}/stuck")
    page = open_tab(context, f"{server.url}/page")
    stuck.evaluate(
        "setTimeout(() => { const end = Date.now() + 12000; while (Date.now() < end); }, 100)"
    )
    page.wait_for_timeout(300)
    start = time.monotonic()
    save(root, "page.rpy", page_of("<p>second</p>"))
    expect(page.locator("p")).to_have_text("second")
    assert time.monotonic() - start < 11
    save(root, "stuck.rpy", page_of("<p>free</p>"))
    expect(stuck.locator("p")).to_have_text("free")
    save(root, "page.rpy", page_of("<p>third</p>"))
    expect(page.locator("p")).to_have_text("third")


def test_a_tab_that_is_not_seen_leaves_the_search_for_the_server_to_others(
    root: Path, tmp_path: Path, context: BrowserContext
) -> None:
    save(root, "page.rpy", page_of("<p>first</p>"))
    with serving(root, tmp_path) as server:
        port = str(server.port)
        pages = [open_tab(context, f"{server.url}/page") for _ in range(2)]
        pages[0].evaluate(HIDEABLE)
        pages[0].evaluate("turn(true)")
    status = pages[1].get_by_role("status")
    expect(status).to_contain_text("Connection lost, reconnecting…")
    # As a browser does it with timers of a tab that has not been seen for minutes.
    pages[0].evaluate("window.setTimeout = () => 0")
    save(root, "page.rpy", page_of("<p>second</p>"))
    with serving(root, tmp_path, "--port", port):
        expect(pages[1].locator("p")).to_have_text("second")
        expect(status).to_have_count(0)


@pytest.mark.not_in("firefox", "webkit", reason="their drivers run nothing before a page does")
def test_tabs_without_locks_follow_too(
    root: Path, verbose_server: Server, browser: Browser
) -> None:
    """As over plain HTTP from another machine."""
    server = verbose_server
    context = browser.new_context()
    context.add_init_script(WITHOUT_LOCKS)
    save(root, "page.rpy", page_of("<p>first</p>"))
    pages = [open_tab(context, f"{server.url}/page") for _ in range(12)]
    save(root, "page.rpy", page_of("<p>second</p>"))
    expect_all(pages, "second")
    pages[0].wait_for_timeout(3000)
    before = asked(server, EVENTS)
    pages[0].wait_for_timeout(5000)
    assert 0 < asked(server, EVENTS) - before <= 40
    context.close()


def test_twelve_browsers_behind_one_address(
    root: Path, verbose_server: Server, browser: Browser
) -> None:
    """A class, or a container's gateway: the same address and the same User-Agent."""
    server = verbose_server
    contexts = [browser.new_context() for _ in range(12)]
    save(root, "page.rpy", page_of("<p>first</p>"))
    pages = [open_tab(context, f"{server.url}/page") for context in contexts]
    before = asked(server, EVENTS)
    pages[0].wait_for_timeout(5000)
    assert asked(server, EVENTS) == before
    save(root, "page.rpy", page_of("<p>second</p>"))
    expect_all(pages, "second")
    server.wait_for(r"page\.rpy changed, \d+ pages updated")
    for context in contexts:
        context.close()


# A site's own streams

CHAT = """\
import trio
from rpyserve import Response

PAGE = '''<!DOCTYPE html><h1>first</h1><ul></ul><script>
new EventSource("/chat?events").onmessage = ({ data }) =>
    document.querySelector("ul").append(data + ";");
</script>'''

async def events():
    seen = 0
    while True:
        lines = registry.setdefault("lines", [])
        for line in lines[seen:]:
            yield f"data: {line}\\n\\n"
            seen += 1
        await trio.sleep(0.02)

def resource(request):
    if "events" in request.args:
        return Response(events(), headers={"Content-Type": "text/event-stream"})
    if "say" in request.args:
        registry.setdefault("lines", []).append(request.field("say"))
        return "said"
    return PAGE
"""
SAY = """async (line) => {
    const signal = AbortSignal.timeout(5000);
    return (await fetch("/chat?say=" + line, { signal })).text();
}"""


def test_five_tabs_of_a_chat(root: Path, server: Server, context: BrowserContext) -> None:
    save(root, "chat.rpy", CHAT)
    save(root, "other.rpy", page_of("<p>first</p>"))
    tabs = []
    for number in range(5):
        tabs.append(open_tab(context, f"{server.url}/chat"))
        assert tabs[-1].evaluate(SAY, f"hello{number}") == "said"
    for number, tab in enumerate(tabs):
        assert tab.evaluate(SAY, f"again{number}") == "said"
        for other in tabs:
            expect(other.locator("ul")).to_contain_text(f"again{number};")
    other = open_tab(context, f"{server.url}/other")
    save(root, "other.rpy", page_of("<p>second</p>"))
    expect(other.locator("p")).to_have_text("second")
    save(root, "chat.rpy", CHAT.replace("first", "second"))
    for tab in tabs:
        expect(tab.locator("h1")).to_have_text("second")
        assert tab.evaluate(SAY, "at-last") == "said"
    assert "event streams" not in server.output()
    for tab in tabs:
        tab.close()
    if engine_of(other) == "chromium":
        with other.expect_response(lambda response: "once" not in response.url):
            pass  # there is room for a stream again
    save(root, "other.rpy", page_of("<p>third</p>"))
    expect(other.locator("p")).to_have_text("third")


ASKING = """() => {
    const { fetch, EventSource } = window;
    window.streams = 0;
    window.fetch = async (...request) => {
        await new Promise((done) => { window.release = done; });
        return fetch(...request);
    };
    window.EventSource = class extends EventSource {
        constructor(url) { super(url); window.streams++; }
    };
}"""
STEAL = """void navigator.locks.request(
    `rpyserve ${location.origin}/`, { steal: true }, () => new Promise(() => {}))"""


@pytest.mark.not_in("firefox", "webkit", reason="what is held up there depends on their timers")
def test_who_loses_the_lock_while_asking_opens_no_stream(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "chat.rpy", CHAT)
    save(root, "page.rpy", page_of("<p>first</p>"))
    page = open_tab(context, f"{server.url}/page")
    tabs = [open_tab(context, f"{server.url}/chat") for _ in range(4)]
    page.evaluate(ASKING)
    page.wait_for_function("Boolean(window.release)")
    for tab in tabs:
        tab.close()
    page.wait_for_timeout(500)  # now there is room
    page.evaluate(STEAL)
    page.evaluate("release()")
    page.wait_for_timeout(1000)
    assert page.evaluate("streams") == 0


def test_a_chat_that_uses_all_connections(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "chat.rpy", CHAT)
    wait_for_quiet(f"{server.url}/chat")
    for _ in range(6):
        context.new_page().goto(f"{server.url}/chat")
    server.wait_for(r"A browser has 6 event streams of this site open")


# What pages cause themselves

WRITING = """\
import pathlib, secrets
def resource(request):
    if "write" in request.args:
        with open("visits.txt", "a") as visits:
            visits.write(secrets.token_hex() + "\\n")
        return "written"
    lines = len(pathlib.Path("visits.txt").read_text().splitlines())
    return f'''<!DOCTYPE html><link rel=icon href=data:,><p>first</p><b>{lines}</b>
<form><input name=text><input type=hidden name=token value={secrets.token_hex()}></form>
<script>window.write = () => fetch("/page?write", {"{ method: 'POST' }"});
SCRIPT
</script>'''
"""


def loads(server: Server) -> int:
    return len(re.findall(r"GET /page ", server.output()))


@pytest.mark.not_in("firefox", "webkit", reason="their drivers do not tell of loads")
@pytest.mark.parametrize(
    "script", ["write()", "setInterval(write, 300)", "setTimeout(write, 500)"], ids=lambda s: s[:6]
)
def test_a_page_with_a_token_and_a_script_that_writes(
    script: str, root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "visits.txt", "")
    save(root, "page.rpy", WRITING.replace("SCRIPT", script))
    page = open_tab(context, f"{server.url}/page")
    reloads: list[Page] = []
    page.on("load", lambda page: reloads.append(page))
    page.fill("[name=text]", "typed")
    page.wait_for_timeout(3000)
    assert loads(server) == 1
    assert not reloads
    save(root, "page.rpy", WRITING.replace("SCRIPT", script).replace("first", "second"))
    expect(page.locator("p")).to_have_text("second")
    page.wait_for_timeout(2000)
    assert len(reloads) <= 1
    assert page.input_value("[name=text]") == "typed"
    assert "must be writing" not in server.output()


def test_what_another_tab_writes_is_followed(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "visits.txt", "")
    save(root, "page.rpy", WRITING.replace("SCRIPT", ""))
    writer, reader = (open_tab(context, f"{server.url}/page") for _ in range(2))
    for number in range(1, 4):
        writer.evaluate("write()")
        expect(reader.locator("b")).to_have_text(str(number))
        expect(writer.locator("b")).to_have_text("0")
        writer.wait_for_timeout(700)
    assert not was_loaded_again(writer)


@pytest.mark.not_in("firefox", "webkit", reason="their drivers hold no request back")
def test_what_another_tab_writes_is_followed_by_a_page_that_has_just_loaded(
    root: Path, server: Server, context: BrowserContext
) -> None:
    """As on a slow machine: the page does not yet know the server's time."""
    save(root, "visits.txt", "")
    save(root, "page.rpy", WRITING.replace("SCRIPT", ""))
    writer, reader = open_tab(context, f"{server.url}/page"), new_tab(context)
    questions: list[Route] = []
    reader.route("**/-/events?*once*", lambda route: questions.append(route))
    reader.goto(f"{server.url}/page")
    wait_until_following(reader)
    writer.evaluate("write()")
    writer.wait_for_timeout(200)
    questions[0].continue_()
    reader.unroute("**/-/events?*once*")
    expect(reader.locator("b")).to_have_text("1")
    expect(writer.locator("b")).to_have_text("0")


@pytest.mark.parametrize("script", ["write()", "setTimeout(write, 500)"], ids=["now", "later"])
def test_two_tabs_that_write_do_not_reload_each_other_for_ever(
    script: str, root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "visits.txt", "")
    save(root, "page.rpy", WRITING.replace("SCRIPT", script))
    pages = [open_tab(context, f"{server.url}/page") for _ in range(2)]
    pages[0].wait_for_timeout(8000)
    before = loads(server)
    assert before <= 20
    pages[0].wait_for_timeout(4000)
    assert loads(server) == before
    assert before <= 4 or "visits.txt changes whenever a page is loaded" in server.output()
    save(root, "page.rpy", WRITING.replace("SCRIPT", script).replace("first", "second"))
    expect_all(pages, "second")


def test_a_tool_that_saves_fast_is_followed_to_its_end(
    root: Path, server: Server, context: BrowserContext
) -> None:
    reads = "def resource(request):\n    return '<p>' + open('words.txt').read() + '</p>'\n"
    save(root, "words.txt", "w0")
    save(root, "page.rpy", reads)
    page = open_tab(context, f"{server.url}/page")
    for number in range(1, 10):
        save(root, "words.txt", f"w{number}")
        time.sleep(0.12)
    expect(page.locator("p")).to_have_text("w9")
    save(root, "words.txt", "last")
    expect(page.locator("p")).to_have_text("last")
    assert "must be writing" not in server.output()


def test_a_page_that_fetches_below_a_script_follows_it(
    root: Path, server: Server, context: BrowserContext
) -> None:
    api = """\
from rpyserve import Resource
class Items(Resource):
    isLeaf = True
    def render_GET(self, request):
        return {"text": "first " + "/".join(request.postpath)}
resource = Items()
"""
    save(root, "api.rpy", api)
    save(
        root,
        "page.html",
        "<!DOCTYPE html><p></p><script>fetch('/api/items/3').then((r) => r.json())"
        ".then(({ text }) => { document.querySelector('p').textContent = text })</script>",
    )
    page = open_tab(context, f"{server.url}/page.html")
    expect(page.locator("p")).to_have_text("first items/3")
    save(root, "api.rpy", api.replace("first", "second"))
    expect(page.locator("p")).to_have_text("second items/3")


def test_a_page_that_shows_nothing_new_is_not_counted(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "page.rpy", page_of("<p>first</p>"))
    save(root, "other.rpy", page_of("<p>first</p>"))
    open_tab(context, f"{server.url}/page")
    save(root, "other.rpy", page_of("<p>second</p>"))
    server.wait_for(r"other\.rpy changed \(\d+ ms\)")
