"""`rpyserve.testing` as its users use it: plain tests, async tests, time that passes on demand."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from rpyserve import (
    BasicAuth,
    HTTPError,
    NameVirtualHost,
    Redirect,
    Resource,
    Response,
    Site,
    WSGIResource,
)
from rpyserve.testing import AsyncClient, Client

COUNTER = """
from rpyserve import Interface, Session, cache, registerAdapter
cache()
class ICounter(Interface):
    pass
class Counter:
    def __init__(self, session):
        self.value = 0
registerAdapter(Counter, Session, ICounter)
def resource(request):
    ICounter(request.getSession()).value += 1
    return str(ICounter(request.getSession()).value)
"""


def visits(request):
    session = request.getSession()
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


# What may be given


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "counter.rpy").write_text(COUNTER)
    with Client(tmp_path) as client:
        assert [client.get("/counter").text for _ in range(2)] == ["1", "2"]
        assert client.get("/nothing").status_code == 404


def test_a_script_is_the_page_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "hello.rpy").write_text(
        "def resource(request): return request.field('name', 'nobody')"
    )
    with Client(tmp_path / "hello.rpy") as client:
        assert client.get().text == "nobody"
        assert client.get("?name=Ada").text == "Ada"
        assert client.get("/hello.rpy").text == "nobody"


def test_a_site_a_resource_and_a_function() -> None:
    class Page(Resource):
        isLeaf = True

        def render_GET(self, request):
            return "page"

    for given in (Site(Page()), Page(), lambda request: "page"):
        with Client(given) as client:
            assert client.get("/").text == "page"


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no directory or script 'nowhere'"):
        Client("nowhere")
    with pytest.raises(TypeError, match="an instance"):
        Client(Resource)


def test_scripts_run_in_their_site_and_tests_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (tmp_path / "words.txt").write_text("pears")
    (tmp_path / "words.rpy").write_text(
        "from pathlib import Path\ndef resource(request): return Path('words.txt').read_text()"
    )
    with Client("..") as client:
        assert client.get("/words").text == "pears"
        assert Path.cwd() == elsewhere


def test_a_stream_runs_in_its_site_too(tmp_path: Path) -> None:
    (tmp_path / "cwd.rpy").write_text("""
import os, time
def resource(request):
    for step in range(3):
        yield os.getcwd() + "\\n"
        time.sleep(0.01)
