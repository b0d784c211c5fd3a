"""Which pages follow, in real browsers: half-written ones, pages in frames, under a service
worker, in other encodings, with a base of their own, streamed, and with scripts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page

from rpyserve.livereload.script_tag import opening
from tests.support.browsers import (
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
from tests.support.real_process import Server

pytestmark = [pytest.mark.browser, pytest.mark.process]


# The place of the tag

WHOLE_PAGES = [
    "<p>fragment</p>",
    "\n\n <p>fragment</p>\n",
    "text only",
    "",
    "\ufeff<!DOCTYPE html><title>marked</title>",
    "<!DOCTYPE html><html lang=en class='a>b'><head prefix=og><meta charset=utf-8><title>t</title>"
    "<base href='/x/'></head>\n<body class=x>\n<p>y</p></body>\n</html>\n",
    "<!-- licence --><!DOCTYPE html>\n<!-- more -->\n<html>\n <head>\n  <link rel=icon href=x>"
    "\n </head>\n <body id=b>x</body></html>",
    "<?xml version='1.0' encoding='utf-8'?>\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0 Strict"
    "//EN' 'http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd'>\n<html xmlns='http://www.w3.org/19"
    "99/xhtml' xml:lang='en'><head><title>x</title></head><body><br/></body></html>",
    "<!DOCTYPE HTML PUBLIC '-//W3C//DTD HTML 4.01 Transitional//EN'><html><body bgcolor=red>x",
    "<!--[if lt IE 7]><html class=ie6><![endif]--><!--[if gt IE 8]><!--><html class=no-js>"
    "<!--<![endif]--><head></head><body class=y>x",
    "<frameset cols='1,2'><frame src='about:blank'><noframes>x</noframes></frameset>",
    "<!DOCTYPE html><frameset rows='*'><frame></frameset>",
    "<body class=x><p>no head",
    "<head><noscript><link rel=stylesheet href=x></noscript></head>x",
    "<meta name=viewport content='width=1'><p>x",
    "<title>&lt;html></title><table><tr><td>x",
]


@pytest.fixture
def blank(context: BrowserContext) -> Page:
    page = new_tab(context)
    page.goto("about:blank")
    return page


PARSE = """(pairs) => pairs.map(([plain, tagged]) => {
  const [one, two] = [plain, tagged].map((text) =>
    new DOMParser().parseFromString(text, "text/html"));
  const tag = two.querySelector("script#tag");
  const isLive = tag?.getRootNode() === two && !tag.closest("svg, math, template, select");
  tag?.remove();
  const same = one.documentElement.isEqualNode(two.documentElement);
  return [isLive, one.compatMode === two.compatMode, same];
})"""


def with_tag(text: str) -> str:
    data = text.encode()
    place = opening(data)
    return (data[:place] + b"<script id=tag></script>" + data[place:]).decode()


@pytest.mark.not_in("webkit", reason="its DOMParser knows no quirks mode of a page without a tag")
def test_the_tag_changes_nothing_else(blank: Page) -> None:
    pairs = [(text, with_tag(text)) for text in WHOLE_PAGES]
    for (text, _), answer in zip(pairs, blank.evaluate(PARSE, pairs), strict=True):
        assert answer == [True, True, True], text


@pytest.mark.not_in("webkit", reason="its DOMParser knows no quirks mode of a page without a tag")
def test_the_tag_is_in_every_page_cut_off_anywhere(blank: Page) -> None:
    """What somebody has typed so far, at each moment."""
    more = "<!-- c --><p title=\"a\" id='b'><textarea>t</textarea><select><option>o</select><svg>"
    more += "<title>s</title></svg><template><i></template><style>p{}</style><script>1</script>"
    texts = [page + more for page in WHOLE_PAGES]
    cuts = [text[:length] for text in texts for length in range(len(text) + 1)]
    pairs = [(cut, with_tag(cut)) for cut in cuts]
    for cut, answer in zip(cuts, blank.evaluate(PARSE, pairs), strict=True):
        assert answer[:2] == [True, True], cut


# Which pages follow


def test_a_page_that_is_opened_half_written_follows(
    root: Path, server: Server, context: BrowserContext
) -> None:
    page = new_tab(context)
    for unfinished in (
        "<!-- ", "<textarea>", "<style>", "<title>", "<script>", "<template>", "<select>",
        '<p title="',
    ):  # fmt: skip
        save(root, "a.rpy", page_of(f"<!DOCTYPE html><html lang=en>{unfinished}<h1>half</h1>"))
        wait_for_quiet(f"{server.url}/a")
        page.goto(f"{server.url}/a")
        wait_until_following(page)
        save(root, "a.rpy", page_of("<!DOCTYPE html><html lang=en><h1>whole</h1>"))
        expect(page.locator("h1")).to_have_text("whole")


def test_frames_follow_by_themselves(root: Path, server: Server, context: BrowserContext) -> None:
    save(root, "words.py", "word = 'first'")
    shows_word = (
        "import words\ndef resource(request):\n    return f'<p>{words.word}</p>%s<input>'\n"
    )
    save(root, "innermost.rpy", shows_word % "")
    save(root, "inner.rpy", shows_word % "<iframe src=innermost></iframe>")
    save(root, "outer.html", "<h1>outer</h1><iframe src=inner></iframe>")
    page = open_tab(context, f"{server.url}/outer.html")
    inner = page.frame_locator("iframe")
    innermost = inner.frame_locator("iframe")
    for frame in (inner, innermost):
        expect(frame.locator("p")).to_have_text("first")
        frame.locator("input").fill("typed")
    page.wait_for_function("frames[0].frames[0].document.scripts.length === 0")
    save(root, "words.py", "word = 'second'")
    for frame in (inner, innermost):
        expect(frame.locator("p")).to_have_text("second")
        assert frame.locator("input").input_value() == "typed"
    save(root, "outer.html", "<h1>changed</h1><iframe src=inner></iframe>")
    expect(page.locator("h1")).to_have_text("changed")
    assert innermost.locator("input").input_value() == "typed"
    assert not was_loaded_again(page)
    assert page.errors == []


def test_a_page_under_a_service_worker_follows(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(
        root,
        "worker.js",
        "addEventListener('install', () => skipWaiting());"
        "addEventListener('activate', (event) => event.waitUntil(clients.claim()));"
        "addEventListener('fetch', (event) => event.respondWith(fetch(event.request)))",
    )
    save(root, "a.rpy", page_of("<p>first</p>"))
    page = open_tab(context, f"{server.url}/a")
    page.evaluate("navigator.serviceWorker.register('/worker.js')")
    page.wait_for_function("navigator.serviceWorker.controller !== null")
    wait_for_quiet(f"{server.url}/a")
    page.reload()
    wait_until_following(page)
    assert page.evaluate("navigator.serviceWorker.controller !== null")
    api = "fetch('/a', {headers: {Accept: 'text/html'}}).then((answer) => answer.text())"
    assert page.evaluate(api) == "<p>first</p>"
    save(root, "a.rpy", page_of("<p>second</p>"))
    expect(page.locator("p")).to_have_text("second")


def test_a_page_with_a_base_follows(root: Path, server: Server, context: BrowserContext) -> None:
    text = "<head><base href='https://elsewhere.invalid/deep/er/'></head><p>%s</p>"
    save(root, "sub/a.rpy", page_of(text % "first"))
    page = open_tab(context, f"{server.url}/sub/a")
    save(root, "sub/a.rpy", page_of(text % "second"))
    expect(page.locator("p")).to_have_text("second")
    assert not was_loaded_again(page)


def test_a_stream_that_writes_markup_in_a_script_follows(
    root: Path, server: Server, context: BrowserContext
) -> None:
    text = (
        "def resource(request):\n"
        "    yield '<!DOCTYPE html><head><script>window.text = \"<html><body class=x>\"</script>'\n"
        "    yield '</head><p>first</p>'\n"
    )
    save(root, "a.rpy", text)
    page = open_tab(context, f"{server.url}/a")
    assert page.evaluate("window.text") == "<html><body class=x>"
    save(root, "a.rpy", text.replace("first", "second"))
    expect(page.locator("p")).to_have_text("second")
    assert page.errors == []


@pytest.mark.parametrize("place", ["header", "meta", "late meta"])
def test_a_page_in_another_encoding_follows(
    place: str, root: Path, server: Server, context: BrowserContext
) -> None:
    charset = "; charset=koi8-r" if place == "header" else ""
    meta = "" if place == "header" else "<meta charset=koi8-r>"
    filling = "<title>" + "x" * 850 + "</title>" if place == "late meta" else ""
    text = (
        "from rpyserve import Response\n"
        "def resource(request):\n"
        f"    page = '<!DOCTYPE html><head>{filling}{meta}</head><p>\u043a\u043e\u0444\u0435 first</p>'\n"
        f"    return Response(page.encode('koi8-r'), 200, {{'Content-Type': 'text/html{charset}'}})\n"
    )
    save(root, "a.rpy", text)
    page = open_tab(context, f"{server.url}/a")
    expect(page.locator("p")).to_have_text("\u043a\u043e\u0444\u0435 first")
    save(root, "a.rpy", text.replace("first", "second"))
    expect(page.locator("p")).to_have_text("\u043a\u043e\u0444\u0435 second")
    assert not was_loaded_again(page)


@pytest.mark.not_in("webkit", reason="its driver waits for the end of a page")
def test_a_stream_without_an_end_is_loaded_again(
    root: Path, server: Server, context: BrowserContext
) -> None:
    text = (
        "import trio\n"
        "async def resource(request):\n"
        "    yield '<p>first</p><input name=a>'\n"
        "    await trio.sleep_forever()\n"
    )
    save(root, "a.rpy", text)
    wait_for_quiet(f"{server.url}/a")
    page = new_tab(context)
    page.goto(f"{server.url}/a", wait_until="commit")
    wait_until_following(page)
    page.locator("input").fill("typed")
    save(root, "a.rpy", text.replace("first", "second"))
    expect(page.locator("p")).to_have_text("second")
    expect(page.locator("input")).to_have_value("typed")


def test_a_page_that_becomes_a_redirect_is_left(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "other.rpy", page_of("<p>other</p>"))
    save(root, "a.rpy", page_of("<p>first</p>"))
    page = open_tab(context, f"{server.url}/a")
    save(
        root,
        "a.rpy",
        "from rpyserve import Redirect\ndef resource(request):\n    return Redirect('/other')\n",
    )
    expect(page.locator("p")).to_have_text("other")
    assert page.url == f"{server.url}/other"


# Pages that do not take the place of one that follows


UNFINISHED = [
    ("<!-- ", "comment"),
    ("<textarea>", "<textarea>"),
    ("<style>", "<style>"),
    ("<title>", "<title>"),
    ("<script>", "<script>"),
    ("<template>", "<template>"),
    ("<select>", "<select>"),
    ("<svg><title>", "<svg>"),
    ("<noscript>", "<noscript>"),
    ('<p class="', "tag"),
    ("<p>x</p><b", "tag"),
]


@pytest.mark.parametrize("more", ["", "<script>window.started = true</script>"])
def test_an_open_page_waits_until_a_half_written_one_is_finished(
    more: str, root: Path, server: Server, context: BrowserContext
) -> None:
    text = f"<!DOCTYPE html>{more}<h1>%s</h1><input name=a>%s"
    save(root, "a.rpy", page_of(text % ("whole", "")))
    page = open_tab(context, f"{server.url}/a")
    page.fill("input", "typed")
    status = page.get_by_role("status")
    for number, (unfinished, name) in enumerate(UNFINISHED):
        shown = page.locator("h1").text_content()
        save(root, "a.rpy", page_of(text % (f"half {number}", unfinished)))
        if engine_of(page) == "webkit" and name == "<select>":
            name = "tag"  # its parser leaves no other trace of a select that is open
        expect(status).to_contain_text(f"ends inside an unfinished {name}.")
        assert page.locator("h1").text_content() == shown
        assert page.input_value("input") == "typed"
        save(root, "a.rpy", page_of(text % (f"whole {number}", "<p>x</p>" * (number % 2))))
        expect(page.locator("h1")).to_have_text(f"whole {number}")
        expect(status).to_have_count(0)
        expect(page.locator("input")).to_have_value("typed")
    assert page.errors == []


def test_a_page_that_would_not_follow_is_offered(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "a.rpy", page_of("<p>first</p><input name=a>"))
    page = open_tab(context, f"{server.url}/a")
    page.fill("input", "typed")
    status = page.get_by_role("status")
    save(root, "a.rpy", "def resource(request):\n    return {'a': 1}\n")
    expect(status).to_contain_text("What is saved now is not an HTML page.")
    strict = (
        "from rpyserve import Response\n"
        "def resource(request):\n"
        "    fields = {'Content-Type': 'text/html', 'Content-Security-Policy': \"script-src 'none'\"}\n"
        "    return Response('<p>strict</p>', 200, fields)\n"
    )
    save(root, "a.rpy", strict)
    expect(status).to_contain_text("does not allow live reload")
    save(root, "a.rpy", page_of("<p>second</p><input name=a>"))
    expect(page.locator("p")).to_have_text("second")
    expect(status).to_have_count(0)
    assert page.input_value("input") == "typed"
    save(root, "a.rpy", strict)
    status.get_by_role("button", name="Load it").click()
    expect(page.locator("p")).to_have_text("strict")


def test_a_field_that_is_cut_and_pasted_keeps_its_text(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "a.rpy", page_of("<p>first</p><input name=a><textarea id=b></textarea>"))
    page = open_tab(context, f"{server.url}/a")
    page.fill("input", "typed")
    page.fill("textarea", "more")
    save(root, "a.rpy", page_of("<p>second</p>"))
    expect(page.locator("p")).to_have_text("second")
    save(root, "a.rpy", page_of("<p>third</p>"))
    expect(page.locator("p")).to_have_text("third")
    save(root, "a.rpy", page_of("<p>fourth</p><div><textarea id=b></textarea><input name=a></div>"))
    expect(page.locator("p")).to_have_text("fourth")
    assert page.input_value("input") == "typed"
    assert page.input_value("textarea") == "more"


# Pages with scripts of their own

COUNTER = """<!DOCTYPE html><title>first</title><style>h1 { color: red }</style>
<h1 style="margin: 0">first</h1><button>Add one</button> <b id=shown>0</b> <i>clock</i>
<ul><li>one</li><li>two</li></ul><input name=a placeholder=first>
<script src="a.js"></script>
<script>
  let count = 0;
  document.querySelector("button").onclick = () => (document.querySelector("b").textContent = ++count);
  document.querySelector("i").textContent = "12:00";
  document.body.append(document.createElement("aside"));
