"""Who gets the tag, where it stands, and what it says."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.lowlevel
from hypothesis import example, given
from hypothesis import strategies as st

from rpyserve import Directory, HTTPError, Resource, Response, Site
from rpyserve.http.browser import is_navigation
from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.request import Request, Responder
from rpyserve.http.response import FileBody
from rpyserve.livereload import script_tag
from rpyserve.livereload.changes import Mounts
from rpyserve.livereload.script_tag import ScriptTag, blocking_directive, policies_in
from rpyserve.resources import pages
from tests.support.in_process import Answer, read

BROWSER = {"sec-fetch-dest": "document", "accept": "text/html,*/*", "host": "localhost:8080"}
TAG = re.compile(
    rb'<script src="[^"]*-/errors\.js\?" data-rpyserve-errors></script>'
    rb'<script async src="[^"]*-/follow\.js"[^>]*></script>'
)
ROOT = os.path.abspath("/srv/site")


class Told(list[tuple[str, str]]):
    def __call__(self, path: str, why: str) -> None:
        self.append((path, why))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an hour later: files are old enough for validators."""
    now = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr("rpyserve.files.static_file.time", SimpleNamespace(time_ns=lambda: now))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def tags(told: Told) -> ScriptTag:
    return ScriptTag(lambda: "boot-7", Mounts([(ROOT, "/")]).url_of, told)


def answering(body: object, *, sources: Iterable[str] = (), **options: Any) -> Responder:
    async def respond(request: Request) -> Response:
        request._sources += sources
        return Response(body, **options)

    return respond


async def answer_with(respond: Responder, tags: ScriptTag, request: Request) -> Response:
    """What a browser gets for *request*, or another client."""
    if not is_navigation(request):
        return await respond(request)
    page = tags.prepare(request)
    return page.with_tag(await respond(request))


async def load(
    respond: Responder,
    tags: ScriptTag,
    target: str = "/page",
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
) -> Answer:
    fields = [
        (name.encode(), value.encode())
        for name, value in (BROWSER if headers is None else headers).items()
    ]
    request = Request(method, target, fields)
    try:
        return await read(await answer_with(respond, tags, request))
    finally:
        request.close()


def at(*names: str) -> str:
    return os.path.join(ROOT, *names)


# What is in it


async def test_a_page(tags: ScriptTag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1234.5678)
    answer = await load(answering("<p>Hi", sources=[at("a b.rpy")]), tags)
    assert answer.text == (
        '<script src="./-/errors.js?" data-rpyserve-errors></script>'
        '<script async src="./-/follow.js" data-rpyserve="boot-7" data-sources="/a%20b.rpy"'
        ' data-made="script" data-method="GET" data-status="200" data-digest="ebf7d66d"'
        ' data-policy="" data-sent="" data-asked="1234568"></script><p>Hi'
    )


async def test_a_page_that_tells_what_it_logs(told: Told) -> None:
    tags = ScriptTag(lambda: "b-0", str, told, errors_version=lambda: "1a2b", browser_log=True)
    answer = await load(answering("<p>Hi"), tags)
    assert answer.text.startswith(
        '<script src="./-/errors.js?1a2b" data-rpyserve-errors data-console></script><script async'
    )


@pytest.mark.parametrize(
    ("target", "up"),
    [
        ("/", "./"),
        ("/a", "./"),
        ("/a/", "../"),
        ("/a/b?x=/c/d", "../"),
        ("/a/b/", "../../"),
        ("http://h/a/b", "../"),
    ],
)
async def test_the_script_is_found_from_every_path(tags: ScriptTag, target: str, up: str) -> None:
    assert f'src="{up}-/follow.js"' in (await load(answering("x"), tags, target)).text


async def test_a_base_of_its_own_comes_after_the_tag(tags: ScriptTag) -> None:
    answer = await load(answering('<head><base href="/elsewhere/"></head>'), tags, "/a/b")
    assert 'src="../-/follow.js"' in answer.text.partition("<base")[0]


@pytest.mark.parametrize(
    ("sources", "text"),
    [
        ([], 'data-sources="" data-made="script"'),
        ([at("a.rpy")], 'data-sources="/a.rpy" data-made="script"'),
        ([at("index.html")], 'data-sources="/index.html" data-made="file"'),
        ([at("")], 'data-sources="/" data-made="file"'),
        ([at(""), at("sub", "a.html")], 'data-sources="/ /sub/a.html" data-made="file"'),
        ([at("site.db"), at(".env")], 'data-sources="*" data-made="file"'),
        ([at('"><script>')], 'data-sources="/%22%3E%3Cscript%3E"'),
    ],
)
async def test_sources(tags: ScriptTag, sources: list[str], text: str) -> None:
    assert text in (await load(answering("x", sources=sources), tags)).text


