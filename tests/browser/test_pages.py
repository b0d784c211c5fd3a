"""Which pages follow, in a real Chromium: half-written ones, pages in frames, under a service
worker, in other encodings, with a base of their own, streamed, and with scripts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from rpyserve.livereload.script_tag import opening
from tests.support.chromium import open_tab, wait_for_quiet, was_loaded_again
from tests.support.real_process import Server, serving

pytestmark = [pytest.mark.browser, pytest.mark.process]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    return root


@pytest.fixture
def server(root: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(root, tmp_path) as server:
        yield server


def save(root: Path, name: str, text: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def page_of(text: str) -> str:
    """A script that shows *text*."""
    return f"def resource(request):\n    return {text!r}\n"


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
    page = context.new_page()
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


def test_the_tag_changes_nothing_else(blank: Page) -> None:
    pairs = [(text, with_tag(text)) for text in WHOLE_PAGES]
    for (text, _), answer in zip(pairs, blank.evaluate(PARSE, pairs), strict=True):
        assert answer == [True, True, True], text


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


@pytest.mark.parametrize(
    "unfinished",
    [
        "<!-- ",
        "<textarea>",
        "<style>",
        "<title>",
        "<script>",
        "<template>",
        '<p title="',
        "<select>",
    ],
)
def test_a_page_that_is_opened_half_written_follows(
    unfinished: str, root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "a.rpy", page_of(f"<!DOCTYPE html><html lang=en>{unfinished}<h1>half</h1>"))
    page = open_tab(context, f"{server.url}/a")
    save(root, "a.rpy", page_of("<!DOCTYPE html><html lang=en><h1>whole</h1>"))
    expect(page.locator("h1")).to_have_text("whole")
    assert page.errors == []


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
    with page.expect_response(lambda response: "/-/events" in response.url):
        page.reload()
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
