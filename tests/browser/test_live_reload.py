"""Pages that follow what is saved, in real browsers: what changes, and what stays as the visitor
left it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browsers import (
    asked,
    engine_of,
    expect,
    new_tab,
    open_tab,
    page_of,
    picture,
    save,
    wait_for_quiet,
    wait_until_following,
    was_loaded_again,
)
from tests.support.real_process import Server, program, serving

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


def test_an_edit_shows_and_what_the_visitor_did_stays(
    root: Path, server: Server, context: BrowserContext
) -> None:
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
    page.evaluate(
        """() => { // as an extension of the browser does it
            const badge = document.body.appendChild(document.createElement("x-badge"));
            badge.attachShadow({ mode: "open" }).append("badge");
            document.head.append(document.createElement("script"));
        }"""
    )
    scrolled = page.evaluate("scrollY")

    save(
        root,
        "form.rpy",
        FORM.replace("first", "second").replace('class="one"', 'class="two" lang="en"'),
    )
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
    assert page.evaluate("document.querySelector('x-badge').shadowRoot.textContent") == "badge"
    assert page.evaluate("document.activeElement.id") == "name"
    assert page.evaluate(
        "[document.activeElement.selectionStart, document.activeElement.selectionEnd]"
    ) == [2, 5]
    assert page.errors == []


HIDING = [
    "activeElement",
    "addEventListener",
    "adoptedStyleSheets",
    "baseURI",
    "body",
    "compatMode",
    "createElement",
    "createTreeWalker",
    "currentScript",
    "documentElement",
    "head",
    "hidden",
    "implementation",
    "importNode",
    "querySelector",
    "querySelectorAll",
    "readyState",
    "replaceChild",
    "styleSheets",
]


def test_names_in_a_page_hide_nothing_from_the_script(
    root: Path, server: Server, context: BrowserContext
) -> None:
    port = server.url.rpartition(":")[2].strip("/")
    forged = (
        f'src="http://evil.localhost:{port}/x/y.js" data-rpyserve="a-1" data-sources="*"'
        ' data-made="script"'
    )
    images = "".join(f"<img name={name} {forged}>" for name in HIDING)
    page = new_tab(context)
    save(root, "a.rpy", page_of(f"<h1>first</h1>{images}"))
    wait_for_quiet(f"{server.url}/a")
    page.goto(f"{server.url}/a")
    wait_until_following(page)
    page.evaluate("window.loadedOnce = true")
    save(root, "a.rpy", page_of(f"<h1>second</h1>{images}"))
    page.wait_for_function(
        "Document.prototype.querySelector.call(document, 'h1').textContent === 'second'"
    )
    assert page.evaluate("window.loadedOnce === true"), "it was morphed"
    urls = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    assert not [url for url in urls if "evil" in url and not url.endswith("/x/y.js")]


GUARDED = """\
from rpyserve import BasicAuth, Directory, Resource, run

