"""The tour in real browsers: each page of it is opened, used as a visitor would, and says what
it should.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browsers import expect, new_tab, picture
from tests.support.real_process import Server, serving

SAMPLE = Path(__file__).parent.parent.parent / "sample_site"

pytestmark = [pytest.mark.browser, pytest.mark.process]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("tour")
    shutil.copytree(SAMPLE, root / "site")
    with serving(root / "site", root, "--session-timeout", "60") as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    context = browser.new_context(base_url=server.url)
    yield new_tab(context)
    context.close()


TEXTS = {
    "/": "A tour of resource scripts",
    "/hello?name=Ada": "Hello Ada!",
    "/session": "Your session is new",
    "/counter": "Visit #1 for you!",
    "/counter_uncached": "Visit #1 for you!",
    "/session_expiry": "session",
    "/login": "Enter your name",
    "/guestbook": "Sign as a stranger",
    "/child_pages/2026/11": "November 2026",
    "/404": "Page not found",
    "/no/such/page": "There is no /no/such/page on this tour",
    "/images/": "hills.svg",
    "/json_response": '"sessions"',
    "/streaming": "Lift-off!",
    "/import_module": "words",
    "/cached_file": "quotes.txt",
    "/upload": "Upload",
    "/json_api": "POST a list of numbers",
    "/server_sent_events": "Server-sent events",
    "/background_task": " cm",
    "/websocket": "WebSocket",
    "/basic_auth": "You are logged in.",
    "/wsgi/some/path": "The path is /some/path, and the application is mounted at /wsgi.",
    "/cors": '"origin": null',
    "/virtual_hosts": "This is blog",
    "/proxy?name=Grace": "Hello Grace!",
    "/template?to=Grace": "Dear Grace,",
}


def test_every_script_of_the_tour_is_here() -> None:
    opened = {re.split("[/?]", path)[1] or "index" for path in TEXTS}
    assert {script.stem for script in SAMPLE.glob("*.rpy")} <= opened


@pytest.mark.parametrize("path", TEXTS)
def test_the_page_says(page: Page, server: Server, path: str) -> None:
    is_open = path != "/basic_auth"
    page.goto(path if is_open else server.url.replace("//", "//ada:lovelace@") + path)
    expect(page.locator("body")).to_contain_text(TEXTS[path])
    if path == "/":
        picture(page, "tour")


def test_the_series_from_visit_to_visit(page: Page) -> None:
    for number in (1, 2, 3):
        page.goto("/counter")
        expect(page.locator("main")).to_contain_text(f"Visit #{number} for you!")
        page.goto("/counter_uncached")
        expect(page.locator("main")).to_contain_text("Visit #1 for you!")


def test_login_and_guestbook(page: Page) -> None:
    page.goto("/login")
    page.get_by_role("textbox").fill("Ada")
    page.get_by_role("textbox").press("Enter")
    expect(page.locator("main")).to_contain_text("Hello, Ada")
    page.goto("/guestbook")
    page.get_by_role("textbox").fill("<b>I was here</b>")
    page.get_by_role("button").click()
    expect(page.locator(".book")).to_contain_text("<b>I was here</b>")
    expect(page.locator(".book")).to_contain_text("Ada, at ")


def test_a_file_is_uploaded(page: Page) -> None:
    page.goto("/upload")
    page.locator("input[type=file]").set_input_files(
        {"name": "cat.txt", "mimeType": "text/plain", "buffer": b"x" * 700_000}
    )
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("main")).to_contain_text("cat.txt: 700000 bytes")


def test_events_and_tasks_go_on_by_themselves(page: Page) -> None:
    page.goto("/server_sent_events")
    expect(page.locator("#time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
    first = page.locator("#time").inner_text()
    expect(page.locator("#time")).not_to_have_text(first)
    page.goto("/background_task")
    level = page.locator(".big").inner_text()
    page.wait_for_timeout(1500)
    page.reload()
    assert page.locator(".big").inner_text() != level


def test_a_websocket_answers(page: Page) -> None:
    page.goto("/websocket")
    expect(page.locator("#reply")).to_have_text("Connected.")
    page.get_by_role("textbox").fill("cracker")
    page.get_by_role("button").click()
    expect(page.locator("#reply")).to_have_text("You sent: cracker")


def test_pages_of_other_origins_may_read_what_says_so(page: Page, server: Server) -> None:
    page.goto(f"http://blog.localhost:{server.port}/virtual_hosts")
    expect(page.locator("h1")).to_have_text("This is blog")
    page.get_by_role("link", name="shop").click()
    expect(page.locator("h1")).to_have_text("This is shop")
    ask = "url => fetch(url).then(answer => answer.json(), () => 'refused')"
    assert (
        page.evaluate(ask, f"{server.url}/cors")["origin"] == f"http://shop.localhost:{server.port}"
    )
    assert page.evaluate(ask, f"{server.url}/json_response") == "refused"


def test_json_both_ways(page: Page) -> None:
    page.goto("/json_api")
    options = "{method: 'POST', body: '[1, 2, 3]'}"
    ask = f"() => fetch('/json_api', {options}).then(answer => answer.json())"
    assert page.evaluate(ask) == {"numbers": 3, "sum": 6}


@pytest.mark.not_in("firefox", "webkit", reason="it asks without a page")
def test_strangers_stay_outside(browser: Browser, server: Server) -> None:
    context: BrowserContext = browser.new_context(base_url=server.url)
    answer = context.request.get("/basic_auth/")
    assert answer.status == 401 and "name and a password" in answer.text()
    context.close()