async def test_the_number_is_that_of_the_beginning(told: Told) -> None:
    numbers = iter(["boot-1", "boot-2"])
    tags = ScriptTag(lambda: next(numbers), str, told)

    async def slow(request: Request) -> Response:
        tags.cursor()
        return Response("x")

    assert 'data-rpyserve="boot-1"' in (await load(slow, tags)).text


async def test_method_and_status(tags: ScriptTag) -> None:
    answer = await load(answering("x", status=422), tags, method="POST")
    assert 'data-method="POST" data-status="422"' in answer.text


# Who gets it


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-dest": "document"},
        {"sec-fetch-dest": "iframe"},
        {"sec-fetch-dest": "frame"},
        {"sec-fetch-dest": "empty", "sec-fetch-mode": "navigate"},
        {
            "sec-fetch-dest": "empty",
            "sec-fetch-mode": "same-origin",
            "upgrade-insecure-requests": "1",
            "accept": "text/html,*/*;q=0.8",
        },
        {"upgrade-insecure-requests": "1", "accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
        {"sec-fetch-dest": "empty", "rpyserve-follow": "3"},
        {"rpyserve-follow": "3", "accept": "text/html"},
    ],
)
async def test_a_browsers_own_page_load_has_it(tags: ScriptTag, headers: dict[str, str]) -> None:
    assert TAG.search((await load(answering("x"), tags, headers=headers)).body)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"accept": "*/*", "user-agent": "curl/8"},
        {"accept": "text/html"},
        {"upgrade-insecure-requests": "1", "accept": "*/*"},
        {"sec-fetch-dest": "empty", "accept": "text/html"},
        {"sec-fetch-dest": "empty", "sec-fetch-mode": "same-origin", "accept": "text/html"},
        {"sec-fetch-dest": "empty", "sec-fetch-mode": "cors", "accept": "text/html"},
        {"sec-fetch-mode": "navigate"},
        {"sec-fetch-dest": "image", "rpyserve-follow": "3"},
        {"sec-fetch-dest": "object", "sec-fetch-mode": "navigate"},
    ],
)
async def test_others_get_what_the_site_answers(tags: ScriptTag, headers: dict[str, str]) -> None:
    answer = await load(answering("x", headers={"ETag": '"1"'}), tags, headers=headers)
    assert answer.body == b"x"
    assert answer.headers == [("Content-Type", "text/html; charset=utf-8"), ("ETag", '"1"')]


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_do_not(tags: ScriptTag, method: str) -> None:
    assert (await load(answering("x"), tags, method=method)).body == b"x"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"Content-Type": "text/plain"}),
        (200, {"Content-Type": "application/json"}),
        (200, {"Content-Type": "application/xhtml+xml"}),
        (200, {"Content-Type": "text/html; charset=UTF-16"}),
        (200, {"Content-Encoding": "gzip"}),
        (206, {"Content-Range": "bytes 0-0/5"}),
        (204, {}),
        (304, {}),
        (200, {"Content-Disposition": "attachment; filename=x.html"}),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_no_whole_page_does_not(
    tags: ScriptTag, status: int, headers: dict[str, str], streamed: bool
) -> None:
    headers = {"Content-Type": "text/html", "ETag": '"1"', **headers}
    body = iter([b"\x1f\x8b..."]) if streamed else b"\x1f\x8b..."
    answer = await load(answering(body, status=status, headers=headers), tags)
    assert answer.body == b"\x1f\x8b..." and dict(answer.headers) == headers


async def test_a_redirect_does_not(tags: ScriptTag) -> None:
    assert (await load(answering(b"", status=303, headers={"Location": "/x"}), tags)).body == b""


# Its place in the page