</script>
"""


# All that the server sends is there, but for what scripts have made of it.
SHOWS = """(text) => {
  const root = document.documentElement.cloneNode(true);
  root.querySelector("aside").remove();
  root.querySelector("b").textContent = "0";
  root.querySelector("i").textContent = "clock";
  return root.isEqualNode(new DOMParser().parseFromString(text, "text/html").documentElement);
}"""


@pytest.fixture
def counter(root: Path, server: Server, context: BrowserContext) -> Page:
    save(root, "a.js", "")
    save(root, "a.rpy", page_of(COUNTER))
    page = open_tab(context, f"{server.url}/a")
    page.fill("input", "typed")
    return page


def test_texts_change_while_scripts_go_on(root: Path, counter: Page) -> None:
    changes = [
        ('<h1 style="margin: 0">first', '<h1 style="margin: 1px">second'),
        ('<h1 style="margin: 0">', "<h1>"),
        ("<h1 style", "<h1 title=more style"),
        ("<title>first", "<title>second"),
        ("Add one", "Add another"),
        ("<li>two", "<li>three"),
        ("h1 { color: red }", "h1 { color: blue }"),
        ("placeholder=first", "placeholder=second"),
    ]
    for count, (old, new) in enumerate(changes):
        text = COUNTER.replace(old, new)
        for shown in (text, COUNTER):
            save(root, "a.rpy", page_of(shown))
            counter.wait_for_function(SHOWS, arg=shown)
        counter.click("button")
        expect(counter.locator("b")).to_have_text(str(count + 1))
    expect(counter.locator("i")).to_have_text("12:00")
    assert counter.input_value("input") == "typed"
    assert not was_loaded_again(counter)


def test_what_scripts_may_depend_on_is_loaded_again(root: Path, counter: Page) -> None:
    changes = [
        ("<b id=shown>0", "<b id=shown>100"),
        ("clock", "time"),
        ("<li>two</li>", "<li>two</li><li>three</li>"),
        ("<li>one</li>", ""),
        ("<h1", "<h2"),
        ("<h1", "<h1 id=new"),
        ("<ul>", "<ul class=tabs>"),
        ("let count = 0", "let count = 10"),
        ("<!DOCTYPE html>", ""),
        ("<ul>", "<ul hidden>"),
    ]
    for old, new in changes:
        for text in (COUNTER.replace(old, new), COUNTER):
            counter.evaluate("document.loadedOnce = true")
            counter.click("button")
            save(root, "a.rpy", page_of(text))
            counter.wait_for_function("document.loadedOnce !== true")
            expect(counter.locator("i")).to_have_text("12:00")
            expect(counter.locator("input")).to_have_value("typed")


@pytest.mark.parametrize(
    "script",
    [
        "document.querySelector('p').remove()",
        "document.querySelector('p').replaceWith(document.createElement('p'))",
        "document.querySelector('p').before(document.querySelector('p').cloneNode(true))",
        "document.querySelector('p').textContent += '!'",
        "document.querySelector('p').innerHTML = '<b>one</b>'",
    ],
)
def test_what_scripts_have_changed_is_loaded_again(
    script: str, root: Path, server: Server, context: BrowserContext
) -> None:
    text = f"<div><p>one</p><p>two</p></div><script>{script}</script>"
    save(root, "a.html", text)
    page = open_tab(context, f"{server.url}/a.html")
    page.wait_for_function("performance.getEntriesByType('resource').some(({ name, responseEnd }) =>"
                           " responseEnd && name.includes('/-/sent'))")  # fmt: skip
    save(root, "a.html", text.replace("one</p>", "three</p>"))
    page.wait_for_function("document.loadedOnce !== true && document.readyState === 'complete'")
    shown = page.evaluate("document.querySelector('div').innerHTML")
    fresh = open_tab(context, f"{server.url}/a.html")
    assert shown == fresh.evaluate("document.querySelector('div').innerHTML")


# Pages that are loaded again

FORM = """<!DOCTYPE html><h1>first</h1>
<input name=name value=nobody><input id=secret type=password><textarea></textarea>
<input type=checkbox name=yes><input type=radio name=r value=1><input type=radio name=r value=2>
<select name=size><option>small<option>large</select>
<details><summary>more</summary>x</details><details open><summary>less</summary>x</details>
<div id=made></div><h6 contenteditable>edit me</h6><div class=box style="height: 40px; overflow: auto"><p style="height: 900px"></div>
<p style="height: 3000px"></p>
<script>
  window.count = 0;
  addEventListener("load", () => setTimeout(() =>
    (document.querySelector("#made").innerHTML = "<input name=late>"), 50));