root = Resource()
root.putChild("public", Directory("public"))
root.putChild("members", BasicAuth(Directory("members"), {"ada": "lovelace"}, realm="Members"))
run(root, port=0)
"""


def test_pages_behind_a_password_follow_too(
    root: Path, tmp_path: Path, context: BrowserContext
) -> None:
    for place in ("public", "members"):
        save(root, f"{place}/a.rpy", page_of("<h1>first</h1>"))
    (tmp_path / "program.py").write_text(GUARDED, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "program.py")]
    with program(command, tmp_path / "console", cwd=root) as server:
        server.port = int(server.wait_for(r"http://[^/\s]+:(\d+)")[1])
        outside = open_tab(context, f"{server.url}/public/a")
        inside = new_tab(context)
        inside.goto(server.url.replace("//", "//ada:lovelace@") + "/members/a")
        wait_until_following(inside)
        for place, page in (("public", outside), ("members", inside)):
            save(root, f"{place}/a.rpy", page_of("<h1>second</h1>"))
            expect(page.locator("h1")).to_have_text("second")
        assert outside.errors == []


def test_what_the_server_changed_wins_where_the_visitor_did_nothing(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "form.rpy", FORM)
    page = open_tab(context, f"{server.url}/form")
    page.fill("#name", "typed")
    new = (
        FORM.replace("nobody", "somebody")
        .replace(">none<", ">some<")
        .replace('name="yes"', 'name="yes" checked')
    )
    new = new.replace("<option>middle", "<option selected>middle").replace(
        "<details>", "<details open>"
    )
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
    save(
        root,
        "form.rpy",
        page_of('<h1>second</h1><div><ul><li><input id="w"></ul><b><input name="q"></b></div>'),
    )
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
    server.wait_for(
        r"counter\.rpy added"
    )  # or the page would look once more, because of this very save
    page = open_tab(context, f"{server.url}/counter")
    expect(page.locator("body")).to_have_text("Visit #1 for you!")
    page.reload()
    expect(page.locator("body")).to_have_text("Visit #2 for you!")
    save(root, "counter.rpy", counter.replace("Visit #", "Welcome #"))
    expect(page.locator("body")).to_have_text("Welcome #3 for you!")
    save(root, "counter.rpy", counter.replace("Visit #", "Hello #"))
    expect(page.locator("body")).to_have_text("Hello #4 for you!")


STYLED = """<!DOCTYPE html><link rel="stylesheet" href="a.css"><link rel="stylesheet" href="b.css">
<h1>heading</h1><p>text</p>"""
COLOURS = (
    "['h1', 'p'].map((name) => getComputedStyle(document.querySelector(name)).color).join(' and ')"
)


def expect_colours(page: Page, colours: str) -> None:
    page.wait_for_function(f"({COLOURS}) === {colours!r}")


def test_a_stylesheet_is_swapped_and_never_missing(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "index.html", STYLED)
    save(root, "a.css", "h1 { color: rgb(255, 0, 0) }")
    save(root, "b.css", "@import 'deep/c.css';")
    save(root, "deep/c.css", "p { color: rgb(255, 0, 0) }")
    page = open_tab(context, server.url)
    page.evaluate(
        f"window.seen = new Set(); (function look() {{ seen.add({COLOURS}); "
        f"requestAnimationFrame(look) }})()"
    )
    save(root, "a.css", "h1 { color: rgb(0, 0, 255) }")
    expect_colours(page, "rgb(0, 0, 255) and rgb(255, 0, 0)")
    save(root, "deep/c.css", "p { color: rgb(0, 0, 255) }")
    expect_colours(page, "rgb(0, 0, 255) and rgb(0, 0, 255)")
    save(root, "a.css", "h1 { color: rgb(0, 128, 0) }")
    expect_colours(page, "rgb(0, 128, 0) and rgb(0, 0, 255)")
    assert "rgb(0, 0, 0)" not in " ".join(page.evaluate("[...seen]"))
    assert page.evaluate("document.querySelectorAll('link').length") == 2
    assert not was_loaded_again(page)
    save(
        root, "index.html", STYLED.replace("text", "new text")
    )  # after a swap the page itself follows as before
    expect(page.locator("p")).to_have_text("new text")
    assert not was_loaded_again(page)
    assert page.errors == []


def test_a_new_stylesheet_is_there_when_the_page_that_needs_it_is(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "a.css", "h1, p { color: rgb(255, 0, 0) }")
    save(root, "z.css", "h1, p { color: rgb(0, 0, 255) }")
    save(root, "index.html", STYLED)
    page = open_tab(context, server.url)
    expect_colours(page, "rgb(255, 0, 0) and rgb(255, 0, 0)")
    page.evaluate(
        "window.seen = new Set();"
        f"new MutationObserver(() => seen.add(document.querySelector('p').textContent + {COLOURS}))"
        ".observe(document, { childList: true, subtree: true, characterData: true })"
    )
    save(root, "index.html", STYLED.replace("a.css", "z.css").replace("text", "new text"))
    expect(page.locator("p")).to_have_text("new text")
    expect_colours(page, "rgb(0, 0, 255) and rgb(0, 0, 255)")
    page.wait_for_function("document.querySelectorAll('link').length === 2")
    assert {seen for seen in page.evaluate("[...seen]") if seen.startswith("new")} == {
        "new textrgb(0, 0, 255) and rgb(0, 0, 255)"
    }
    assert not was_loaded_again(page)


def svg(width: int, colour: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20">'
        f'<rect width="{width}" height="20" fill="{colour}"/></svg>'
    )


def test_images_are_swapped(root: Path, server: Server, context: BrowserContext) -> None:
    save(
        root, "sub/index.html", '<link rel="stylesheet" href="../a.css"><body><img src="a%20b.svg">'
    )
    save(root, "a.css", "body { background: url(sub/back.svg) }")
    save(root, "sub/a b.svg", svg(20, "red"))
    save(root, "sub/back.svg", svg(20, "red"))
    page = open_tab(context, f"{server.url}/sub/")
    page.wait_for_function("document.images[0].naturalWidth === 20")
    save(root, "sub/a b.svg", svg(50, "blue"))
    page.wait_for_function("document.images[0].naturalWidth === 50")
    before = page.screenshot()
    save(root, "sub/back.svg", svg(20, "blue"))
    page.wait_for_function("getComputedStyle(document.body).backgroundImage.includes('?')")
    assert page.screenshot() != before
    assert page.evaluate("document.images[0].getAttribute('src')").startswith("a%20b.svg?")
    assert not was_loaded_again(page)


def test_a_page_with_scripts_is_loaded_again_when_one_of_them_changes(
    root: Path, server: Server, context: BrowserContext
) -> None:
    counter = """\