OPENINGS = [
    "",
    "\ufeff",
    " \r\n\t",
    "<!DOCTYPE html>",
    "<!doctype html PUBLIC '-//W3C//DTD XHTML 1.0 Strict//EN' \"http://www.w3.org/x.dtd\">",
    "<?xml version='1.0' encoding='utf-8'?>",
    "<!-- <title> -- > --->",
    "<!-->",
    "<!--->",
    "<!-- a --!>",
    "<!--[if IE]><html class='ie'><![endif]-->",
    "<![CDATA[ x ]]>",
    "<html>",
    "<HTML lang=en manifest='a>b' data-x=\"<head>\" class = a/b hidden/>",
    "<html =a b= c>",
    "<html a=\"b\"c='d'e>",
    "<head>",
    "<head\nprefix='og: >'>",
    "<meta charset=utf-8>",
    "<meta name=a content='</head><body>'/>",
]
"""What may come before the tag, each complete."""
SWALLOWING = [
    "<!-- not closed -- > ",
    "<!---!> ",
    "<!DOCTYPE html ",
    "<!",
    "<?xml ",
    "<html lang='en> <body class=x",
    '<html lang="en> ',
    "<head ",
    "<meta name=a content='x> ",
    "<title>",
    "<textarea>",
    "<style>",
    "<script>",
    "<template>",
    "<select>",
    "<noscript>",
    "<iframe>",
    "<svg><title>",
    "<plaintext>",
    "<p title='x> ",
    "<frameset>",
    "<body class=x>",
    "</html ",
    "text <",
    "<htmlx>",
    "<header>",
]
"""What may take in all that follows, or must at least not come before the tag."""


@pytest.mark.parametrize("swallowing", SWALLOWING)
async def test_it_stands_before_what_may_swallow_it(tags: ScriptTag, swallowing: str) -> None:
    for opening in OPENINGS:
        answer = await load(answering(opening + swallowing), tags)
        assert TAG.sub(b"|", answer.body).decode() == f"{opening}|{swallowing}"


MARKUP = st.lists(
    st.sampled_from([*OPENINGS, *SWALLOWING, "'", '"', ">", "-->", "</title>", "x", " ", "/"])
).map("".join)


@given(st.lists(st.sampled_from(OPENINGS[2:])).map("".join), st.sampled_from(SWALLOWING), MARKUP)
def test_half_written_markup_never_takes_it_in(opening: str, swallowing: str, rest: str) -> None:
    text = f"{opening}{swallowing}{rest}"
    place = script_tag.opening(text.encode())
    closed = place > len(opening.encode())  # the rest has a quote or the like that closes it
    assert place == len(opening.encode()) or (closed and text.encode()[:place].endswith(AT_AN_END))


AT_AN_END = (b">", *(bytes([code]) for code in b" \t\r\n\f"))


@given(MARKUP, st.lists(st.integers(1, 9)))
@example("<head> \r\n\t", [1, 1, 1, 3])
@example("<head><meta charset=utf-8>x", [6])
def test_it_stands_in_the_same_place_in_a_stream(text: str, sizes: list[int]) -> None:
    """However the text is cut into chunks."""

    async def whole_and_streamed() -> tuple[bytes, bytes]:
        rest, parts = text, []
        for size in sizes:
            parts, rest = [*parts, rest[:size]], rest[size:]
        tags = ScriptTag(lambda: "boot-7", str, Told())
        whole = await load(answering(text), tags)
        return whole.body, (await load(answering(chunks(*parts, rest)), tags)).body

    whole, streamed = trio.run(whole_and_streamed)
    assert TAG.sub(b"|", streamed) == TAG.sub(b"|", whole)


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
async def test_a_page_in_utf_16_has_none(tags: ScriptTag, mark: bytes) -> None:
    body = mark + "<p>Hi".encode("utf-16-le")
    assert (await load(answering(body, headers={"Content-Type": "text/html"}), tags)).body == body


async def test_markup_in_a_script_is_text(tags: ScriptTag) -> None:
    """A page built by a script in its head: the first chunk of a stream, or all of it."""
    text = '<!DOCTYPE html><title>x</title><script>w("<html><body class=x></head>")</script>'
    for body in (text, iter([text])):
        answer = await load(answering(body), tags)
        assert TAG.sub(b"|", answer.body).decode() == text.replace("<title>", "|<title>")


# Its place in the answer


