"""What a script sees of a request."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest

from rpyserve import HTTPError, Request, Site
from rpyserve.http.errors import ClientDisconnected
from rpyserve.http.forms import FIELD_LIMIT, FORM_LIMIT, SPOOL_SIZE
from rpyserve.testing.transport import body_chunks
from tests.support.in_process import Visitor, ask


def test_the_target_is_taken_apart() -> None:
    request = Request("GET", "/a%20b/%C3%A9/?x=1&x=2&y=&z&%C3%A9=%ff&a;b=c")
    assert request.path == "/a b/é/"
    assert request.query == "x=1&x=2&y=&z&%C3%A9=%ff&a;b=c"
    assert request.postpath == ["a b", "é", ""]
    assert request.args == {"x": ["1", "2"], "y": [""], "z": [""], "é": ["�"], "a;b": ["c"]}


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://example.com/a?b", "/a"),
        ("http://example.com", "/"),
        ("HTTPS://[::1]:8080/x", "/x"),
        ("/http://example.com/a", "/http://example.com/a"),
        ("//evil/x", "//evil/x"),
    ],
)
def test_absolute_form(target: str, path: str) -> None:
    assert Request("GET", target).path == path


def test_field_is_the_first_value() -> None:
    request = Request("GET", "/?name=a&name=b")
    assert request.field("name") == "a"
    assert request.field("missing", "default") == "default"
    assert request.field("missing", None) is None
    with pytest.raises(HTTPError) as caught:
        request.field("missing")
    assert (caught.value.status, "'missing'" in caught.value.detail) == (400, True)


def test_a_missing_field_is_explained_to_the_author_only() -> None:
    for ask_for, line in (
        (lambda request: request.field("n"), 'request.field("n", "")'),
        (lambda request: request.field("n", type=int), 'request.field("n", 0)'),
        (lambda request: request.file("n"), 'request.file("n", None)'),
    ):
        with pytest.raises(HTTPError) as caught:
            ask_for(Request("GET", "/"))
        assert line in caught.value.private
        assert re.search(r"\(.*test_request\.py, line \d+\)", caught.value.private)
        assert line not in caught.value.detail


def test_a_field_of_a_type() -> None:
    request = Request("GET", "/?n=+7+&x=1.5&word=seven&blank=&nan=nan&n=8")
    assert request.field("n", type=int) == 7
    assert request.field("x", 0.0, type=float) == 1.5
    assert request.field("word", type=list) == [*"seven"]
    # A form sends a field that was left blank.
    assert request.field("blank", 3, type=int) == request.field("missing", 3, type=int) == 3
    assert request.field("blank", "x") == ""


@pytest.mark.parametrize(
    ("name", "kind", "detail"),
    [
        ("word", int, "The field 'word' must be a whole number, not 'seven'."),
        ("x", int, "The field 'x' must be a whole number, not '1.5'."),
        ("word", float, "The field 'word' must be a number, not 'seven'."),
        ("nan", float, "The field 'nan' must be a number, not 'nan'."),
        ("blank", int, "The field 'blank' must be a whole number, not ''."),
        ("word", date.fromisoformat, "The field 'word' must be valid, not 'seven'."),
        ("long", int, f"The field 'long' must be a whole number, not '{'9' * 60}'."),
    ],
)
def test_a_field_that_is_no_such_value(name: str, kind: Any, detail: str) -> None:
    request = Request("GET", f"/?x=1.5&word=seven&blank=&nan=nan&long={'9' * 5000}")
    with pytest.raises(HTTPError) as caught:
        request.field(name, type=kind)
    assert (caught.value.status, caught.value.detail) == (400, detail)


async def test_a_form_joins_the_query_and_wins_over_it() -> None:
    def show(request: Request) -> dict[str, Any]:
        return {"args": request.args, "body": request.content.read().decode()}

    answer = await ask(Site(show), "/?a=query&b=query", "POST", body="a=form&c=%C3%B6+o")
    assert (
        answer.text
        == '{"args": {"a": ["form"], "b": ["query"], "c": ["ö o"]}, "body": "a=form&c=%C3%B6+o"}'
    )


async def test_a_body_that_is_no_form_is_left_alone() -> None:
    def show(request: Request) -> dict[str, Any]:
        return {"args": request.args, "body": request.content.read().decode()}

    answer = await ask(Site(show), "/", "POST", body=b"a=1")
    assert answer.text == '{"args": {}, "body": "a=1"}'


async def test_a_large_body_goes_to_disk_and_its_file_is_closed() -> None:
    files = []

    def size(request: Request) -> str:
        files.append(request.content)
        assert request.content._rolled  # type: ignore[attr-defined]
        return str(len(request.content.read()))

    answer = await ask(Site(size), "/", "POST", body=b"x" * (SPOOL_SIZE + 1))
    assert answer.text == str(SPOOL_SIZE + 1)
    assert files[0].closed


async def test_too_many_fields_and_too_large_a_form() -> None:
    def names(request: Request) -> str:
        return str(len(request.args))

    many = "&".join(f"a{n}=1" for n in range(FIELD_LIMIT + 1))
    assert (await ask(Site(names), "/?" + many)).status == 400
    assert (await ask(Site(names), "/", "POST", body=many)).status == 413

    class Form(Request):
        pass

    request = Form("POST", "/", [(b"content-type", b"application/x-www-form-urlencoded")])
    request.content.write(b"a" * (FORM_LIMIT + 1))
    with pytest.raises(HTTPError) as caught:
        _ = request.args
    assert caught.value.status == 413


async def test_a_body_that_is_cut_off_never_reaches_the_script() -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield b"half"
        raise ClientDisconnected

    called = []
    request = Request("POST", "/", body=cut())
    with pytest.raises(ClientDisconnected):
        await Site(lambda request: called.append(request)).respond(request)
    request.close()
    assert called == []


def test_headers() -> None:
    request = Request("GET", "/", [(b"accept", b"a"), (b"x-one", b"1"), (b"accept", b"b")])
    assert request.getHeader("Accept") == "a, b"
    assert request.getHeader(b"X-ONE") == "1"
    assert request.getHeader("none") is None


def test_cookies() -> None:
    request = Request("GET", "/", [(b"cookie", b'a=1; b="x y"; a=2; junk; c=d=e')])
    assert request.cookies == {"a": "1", "b": "x y", "c": "d=e"}
    assert request.getCookie("nope") is None


@pytest.mark.parametrize("code", [0, 99, 101, 600, "200", None])
def test_a_code_that_is_none(code: Any) -> None:
    with pytest.raises(ValueError, match="status code"):
        Request("GET", "/").setResponseCode(code)


def test_write_takes_text_and_bytes_only() -> None:
    with pytest.raises(TypeError, match="str or bytes, not int"):
        Request("GET", "/").write(5)  # type: ignore[arg-type]


async def test_one_visitor_has_one_session() -> None:
    def count(request: Request) -> str:
        session = request.getSession()
        assert request.getSession() is session
        session["n"] = session.get("n", 0) + 1
        return f"{session['n']} {session.new}"

    site = Site(count)
    anna, ben = Visitor(site), Visitor(site)
    assert [(await anna.get("/")).text for _ in range(3)] == ["1 True", "2 False", "3 False"]
    assert (await ben.get("/")).text == "1 True"
    assert len(site.sessions) == 2


async def test_the_session_cookie() -> None:
    def touch(request: Request) -> str:
        return request.getSession().uid

    site = Site(touch)
    answer = await ask(site, "/")
    assert (
        answer.header("set-cookie")
        == f"rpyserve_8080={answer.text}; Path=/; HttpOnly; SameSite=Lax"
    )
    visitor = Visitor(site)
    await visitor.get("/")
    assert (await visitor.get("/")).header("set-cookie") is None


@pytest.mark.parametrize("made_up", ["x", "", "../../etc/passwd", '"quoted"', "é"])
async def test_an_id_that_was_not_issued_is_never_adopted(made_up: str) -> None:
    site = Site(lambda request: request.getSession().uid)
    answer = await ask(site, "/", headers=[("Cookie", f"rpyserve_8080={made_up}")])
    assert answer.text != made_up
    assert answer.header("set-cookie")


async def test_a_page_that_asks_for_no_session_sets_no_cookie() -> None:
    site = Site(lambda request: "plain")
    assert (await ask(site, "/")).header("set-cookie") is None
    assert len(site.sessions) == 0


async def test_an_ended_session_is_followed_by_a_new_one_in_the_same_request() -> None:
    def swap(request: Request) -> dict[str, Any]:
        old = request.getSession()
        old.expire()
        new = request.getSession()
        return {"same": old is new, "uid": new.uid}

    visitor = Visitor(Site(swap))
    answer = await visitor.get("/")
    assert answer.text.startswith('{"same": false')
    assert visitor.cookies["rpyserve_8080"] in answer.text


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, null]}', {"a": [1, None]}),
        (b" 1 ", 1),
        ('"é"'.encode(), "é"),
        ('"é"'.encode("utf-16"), "é"),
    ],
)
async def test_json(body: bytes, value: object) -> None:
    request = Request("POST", "/", body=body_chunks(body, 7))
    await request.load_body()
    assert request.json() == request.json() == value
    request.close()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "the body is empty"),
        (b"{'a': 1}", "line 1, column 2"),
        (b"[1,\n2,]", "line 2"),
        (b"\xff\xfe\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b"1" * 5000, "a number in it is too long"),
    ],
)
async def test_no_json(body: bytes, why: str) -> None:
    request = Request("POST", "/", body=body_chunks(body, 7))
    await request.load_body()
    with pytest.raises(HTTPError, match=why) as caught:
        request.json()
    assert caught.value.status == 400
    request.close()