def resource(request):
    session = request.getSession()
    session["n"] = session.get("n", 0) + 1
    return f"<p>first {session['n']}</p><script src='a.js'></script>"
"""
    save(root, "a.js", "document.body.append('one')")
    save(root, "page.rpy", counter)
    page = open_tab(context, f"{server.url}/page")
    expect(page.locator("body")).to_have_text("first 1one")
    save(root, "page.rpy", counter.replace("first", "second"))
    expect(page.locator("body")).to_have_text("second 2one")
    assert not was_loaded_again(page)
    save(root, "a.js", "document.body.append('two')")
    expect(page.locator("body")).to_have_text("second 3two")


def test_a_page_with_scripts_stays_where_nothing_has_changed_for_it(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "helper.py", "text = 'one'")
    save(
        root,
        "page.rpy",
        "import helper\ndef resource(request):\n    return f'<script></script>{helper.text}'",
    )
    save(
        root,
        "other.rpy",
        "import helper\ndef resource(request):\n    return f'{helper.text} {helper.more}'",
    )
    save(root, "helper.py", "text, more = 'one', 'a'")
    page, other = open_tab(context, f"{server.url}/page"), open_tab(context, f"{server.url}/other")
    save(root, "helper.py", "text, more = 'one', 'b'")
    expect(other.locator("body")).to_have_text("one b")
    assert not was_loaded_again(page)
    save(root, "helper.py", "text, more = 'two', 'c'")
    expect(page.locator("body")).to_have_text("two")
    expect(other.locator("body")).to_have_text("two c")


def test_the_answer_to_a_form_is_not_asked_for_again_but_offered(
    root: Path, server: Server, context: BrowserContext
) -> None:
    script = """\
from rpyserve import registry
def resource(request):
    if request.method == "POST":
        registry["sent"] = registry.get("sent", 0) + 1
        return f"<h1>thanks {registry['sent']}</h1>"
    return f"<form method=post><button>send</button></form><p>sent {registry.get('sent', 0)}</p>"