async def test_what_stood_for_the_old_bytes_is_dropped(tags: ScriptTag) -> None:
    headers = [
        ("ETag", '"1"'), ("Last-Modified", "x"), ("Accept-Ranges", "bytes"),
        ("Cache-Control", "max-age=3600"),
        ("Vary", "Cookie"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"),
    ]  # fmt: skip
    answer = await load(answering("x", headers=headers), tags)
    assert answer.headers == [
        ("Content-Type", "text/html; charset=utf-8"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"),
        ("Cache-Control", "no-cache"),
        ("Vary", "Cookie, Sec-Fetch-Dest, Sec-Fetch-Mode"),
    ]  # fmt: skip


async def test_no_store_stays(tags: ScriptTag) -> None:
    answer = await load(answering("x", headers={"Cache-Control": "private, No-Store"}), tags)
    assert answer.header("cache-control") == "no-store"


async def test_a_kept_copy_is_never_confirmed(tags: ScriptTag, tmp_path: Path, later: None) -> None:
    (tmp_path / "page.html").write_text("<p>static</p>")
    site = Site(Directory(tmp_path))
    plain = await load(site.respond, tags, "/page.html", headers={})
    fields = {
        "if-none-match": plain.header("etag") or "",
        "if-modified-since": plain.header("last-modified") or "",
    }
    assert (await load(site.respond, tags, "/page.html", headers=fields)).status == 304
    answer = await load(site.respond, tags, "/page.html", headers={**BROWSER, **fields})
    assert answer.status == 200 and TAG.search(answer.body) and answer.header("etag") is None


async def test_a_static_page(tags: ScriptTag, tmp_path: Path) -> None:
    page = b"<p>" + b"x" * 300_000
    (tmp_path / "page.html").write_bytes(page)
    request = Request("GET", "/page.html", [(b"sec-fetch-dest", b"document")])
    response = await answer_with(Site(Directory(tmp_path)).respond, tags, request)
    assert isinstance(response.body, FileBody)
    length = response.body.length
    answer = await read(response)
    assert len(answer.body) == length
    assert TAG.sub(b"", answer.body) == page
    request.close()


async def test_the_sources_of_a_site(told: Told, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "script.rpy").write_text("resource = lambda request: 'x'")
    (tmp_path / "broken.rpy").write_text("resource = (")
    (tmp_path / "sub" / "index.html").write_text("x")
    (tmp_path / "full" / "index.rpy").write_text("resource = lambda request: 'x'")
    site = Site(Directory(tmp_path))
    root = str(Directory(tmp_path).path)
    found = ScriptTag(lambda: "b-0", Mounts([(root, "/")]).url_of, told)

    async def sources(target: str) -> str:
        answer = await load(site.respond, found, target)
        match = re.search(r'data-sources="(.*?)" data-made="(.*?)".*status="(.*?)"', answer.text)
        assert match, answer.text
        return " ".join(match.groups())

    async with site.running():
        assert await sources("/script") == "/script.rpy script 200"
        assert await sources("/script/more") == "/script.rpy / script 404"
        assert await sources("/broken") == "/broken.rpy script 500"
        assert await sources("/") == "/ file 200"
        assert await sources("/none") == "/ file 404"
        assert await sources("/sub/") == "/sub/ /sub/index.html file 200"
        assert await sources("/sub/none") == "/sub/ / file 404"
        assert await sources("/full/") == "/full/index.rpy script 200"
        (tmp_path / "404.rpy").write_text("resource = lambda request: 'not here'")
        assert await sources("/sub/none") == "/sub/ /404.rpy script 404"


async def test_pages_of_ours_follow_by_the_same_rule(tags: ScriptTag, told: Told) -> None:
    site = Site(Resource())
    answer = await load(site.respond, tags, "/nothing")
    assert answer.status == 404 and TAG.search(answer.body)
    assert "script-src 'self'" in (answer.header("content-security-policy") or "")
    assert not told


# Pages with scripts


def name_in(page: bytes) -> str:
    found = re.search(rb'data-sent="(.*?)"', page)
    return found[1].decode() if found else ""


async def test_a_page_with_scripts_can_be_taken_once(tags: ScriptTag, tmp_path: Path) -> None:
    text = "<p>caf\xe9</p><script></script>".encode("latin-1")
    headers = {"Content-Type": "text/html; charset=latin-1", "Set-Cookie": "a=1"}
    name = name_in((await load(answering(text, headers=headers), tags)).body)
    page = tags.sent.take(name)
    assert page is not None and page.body == text
    assert page.headers == (
        (b"Content-Type", b"text/html; charset=latin-1"),
        (b"Cache-Control", b"no-store"),
    )
    assert tags.sent.take(name) is None
    (tmp_path / "page.html").write_bytes(text)
    answer = await load(Site(Directory(tmp_path)).respond, tags, "/page.html")
    taken = tags.sent.take(name_in(answer.body))
    assert taken is not None and taken.body == text


async def test_other_pages_are_not_kept(tags: ScriptTag, tmp_path: Path) -> None:
    large = "<script></script>" + "x" * script_tag.MAX_SENT_SIZE
    (tmp_path / "large.html").write_text(large)
    for respond in (
        answering("<p>no scripts"),
        answering(large),
        answering(iter(["<script></script>"])),
        Site(Directory(tmp_path)).respond,
    ):
        assert name_in((await load(respond, tags, "/large.html")).body) == ""
    assert not name_in((await load(answering("<script></script>"), tags, headers={})).body)


async def test_few_pages_are_kept(tags: ScriptTag) -> None:
    respond = answering("<script></script>")
    bodies = [(await load(respond, tags)).body for _ in range(script_tag.MAX_SENT + 1)]
    names = [name_in(body) for body in bodies]
    assert len(set(names)) == len(names)
    assert [tags.sent.take(name) is None for name in names] == [True, *[False] * (len(names) - 1)]


# Policies


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_policy_that_would_block_it_is_respected(
    tags: ScriptTag, told: Told, streamed: bool
) -> None:
    headers = {"Content-Security-Policy": "default-src 'none'", "Content-Type": "text/html"}
    answer = await load(answering(iter([b"x"]) if streamed else b"x", headers=headers), tags)
    assert answer.body == b"x"
    assert told == [("/page", "default-src 'none'")]


async def test_a_policy_in_the_page_itself(
    tags: ScriptTag, told: Told, tmp_path: Path, later: None
) -> None:
    page = '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'"><p>x'
    assert (await load(answering(page), tags)).text == page
    assert (await load(answering(iter([page])), tags)).text == page
    (tmp_path / "page.html").write_text(page)
    answer = await load(Site(Directory(tmp_path)).respond, tags, "/page.html")
    assert answer.text == page and answer.header("etag")
    assert [why for _, why in told] == ["script-src 'none'"] * 3


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "img-src 'none'; style-src 'self'",
        "default-src 'self'",
        "default-src 'none'; script-src 'self'; connect-src 'self'",
        "default-src 'none'; script-src-elem 'self'; script-src 'none'; connect-src 'self'",
        "script-src *; connect-src *",
        "DEFAULT-SRC 'SELF'",
        "default-src 'self' 'nonce-abc' https://cdn.example",
        "script-src 'self'; script-src 'none'",  # of two with one name the first counts
        pages.CONTENT_SECURITY_POLICY,
    ],
)
def test_policies_that_block_nothing(policy: str) -> None:
    assert blocking_directive([policy]) == ""


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("default-src 'none'", "default-src 'none'"),
        ("script-src", "script-src"),
        ("script-src 'nonce-abc'", "script-src 'nonce-abc'"),
        ("script-src 'unsafe-inline'", "script-src 'unsafe-inline'"),
        (
            "script-src 'self' 'strict-dynamic' 'nonce-abc'",
            "script-src 'self' 'strict-dynamic' 'nonce-abc'",
        ),
        ("script-src https:", "script-src https:"),
        ("script-src https://cdn.example", "script-src https://cdn.example"),
        ("script-src localhost", "script-src localhost"),
        ("script-src localhost:8081", "script-src localhost:8081"),
        ("script-src localhost:8080/js/", "script-src localhost:8080/js/"),
        ("script-src *.localhost:8080", "script-src *.localhost:8080"),
        ("default-src 'self'; connect-src 'none'", "connect-src 'none'"),
        ("sandbox", "sandbox"),
        ("sandbox allow-scripts", "sandbox allow-scripts"),
        ("default-src 'self', script-src 'none'", "script-src 'none'"),
        ("script-src 'self' ; connect-src https://api.example", "connect-src https://api.example"),
    ],
)
def test_policies_that_block(policy: str, why: str) -> None:
    assert blocking_directive([policy]) == why


