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

from tests.support.browsers import expect, open_tab, was_loaded_again
from tests.support.real_process import Server, serving

pytestmark = [pytest.mark.browser, pytest.mark.process]

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 128, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    return root


@pytest.fixture
def server(root: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(root, tmp_path) as server:
        yield server


def save(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def png(colour: tuple[int, int, int], side: int = 40) -> bytes:
    """A square image. Each side must be another one, where a test measures it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    rows = (b"\0" + bytes(colour) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def colour_at(picture: bytes, x: int, y: int) -> tuple[int, ...]:
    """The colour of a point of a PNG file as browsers make them: 8 bits, not interlaced.

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
    rows, stride = zlib.decompress(data), width * size + 1
    above = bytearray(stride + size - 1)
    for start in range(0, (y + 1) * stride, stride):
        above = _unfiltered(rows[start], rows[start + 1 : start + stride], above, size)
    return tuple(above[(x + 1) * size : (x + 1) * size + 3])


def _unfiltered(kind: int, row: bytes, above: bytearray, size: int) -> bytearray:
    """A row of bytes, after an empty pixel."""
    done = bytearray(size)
    for index, value in enumerate(row):
        a, b, c = done[index], above[index + size], above[index]
        nearest = min((a, b, c), key=lambda one: abs(a + b - c - one))
        done.append((value + (0, a, b, (a + b) // 2, nearest)[kind]) & 255)
    return done


def expect_colour(page: Any, x: int, y: int, wanted: tuple[int, int, int]) -> None:
    for _ in range(60):
        seen = colour_at(page.screenshot(), x, y)
        if seen == wanted:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{seen} is seen at {x}, {y}, not {wanted}")


SHADOW = """<!DOCTYPE html><body style="margin: 0">%s<script>
    const root = host.attachShadow({ mode: "open" });
    root.innerHTML = %s;
</script>"""
BOX = "width: 40px; height: 40px"
IMAGE_PAGES = {
    "img": '<img src="i.png">',
    "with a query": '<img src="i.png?width=3#top">',
    "srcset": '<img srcset="i.png 1x, i.png?large 2x">',
    "picture": '<picture><source srcset="i.png"><img src="other.png"></picture>',
    "button": '<input type="image" src="i.png">',
    "svg": '<svg width="40" height="40"><image href="i.png" width="40" height="40" /></svg>',
    "old svg": '<svg width="40" height="40"><image xlink:href="i.png" width="40" height="40" /></svg>',
    "video": '<video poster="i.png" width="40" height="40"></video>',
    "style": f'<div style="{BOX}; background: url(i.png)"></div>',
    "important": f'<style>p {{ {BOX}; margin: 0; background: url(i.png) !important }}</style><p></p>',
    "sheet": f'<link rel="stylesheet" href="css/a.css"><p style="{BOX}; margin: 0"></p>',
    "imported": f'<style>@import "css/b.css";</style><p style="{BOX}; margin: 0"></p>',
    "content": '<style>p { margin: 0 } p::before { content: url("i.png") }</style><p></p>',
    "nested": f"<style>@media all {{ body {{ & div {{ {BOX}; background: url('i.png') }} }} }}"
    "</style><div></div>",
    "variable": f"<style>:root {{ --bg: url(i.png) }} p {{ {BOX}; margin: 0; background: var(--bg) }}"
    "</style><p></p>",
    "shorthand with a variable": f"<style>p {{ {BOX}; margin: 0; --c: red;"
    " background: var(--c) url(i.png) }</style><p></p>",
    "variable of an element": f"<p style='--bg: url(\"i.png\") 0 0; {BOX}; margin: 0;"
    " background: var(--bg)'></p>",
    "shadow root": SHADOW % ("<div id=host></div>", "'<img src=i.png>'"),
    "style in a shadow root": SHADOW
    % ("<div id=host></div>", f"'<style>p {{ {BOX}; margin: 0; background: url(i.png) }}</style><p>'"),
    "shadow root in one": SHADOW.replace(
        "root.innerHTML = %s;",
        "root.innerHTML = '<p style=margin:0></p>';"
        "root.firstChild.attachShadow({ mode: 'open' }).innerHTML = %s;",
    )
    % ("<div id=host></div>", "'<img src=i.png>'"),
    "constructed sheet": f"""<p></p><script>
        const sheet = new CSSStyleSheet();
        sheet.replaceSync("p {{ {BOX}; margin: 0; background: url(i.png) }}");
        document.adoptedStyleSheets = [sheet];
    </script>""",
}  # fmt: skip


@pytest.mark.parametrize("use", IMAGE_PAGES)
def test_an_image_is_swapped_wherever_the_page_shows_it(
    use: str, root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "i.png", png(RED))
    save(root, "css/a.css", "p { background: url(../i.png) }")
    save(root, "css/b.css", "@import 'a.css';")
    page_text = f'<!DOCTYPE html><title>x</title><body style="margin: 0">{IMAGE_PAGES[use]}'
    save(root, "index.html", page_text)
    page = open_tab(context, server.url)
    expect_colour(page, 20, 20, RED)
    for colour in (BLUE, GREEN):
        save(root, "i.png", png(colour))
        expect_colour(page, 20, 20, colour)
    assert not was_loaded_again(page)
    assert page.errors == []


DRAWN = """<!DOCTYPE html><body style="margin: 0">%s<canvas width="40" height="40"></canvas><script>
    const picture = new Image();
    picture.src = "i.png";
    picture.onload = () => document.querySelector("canvas").getContext("2d").drawImage(picture, 0, 0);
</script>"""
LOADING_PAGES = {
    "canvas": DRAWN % "",
    "canvas beside an image": DRAWN % '<img src="i.png" hidden>',
    "closed shadow root": "<!DOCTYPE html><body style='margin: 0'><p style='margin: 0'></p><script>"
    "document.querySelector('p').attachShadow({ mode: 'closed' }).innerHTML = '<img src=i.png>'"
    "</script>",
    "object": "<!DOCTYPE html><body style='margin: 0'><object data='i.png'></object>",
}


@pytest.mark.parametrize("use", LOADING_PAGES)
def test_a_page_is_loaded_again_where_an_image_cannot_be_swapped(
    use: str, root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "i.png", png(RED))
    save(root, "index.html", LOADING_PAGES[use])
    page = open_tab(context, server.url)
    expect_colour(page, 20, 20, RED)
    save(root, "i.png", png(BLUE))
    expect_colour(page, 20, 20, BLUE)
    assert was_loaded_again(page)


def test_symbols_of_an_svg_file_follow(root: Path, server: Server, context: BrowserContext) -> None:
    sprite = '<svg xmlns="http://www.w3.org/2000/svg"><symbol id="a"><rect width="40" height="40" fill="%s"/></symbol></svg>'
    save(root, "sprite.svg", sprite % "rgb(255,0,0)")
    save(
        root,
        "index.html",
        '<!DOCTYPE html><body style="margin: 0"><svg width="40" height="40"><use href="sprite.svg#a"/></svg>',
    )
    page = open_tab(context, server.url)
    expect_colour(page, 20, 20, RED)
    save(root, "sprite.svg", sprite % "rgb(0,0,255)")
    expect_colour(page, 20, 20, BLUE)


SHEET_PAGES = {
    "link": '<link rel="stylesheet" href="a.css"><p></p>',
    "link with a query": '<link rel="stylesheet" href="a.css?theme=dark" media="screen"><p></p>',
    "import in a style element": "<style>@import 'a.css';</style><p></p>",
    "import with conditions": "<style>@import url(deep/b.css) layer(base) screen;</style><p></p>",
    "import in a link": '<link rel="stylesheet" href="deep/c.css"><p></p>',
    "link in a shadow root": SHADOW
    % ("<div id=host></div>", "'<link rel=stylesheet href=a.css><p></p>'"),
}


@pytest.mark.parametrize("use", SHEET_PAGES)
def test_a_stylesheet_is_swapped_wherever_the_page_uses_it(
    use: str, root: Path, server: Server, context: BrowserContext
) -> None:
    sheet = f"p {{ {BOX}; margin: 0; background: rgb%s }}"
    save(root, "a.css", sheet % (RED,))
    save(root, "deep/b.css", "@import '../a.css';")
    save(root, "deep/c.css", "@import 'b.css'; i { color: red }")
    save(root, "index.html", f'<!DOCTYPE html><body style="margin: 0">{SHEET_PAGES[use]}')
    page = open_tab(context, server.url)
    expect_colour(page, 20, 20, RED)
    for colour in (BLUE, GREEN):
        save(root, "a.css", sheet % (colour,))
        expect_colour(page, 20, 20, colour)
    save(root, "deep/c.css", "@import 'b.css'; i { color: blue }")  # what it imports stays new
    page.wait_for_timeout(500)
    expect_colour(page, 20, 20, GREEN)
    assert not was_loaded_again(page)
    assert page.errors == []


def test_stylesheet_and_image_that_change_together_do_so_in_the_page(
    root: Path, server: Server, context: BrowserContext
) -> None:
    save(root, "a.css", f"p {{ {BOX}; margin: 0; background: url(i.png) }}")
    save(root, "i.png", png(RED))
    save(
        root,
        "index.html",
        '<!DOCTYPE html><body style="margin: 0"><link rel="stylesheet" href="a.css"><p></p><input>',
    )
    page = open_tab(context, server.url)
    page.fill("input", "typed")
    expect_colour(page, 20, 20, RED)
    save(root, "i.png", png(BLUE))
    expect_colour(page, 20, 20, BLUE)
    save(root, "a.css", f"p {{ {BOX}; margin: 0 0 9px; background: no-repeat url(i.png) }}")
    page.wait_for_function("getComputedStyle(document.querySelector('p')).marginBottom === '9px'")
    expect_colour(page, 20, 20, BLUE)
    save(
        root,
        "index.html",
        '<!DOCTYPE html><body style="margin: 0"><link rel="stylesheet" href="a.css"><p></p><input><b>new</b>',
    )
    expect(page.locator("b")).to_have_text("new")
    expect_colour(page, 20, 20, BLUE)
    assert page.input_value("input") == "typed"
    assert not was_loaded_again(page)
