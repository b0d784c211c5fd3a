"""axe finds no violation in the pages that rpyserve makes itself, nor in the tour's: in light and
dark, and on a phone's screen.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.support.browsers import new_tab
from tests.support.real_process import Server, serving

if find_spec("axe_playwright_python") is None:
    pytest.skip("this needs axe-playwright-python", allow_module_level=True)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.process,
    pytest.mark.not_in("firefox", "webkit", reason="the rules are the same for each engine"),
]

SAMPLE = Path(__file__).parent.parent.parent / "sample_site"
PAGES = {
    "error": "/error",
    "syntax error": "/syntax",
    "404": "/nothing/here",
    "listing": "/files/",
    "empty site": "/empty/",
    "phone": "/-/phone",
}
TOUR = [
    "/", *(f"/{path.stem}" for path in sorted(SAMPLE.glob("*.rpy")) if path.stem != "index"),
    "/images/", "/child_pages/2026/11",
]  # fmt: skip
# Those that are no whole pages: JSON, a single heading, another server's, and what needs a password.
NO_PAGES = {"/json_response", "/json_api", "/cors", "/basic_auth", "/hello", "/proxy"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("pages")
    site = root / "site"
    (site / "files" / "more").mkdir(parents=True)
    (site / "files" / "notes.txt").write_text("notes")
    (site / "error.rpy").write_text("def resource(request):\n    n = 1\n    return 1 / (n - 1)\n")
    (site / "syntax.rpy").write_text("def resource(request):\n    retrun 1\n")
    (site / "empty").mkdir()
    with serving(site, root, "--phone") as server:
        yield server


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("tour")
    shutil.copytree(SAMPLE, root / "site")
    with serving(root / "site", root) as server:
        yield server


@pytest.fixture(params=["light", "dark", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Any]:
    width = 390 if request.param == "phone" else 1000
    scheme = "dark" if request.param == "dark" else "light"
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    yield new_tab(context)
    context.close()


def violations(page: Any) -> list[str]:
    """What axe finds, each with the first place of it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]


@pytest.mark.parametrize("name", PAGES)
def test_own_pages(name: str, page: Any, server: Server) -> None:
    page.goto(f"{server.url}{PAGES[name]}", wait_until="load")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_page_of_an_empty_site(page: Any, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with serving(tmp_path / "site", tmp_path) as server:
        page.goto(server.url)
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("path", [path for path in TOUR if path not in NO_PAGES])
def test_the_tour(path: str, page: Any, tour: Server) -> None:
    page.goto(f"{tour.url}{path}", wait_until="commit")
    # Some are streams without an end.
    page.wait_for_function("document.title && document.querySelector('main h1')")
    assert violations(page) == []