def test_every_policy_counts() -> None:
    assert blocking_directive(["default-src 'self'", "script-src 'none'"]) == "script-src 'none'"


def test_only_plain_words_count_as_allowing() -> None:
    for sources in ("http://localhost:*", "localhost:8080", "*.localhost:8080", "http:"):
        policy = f"default-src {sources}"
        assert blocking_directive([policy]) == policy


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<p>none</p>", []),
        (
            '<meta http-equiv="Content-Security-Policy"'
            ' content="default-src &#39;self&#39;; img-src *">',
            ["default-src 'self'; img-src *"],
        ),
        ("<META content='script-src x' HTTP-EQUIV=content-security-policy />", ["script-src x"]),
        (
            '<meta name="x" content="a > b"><meta http-equiv=Content-Security-Policy content="y">',
            ["y"],
        ),
        ('<meta http-equiv="refresh" content="1">', []),
    ],
)
def test_policies_in_a_document(text: str, found: list[str]) -> None:
    assert policies_in(text) == found


# Streams


async def chunks(*parts: str) -> AsyncIterator[str]:
    for part in parts:
        await trio.lowlevel.checkpoint()
        yield part


@pytest.mark.parametrize("kind", [chunks, lambda *parts: iter(parts)], ids=["async", "sync"])
class TestStreams:
    async def test_before_the_first_chunk(self, tags: ScriptTag, kind: Any) -> None:
        answer = await load(answering(kind("<p>one", "<p>two")), tags)
        assert answer.body == TAG.findall(answer.body)[0] + b"<p>one<p>two"
        assert answer.header("cache-control") == "no-cache"

    @pytest.mark.parametrize("first", ["<!DOCTYPE html><head>", "<!DOC", "<", " ", "<!-- a", "<ht"])
    async def test_after_an_opening_in_several_chunks(
        self, tags: ScriptTag, kind: Any, first: str
    ) -> None:
        opening = "<!DOCTYPE html><head>" if first.startswith("<!D") else first
        rest = {"<!DOC": "TYPE html><head>", "<!-- a": " -->", "<ht": "ml lang=en>"}.get(first, "")
        answer = await load(answering(kind(*filter(None, [first, rest]), "<p>one")), tags)
        assert TAG.sub(b"", answer.body).decode() == first + rest + "<p>one"
        place = TAG.search(answer.body).start()  # type: ignore[union-attr]
        assert place == len("" if first == "<" else opening if first == " " else first + rest)

    async def test_an_empty_one(self, tags: ScriptTag, kind: Any) -> None:
        assert TAG.fullmatch((await load(answering(kind()), tags)).body)


