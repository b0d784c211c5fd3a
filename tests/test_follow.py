"""Pages that follow what is saved, in a real Chromium: what changes, and what stays as the visitor left it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import open_tab, was_loaded_again
from playwright.sync_api import BrowserContext, expect
from realprocess import Server, serving

pytestmark = [pytest.mark.browser, pytest.mark.process]

FORM = """\
from rpyserve import html
def resource(request):
    return '''<!DOCTYPE html><title>first</title>
<style>.box { height: 50px; overflow: auto } .tall { height: 3000px }</style>
<h1 class="one">first</h1>
<p>Name: <input id="name" value="nobody"> <input name="mail"> <textarea name="text">none</textarea></p>
<p><label><input type="checkbox" name="yes"> yes</label>
<select name="size"><option>small<option>middle<option>large</select></p>
<details><summary>more</summary>first details</details>
<div class="box"><div class="tall">first box</div></div>
<div class="tall"></div>'''
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    return root


@pytest.fixture
def server(root: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(root, tmp_path) as server:
        yield server


def save(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def page_of(text: str) -> str:
    """A script that shows *text*."""
    return f"def resource(request):\n    return {text!r}\n"


def test_an_edit_shows_and_what_the_visitor_did_stays(root: Path, server: Server, context: BrowserContext) -> None:
    save(root, "form.rpy", FORM)
    page = open_tab(context, f"{server.url}/form")
    page.fill("textarea", "typed text")
    page.check("[name=yes]")
    page.select_option("select", "large")
    page.click("summary")
    page.fill("[name=mail]", "ada@example.org")
    page.evaluate("document.querySelector('.box').scrollTop = 40; scrollTo(0, 100)")
    page.fill("#name", "Ada Lovelace")
    page.evaluate("document.querySelector('#name').setSelectionRange(2, 5)")
    scrolled = page.evaluate("scrollY")

    save(root, "form.rpy", FORM.replace("first", "second").replace('class="one"', 'class="two" lang="en"'))
    expect(page.locator("h1.two[lang=en]")).to_have_text("second")
    expect(page).to_have_title("second")
    expect(page.locator("details")).to_contain_text("second details")
    assert not was_loaded_again(page)
    assert page.input_value("#name") == "Ada Lovelace"
    assert page.input_value("textarea") == "typed text"
    assert page.input_value("[name=mail]") == "ada@example.org"
    assert page.input_value("select") == "large"
    assert page.is_checked("[name=yes]")
    assert page.evaluate("document.querySelector('details').open")
    assert page.evaluate("document.querySelector('.box').scrollTop") == 40
    assert page.evaluate("scrollY") == scrolled > 0
    assert page.evaluate("document.activeElement.id") == "name"
    assert page.evaluate("[document.activeElement.selectionStart, document.activeElement.selectionEnd]") == [2, 5]
    assert page.errors == []


def test_what_the_server_changed_wins_where_the_visitor_did_nothing(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "form.rpy", FORM)
    page = open_tab(context, f"{server.url}/form")
    page.fill("#name", "typed")
    new = FORM.replace("nobody", "somebody").replace(">none<", ">some<").replace('name="yes"', 'name="yes" checked')
    new = new.replace("<option>middle", "<option selected>middle").replace("<details>", "<details open>")
    save(root, "form.rpy", new.replace("first", "second"))
    expect(page.locator("h1")).to_have_text("second")
    assert page.input_value("#name") == "typed"
    assert page.input_value("textarea") == "some"
    assert page.is_checked("[name=yes]")
    assert page.input_value("select") == "middle"
    assert page.evaluate("document.querySelector('details').open")
    page.fill("#name", "nobody")  # not what it was made with, but as if never touched
    save(root, "form.rpy", new.replace("first", "third"))
    expect(page.locator("h1")).to_have_text("third")
    assert page.input_value("#name") == "nobody"


def test_typed_text_moves_along_when_its_field_is_put_elsewhere(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "form.rpy", page_of('<h1>first</h1><p><input name="q"></p><p><input id="w"></p>'))
    page = open_tab(context, f"{server.url}/form")
    page.fill("#w", "words")
    page.fill("[name=q]", "question")
    save(root, "form.rpy", page_of('<h1>second</h1><div><ul><li><input id="w"></ul><b><input name="q"></b></div>'))
    expect(page.locator("h1")).to_have_text("second")
    assert page.input_value("#w") == "words"
    assert page.input_value("[name=q]") == "question"
    assert page.evaluate("document.activeElement.name") == "q"


def test_a_visit_counter_goes_on(root: Path, server: Server, context: BrowserContext) -> None:
    counter = """\
cache()
from rpyserve import *
class ICounter(Interface):
    value = Attribute("visits")
@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0
registerAdapter(Counter, Session, ICounter)
class CounterPage(Resource):
    def render_GET(self, request):
        counter = ICounter(request.getSession())
        counter.value += 1
        return f"Visit #{counter.value} for you!"
resource = CounterPage()
"""
    save(root, "counter.rpy", counter)
    page = open_tab(context, f"{server.url}/counter")
    expect(page.locator("body")).to_have_text("Visit #1 for you!")
    page.reload()
    expect(page.locator("body")).to_have_text("Visit #2 for you!")
    save(root, "counter.rpy", counter.replace("Visit #", "Welcome #"))
    expect(page.locator("body")).to_have_text("Welcome #3 for you!")
    save(root, "counter.rpy", counter.replace("Visit #", "Hello #"))
    expect(page.locator("body")).to_have_text("Hello #4 for you!")