"""
    save(root, "form.rpy", script)
    page = open_tab(context, f"{server.url}/form")
    page.click("button")
    expect(page.locator("h1")).to_have_text("thanks 1")
    wait_until_following(page)
    save(root, "form.rpy", script.replace("thanks", "many thanks").replace("sent {", "so far {"))
    expect(page.get_by_role("status")).to_contain_text(
        "This page answered a form, and may have changed since."
    )
    picture(page, "offer")
    expect(page.locator("h1")).to_have_text("thanks 1")
    page.get_by_role("status").get_by_text("Reload").click()
    expect(page.locator("p")).to_have_text("so far 1")
    expect(page.get_by_role("status")).to_have_count(0)


def test_all_tabs_of_all_browsers_follow(root: Path, server: Server, browser: Browser) -> None:
    save(root, "page.rpy", page_of("<p>first"))
    contexts = [browser.new_context(), browser.new_context()]
    pages = [open_tab(context, f"{server.url}/page") for context in contexts for _ in range(2)]
    save(root, "page.rpy", page_of("<p>second"))
    for page in pages:
        expect(page.locator("p")).to_have_text("second")
    for context in contexts:
        context.close()


@pytest.mark.not_in("firefox", "webkit", reason="their drivers do not tell what a console shows")
def test_pages_with_a_policy_are_left_alone(
    root: Path, server: Server, context: BrowserContext
) -> None:
    strict = (
        "from rpyserve import Response\ndef resource(request):\n    return "
        "Response('<p>strict', 200, "
    )
    save(
        root,
        "strict.rpy",
        strict
        + "{'Content-Type': 'text/html', 'Content-Security-Policy': \"default-src 'none'\"})",
    )
    page = context.new_page()
    told = []
    page.on("console", lambda message: told.append(message.text))
    page.goto(f"{server.url}/strict")
    assert page.locator("script").count() == 0
    assert told == []
    server.wait_for("/strict.*Content-Security-Policy|Content-Security-Policy.*/strict")


@pytest.mark.parametrize(
    "more", ["", "; require-trusted-types-for 'script'"], ids=["plain", "trusted types"]
)
def test_pages_follow_as_far_as_their_policy_lets_them(
    more: str, root: Path, server: Server, context: BrowserContext
) -> None:
    script = (
        "from rpyserve import Response\n"
        "def resource(request):\n"
        "    policy = \"script-src 'self'; connect-src 'self'; style-src 'none'; object-src "
        "'none'%s\"\n"
        "    fields = {'Content-Type': 'text/html', 'Content-Security-Policy': policy}\n"
        "    return Response('<p>first</p>', 200, fields)\n"
    )
    save(root, "page.rpy", script % more)
    page = new_tab(context)
    page.goto(f"{server.url}/page")
    wait_until_following(page)
    save(root, "page.rpy", (script % more).replace("first", "second"))
    expect(page.locator("p")).to_have_text("second")
    save(root, "page.rpy", (script % "").replace("first", "third").replace("style-src 'none'", ""))
    expect(page.locator("p")).to_have_text("third")  # loaded again, with the new policy


def test_a_script_that_writes_a_file_for_each_request_does_not_loop(
    root: Path, server: Server, context: BrowserContext
) -> None:
    writes = """\
import pathlib, time
def resource(request):
    pathlib.Path("visits.txt").write_text(str(time.time_ns()))
    return "<p>first</p>%s"
"""
    save(root, "plain.rpy", writes % "")
    save(root, "programmed.rpy", writes % "<script></script>")
    for name in ("plain", "programmed"):
        page = open_tab(context, f"{server.url}/{name}")
        page.wait_for_timeout(1500)  # a loop would go round dozens of times
        assert asked(server, f"GET /{name} ") <= 5
        path = root / f"{name}.rpy"
        path.write_text(path.read_text().replace("first", "second"))
        expect(page.locator("p")).to_have_text("second")
        page.close()
    assert server.output().count("visits.txt changes whenever") <= 1


def test_a_script_that_writes_a_file_for_each_image_does_not_loop(
    root: Path, server: Server, context: BrowserContext
) -> None:
    picture = """\