async def test_an_endless_stream_has_it_at_once(tags: ScriptTag) -> None:
    async def endless() -> AsyncIterator[str]:
        yield "<head></head><p>"
        await trio.sleep_forever()

    request = Request("GET", "/", [(b"sec-fetch-dest", b"document")])
    response = await answer_with(answering(endless()), tags, request)
    async with response.body.start(response) as opened:  # type: ignore[union-attr]
        assert TAG.search(await anext(opened.chunks))


async def test_a_stream_that_fails_before_it_begins_is_a_page(
    tags: ScriptTag, tmp_path: Path
) -> None:
    (tmp_path / "a.rpy").write_text("def resource(request):\n    yield 1 / 0\n")
    site = Site(Directory(tmp_path))
    async with site.running():
        answer = await load(site.respond, tags, "/a")
    assert answer.status == 500 and b"ZeroDivisionError" in answer.body and TAG.search(answer.body)


async def test_a_stream_that_breaks_off_is_not_made_to_look_whole(tags: ScriptTag) -> None:
    async def breaks() -> AsyncIterator[str]:
        yield "<p>one"
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        await load(answering(breaks()), tags)


# Faults


async def test_what_the_site_raises_passes(tags: ScriptTag) -> None:
    async def gone(request: Request) -> Response:
        raise ClientDisconnected

    with pytest.raises(ClientDisconnected):
        await load(gone, tags)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_fault_of_ours_is_no_reason_not_to_answer(told: Told, streamed: bool) -> None:
    def fault(path: str) -> str:
        raise RuntimeError("a fault")

    tags = ScriptTag(lambda: "boot-1", fault, told)
    body = iter(["x"]) if streamed else "x"
    assert (await load(answering(body, sources=["/x"]), tags)).text == "x"


async def test_http_errors_are_the_sites_business(tags: ScriptTag) -> None:
    def refuse(request: Request) -> str:
        raise HTTPError(418, "No tea here.")

    root = Resource()
    root.putChild("page", refuse)
    answer = await load(Site(root).respond, tags)
    assert answer.status == 418 and TAG.search(answer.body)