""")
    with Client(tmp_path) as client, client.stream("GET", "/cwd") as answer:
        for line in answer.iter_lines():
            time.sleep(0.03)
            assert line == str(tmp_path)


def test_an_edit_is_there_at_once(tmp_path: Path) -> None:
    script = tmp_path / "counter.rpy"
    script.write_text(COUNTER)
    with Client(tmp_path) as client:
        client.get("/counter")
        script.write_text(COUNTER.replace("return str(", "return 'visit ' + str("))
        assert client.get("/counter").text == "visit 2"


# Asking


def test_forms_json_and_files() -> None:
    class Echo(Resource):
        isLeaf = True

        def render_POST(self, request):
            photo = request.file("photo", None)
            if photo is not None:
                return [request.args, photo.filename, photo.content_type, photo.read().decode()]
            return (
                request.json()
                if "json" in (request.getHeader("content-type") or "")
                else request.args
            )

    with Client(Echo()) as client:
        assert client.post("/?a=0", data={"b": "1", "c": ["2", "3"]}).json() == {
            "a": ["0"],
            "b": ["1"],
            "c": ["2", "3"],
        }
        assert client.post("/", json=[1, None]).json() == [1, None]
        photo = ("a b.png", b"bytes", "image/png")
        assert client.post("/", data={"x": 1}, files={"photo": photo}).json() == [
            {"x": ["1"]}, "a b.png", "image/png", "bytes",
        ]  # fmt: skip
        with Path(__file__).open("rb") as file:
            assert client.post("/", files={"photo": file}).json()[1] == Path(__file__).name


def test_a_raw_body_and_headers() -> None:
    class Raw(Resource):
        def render_PUT(self, request):
            return request.content.read() + (request.getHeader("X-Name") or "").encode()

    with Client(Raw()) as client:
        assert (
            client.put("/", content=b"\x00" * 200_000, headers={"X-Name": "Ada"}).content[-4:]
            == b"\x00Ada"
        )


def test_a_url_says_which_host_and_scheme() -> None:
    root = NameVirtualHost()
    root.addHost("plums.localhost", lambda request: request.scheme)
    with Client(root) as client:
        assert client.get("https://plums.localhost/").text == "https"
        assert client.get("/").status_code == 404


def test_head_has_no_body() -> None:
    with Client(lambda request: "text") as client:
        answer = client.request("HEAD", "/")
        assert (answer.status_code, answer.content) == (200, b"")


def test_redirects_are_followed_on_demand() -> None:
    class Login(Resource):
        isLeaf = True

        def render_GET(self, request):
            return f"{request.method} {request.query}"

        def render_POST(self, request):
            return Redirect("/?next")

    with Client(Login()) as client:
        answer = client.post("/", data={"a": "b"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/?next")
        assert client.post("/", data={"a": "b"}, follow_redirects=True).text == "GET next"


def test_redirects_without_end_are_told() -> None:
    with Client(lambda request: Redirect("/")) as client, pytest.raises(httpx.TooManyRedirects):
        client.get("/", follow_redirects=True)


def test_visitors_have_sessions_of_their_own() -> None:
    with Client(visits) as ada:
        grace = ada.new_visitor()
        assert [ada.get("/").text, ada.get("/").text, grace.get("/").text] == ["1", "2", "1"]
        assert ada.session is not None and grace.session is not None
        assert (ada.session["n"], grace.session["n"]) == (2, 1)
        ada.registry["shared"] = 1
        assert grace.registry["shared"] == 1


def test_another_visitor_has_the_options_but_no_name() -> None:
    def page(request):
        return f"{request.getUser()} {request.getHeader('x-y')} {request.cookies.get('c')}"

    options = {"headers": {"X-Y": "z"}, "auth": ("ada", ""), "cookies": {"c": "1"}}
    with Client(page, **options) as client:
        assert client.get("/").text == "ada z 1"
        assert client.new_visitor().get("/").text == " z None"
        assert client.new_visitor(auth=("bob", "")).get("/").text == "bob z None"


def test_a_visitor_from_elsewhere_sees_no_details() -> None:
    def broken(request):
        raise LookupError("secret")

    with Client(broken, raise_errors=False) as client:
        assert "secret" in client.get("/").text
        assert "secret" not in client.new_visitor(address="203.0.113.7").get("/").text


def test_cookies_come_and_go() -> None:
    def cookies(request):
        request.addCookie("a", "1", max_age=0 if request.query else 60)
        return dict(request.cookies)

    with Client(cookies) as client:
        client.get("/")
        assert client.cookies == {"a": "1"}
        assert client.get("/?end").json() == {"a": "1"}
        assert client.cookies == {}


# What scripts raise


def test_the_exception_itself_is_raised(tmp_path: Path) -> None:
    (tmp_path / "bad.rpy").write_text("def resource(request):\n    return {}[request.path]")
    with Client(tmp_path) as client:
        with pytest.raises(KeyError, match="/bad") as caught:
            client.get("/bad")
        assert caught.traceback[-1].path == tmp_path / "bad.rpy"
        assert client.get("/").status_code == 200


def test_or_its_page_is_the_answer() -> None:
    with Client(lambda request: 1 / 0, raise_errors=False) as client:
        answer = client.get("/")
        assert answer.status_code == 500 and "ZeroDivisionError" in answer.text


def test_an_error_that_is_meant_is_an_answer() -> None:
    def teapot(request):
        raise HTTPError(418, "Short and stout.")

    with Client(teapot) as client:
        assert client.get("/").status_code == 418


@pytest.mark.parametrize("raise_errors", [True, False])
def test_a_page_that_fails_half_way_is_not_complete(raise_errors: bool) -> None:
    async def half(request):
        yield "half"
        await trio.sleep(1)
        raise LookupError("the other half")

    with Client(half, raise_errors=raise_errors) as client:
        if raise_errors:
            with pytest.raises(LookupError, match="the other half"):
                client.get("/")
        else:
            answer = client.get("/")
            assert (answer.text, answer.extensions["complete"]) == ("half", False)


# Time


def test_a_quarter_of_an_hour_takes_none() -> None:
    ended = []

    def page(request):
        session = request.getSession()
        if session.new:
            session.notifyOnExpire(lambda: ended.append(session.ended.value))
        return session.uid

    with Client(page) as client:
        first = client.get("/").text
        client.sleep(899)
        assert client.get("/").text == first
        client.sleep(899)
        assert ended == [] and client.session is not None
        client.sleep(2)
        assert ended == ["idle"] and client.session is None
        assert client.get("/").text != first


def test_time_stands_still_between_calls() -> None:
    with Client(visits, session_timeout=0.05) as client:
        client.get("/")
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            threading.Event().wait(0.01)
        assert client.get("/").text == "2"


def test_an_answer_that_takes_its_time() -> None:
    async def slow(request):
        started = trio.current_time()
        await trio.sleep(30)
        return str(trio.current_time() - started)

    with Client(slow) as client:
        assert client.get("/").text == "30.0"


def test_work_in_a_thread_does_not_make_hours_pass() -> None:
    async def threaded(request):
        request.getSession()["there"] = True
        await trio.to_thread.run_sync(time.sleep, 0.1)
        return str(request.getSession().get("there"))

    with Client(threaded, session_timeout=50) as client:
        assert client.get("/").text == "True"


def test_an_answer_without_end_is_told() -> None:
    async def ticker(request):
        while True:
            yield "tick"
            await trio.sleep(1)

    async def never(request):
        await trio.sleep_forever()

    with (
        Client(ticker) as client,
        pytest.raises(httpx.ReadTimeout, match="is not complete after 600 s"),
    ):
        client.get("/")
    with Client(never, timeout=5) as client:
        with pytest.raises(httpx.ReadTimeout, match="GET /: no response after 5 s"):
            client.get("/")
        with pytest.raises(httpx.ReadTimeout, match="after 7200 s"):
            client.get("/", timeout=7200)


def test_tasks_beside_the_site_go_on_while_time_passes(tmp_path: Path) -> None:
    (tmp_path / "tide.rpy").write_text("""
