"""What a page has loaded follows the files, in real browsers: stylesheets and images, wherever the
page uses them. What cannot be swapped is loaded again with the page.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext

from tests.support.browsers import expect, open_tab, save, was_loaded_again
from tests.support.real_process import Server, serving

pytestmark = [pytest.mark.browser, pytest.mark.process]

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 128, 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests: each has a directory of its own."""
    directory = tmp_path_factory.mktemp("assets")
    (directory / "site").mkdir()
    with serving(directory / "site", directory) as server:
        yield server


@pytest.fixture
def root(server: Server) -> Path:
    """The directory, which is at its name in the site."""
    site = server.console.parent / "site"
    made = site / f"part{len(list(site.iterdir()))}"
    made.mkdir()
    return made


def png(colour: tuple[int, int, int], side: int = 40) -> bytes:
    """A square image. Each side must be another one, where a test measures it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    rows = (b"\0" + bytes(colour) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def colours_at(picture: bytes, places: list[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The colours of points of a PNG file as browsers make them: 8 bits, not interlaced.

    PNG specification, sections 4.1 (chunks) and 9 (filters).
    """
    width, depth, kind = *struct.unpack(">I", picture[16:20]), picture[24], picture[25]
    assert depth == 8 and kind in (2, 6), "RGB or RGBA"
    data, place = b"", 8
    while place < len(picture):
        length, name = struct.unpack(">I4s", picture[place : place + 8])
        data += picture[place + 8 : place + 8 + length] if name == b"IDAT" else b""
        place += length + 12
    size = 3 if kind == 2 else 4
    data, stride = zlib.decompress(data), width * size + 1
    rows = [bytearray(stride + size - 1)]
    for start in range(0, (max(y for _, y in places) + 1) * stride, stride):
        row = data[start + 1 : start + stride]
        rows.append(_unfiltered(data[start], row, rows[-1], size))
    return [tuple(rows[y + 1][(x + 1) * size : (x + 1) * size + 3]) for x, y in places]


