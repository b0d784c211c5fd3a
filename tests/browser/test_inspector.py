"""The inspector's pages in a real browser: they follow what happens, and leave the reader alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.browsers import expect, new_tab, save
from tests.support.real_process import Server, serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.process,
    pytest.mark.not_in("firefox", "webkit", reason="it uses what only Playwright has"),
]

COUNTER = """\
def goodbye():
    print("goodbye")

def resource(request):
    session = request.getSession()
    if "end" in request.args:
        session.expire()
        return "ended"
    if not session.get("visits"):
        session.notifyOnExpire(goodbye)
    session["visits"] = session.get("visits", 0) + 1
    session["cart"] = {"lamp": 39.5, "sizes": [1, 2, 3]}
    return str(session["visits"])
"""
NEXT_LOOK = "() => document.querySelector('#live span').textContent === 'Live'"


@pytest.fixture
def counter(root: Path, server: Server) -> str:
    """The URL of a page that counts the visits of a session."""
    save(root, "counter.rpy", COUNTER)
    save(root, "broken.rpy", "def resource(request):\n    return 1 / 0\n")
    return f"{server.url}/counter"


def visit(context: Any, url: str) -> None:
    """Load *url* as the visitor of *context*, without a tab."""
    context.request.get(url)


def look_at(context: Any, server: Server, view: str = "") -> Any:
    """A tab with a view, once it follows."""
    page = new_tab(context)
    page.violations = []
    page.expose_function("violated", lambda what: page.violations.append(what))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (event) => violated(event.violatedDirective))"
    )
    page.goto(f"{server.url}/-/{view}")
    page.wait_for_function(NEXT_LOOK)
    return page


def own_session(context: Any, server: Server) -> str:
    data = context.request.get(f"{server.url}/-/sessions.json").json()
    [found] = [each["id"] for each in data["items"] if each["you"]]
    return str(found)


def seconds_left(page: Any) -> float:
    return float(page.evaluate("document.querySelector('main meter').value"))


def test_the_bar_runs_down_and_jumps_back_on_a_visit(
    server: Server, context: Any, counter: str
) -> None:
    visit(context, counter)
    page = look_at(context, server, f"sessions/{own_session(context, server)}")
    expect(page.locator("main")).to_contain_text("your own session")
    expect(page.locator(".state:has(meter)")).to_contain_text("14 min 57 s")
    low = seconds_left(page)
    assert 800 < low < 899
    visit(context, counter)
    page.wait_for_function("low => document.querySelector('main meter').value > low", arg=low)
    expect(page.locator(".tree")).to_contain_text("session['visits'] 2")
    expect(page.locator(".state:has(meter)")).to_contain_text("14 min 59 s")
    assert page.violations == page.errors == []


def test_what_happens_is_on_the_page(
    root: Path, server: Server, context: Any, counter: str
) -> None:
    page = look_at(context, server)
    expect(page.locator("main")).to_contain_text("No session yet.")
    visit(context, counter)
    expect(page.locator("table[aria-label='Live sessions']")).to_contain_text("visits")
    visit(context, f"{server.url}/broken")
    expect(page.locator("main")).to_contain_text("ZeroDivisionError")
    save(root, "broken.rpy", "def resource(request):\n    return 'mended'\n")
    visit(context, f"{server.url}/broken")
    expect(page.locator("main")).not_to_contain_text("ZeroDivisionError")
    visit(context, f"{counter}?end")
    expect(page.locator("main")).to_contain_text("No session yet.")
    expect(page.locator("#said")).to_have_text("1 request failed.")
    assert page.violations == page.errors == []


def test_what_is_open_or_typed_stays(server: Server, context: Any, counter: str) -> None:
    visit(context, counter)
    page = look_at(context, server, f"sessions/{own_session(context, server)}")
    page.click("summary:has-text('sizes')")
    page.fill("input[name=seconds]", "7m")
    for number in range(2, 22):
        visit(context, counter)
        expect(page.locator(".tree")).to_contain_text(f"session['visits'] {number}")
    assert page.evaluate("document.querySelectorAll('.tree details[open]').length") == 2
    assert page.input_value("input[name=seconds]") == "7m"
    assert page.evaluate("document.activeElement.name") == "seconds"
    assert page.violations == page.errors == []


def test_a_pause_stops_every_change(server: Server, context: Any, counter: str) -> None:
    visit(context, counter)
    page = look_at(context, server, "sessions")
    page.click("text=Pause")
    before = page.inner_html("main")
    other = context.browser.new_context()
    for _ in range(3):
        visit(other, counter)
    other.close()
    expect(page.locator("#live span")).to_have_text("Paused, 3 new")
    page.wait_for_timeout(1200)  # times go on once a second
    assert page.inner_html("main") == before
    page.click("#live button")
    expect(page.locator("#session-" + own_session(context, server))).to_be_visible()
    expect(page.locator("table[aria-label='Live sessions'] tbody tr")).to_have_count(2)
    expect(page.locator("#live span")).to_have_text("Live")


HIDE = """hidden => {
    Object.defineProperty(Document.prototype, "hidden", { get: () => hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def streams(server: Server) -> int:
    """How many connections have a stream of the inspector."""
    with urlopen(f"{server.url}/-/.json") as response:
        return int(json.load(response)["looking"])


def wait_streams(page: Any, server: Server, wanted: int) -> None:
    for _ in range(100):
        if streams(server) == wanted:
            return
        page.wait_for_timeout(50)
    assert streams(server) == wanted


def test_a_hidden_tab_has_no_stream(server: Server, context: Any, counter: str) -> None:
    page = look_at(context, server, "sessions")
    wait_streams(page, server, 1)
    page.evaluate(HIDE, True)
    wait_streams(page, server, 0)
    visit(context, counter)
    page.evaluate(HIDE, False)
    expect(page.locator("main")).to_contain_text("1 live session.")
    wait_streams(page, server, 1)


def test_seven_tabs(server: Server, context: Any, counter: str) -> None:
    pages = []
    for _ in range(7):
        page = new_tab(context)
        page.goto(f"{server.url}/-/sessions")
        pages.append(page)
    visit(context, counter)
    for page in pages:
        expect(page.locator("main")).to_contain_text("1 live session.")
    assert streams(server) <= 4
    expect(pages[0].locator("#live span")).to_contain_text("other tabs are open")


def test_actions_say_what_they_did_in_the_page(server: Server, context: Any, counter: str) -> None:
    visit(context, counter)
    name = own_session(context, server)
    page = look_at(context, server, f"sessions/{name}")
    page.fill("input[name=seconds]", "5m")
    page.click("text=Let time pass")
    expect(page.locator("#done")).to_contain_text("300 seconds have passed")
    expect(page.locator(".state:has(meter)")).to_contain_text("9 min")
    page.click("text=Expire now")
    expect(page.locator("#done")).to_contain_text("has ended; called goodbye.")
    expect(page.locator("main")).to_contain_text("expired by the site, or here")
    assert page.url.endswith(name)
    assert page.violations == page.errors == []


def test_a_value_is_changed_in_place(server: Server, context: Any, counter: str) -> None:
    visit(context, counter)
    page = look_at(context, server, f"sessions/{own_session(context, server)}")
    page.click("[aria-label=\"Change session['visits']\"]")
    page.wait_for_function(NEXT_LOOK)
    page.fill("input[name=value]", "41")
    page.click("form.change button")
    expect(page.locator("#done")).to_have_text("session['visits']: 1 is 41 now.")
    expect(page.locator(".tree")).to_contain_text("session['visits'] 41")
    assert context.request.get(counter).text() == "42"
    expect(page.locator(".tree")).to_contain_text("session['visits'] 42")
    assert page.input_value("input[name=value]") == "42", "nobody has typed in it since"
    assert page.violations == page.errors == []


def test_the_same_without_a_script(server: Server, browser: Any, counter: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    visit(context, counter)
    page = new_tab(context)
    page.goto(f"{server.url}/-/sessions")
    page.click(f"text={own_session(context, server)}")
    expect(page.locator("main")).to_contain_text("session['visits'] 1")
    page.click("summary:has-text('sizes')")
    expect(page.locator("main")).to_contain_text("[2] 3")
    page.click("text=Expire now")
    expect(page.locator("main")).to_contain_text("has ended; called goodbye.")
    page.click("text=Go on")
    expect(page.locator("main")).to_contain_text("0 live sessions. Ended so far: 1 expired.")
    context.close()


def test_keys_count_in_a_list_only(server: Server, browser: Any, counter: str) -> None:
    context = browser.new_context()
    for _ in range(3):
        other = browser.new_context()
        visit(other, counter)
        other.close()
    page = look_at(context, server, "sessions")
    for key in "jkp?/":
        page.keyboard.press(key)
    expect(page.locator("#live span")).to_have_text("Live")
    assert page.evaluate("document.activeElement === document.body")
    page.focus("tbody a")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    focused = "[...document.querySelectorAll('tbody a')].indexOf(document.activeElement)"
    assert page.evaluate(focused) == 1
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("p")
    expect(page.locator("#live span")).to_have_text("Paused")
    page.keyboard.press("p")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.type("jkp")
    assert page.input_value("[name=q]") == "jkp"
    page.focus("tbody a")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("Session ")
    context.close()


def test_a_restart_loads_the_page_again(root: Path, tmp_path: Path, context: Any) -> None:
    save(root, "counter.rpy", COUNTER)
    with serving(root, tmp_path) as first:
        page = look_at(context, first, "sessions")
        page.evaluate("document.loadedOnce = true")
        port = first.port
    with serving(root, tmp_path, "--port", str(port)):
        page.wait_for_function("() => document.loadedOnce !== true")
        page.wait_for_function(NEXT_LOOK)


EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>'\"&\u202e\x1b[2J"


@pytest.fixture
def evil(root: Path, server: Server) -> Iterator[str]:
    save(
        root,
        "evil.rpy",
        f"EVIL = {EVIL!r}\n"
        "def resource(request):\n"
        "    session = request.getSession()\n"
        "    session[EVIL] = {EVIL: [EVIL]}\n"
        "    session['thing'] = type(EVIL, (), {'__module__': '__main__'})()\n"
        "    f = lambda: None\n"
        "    f.__qualname__ = f.__name__ = EVIL\n"
        "    session.notifyOnExpire(f)\n"
        "    return EVIL\n",
    )
    yield f"{server.url}/evil"


def test_markup_in_every_field_is_text(server: Server, context: Any, evil: str) -> None:
    visit(context, f"{evil}?%3Cscript%3Ealert(3)%3C/script%3E")
    name = own_session(context, server)
    for view in ("", "sessions", f"sessions/{name}", "sessions?q=%3Cscript%3E", "requests"):
        page = look_at(context, server, view)
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        visit(context, evil)
        page.wait_for_function(NEXT_LOOK)
        page.wait_for_timeout(300)
        assert page.locator("main img, main script").count() == 0
        assert page.violations == page.errors == []
        page.close()


@pytest.mark.skipif(
    find_spec("axe_playwright_python") is None, reason="this needs axe-playwright-python"
)
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    server: Server, browser: Any, counter: str, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    visit(context, f"{counter}?end")
    visit(context, f"{server.url}/broken")
    visit(context, counter)
    data = context.request.get(f"{server.url}/-/.json").json()
    views = [each["path"].removeprefix("/-/").removesuffix(".json") for each in data["views"]]
    plain = [each for each in views if "{" not in each]
    ended = context.request.get(f"{server.url}/-/sessions.json").json()["ended_lately"][0]["id"]
    named = [f"sessions/{own_session(context, server)}", f"sessions/{ended}", "sessions/unknown"]
    page = new_tab(context)
    for view in (
        *plain,
        *named,
        "clock?seconds=15m",
        "requests/1",
        "errors/1",
        "scripts/counter.rpy",
    ):
        page.goto(f"{server.url}/-/{view}")
        found = Axe().run(page).response["violations"]
        places = [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]
        assert (view, places) == (view, [])
        is_wide = "document.documentElement.scrollWidth > innerWidth"
        assert not page.evaluate(is_wide), f"{view} can be scrolled sideways"
    context.close()


def test_it_follows_without_live_reload(root: Path, tmp_path: Path, context: Any) -> None:
    save(root, "counter.rpy", COUNTER)
    with serving(root, tmp_path, "--no-reload") as server:
        assert f"What the server is doing: {server.url}/-/" in server.output()
        page = look_at(context, server)
        visit(context, f"{server.url}/counter")
        expect(page.locator("main")).to_contain_text("yours")
        assert page.violations == page.errors == []


def test_there_may_be_none(root: Path, tmp_path: Path, context: Any) -> None:
    save(root, "counter.rpy", COUNTER)
    with serving(root, tmp_path, "--no-inspector") as server:
        for path in ("", "sessions", "inspect.js", "events?inspect=1&once"):
            answer = context.request.get(f"{server.url}/-/{path}")
            assert answer.status == (200 if path.startswith("events") else 404)
            assert "boot" not in answer.text()
        assert "What the server is doing" not in server.output()
