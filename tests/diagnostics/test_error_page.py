"""The page of a script that fails, as its author sees it, and as others do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpyserve import Request, Site
from rpyserve.diagnostics.describe import MAX_COLOURED
from rpyserve.diagnostics.editor import EditorLink
from rpyserve.files.directory import Directory
from tests.support.in_process import Answer, Visitor

HTML = [("Accept", "text/html,*/*;q=0.8")]
JSON = [("Accept", "application/json")]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    made = Site(Directory(tmp_path))
    made.editor = EditorLink("edit:{path}?{line},{column}")
    yield made
    made.close()


async def page(
    site: Site, path: str = "/a", headers: list[tuple[str, str]] = HTML, client: str = "127.0.0.1"
) -> Answer:
    answer = await Visitor(site, client).get(path, headers=headers)
    assert answer.status == 500
    return answer


def write(name: str, text: str) -> Path:
    path = Path(name).absolute()
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def plain(html: str) -> str:
    """The text of a page, folded parts included."""
    import html as entities

    return entities.unescape(re.sub(r"<[^>]+>", "", html.partition("<body>")[2]))


def uncoloured(html: str) -> str:
    return re.sub("</?span[^>]*>", "", html)


async def test_a_render_method(site: Site) -> None:
    path = write("a.rpy", (
        "from rpyserve import Resource\n\n\nclass Page(Resource):\n"
        "    def render_GET(self, request):\n        name, password = 'Ada', 'hunter2'\n"
        "        return 'Hello ' + len(name)\n\n\nresource = Page()\n"
    ))  # fmt: skip
    answer = await page(site)
    assert "<h1>TypeError: can only concatenate str" in answer.text
    assert (
        f'<a href="edit:{path.as_posix()}?7,16" title="Open in the editor">a.rpy, line 7</a>'
        in answer.text
    )
    assert "<mark>&#39;Hello &#39; + len(name)</mark>" in uncoloured(answer.text)
    text = plain(answer.text)
    assert "class Page(Resource):" in text and "resource = Page()" in text
    assert "name'Ada'" in text.replace("\n", "")
    assert "hunter2" not in text.replace("name, password = 'Ada', 'hunter2'", "")
    assert 'f"Visit {number}"' in text


async def test_top_level_code(site: Site) -> None:
    write("a.rpy", "words = ['a']\nwords[1]\n")
    text = plain((await page(site)).text)
    assert "IndexError" in text and "▸2 words[1]" in text
    assert "words['a']" in text.replace("\n", "")


async def test_an_async_method(site: Site) -> None:
    write("a.rpy", "async def resource(request):\n    n = 0\n    return 1 / n\n")
    assert "▸3     return 1 / n" in plain((await page(site)).text)


async def test_a_helper(site: Site) -> None:
    write("lib/helper.py", "def total(n):\n    return 1 / n\n")
    write(
        "a.rpy", "from lib.helper import total\n\n\ndef resource(request):\n    return total(0)\n"
    )
    text = plain((await page(site)).text)
    assert text.index(str(Path("lib/helper.py, line 2"))) < text.index("a.rpy, line 5"), (
        "the innermost first"
    )


async def test_how_a_script_came_to_be_compiled_is_left_out(site: Site) -> None:
    write("a.rpy", "retrun page(x)\n")
    answer = await page(site)
    assert "SyntaxError: invalid syntax" in answer.text
    assert "calls, the innermost last" not in answer.text


async def test_the_import_of_a_helper(site: Site) -> None:
    write("lib/helper.py", "def total(n:\n    return 1\n")
    write("a.rpy", "from lib.helper import total\n")
    answer = await page(site)
    assert "<h1>SyntaxError: &#39;(&#39; was never closed" in answer.text
    assert "def total<mark>(</mark>n:" in uncoloured(answer.text)
    assert "a.rpy, line 1" in plain(answer.text)


async def test_frames_of_others_are_folded(site: Site) -> None:
    write("a.rpy", "import json\n\n\ndef resource(request):\n    return json.loads('{')\n")
    body = (await page(site)).text.partition("<body>")[2]
    folded = re.findall(r"<details>.*?</details>", body, re.DOTALL)
    assert any("decoder.py" in part for part in folded)
    unfolded = re.sub(r"<details>.*?</details>", "", body, flags=re.DOTALL)
    assert "decoder.py" not in unfolded and "a.rpy, line 5" in unfolded


async def test_a_generator_that_fails_before_its_first_piece(site: Site) -> None:
    write("a.rpy", "def resource(request):\n    x = 1 / 0\n    yield 'a'\n")
    assert "▸2     x = 1 / 0" in plain((await page(site)).text)


async def broken(site: Site, headers: list[tuple[str, str]], client: str = "127.0.0.1") -> str:
    """What came of a page that is broken off."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    response = await site.respond(Request("GET", "/a", raw, client=(client, 1)))
    pieces: list[bytes] = []
    with pytest.raises((ZeroDivisionError, BaseExceptionGroup)):
        async with response.body.start(response) as opened:  # type: ignore[union-attr]
            async for piece in opened.chunks:
                pieces.append(piece)
    return b"".join(pieces).decode()