def _unfiltered(kind: int, row: bytes, above: bytearray, size: int) -> bytearray:
    """A row of bytes, after an empty pixel."""
    done = bytearray(size)
    if kind in (0, 2):
        before = above[size:] if kind else bytes(len(row))
        return done + bytes((one + two) & 255 for one, two in zip(row, before, strict=True))
    for index, value in enumerate(row):
        a, b, c = done[index], above[index + size], above[index]
        nearest = min((a, b, c), key=lambda one: abs(a + b - c - one))
        done.append((value + (0, a, b, (a + b) // 2, nearest)[kind]) & 255)
    return done


MIDDLE = {"the middle": (20, 20)}


def expect_colours(page: Any, wanted: dict[str, tuple[int, int]], colour: Any) -> None:
    """Wait until each of the places *wanted* has the *colour*; they have names."""
    for _ in range(100):
        seen = colours_at(page.screenshot(), [*wanted.values()])
        wrong = [name for name, each in zip(wanted, seen, strict=True) if each != colour]
        if not wrong:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"not {colour}: {', '.join(wrong)}")


IMAGE_USES = {
    "img": '<img src="i.png">',
    "with a query": '<img src="i.png?width=3#top">',
    "srcset": '<img srcset="i.png 1x, i.png?large 9x">',
    "picture": '<picture><source srcset="i.png"><img src="other.png"></picture>',
    "button": '<input type="image" src="i.png">',
    "svg": '<svg width="40" height="40"><image href="i.png" width="40" height="40" /></svg>',
    "old svg": '<svg width="40" height="40"><image xlink:href="i.png" width="40" height="40" />',
    "video": '<video poster="i.png" width="40" height="40"></video>',
    "style": '<p style="background: url(i.png)"></p>',
    "important": "<style>#ME p { background: url(i.png) !important }</style><p></p>",
    "sheet": '<link rel="stylesheet" href="css/a.css"><p class="a"></p>',
    "imported": '<style>@import "css/c.css";</style><p class="b"></p>',
    "content": '<style>#ME p::before { content: url("i.png") }</style><p></p>',
    "nested": "<style>@media all { body { & #ME p { background: url('i.png') } } }</style><p></p>",
    "variable": "<style>#ME { --bg: url(i.png) } #ME p { background: var(--bg) }</style><p></p>",
    "shorthand": "<style>#ME p { --c: red; background: var(--c) url(i.png) }</style><p></p>",
    "own variable": "<p style='--bg: url(\"i.png\") 0 0; background: var(--bg)'></p>",
    "shadow root": "<script>shadow(ME, '<img src=i.png>')</script>",
    "style in a shadow root": "<script>shadow(ME, '<style>p { width: 40px; height: 40px;"
    " margin: 0; background: url(i.png) }</style><p>')</script>",
    "shadow root in one": "<script>shadow(shadow(ME, '<p style=margin:0></p>').firstChild,"
    " '<img src=i.png>')</script>",
    "constructed sheet": """<p></p><script>
        const sheet = new CSSStyleSheet();
        sheet.replaceSync("#ME p { background: url(" + new URL("i.png", location) + ") }");
        document.adoptedStyleSheets = [sheet];
    </script>""",
}
SIDE = 40


def image_page() -> tuple[str, dict[str, tuple[int, int]]]:
    """A page with all uses, and the middle of each."""
    boxes, places = [], {}
    for number, (name, use) in enumerate(IMAGE_USES.items()):
        left, top = 50 * (number % 8), 50 * (number // 8)
        places[name] = (left + SIDE // 2, top + SIDE // 2)
        text = use.replace("ME", f"use{number}")
        boxes.append(
            f'<div id="use{number}" style="position: absolute; left: {left}px; top: {top}px">{text}</div>'
        )
    head = (
        "<!DOCTYPE html><title>x</title>"
        f"<style>p {{ margin: 0; width: {SIDE}px; height: {SIDE}px }} * {{ line-height: 0 }}</style>"
        "<script>const shadow = (host, text) => {"
        "const root = host.attachShadow({ mode: 'open' }); root.innerHTML = text; return root; }"
        "</script>"
    )
    return head + "".join(boxes), places


def test_an_image_is_swapped_wherever_the_page_shows_it(
    root: Path, server: Server, context: BrowserContext
) -> None:
    text, places = image_page()
    save(root, "i.png", png(RED))
    save(root, "css/a.css", ".a { background: url(../i.png) }")
    save(root, "css/b.css", ".b { background: url(../i.png) }")
    save(root, "css/c.css", "@import 'b.css';")
    save(root, "index.html", text)
    page = open_tab(context, f"{server.url}/{root.name}/")
    expect_colours(page, places, RED)
    for colour in (BLUE, GREEN):
        save(root, "i.png", png(colour))
        expect_colours(page, places, colour)
    assert not was_loaded_again(page)
    assert page.errors == []


BODY = '<!DOCTYPE html><body style="margin: 0">'
DRAWN = """%s<canvas width="40" height="40"></canvas><script>
    const picture = new Image();
    picture.src = "i.png";
    picture.onload = () => document.querySelector("canvas").getContext("2d").drawImage(picture, 0, 0);
</script>"""
SHADOW = """<p></p><script>
    document.querySelector("p").attachShadow({ mode: "%s" }).innerHTML = `%s`;
</script>"""
LOADING = {
    "canvas": DRAWN % "",
    "canvas beside an image": DRAWN % '<img src="i.png" hidden>',
    "closed shadow root": "<style>p { margin: 0 }</style>" + SHADOW % ("closed", "<img src=i.png>"),
    "object": "<object data='i.png'></object>",
}


@pytest.mark.parametrize("use", LOADING)
def test_a_page_is_loaded_again_where_an_image_cannot_be_swapped(
    use: str, root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "i.png", png(RED))
    save(root, "index.html", BODY + LOADING[use])
    page = open_tab(context, f"{server.url}/{root.name}/")
    expect_colours(page, MIDDLE, RED)
    save(root, "i.png", png(BLUE))
    # No picture can be taken of a page on its way.
    page.wait_for_function("!document.loadedOnce && document.readyState === 'complete'")
    expect_colours(page, MIDDLE, BLUE)


def test_symbols_of_an_svg_file_follow(root: Path, server: Server, context: BrowserContext) -> None:
    sprite = (
        '<svg xmlns="http://www.w3.org/2000/svg"><symbol id="a">'
        '<rect width="40" height="40" fill="rgb%s"/></symbol></svg>'
    )
    save(root, "sprite.svg", sprite % (RED,))
    use = '<svg width="40" height="40"><use href="sprite.svg#a"/></svg>'
    save(root, "index.html", BODY + use)
    page = open_tab(context, f"{server.url}/{root.name}/")
    expect_colours(page, MIDDLE, RED)
    save(root, "sprite.svg", sprite % (BLUE,))
    expect_colours(page, MIDDLE, BLUE)


SHEETS = {
    "link": '<link rel="stylesheet" href="a.css?theme=dark" media="screen"><p></p>',
    "import in a style element": "<style>@import 'a.css';</style><p></p>",
    "import with conditions": "<style>@import url(deep/b.css) layer(base) screen;</style><p></p>",
    "import in a link": '<link rel="stylesheet" href="deep/c.css"><p></p>',
    "link in a shadow root": SHADOW % ("open", "<link rel=stylesheet href=a.css><p></p>"),
}


@pytest.mark.parametrize("use", SHEETS)
def test_a_stylesheet_is_swapped_wherever_the_page_uses_it(
    use: str, root: Path, server: Server, context: BrowserContext
) -> None:
    sheet = "p { width: 40px; height: 40px; margin: 0; background: rgb%s }"
    save(root, "a.css", sheet % (RED,))
    save(root, "deep/b.css", "@import '../a.css';")
    save(root, "deep/c.css", "@import 'b.css'; i { color: red }")
    save(root, "index.html", f"{BODY}<style>p {{ margin: 0 }}</style>{SHEETS[use]}")
    page = open_tab(context, f"{server.url}/{root.name}/")
    expect_colours(page, MIDDLE, RED)
    for colour in (BLUE, GREEN):
        save(root, "a.css", sheet % (colour,))
        expect_colours(page, MIDDLE, colour)
    assert not was_loaded_again(page)
    assert page.errors == []


def test_what_was_swapped_stays_new_when_something_else_changes(
    root: Path, server: Server, context: BrowserContext
) -> None:
    text = f'{BODY}<link rel="stylesheet" href="a.css"><p></p><input>'
    sheet = (
        "@import 'b.css'; p { width: 40px; height: 40px; margin: 0 0 %s; background: url(i.png) }"
    )
    save(root, "a.css", sheet % "1px")
    save(root, "b.css", "input { color: rgb(255, 0, 0) }")
    save(root, "i.png", png(RED))
    save(root, "index.html", text)
    page = open_tab(context, f"{server.url}/{root.name}/")
    page.fill("input", "typed")
    expect_colours(page, MIDDLE, RED)
    save(root, "i.png", png(BLUE))
    expect_colours(page, MIDDLE, BLUE)
    save(root, "b.css", "input { color: rgb(0, 0, 255) }")
    is_blue = "getComputedStyle(document.querySelector('input')).color === 'rgb(0, 0, 255)'"
    page.wait_for_function(is_blue)
    save(root, "a.css", sheet % "9px")
    page.wait_for_function("getComputedStyle(document.querySelector('p')).marginBottom === '9px'")
    assert page.evaluate(is_blue)
    expect_colours(page, MIDDLE, BLUE)
    save(root, "index.html", f"{text}<b>new</b>")
    expect(page.locator("b")).to_have_text("new")
    expect_colours(page, MIDDLE, BLUE)
    assert page.evaluate(is_blue)
    assert page.input_value("input") == "typed"
    assert not was_loaded_again(page)


PLOT = """from pathlib import Path

from rpyserve import Resource, Response

import {name}_colours

PICTURES = {pictures}


class Plot(Resource):
    def getChild(self, name, request):
        return self

    def render_GET(self, request):
        if not request.args and not request.prepath[-1].endswith(".png"):
            return {page!r}
        place = Path(__file__).with_name("data.csv").read_text()
        number = ({name}_colours.FIRST + int(place) + 0) % 3
        return Response(PICTURES[number], 200, {{"Content-Type": "image/png"}})


resource = Plot()
"""
FROM_SCRIPT = {
    "the page's own script": ("plot", '<img src="plot?png=1">'),
    "below the page's script": ("plot", '<img src="plot/1.png">'),
    "another page": ("index.html", '<img src="plot?png=1">'),
    "a style": ("index.html", '<p style="height: 40px; background: url(plot?png=1)"></p>'),
    "a page with a script": ("plot", '<script>var x = 1</script><img src="plot?png=1">'),
    "canvas": ("index.html", DRAWN.replace("i.png", "plot?png=1") % ""),
}


@pytest.mark.parametrize("case", FROM_SCRIPT)
def test_an_image_that_a_script_makes_follows_the_script_its_data_and_its_modules(
    case: str, root: Path, server: Server, context: BrowserContext
) -> None:
    name, use = FROM_SCRIPT[case]
    pictures = [png(RED), png(BLUE), png(GREEN)]
    text = PLOT.format(name=root.name, pictures=pictures, page=BODY + use)
    module = f"{root.name}_colours.py"
    save(root.parent, module, "FIRST = 0")
    save(root, "data.csv", "0")
    save(root, "plot.rpy", text)
    save(root, "index.html", BODY + use)
    page = open_tab(context, f"{server.url}/{root.name}/{name.replace('index.html', '')}")
    expect_colours(page, MIDDLE, RED)
    for directory, file, saved, colour in (
        (root, "data.csv", "1", BLUE),
        (root.parent, module, "FIRST = 1", GREEN),
        (root, "plot.rpy", text.replace("+ 0", "+ 1"), RED),
        (root, "data.csv", "2", BLUE),
    ):
        save(directory, file, saved)
        page.wait_for_timeout(400)  # no picture can be taken of a page on its way
        expect_colours(page, MIDDLE, colour)
    assert page.errors == []