</script>
"""


def fill_in(page: Page) -> None:
    page.fill("[name=late]", "typed late")
    page.fill("#secret", "password")
    page.fill("h6", "edited")
    page.check("[name=yes]")
    page.check("[value='2']")
    page.select_option("select", "large")
    page.click("summary >> nth=0")
    page.click("summary >> nth=1")
    page.fill("[name=name]", "Ada")
    page.fill("textarea", "some text")
    page.evaluate("document.querySelector('textarea').setSelectionRange(2, 5)")
    page.evaluate("document.querySelector('.box').scrollTop = 30; scrollTo(0, 100)")


def expect_filled_in(page: Page) -> None:
    expect(page.locator("[name=late]")).to_have_value("typed late")
    expect(page.locator("textarea")).to_have_value("some text")
    expect(page.locator("textarea")).to_be_focused()
    assert page.input_value("[name=name]") == "Ada"
    assert page.text_content("h6") == "edited"
    assert page.input_value("#secret") == ""
    assert page.is_checked("[name=yes]")
    assert page.is_checked("[value='2']")
    assert page.input_value("select") == "large"
    opened = "[...document.querySelectorAll('details')].map((details) => details.open)"
    assert page.evaluate(opened) == [True, False]
    assert page.evaluate("document.activeElement.selectionEnd") == 5
    # Not exactly: a browser corrects it where a script adds something above.
    page.wait_for_function("document.querySelector('.box').scrollTop === 30 && scrollY > 90")
    assert page.evaluate("sessionStorage.length") == 0


def test_what_the_visitor_did_is_kept_over_a_reload(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "a.rpy", page_of(FORM))
    page = open_tab(context, f"{server.url}/a")
    fill_in(page)
    save(root, "a.rpy", page_of(FORM.replace("count = 0", "count = 1").replace("first", "second")))
    expect(page.locator("h1")).to_have_text("second")
    expect_filled_in(page)
    save(root, "a.rpy", "def resource(request):\n    return 1 / 0\n")
    expect(page.locator("body")).to_contain_text("ZeroDivisionError")
    save(root, "a.rpy", page_of(FORM.replace("count = 0", "count = 2").replace("first", "third")))
    expect(page.locator("h1")).to_have_text("third")
    expect_filled_in(page)
    assert page.evaluate("window.count") == 2
    assert page.errors == []


def test_scripts_learn_of_text_that_is_put_back(
    root: Path, server: Server, context: BrowserContext
) -> None:
    text = (
        "<input name=a><p></p><script>window.count = 0;"
        "document.querySelector('input').addEventListener('input', ({ target }) =>"
        " (document.querySelector('p').textContent = target.value))</script>"
    )
    save(root, "a.html", text)
    page = open_tab(context, f"{server.url}/a.html")
    page.fill("input", "typed")
    expect(page.locator("p")).to_have_text("typed")
    save(root, "a.html", text.replace("count = 0", "count = 1"))
    page.wait_for_function("window.count === 1")
    expect(page.locator("p")).to_have_text("typed")