import trio
from rpyserve import background, cache, registry
cache()
@background
async def rise():
    while True:
        registry["tide"] = registry.get("tide", 0) + 1
        await trio.sleep(60)
def resource(request):
    return "at sea"
""")
    with Client(tmp_path) as client:
        client.get("/tide")
        client.sleep(3600)
        assert client.registry["tide"] in (60, 61)


# Step by step


def test_a_stream_is_read_step_by_step_and_left() -> None:
    seen = []

    async def countdown(request):
        try:
            for number in range(5, 0, -1):
                seen.append(number)
                yield f"{number}"
                await trio.sleep(10)
        finally:
            seen.append("left")

    with Client(countdown) as client:
        with client.stream("GET", "/") as answer:
            assert answer.status_code == 200
            chunks = answer.iter_text()
            assert (next(chunks), next(chunks)) == ("5", "4")
            assert "left" not in seen
        assert seen[-1] == "left" and 1 not in seen
        with client.stream("GET", "/") as answer:
            assert list(answer.iter_raw()) == [b"5", b"4", b"3", b"2", b"1"]
            assert answer.extensions["complete"]


def test_leaving_cancels_who_works() -> None:
    seen = []

    async def slow(request):
        yield "begun"
        try:
            await trio.sleep_forever()
        finally:
            seen.append("cancelled")

    with Client(slow) as client:
        with client.stream("GET", "/") as answer:
            next(answer.iter_raw())
        assert seen == ["cancelled"]


def test_a_script_goes_on_to_the_next_chunk_and_no_further() -> None:
    made = []

    def page(request):
        for piece in "abc":
            made.append(piece)
            yield piece

    with Client(page) as client, client.stream("GET", "/") as answer:
        chunks = answer.iter_text()
        assert made == ["a"]
        next(chunks)
        assert made == ["a", "b"]
        client.sleep(1)
        assert made == ["a", "b"]


def test_time_between_two_chunks_does_not_count_as_waiting() -> None:
    async def two(request):
        yield "a"
        yield "b"

    with Client(two) as client, client.stream("GET", "/") as answer:
        chunks = answer.iter_text()
        assert next(chunks) == "a"
        client.sleep(3600)
        assert next(chunks) == "b"


# Its end


def test_to_close_is_to_stop_the_site() -> None:
    said = []

    def page(request):
        async def goodbye():
            await trio.sleep(3)
            said.append("goodbye")

        request.getSession().notifyOnExpire(goodbye)
        return ""

    client = Client(page)
    client.get("/")
    client.close()
    client.close()
    assert said == ["goodbye"]
    with pytest.raises(RuntimeError, match="closed"):
        client.get("/")


def test_its_thread_ends_with_it() -> None:
    def threads() -> list[str]:
        return [
            thread.name for thread in threading.enumerate() if thread.name == "rpyserve.testing"
        ]

    before = threads()
    with Client(visits) as client, client.new_visitor() as other:
        other.get("/")
        assert len(threads()) == len(before) + 1
    with pytest.raises(TypeError, match="session_time"):
        Client(visits, session_time=1)  # type: ignore[call-arg]
    assert threads() == before


def test_another_visitor_may_leave_before() -> None:
    with Client(visits) as client:
        with client.new_visitor() as other:
            other.get("/")
        with pytest.raises(RuntimeError, match="closed"):
            other.get("/")
        assert client.get("/").text == "1"


def test_two_at_once() -> None:
    with Client(visits) as one, Client(visits) as other:
        assert [one.get("/").text, one.get("/").text, other.get("/").text] == ["1", "2", "1"]


# In async tests


async def test_an_async_test(autojump_clock: object) -> None:
    async with AsyncClient(visits, session_timeout=60) as client:
        assert (await client.get("/")).text == "1"
        await client.sleep(59)
        assert (await client.get("/")).text == "2"
        assert (await client.new_visitor().get("/")).text == "1"
        await client.sleep(61)
        assert (await client.get("/")).text == "1"


async def test_an_async_test_reads_step_by_step(autojump_clock: object) -> None:
    async def pieces(request):
        for piece in "abc":
            yield piece
            await trio.sleep(1)

    async with AsyncClient(pieces) as client:
        async with client.stream("GET", "/") as answer:
            assert [chunk async for chunk in answer.aiter_raw()] == [b"a", b"b", b"c"]
        async with client.stream("GET", "/") as answer, aclosing(aiter(answer.stream)) as chunks:
            assert await anext(chunks) == b"a"


async def test_an_async_visitor_may_be_entered_and_left(autojump_clock: object) -> None:
    async with AsyncClient(visits) as client:
        async with client.new_visitor() as other:
            await other.get("/")
        assert (await client.get("/")).text == "1"
    with pytest.raises(RuntimeError, match="closed"):
        await client.get("/")


async def test_an_async_client_is_entered_first() -> None:
    with pytest.raises(RuntimeError, match="async with AsyncClient"):
        await AsyncClient(visits).get("/")


async def test_what_an_async_test_raises_comes_out_as_it_is() -> None:
    with pytest.raises(LookupError):
        async with AsyncClient(visits):
            raise LookupError


@pytest.mark.parametrize("seconds", [0, 0.1, 0.7, 1.5, 2.5])
async def test_who_is_cancelled_has_left(seconds: float, autojump_clock: object) -> None:
    at_work = 0

    async def slow(request):
        nonlocal at_work
        at_work += 1
        try:
            for _ in range(3):
                await trio.sleep(1)
                yield "piece"
        finally:
            at_work -= 1

    async with AsyncClient(slow) as client:
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.move_on_after(seconds) as scope:
            await client.get("/")
        assert scope.cancelled_caught
        assert (at_work, trio.lowlevel.current_statistics().tasks_living) == (0, before)


async def test_an_async_client_that_is_cancelled_stops_its_site(autojump_clock: object) -> None:
    async def slow(request):
        await trio.sleep(5)

    with trio.move_on_after(1) as scope:
        async with AsyncClient(slow) as client:
            await client.get("/")
    assert scope.cancelled_caught


async def test_in_an_async_test_the_plain_client_says_which_to_use() -> None:
    with Client(visits) as client, pytest.raises(RuntimeError, match="AsyncClient"):
        client.get("/")


def test_an_async_function_of_the_tests_own_runs_where_the_site_does() -> None:
    async def expire(session):
        session.expire()

    with Client(visits) as client:
        client.get("/")
        client.run(expire, client.session)
        assert client.session is None


def test_a_guard_is_passed_by_its_header() -> None:
    guarded = BasicAuth(lambda request: Response(request.user), {"ada": "lovelace"})
    with Client(guarded) as client:
        assert client.get("/").status_code == 401
        assert client.get("/", headers={"Authorization": "Basic YWRhOmxvdmVsYWNl"}).text == "ada"


# pytest


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_it_needs_no_pytest() -> None:
    run(
        "import sys; sys.modules['pytest'] = None; from rpyserve.testing import Client; "
        "assert 'rpyserve.cli' not in sys.modules"
    )


def test_the_plugin_loads_next_to_nothing_and_does_without_httpx() -> None:
    loaded = run(
        "import sys; sys.modules['httpx'] = None; "
        "import rpyserve.testing.pytest_plugin; print(*sys.modules)"
    ).split()
    ours = {name for name in loaded if name.startswith("rpyserve.") and "._" not in name}
    assert ours == {"rpyserve.testing", "rpyserve.testing.pytest_plugin"}
    assert "trio" not in loaded


def test_without_httpx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "rpyserve.testing.client")
    monkeypatch.delattr("rpyserve.testing.client")
    with pytest.raises(ImportError, match="pip install httpx"):
        from rpyserve.testing import Client  # noqa: F401


def test_the_fixture_makes_clients(rpyserve_client) -> None:
    client = rpyserve_client(visits, session_timeout=5)
    client.get("/")
    client.sleep(6)
    assert client.session is None


@pytest.fixture
def project(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Path]:
    """A project with a site that writes a file."""
    site = tmp_path / "site"
    (site / "node_modules").mkdir(parents=True)
    (site / "venv").mkdir()
    (site / "venv" / "pyvenv.cfg").write_text("")
    (site / ".env").write_text("SECRET=1")
    (site / "notes.txt").write_text("old")
    (site / "a.rpy").write_text(
        "import os\nfrom pathlib import Path\ndef resource(request):\n"
        "    Path('notes.txt').write_text('new')\n    return ' '.join(sorted(os.listdir()))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pytestconfig), "rootpath", tmp_path)
        yield tmp_path


def test_the_fixture_serves_a_copy_of_the_projects_site(
    project: Path, rpyserve_client, request: pytest.FixtureRequest
) -> None:
    client = request.getfixturevalue("site_client")
    assert client.get("/a").text == ".env a.rpy notes.txt"
    assert (project / "site" / "notes.txt").read_text() == "old"


def test_the_fixture_serves_the_site_itself_where_that_is_wanted(
    project: Path, rpyserve_client, request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pytestconfig._inicache, "rpyserve_copy", False)
        client = request.getfixturevalue("site_client")
    assert client.get("/a").status_code == 200
    assert (project / "site" / "notes.txt").read_text() == "new"


def test_no_time_passes_while_a_wsgi_application_works() -> None:
    """Its thread is one of a task of the request, which is driven step by step."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        time.sleep(0.2)
        start_response("200 OK", [])
        return [b"done"]

    with Client(WSGIResource(app)) as client:
        assert client.get("/").text == "done"