HALF = "def resource(request):\n    yield '<ul><li>1</li>'\n    yield 1 / 0\n"


@pytest.mark.parametrize("source", [HALF, "async " + HALF])
async def test_a_generator_that_fails_half_way(
    site: Site, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    write("a.rpy", source)
    got = await broken(site, HTML)
    assert got.startswith("<ul><li>1</li>")
    assert (
        "An error interrupted this page." in got and "ZeroDivisionError" in got and "a.rpy:3" in got
    )
    [message] = caplog.messages
    assert message.startswith("GET /a: ZeroDivisionError")


@pytest.mark.parametrize("source", [HALF, "async " + HALF])
async def test_other_clients_see_what_the_script_sent_and_no_more(site: Site, source: str) -> None:
    write("a.rpy", source)
    assert await broken(site, []) == "<ul><li>1</li>"
    assert await broken(site, HTML, "192.0.2.7") == "<ul><li>1</li>"


async def test_what_is_no_html_is_broken_off_as_it_is(site: Site) -> None:
    write(
        "a.rpy",
        HALF.replace(
            "request):\n", "request):\n    request.setHeader('Content-Type', 'text/csv')\n"
        ),
    )
    assert await broken(site, HTML) == "<ul><li>1</li>"


async def test_a_group_is_a_tree(site: Site) -> None:
    write("a.rpy", (
        "import trio\n\n\nasync def one():\n    raise ValueError('a')\n\n\n"
        "async def two():\n    raise KeyError('b')\n\n\n"
        "async def resource(request):\n    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(one)\n"
        "        nursery.start_soon(two)\n        nursery.start_soon(trio.sleep_forever)\n"
    ))  # fmt: skip
    answer = await page(site)
    [tree] = re.findall(r'<ol class="branches">.*</ol>', answer.text, re.DOTALL)
    assert "<h3>ValueError: a</h3>" in tree and "<h3>KeyError: &#39;b&#39;</h3>" in tree
    assert "line 5" in tree and "line 9" in tree
    assert "Cancelled" not in answer.text


async def test_a_chain_has_the_words_between(site: Site) -> None:
    write("a.rpy", (
        "def resource(request):\n    try:\n        {}['k']\n    except KeyError as exc:\n"
        "        exc.add_note('look here')\n        raise RuntimeError('no') from exc\n"
    ))  # fmt: skip
    text = plain((await page(site)).text)
    assert (
        text.index("RuntimeError: no")
        < text.index("directly caused by this one:")
        < text.index("KeyError: 'k'")
    )
    assert "look here" in text and "a.rpy, line 3" in text


async def test_the_source_is_that_of_the_code_that_failed(site: Site) -> None:
    write("a.rpy", (
        "from pathlib import Path\n\n\ndef resource(request):\n"
        "    Path(__file__).write_text('# edited\\n# twice\\n')\n    return 1 / 0  # old\n"
    ))  # fmt: skip
    assert "▸6     return 1 / 0  # old" in plain((await page(site)).text)


async def test_nothing_is_evaluated_or_posted(site: Site) -> None:
    write("a.rpy", "1 / 0\n")
    text = (await page(site)).text
    assert not re.search(r"<(form|input|button|script|iframe|object|img|link)\b", text)
    assert {href.partition(":")[0] for href in re.findall(r'href="([^"]*)', text)} == {"edit"}


async def test_it_can_be_read_aloud_and_used_by_keyboard(site: Site) -> None:
    write("a.rpy", "import json\njson.loads('{')\n")
    text = (await page(site)).text
    assert '<html lang="en">' in text and text.count("<h1>") == 1
    assert all(
        'tabindex="0"' in tag and "aria-label" in tag
        for tag in re.findall(r"<pre class[^>]*>", text)
    )
    assert text.count("<details") == text.count("<summary>") == 3


async def test_the_source_has_colours(site: Site) -> None:
    write("a.rpy", 'text = """\n1 if\n"""\n\ndef resource(request):\n    return "a" + 1  # no\n')
    text = (await page(site)).text
    assert '<span class="keyword">def</span> <span class="name">resource</span>(request)' in text
    assert (
        '<mark><span class="string">&#34;a&#34;</span> + <span class="number">1</span></mark>'
        in text
    )
    assert '<span class="comment"># no</span>' in text
    assert '<span class="string">1 if</span>' in text, "it began before"


async def test_a_long_source_is_shown_all_the_same(site: Site) -> None:
    write("a.rpy", "#" * MAX_COLOURED + "\n1 / 0\n")
    text = (await page(site)).text
    assert "<b><i>▸2</i> 1 / 0</b>" in text


async def test_what_the_request_and_the_session_held(site: Site) -> None:
    write("a.rpy", (
        "def resource(request):\n    session = request.getSession()\n"
        "    session['cart'] = {'tea': 2}\n    session['api_key'] = 'hush'\n    1 / 0\n"
    ))  # fmt: skip
    headers = [*HTML, ("X-Colour", "blue"), ("Cookie", "a=verysecret; b=2")]
    answer = await page(site, "/a?name=Ada&tag=x&tag=y", headers)
    shown = re.sub(r"\s+", " ", plain(answer.text))
    assert "Fields of the request name&#39;Ada&#39;".replace("&#39;", "'") in shown
    assert "tag['x', 'y']" in shown and "x-colour'blue'" in shown
    assert "Session cart{'tea': 2} api_key•••" in shown
    assert "verysecret" not in answer.text and shown.count("hush") == 1, "in the source"


async def test_json_has_fields(site: Site) -> None:
    path = write("a.rpy", "def resource(request):\n    name = 'x'\n    return nmae\n")
    told = json.loads((await page(site, headers=JSON)).text)
    error = told["error"]
    assert (error["kind"], error["message"]) == (
        "NameError", "NameError: name 'nmae' is not defined"
    )  # fmt: skip
    assert error["hint"] and error["script"] == str(path)
    [exc] = error["chain"]
    assert (exc["kind"], exc["relation"], exc["exceptions"]) == ("NameError", "itself", [])
    [frame] = exc["frames"]
    assert (frame["path"], frame["line"], frame["function"]) == (str(path), 3, "resource")
    assert frame["source"] == "    return nmae" and frame["values"]["name"] == "'x'"


async def test_json_for_others_has_none(site: Site) -> None:
    write("a.rpy", "1 / 0\n")
    assert "error" not in json.loads((await page(site, headers=JSON, client="10.0.0.1")).text)


async def test_no_editor_no_links(site: Site) -> None:
    write("a.rpy", "1 / 0\n")
    site.editor = EditorLink("")
    assert "<a " not in (await page(site)).text


async def test_a_script_without_resource_has_a_link_to_it(site: Site) -> None:
    path = write("a.rpy", "x = 1\n")
    assert f'In <a href="edit:{path.as_posix()}?1,1"' in (await page(site)).text


SECRET = (
    "name, uid, err = request.getCookie('login'), request.getSession().uid, "
    "ValueError(request.getCookie('login'))"
)


@pytest.mark.parametrize("headers", [HTML, JSON, []])
async def test_the_visitors_cookie_is_on_no_page(
    site: Site, headers: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    write(
        "a.rpy", f"def resource(request):\n    {SECRET}\n    raise KeyError(name + uid) from err\n"
    )
    site.sessions.make()
    [session] = list(site.sessions)
    cookie = [("Cookie", f"login=the-cookie-of-ada; rpyserve_8080={session.uid}")]
    answer = await page(site, headers=[*headers, *cookie])
    for text in (answer.text, caplog.text):
        assert "KeyError" in text
        assert "the-cookie-of-ada" not in text
        assert session.uid not in text


@pytest.mark.parametrize("headers", [HTML, JSON, []])
async def test_others_get_a_bare_500(site: Site, headers: list[tuple[str, str]]) -> None:
    write("a.rpy", "def resource(request):\n    raise ValueError('of the author')\n")
    for answer in (
        await page(site, headers=headers, client="192.0.2.7"),
        await page(site, headers=[*headers, ("Origin", "http://evil.example")]),
        await page(site, headers=[*headers, ("Sec-Fetch-Site", "same-site")]),
        await page(
            site, headers=[*headers, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors")]
        ),
    ):
        assert "of the author" not in answer.text and "a.rpy" not in answer.text
        assert answer.header("access-control-allow-origin") is None


async def test_an_http_error_is_not_an_error_of_the_script(site: Site) -> None:
    write("a.rpy", "from rpyserve import HTTPError\nraise HTTPError(500, 'as told')\n")
    assert "as told" in (await page(site)).text


async def test_a_page_stays_small_whatever_fails(site: Site) -> None:
    write("a.rpy", (
        "def resource(request):\n"
        "    big = {n: 'x' * 10_000 for n in range(1000)}\n"
        "    loop = []\n    loop.append(loop)\n"
        "    class Slow:\n        def __repr__(self):\n            while True: pass\n"
        "    slow = Slow()\n"
        "    text = 'y' * 1_000_000\n"
        "    raise ExceptionGroup(text, [ValueError(text, big, slow) for n in range(1000)])\n"
    ))  # fmt: skip
    answer = await page(site)
    assert len(answer.body) < 200_000
    assert "<Slow>" in plain(answer.text)


async def test_a_failing_stream_is_not_good_in_between(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    write("a.rpy", HALF)
    for _ in range(5):
        await broken(site, HTML)
    assert len(caplog.messages) == 1
