"""The tour in a real browser: each page of it is opened, used as a visitor would, and says what it should."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.chromium import SECONDS, picture
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
    context = browser.new_context(base_url=server.url, http_credentials={"username": "ada", "password": "lovelace"})
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    yield page
    context.close()


TEXTS = {
    "/": "A tour of resource scripts", "/hello?name=Ada": "Hello Ada!", "/visits": "began your session",
    "/counter": "Visit #1 for you!", "/counter_uncached": "Visit #1 for you!", "/logme": "session",
    "/login": "Say who you are", "/guestbook": "Sign as a stranger", "/almanac/2026/11": "November 2026",
    "/404": "Off the map", "/no/such/page": "There is no /no/such/page on this tour", "/images/": "hills.svg",
    "/status": '"sessions"', "/countdown": "Lift-off!", "/poem": "words", "/sayings": "sayings.txt",
    "/parcel": "Weigh it", "/abacus": "a POST with a list of numbers", "/ticker": "Ticker", "/tide": " cm",
    "/parrot": "Parrot", "/members": "You are in.", "/relic/of/old": "You asked for /of/old below /relic.",
    "/beacon": '"origin": null', "/twins": "I am castor", "/mirror?name=Grace": "Hello Grace!",
    "/postcard?to=Grace": "Dear Grace,",
}  # fmt: skip


def test_every_script_of_the_tour_is_here() -> None:
    opened = {re.split("[/?]", path)[1] or "index" for path in TEXTS}
    assert {script.stem for script in SAMPLE.glob("*.rpy")} <= opened


@pytest.mark.parametrize("path", TEXTS)
def test_the_page_says(page: Page, path: str) -> None:
    page.goto(path)
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


def test_a_file_is_weighed(page: Page) -> None:
    page.goto("/parcel")
    page.get_by_label("A file").set_input_files({"name": "cat.txt", "mimeType": "text/plain", "buffer": b"x" * 700_000})
    page.get_by_role("button", name="Weigh it").click()
    expect(page.locator("main")).to_contain_text("cat.txt: 700000 bytes")


def test_events_and_tasks_go_on_by_themselves(page: Page) -> None:
    page.goto("/ticker")
    expect(page.locator("#time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
    first = page.locator("#time").inner_text()
    expect(page.locator("#time")).not_to_have_text(first)
    page.goto("/tide")
    level = page.locator(".big").inner_text()
    page.wait_for_timeout(1500)
    page.reload()
    assert page.locator(".big").inner_text() != level


def test_a_parrot_answers(page: Page) -> None:
    page.goto("/parrot")
    expect(page.locator("#heard")).to_have_text("Hello!")
    page.get_by_role("textbox").fill("cracker")
    page.get_by_role("button").click()
    expect(page.locator("#heard")).to_have_text("cracker cracker!")


def test_pages_of_other_origins_may_read_what_says_so(page: Page, server: Server) -> None:
    page.goto(f"http://castor.localhost:{server.port}/twins")
    expect(page.locator("h1")).to_have_text("I am castor")
    page.get_by_role("link", name="pollux").click()
    expect(page.locator("h1")).to_have_text("I am pollux")
    ask = "url => fetch(url).then(answer => answer.json(), () => 'refused')"
    assert page.evaluate(ask, f"{server.url}/beacon")["origin"] == f"http://pollux.localhost:{server.port}"
    assert page.evaluate(ask, f"{server.url}/status") == "refused"


def test_json_both_ways(page: Page) -> None:
    page.goto("/abacus")
    ask = "() => fetch('/abacus', {method: 'POST', body: '[1, 2, 3]'}).then(answer => answer.json())"
    assert page.evaluate(ask) == {"numbers": 3, "sum": 6}


def test_strangers_stay_outside(browser: Browser, server: Server) -> None:
    context: BrowserContext = browser.new_context(base_url=server.url)
    answer = context.request.get("/members/")
    assert answer.status == 401 and "name and a password" in answer.text()
    context.close()
