"""The docs as a website, in real browsers. It needs ``pip install -e '.[docs]'``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.browsers import new_tab
from tests.support.real_process import Server, serving

pytest.importorskip("material", reason="this needs mkdocs-material")
pytestmark = [pytest.mark.browser, pytest.mark.process]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run([*command, directory / "site"], cwd=ROOT, env=environment, check=True)
    with serving(directory / "site", directory, "--no-reload") as server:
        yield server


NOTE_COPIED = """document.addEventListener("copy", () => {
  window.copied = document.activeElement.value;
})"""


@pytest.mark.parametrize(
    ("span", "copied"),
    [
        ("gp", 'rpyserve ./site\ncurl localhost:8080/hello\ncurl "localhost:8080/hello?name=Ada"'),
        (
            "kn",
            "from rpyserve import html\n\n\ndef resource(request):\n"
            '    return html("<h1>Hello {name}!</h1>", name=request.field("name", "world"))',
        ),
    ],
)  # fmt: skip
def test_the_copy_button_copies_what_is_to_be_typed(
    span: str, copied: str, server: Server, context: BrowserContext
) -> None:
    page = new_tab(context)
    page.goto(f"{server.url}/index.html")
    page.evaluate(NOTE_COPIED)
    page.locator(f".highlight:has(.{span}) button").first.click()
    page.wait_for_function("window.copied !== undefined")
    assert page.evaluate("window.copied") == copied


# What people have looked for, in their words.
LOOKED_FOR = [
    "CSRF", "subdirectories", "persist", "venv", "PATCH", "pagination", "progress", "csv", "Ren'Py", "QR", "htmx",
    "pandas", "broadcast", "layout", "pdb", "kick", "tunnel", "ngrok", "Codespaces", "devcontainer", "Vite",
]  # fmt: skip


@pytest.fixture(scope="module")
def results(server: Server, browser: Browser) -> Iterator[Page]:
    """A page of the docs, whose search is open."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = new_tab(context)
    page.goto(f"{server.url}/index.html")
    page.locator("input.md-search__input").click()
    yield page
    context.close()


@pytest.mark.not_in("firefox", "webkit", reason="the search is mkdocs-material's own")
@pytest.mark.parametrize("word", LOOKED_FOR)
def test_the_search_finds(word: str, results: Page) -> None:
    field = results.locator("input.md-search__input")
    field.select_text()
    field.press_sequentially(word)
    marked = results.locator(".md-search-result__item mark").first
    expect(marked).to_have_text(re.compile(re.escape(word[:4]), re.IGNORECASE))
