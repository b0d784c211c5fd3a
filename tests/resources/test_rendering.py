"""Every kind of result that a render method may give, sync and async, and those it may not."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import (
    NOT_DONE_YET,
    Directory,
    HTTPError,
    Redirect,
    Request,
    Resource,
    Response,
    Site,
    html,
)
from rpyserve.resources.rendering import describe_wrong_result, render
from rpyserve.resources.resource import FunctionResource
from rpyserve.sessions.session import Session
from rpyserve.util.slow_calls import slow_call_log
from tests.support.http_client import head
from tests.support.in_process import Visitor, ask, read


def page(function: Any) -> Site:
    """A site whose root is *function*."""
    return Site(function)


@pytest.mark.parametrize(
    ("result", "kind", "body"),
    [
        ("Hellö", "text/html; charset=utf-8", "Hellö".encode()),
        ("", "text/html; charset=utf-8", b""),
        (b"raw", "text/html; charset=utf-8", b"raw"),
        (bytearray(b"raw"), "text/html; charset=utf-8", b"raw"),
        ({"a": [1, "ö"]}, "application/json", '{"a": [1, "ö"]}'.encode()),
        ([1, 2], "application/json", b"[1, 2]"),
        (Response("x", 201), "text/html; charset=utf-8", b"x"),
        (html("<p>{}</p>", "<b>"), "text/html; charset=utf-8", b"<p>&lt;b&gt;</p>"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_results_become_bodies(result: Any, kind: str, body: bytes, is_async: bool) -> None:
    def plain(request: Request) -> Any:
        return result

    async def later(request: Request) -> Any:
        await trio.lowlevel.checkpoint()
        return result

    answer = await ask(page(later if is_async else plain), "/")
    assert answer.body == body
    assert answer.header("content-type") == kind
    assert answer.status == (201 if isinstance(result, Response) else 200)


async def test_generators_are_streamed() -> None:
    def rows(request: Request) -> Iterator[str | bytes]:
        yield "one "
        yield ""
        yield b"two"

    async def arows(request: Request) -> AsyncIterator[str]:
        for n in range(3):
            await trio.lowlevel.checkpoint()
            yield f"{n};"

    assert (await ask(page(rows), "/")).body == b"one two"
    answer = await ask(page(arows), "/")
    assert (answer.body, answer.header("content-type")) == (b"0;1;2;", "text/html; charset=utf-8")


async def test_an_async_generator_may_hold_a_nursery_and_a_timeout_around_its_yield(
    autojump_clock: Any,
) -> None:
    ended: list[str] = []

    async def rows(request: Request) -> AsyncIterator[str]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                with trio.move_on_after(2.5):
                    while True:
                        await trio.sleep(1)
                        yield "tick "
                nursery.cancel_scope.cancel()
            yield "end"
        finally:
            ended.append("closed")

    assert (await ask(page(rows), "/")).body == b"tick tick end"
    assert ended == ["closed"]


async def test_a_stream_that_is_left_is_closed_at_once(autojump_clock: Any) -> None:
    ended: list[str] = []

    async def rows(request: Request) -> AsyncIterator[str]:
        try:
            while True:
                yield "tick"
                await trio.sleep(1)
        finally:
            ended.append("closed")

    request = Request("GET", "/")
    response = await page(rows).respond(request)
    async with response.body.start(response) as opened:  # type: ignore[union-attr]
        assert await anext(opened.chunks) == b"tick"
        assert ended == []
    assert ended == ["closed"]


async def test_a_generator_that_fails_before_its_first_chunk_is_an_error_page() -> None:
    async def rows(request: Request) -> AsyncIterator[str]:
        raise HTTPError(410, "No more.")
        yield "never"

    def broken(request: Request) -> Iterator[str]:
        yield str(1 / 0)

    answer = await ask(page(rows), "/")
    assert answer.status == 410
    assert "No more." in answer.text
    answer = await ask(page(broken), "/")
    assert answer.status == 500
    assert "ZeroDivisionError" in answer.text


async def test_a_generator_that_fails_half_way_never_looks_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def rows(request: Request) -> AsyncIterator[str]:
        yield "first"
        raise ValueError("half-way")

    response = await page(rows).respond(Request("GET", "/"))
    seen = []
    with pytest.raises(ValueError, match="half-way"):
        async with response.body.start(response) as opened:  # type: ignore[union-attr]
            async for chunk in opened.chunks:
                seen.append(chunk)
    assert seen == [b"first"]
    assert caplog.text.count("GET /: ValueError: half-way") == 1


async def test_what_a_generator_says_before_its_first_yield_is_in_the_head(
    autojump_clock: Any,
) -> None:
    async def rows(request: Request) -> AsyncIterator[str]:
        await trio.sleep(0.1)
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        request.setResponseCode(202)
        request.setHeader("X-Count", session["n"])
        yield f"{session['n']}"

    visitor = Visitor(page(rows))
    assert (await visitor.get("/")).body == b"1"
    answer = await visitor.get("/")
    assert (answer.body, answer.header("x-count")) == (b"2", "2")


async def test_a_slow_generator_does_not_hold_its_head_back_for_ever(autojump_clock: Any) -> None:
    async def rows(request: Request) -> AsyncIterator[str]:
        await trio.sleep(60)
        yield "late"

    response = await page(rows).respond(Request("GET", "/"))
    began = trio.current_time()
    async with response.body.start(response) as opened:  # type: ignore[union-attr]
        assert trio.current_time() - began < 1
        assert [chunk async for chunk in opened.chunks] == [b"late"]


async def test_a_wrong_item_of_a_generator_is_named() -> None:
    def rows(request: Request) -> Iterator[Any]:
        yield 7

    assert "yields str or bytes, not int: 7" in (await ask(page(rows), "/")).text


class Later(Resource):
    """Answers when another request says so."""

    def __init__(self) -> None:
        self.waiting: list[Request] = []

    def render_GET(self, request: Request) -> Any:
        self.waiting.append(request)
        request.setHeader("X-When", "later")
        request.write("begun ")
        return NOT_DONE_YET

    def render_POST(self, request: Request) -> str:
        for other in self.waiting:
            other.write("told ")
            other.write(b"so")
            other.finish()
            other.finish()
            other.write("too late")
        return "done"


async def test_not_done_yet(nursery: trio.Nursery) -> None:
    site = Site(Later())
    answers = []

    async def wait() -> None:
        answers.append(await ask(site, "/"))

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert (await ask(site, "/", "POST")).body == b"done"
    await trio.testing.wait_all_tasks_blocked()
    assert [answer.body for answer in answers] == [b"begun told so"]
    assert answers[0].header("x-when") == "later"


@pytest.mark.parametrize("kind", ["written", "yielded"])
async def test_a_status_that_is_set_before_the_first_piece_is_sent(
    kind: str, connect: Any, nursery: trio.Nursery
) -> None:
    proceed = trio.Event()

    async def later(request: Request) -> None:
        await proceed.wait()
        request.setResponseCode(404, "Not Here")
        request.write("no")
        request.finish()

    def written(request: Request) -> Any:
        nursery.start_soon(later, request)
        return NOT_DONE_YET

    async def yielded(request: Request) -> Any:
        proceed.set()
        request.setResponseCode(404, "Not Here")
        yield "no"

    client = connect(page({"written": written, "yielded": yielded}[kind]).respond)
    await client.send(head("GET", "/"))
    await trio.testing.wait_all_tasks_blocked()
    proceed.set()
    reply = await client.reply()
    assert (reply.status, reply.reason, reply.body) == (404, b"Not Here", b"no")


async def test_written_and_finished_before_the_return() -> None:
    def at_once(request: Request) -> Any:
        request.write("a")
        request.write("b")
        request.finish()
        return NOT_DONE_YET

    def forgot_nothing(request: Request) -> None:
        request.write("c")
        request.finish()

    def mixed(request: Request) -> str:
        request.write("first ")
        return "second"

    assert (await ask(page(at_once), "/")).body == b"ab"
    assert (await ask(page(forgot_nothing), "/")).body == b"c"
    assert (await ask(page(mixed), "/")).body == b"first second"


async def test_none_names_the_method_and_the_missing_return() -> None:
    class Hello(Resource):
        def render_GET(self, request: Request) -> None:
            "Hello"

    answer = await ask(Site(Hello()), "/")
    assert answer.status == 500
    assert "render_GET" in answer.text
    assert "return" in answer.text


@pytest.mark.parametrize(("method", "status"), [("GET", 302), ("POST", 303)])
@pytest.mark.parametrize("way", ["raise", "return", "call", "nursery"])
async def test_redirects(method: str, status: int, way: str) -> None:
    class Moved(Resource):
        async def render_GET(self, request: Request) -> Any:
            if way == "raise":
                raise Redirect("/new")
            if way == "return":
                return Redirect("/new")
            if way == "call":
                return request.redirect("/new")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fail)
                await trio.sleep_forever()

        async def fail(self) -> None:
            raise Redirect("/new")

        render_POST = render_GET

    answer = await ask(Site(Moved()), "/", method)
    assert (answer.status, answer.header("location")) == (status, "/new")


async def test_a_redirect_keeps_cookies_and_quotes_its_target() -> None:
    def login(request: Request) -> Redirect:
        request.getSession()["user"] = "ö"
        return Redirect("/wählen?a b\r\nX: y")

    answer = await ask(page(login), "/")
    assert answer.header("location") == "/w%C3%A4hlen?a%20b%0D%0AX:%20y"
    assert "rpyserve_8080=" in (answer.header("set-cookie") or "")


async def test_http_error_out_of_nested_nurseries_counts_as_itself() -> None:
    async def fails(request: Request) -> str:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(trio.sleep_forever)
            raise HTTPError(418, "teapot", {"X-Pot": "tea"})
        return ""

    answer = await ask(page(fails), "/")
    assert (answer.status, answer.header("x-pot")) == (418, "tea")
    assert "teapot" in answer.text


async def test_two_failures_of_a_nursery_are_both_told() -> None:
    async def fails(request: Request) -> str:
        async def one() -> None:
            raise ValueError("first")

        async def two() -> None:
            raise KeyError("second")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(two)
        return ""

    answer = await ask(page(fails), "/")
    assert answer.status == 500
    assert "ExceptionGroup" in answer.text


async def test_an_async_method_is_cancelled_when_the_client_leaves(autojump_clock: Any) -> None:
    cleaned: list[float] = []

    async def slow(request: Request) -> str:
        try:
            await trio.sleep(60)
        finally:
            cleaned.append(trio.current_time())
        return "never"

    async def leave() -> None:
        await trio.sleep(1)

    from rpyserve.http.errors import ClientDisconnected

    began = trio.current_time()
    with pytest.raises(ClientDisconnected):
        await page(slow).respond(Request("GET", "/", wait_client_left=leave))
    assert cleaned == [pytest.approx(began + 1)]


async def test_headers_and_codes_that_a_script_sets() -> None:
    def teapot(request: Request) -> str:
        request.setResponseCode(418, "I'm a teapot")
        request.setHeader(b"content-type", b"text/plain")
        request.setHeader("X-Once", "1")
        request.setHeader("x-once", "2")
        return "short"

    answer = await ask(page(teapot), "/")
    assert (answer.status, answer.header("content-type"), answer.header("x-once")) == (
        418,
        "text/plain; charset=utf-8",
        "2",
    )


async def test_what_a_response_says_itself_goes_first() -> None:
    def both(request: Request) -> Response:
        request.setHeader("X-A", "request")
        request.setHeader("X-B", "request")
        return Response("{}", headers={"X-A": "response", "Content-Type": "application/json"})

    answer = await ask(page(both), "/")
    assert answer.header("x-a") == "response"
    assert answer.header("x-b") == "request"
    assert answer.header("content-type") == "application/json"


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\x00b", "a\x1bb", "€"])
async def test_a_header_cannot_be_split(value: str) -> None:
    def evil(request: Request) -> str:
        request.setHeader("X-Name", value)
        return "no"

    answer = await ask(page(evil), "/")
    assert answer.status == 500
    assert answer.header("x-name") is None
    with pytest.raises(ValueError, match="X-Name"):
        Response("", headers={"X-Name": value})


async def test_a_session_made_too_late_is_announced(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def rows(request: Request) -> AsyncIterator[str]:
        yield "head sent"
        request.getSession()
        yield "late"

    await ask(page(rows), "/")
    assert "Call it before the first yield" in caplog.text


async def test_json_of_an_api_is_what_was_returned() -> None:
    answer = await ask(page(lambda request: {"args": request.args}), "/?a=1&a=2&b=")
    assert json.loads(answer.body) == {"args": {"a": ["1", "2"], "b": [""]}}


async def test_read_helper_reads_every_kind_of_body() -> None:
    assert (await read(Response("x"))).body == b"x"


# Results that cannot be sent


class Hello(Resource):
    pass


class Whole(Resource):
    def render(self, request: Request) -> Any:
        return None


async def later() -> str:
    return ""


def hello(request: Request) -> None:
    return None


class Table:
    """As pandas has it: with a method that makes HTML."""

    def to_html(self) -> str:
        raise AssertionError("no code of the author's is called")


class Figure:
    def savefig(self, file: object, format: str) -> None:
        raise AssertionError("no code of the author's is called")


@dataclass
class Point:
    x: int


class TString:
    """As Python 3.14 makes it of ``t"..."``."""

    strings = ("",)
    interpolations = ()


RETURNED: dict[str, tuple[Any, str, str]] = {
    "None": (None, "returned nothing (None). Probably a `return` is missing", 'return "..."'),
    "a Flask tuple": (("x", 404), "returned a tuple, as Flask's views do.", "request.setResponseCode(404)"),
    "a tuple with headers": (("x", 201, {}), "returned a tuple, as Flask's views do.", "return Response(..., 201)"),
    "a comma": (("x",), "returned a tuple of one.", "a comma too many"),
    "a tuple": (("x", "y"), "returned a tuple.", '"".join(...)'),
    "a number": (42, "returned the number 42.", "return str(42)"),
    "one": (1, "returned the number 1.", "from rpyserve import NOT_DONE_YET"),
    "a float": (0.5, "returned the number 0.5.", "return str(0.5)"),
    "a truth value": (True, "returned the truth value True.", "return str(...)"),
    "a class": (Hello, "returned the class Hello, not an instance of it.", "return Hello(...)"),
    "a function": (hello, "returned the function hello without calling it.", "return hello(...)"),
    "an async function": (later, "returned the function later without calling it.", "return await later(...)"),
    "a resource": (Hello(), "returned a resource (Hello).", "getChild, putChild or `resource`"),
    "an exception": (ValueError("x"), "returned an exception (ValueError).", "raise ValueError(...)"),
    "a path": (Path("x"), "returned a path.", 'path.read_text(encoding="utf-8")'),
    "a set": ({1}, "returned a set.", "return sorted(...)"),
    "a buffer": (io.StringIO(), "returned a StringIO.", "it.getvalue()"),
    "an iterator": (map(str, []), "returned an iterator (map).", '"".join(...)'),
    "a range": (range(3), "returned an iterator (range).", "list(...) for JSON"),
    "a session": (Session(None, None), "returned a Session, which cannot be sent.", "A method returns str, bytes, a dict"),
    "a data frame": (Table(), "returned a Table.", "return it.to_html()"),
    "a figure": (Figure(), "returned a Figure.", 'it.savefig(file, format="png")'),
    "a record": (Point(1), "returned a Point.", "return dataclasses.asdict(it)"),
    "a number of another kind": (Fraction(1, 2), "returned the number 1/2.", "return str(1/2)"),
    "a t-string": (TString(), "returned a t-string.", 'return html(t"...")'),
    "an object": (object(), "returned an object, which cannot be sent.", "A method returns str, bytes, a dict"),
}  # fmt: skip


@pytest.mark.parametrize("case", RETURNED)
def test_what_a_method_returned(case: str) -> None:
    value, said, mend = RETURNED[case]
    text = describe_wrong_result(value, Request("GET", "/"), Hello())
    assert text.startswith(f"Hello.render_GET {said}")
    assert mend in text


def test_an_open_file_and_a_response_of_another(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with open(tmp_path / "x") as file:
        assert "file.read()" in describe_wrong_result(file, Request("GET", "/"), Hello())
    foreign = type("JSONResponse", (), {"__module__": "starlette.responses"})()
    assert "returned a JSONResponse of starlette." in describe_wrong_result(
        foreign, Request("GET", "/"), Hello()
    )


def test_a_coroutine_that_nobody_awaited() -> None:
    text = describe_wrong_result(later(), Request("GET", "/"), Hello())
    assert (
        text == "Hello.render_GET returned a coroutine of later that nobody awaited. Write return "
        "await later(...)."
    )


@pytest.mark.parametrize(
    ("method", "resource", "name"),
    [
        ("POST", Hello(), "Hello.render_POST "),
        ("HEAD", Hello(), "Hello.render_GET "),
        ("GET", Whole(), "Whole.render "),
        ("GET", FunctionResource(hello), "hello() "),
    ],
)
def test_the_method_is_named(method: str, resource: Resource, name: str) -> None:
    assert describe_wrong_result(None, Request(method, "/"), resource).startswith(name)


async def test_slow_code_that_fails_is_named_but_not_what_was_interrupted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("rpyserve"), "propagate", True)
    monkeypatch.setattr(slow_call_log, "threshold", -1.0)
    for exc in (ValueError(), KeyboardInterrupt()):

        def fail(request: Request, exc: BaseException = exc) -> None:
            raise exc

        request = Request("GET", f"/{type(exc).__name__}")
        with pytest.raises(type(exc)):
            await render(FunctionResource(fail), request, lambda exc, begun: None)
    slow = [record.getMessage() for record in caplog.records if "waited" in record.getMessage()]
    assert [line.split()[0] for line in slow] == ["/ValueError"]


async def test_only_code_of_the_author_is_called_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(slow_call_log, "threshold", -1.0)
    (tmp_path / "style.css").write_text("p {}")
    (tmp_path / "slow.rpy").write_text("def resource(request): return ''\n")
    site = Site(Directory(tmp_path))
    async with site.running():
        for path in ("/", "/style.css", "/slow"):
            request = Request("GET", path)
            await site.respond(request)
            request.close()
    told = [message for message in caplog.messages if " took " in message]
    assert [line.split()[0] for line in told if line.startswith("/")] == ["/slow"]