import pathlib, time
from rpyserve import Response
def resource(request):
    if "svg" in request.args:
        pathlib.Path("visits.txt").write_text(str(time.time_ns()))
        svg = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
        return Response(svg, 200, {"Content-Type": "image/svg+xml"})
    return "<p>first</p><img src='picture?svg=1'>"
"""
    save(root, "picture.rpy", picture)
    page = open_tab(context, f"{server.url}/picture")
    page.wait_for_timeout(2500)  # a loop would go round dozens of times
    assert 1 <= asked(server, "GET /picture?svg=1") <= 6
    save(root, "picture.rpy", picture.replace("first", "second"))
    expect(page.locator("p")).to_have_text("second")


def test_an_error_and_its_mend_lose_nothing(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "a.css", ".box { height: 40px; overflow: auto; color: rgb(0, 0, 255) }")
    good = page_of(
        '<!DOCTYPE html><link rel="stylesheet" href="a.css"><h1>good</h1><input name="a">'
        '<div class="box"><p style="height: 900px">tall</p></div><p style="height: 2000px">tall</p>'
    )
    save(root, "page.rpy", good)
    page = open_tab(context, f"{server.url}/page")
    page.fill("input", "typed")
    page.evaluate("scrollTo(0, 150); document.querySelector('.box').scrollTop = 30")
    scrolled = page.evaluate("scrollY")
    for broken in (
        "def resource(request):\n    return (\n",
        "def resource(request):\n    return 1 / 0\n",
    ):
        save(root, "page.rpy", broken)
        expect(page.locator("body")).to_contain_text(
            "ZeroDivisionError" if "0" in broken else "SyntaxError"
        )
    picture(page, "error")
    save(root, "page.rpy", good.replace("good", "better"))
    expect(page.locator("h1")).to_have_text("better")
    assert not was_loaded_again(page)
    assert page.input_value("input") == "typed"
    page.wait_for_function(
        "getComputedStyle(document.querySelector('.box')).color === 'rgb(0, 0, 255)'"
    )
    page.wait_for_function("getComputedStyle(document.documentElement).opacity === '1'")
    assert page.evaluate("[scrollY, document.querySelector('.box').scrollTop]") == [scrolled, 30]
    assert page.evaluate("document.activeElement.name") == "a"


def test_a_page_that_began_with_an_error_becomes_the_page(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "page.rpy", "def resource(request)\n")
    page = open_tab(context, f"{server.url}/page")
    expect(page.locator("body")).to_contain_text("SyntaxError")
    save(root, "page.rpy", "def resource(request):\n    return 1 / 0\n")
    expect(page.locator("body")).to_contain_text("ZeroDivisionError")
    save(root, "page.rpy", page_of("<style>p { color: rgb(0, 0, 255) }</style><p>mended"))
    expect(page.locator("p")).to_have_text("mended")
    assert page.evaluate("getComputedStyle(document.querySelector('p')).color") == "rgb(0, 0, 255)"


def test_an_empty_site_a_listing_and_a_missing_page_follow(
    root: Path, server: Server, context: BrowserContext
) -> None:
    page = open_tab(context, server.url)
    missing = open_tab(context, f"{server.url}/missing")
    expect(page.locator("body")).to_contain_text("first page")
    save(root, "notes.txt", "notes")
    expect(page.locator("body")).to_contain_text("notes.txt")
    save(root, "index.rpy", page_of("<h1>index</h1>"))
    expect(page.locator("h1")).to_have_text("index")
    save(root, "missing.rpy", page_of("<h1>found</h1>"))
    expect(missing.locator("h1")).to_have_text("found")


def test_the_first_page_of_an_empty_site_appears_by_itself_and_is_one_visit(
    root: Path, server: Server, context: BrowserContext
) -> None:
    page = open_tab(context, server.url)
    expect(page.locator("p")).to_contain_text("it appears here by itself")
    save(root, "index.rpy", page.locator("pre").inner_text())
    expect(page.locator("p")).to_have_text("Visit 1.")


def test_the_server_goes_and_comes_back(
    root: Path, tmp_path: Path, context: BrowserContext
) -> None:
    save(root, "page.rpy", page_of("<p>first</p><input>"))
    with serving(root, tmp_path) as server:
        port = str(server.port)
        page = open_tab(context, f"{server.url}/page")
        page.fill("input", "typed")
    status = page.get_by_role("status")
    expect(status).to_contain_text("Connection lost, reconnecting…")
    picture(page, "away")
    save(root, "page.rpy", page_of("<p>second</p><input>"))
    with serving(root, tmp_path, "--port", port):
        expect(page.locator("p")).to_have_text("second")
        expect(status).to_have_count(0)
        assert page.input_value("input") == "typed"
    expect(status).to_contain_text("Connection lost, reconnecting…")
    status.get_by_role("button", name="Close").click()
    with serving(root, tmp_path, "--port", port, "--no-reload", "-v") as server:
        server.wait_for(r"GET /-/events\S* 404")
        page.wait_for_timeout(1000)  # it would have said so again by now
        expect(status).to_have_count(0)
        assert not was_loaded_again(page)


def test_going_back_shows_the_page_as_it_is_now(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "page.rpy", page_of("<p>first</p><input>"))
    save(root, "other.rpy", page_of("<p>other</p>"))
    page = open_tab(context, f"{server.url}/page")
    page.fill("input", "typed")
    page.goto(f"{server.url}/other")
    save(root, "page.rpy", page_of("<p>second</p><input>"))
    page.evaluate("history.back()")
    expect(page.locator("p")).to_have_text("second")
    # Firefox keeps no page with an open connection, only what was typed.
    assert was_loaded_again(page) == (engine_of(page) == "firefox")
    assert page.input_value("input") == "typed"


def test_hidden_tabs_make_room_and_catch_up(root: Path, server: Server, browser: Browser) -> None:
    """A browser has six connections to a server, and each tab needs one."""
    context = browser.new_context()
    turning = (
        "Object.defineProperty(Document.prototype, 'hidden', { get: () => window.away === true });"
        "window.turn = (away) => { window.away = away; document.dispatchEvent(new "
        "Event('visibilitychange')) };"
    )
    save(root, "page.rpy", page_of("<p>first</p>"))
    pages = []
    for _ in range(9):
        for page in pages:
            page.evaluate("turn(true)")
        pages.append(open_tab(context, f"{server.url}/page"))
        pages[-1].evaluate(turning)
    save(root, "page.rpy", page_of("<p>second</p>"))
    expect(pages[-1].locator("p")).to_have_text("second")
    for page in pages:
        page.evaluate("turn(false)")
        expect(page.locator("p")).to_have_text("second")
        page.evaluate("turn(true)")
    context.close()


@pytest.mark.parametrize(
    "text",
    [
        "no markup: first",
        "<title>no head</title><p>first",
        "<head><title>a</title></head><head><title>b</title></head><body><p>first</body><body "
        "id=b>",
        '<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "x">'
        "<html><body><p/>first</body></html>",
        "<table><p>first</table><b><i>crossed</b></i></p></div>",
        "<form id=a><input name=id><input name=attributes><button "
        "name=remove>x</button>first</form><p>first",
        "<!DOCTYPE html><base href='/elsewhere/'><p>first",
        "<!DOCTYPE html><noscript><p>none</noscript><svg><title>t</title></svg>"
        "<script type='application/ld+json'>{}</script>first",
        "<!DOCTYPE html><div><template shadowrootmode=open>x</template></div>first",
    ],
)
def test_odd_pages_follow_too(
    text: str, root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "page.rpy", page_of(text))
    page = open_tab(context, f"{server.url}/page")
    mode = page.evaluate("document.compatMode")
    save(root, "page.rpy", page_of(text.replace("first", "second")))
    page.wait_for_function(
        """(mode) => {
            const shown = document.documentElement.outerHTML;
            const ours = Object.keys(window).filter((name) => /rpy|morph|mirror|stream/i.test(name));
            return shown.includes("second") && !shown.includes("first")
                && document.compatMode === mode && ours.length === 0;
        }""",
        arg=mode,
    )
    assert page.errors == []


def test_a_tab_left_open_through_a_day_of_work(
    root: Path, tmp_path: Path, context: BrowserContext
) -> None:
    page_text = (
        "import helper\ndef resource(request):\n"
        "    return f'<!DOCTYPE html><link rel=stylesheet href=a.css><h1>Morning</h1>'"
        "        f'<p>{helper.greeting()}</p><input>'\n"
    )
    save(root, "helper.py", "def greeting():\n    return 'Hello'\n")
    save(root, "a.css", "h1 { color: rgb(0, 0, 255) }")
    save(root, "page.rpy", page_text)
    heading, paragraph = "h1", "p"
    with serving(root, tmp_path) as server:
        port = str(server.port)
        page = open_tab(context, f"{server.url}/page")
        page.fill("input", "typed")
        expect(page.locator(heading)).to_have_text("Morning")
        picture(page, "day-1-opened")
        page_text = page_text.replace("Morning", "Noon")
        save(root, "page.rpy", page_text)
        expect(page.locator(heading)).to_have_text("Noon")
        picture(page, "day-2-edited")
        save(root, "page.rpy", page_text.replace("return f", "return f("))
        expect(page.locator("body")).to_contain_text("SyntaxError")
        picture(page, "day-3-syntax-error")
        page_text = page_text.replace("Noon", "Afternoon")
        save(root, "page.rpy", page_text)
        expect(page.locator(heading)).to_have_text("Afternoon")
        expect(page.locator(paragraph)).to_have_text("Hello")
        picture(page, "day-4-mended")
    expect(page.get_by_role("status")).to_contain_text("Connection lost, reconnecting…")
    expect(page.locator(heading)).to_have_text("Afternoon")
    picture(page, "day-5-server-away")
    with serving(root, tmp_path, "--port", port):
        expect(page.get_by_role("status")).to_have_count(0)
        expect(page.locator(heading)).to_have_text("Afternoon")
        picture(page, "day-6-server-back")
        save(root, "helper.py", "def greeting():\n    return 'Good evening'\n")
        expect(page.locator(paragraph)).to_have_text("Good evening")
        picture(page, "day-7-helper-edited")
        save(root, "a.css", "h1 { color: rgb(255, 0, 0) }")
        page.wait_for_function(
            "getComputedStyle(document.querySelector('h1')).color === 'rgb(255, 0, 0)'"
        )
        picture(page, "day-8-stylesheet-edited")
        assert page.input_value("input") == "typed"
        assert not was_loaded_again(page)
        assert page.errors == []


def test_the_benchmark_runs(browser: Browser, request: pytest.FixtureRequest) -> None:
    engine = request.node.callspec.params["browser"]
    command = [sys.executable, "-m", "benchmarks.livereload.edit_to_repaint"]
    command += ["--edits", "2", "--no-vite", "--engines", engine]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=120, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^rpyserve, stylesheet +\d+\.\d +\d+\.\d$", done.stdout, re.MULTILINE)


def test_a_page_below_a_root_path_follows(
    root: Path, tmp_path: Path, context: BrowserContext
) -> None:
    (root / "a").mkdir()
    save(root, "a/page.rpy", page_of("first"))
    with serving(root, tmp_path, "--root-path", "/app") as server:
        page = open_tab(context, f"{server.url}/app/a/page")
        save(root, "a/page.rpy", page_of("second"))
        expect(page.locator("body")).to_contain_text("second")
