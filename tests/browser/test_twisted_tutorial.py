"""Parts of the series as real browsers meet them: https, a guard, hosts, other origins,
templates, sockets.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browsers import expect, open_tab, save
from tests.support.real_process import Server, program, serving

pytestmark = [pytest.mark.browser, pytest.mark.process]

ECHO = """from rpyserve import websocket

@websocket
async def resource(socket):
    async for message in socket:
        await socket.send("echo " + message)
"""
COUNTER = """def resource(request):
    session = request.getSession()
    session["n"] = session.get("n", 0) + 1
    return f"<!DOCTYPE html><title>x</title><p>visit {session['n']}</p>"
"""
SAY = """(url) => new Promise((done) => {
    const socket = new WebSocket(url);
    socket.onopen = () => socket.send("hi");
    socket.onmessage = (event) => { done(event.data); socket.close(); };
    socket.onerror = () => done("refused");
})"""


@contextmanager
def running(source: str, tmp_path: Path) -> Iterator[Server]:
    """A program of one's own."""
    save(tmp_path, "program.py", source)
    with program([sys.executable, "program.py"], tmp_path / "console", cwd=tmp_path) as server:
        server.port = int(server.wait_for(r"http://127\.0\.0\.1:(\d+)")[1])
        yield server


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Any]:
    context = browser.new_context(**options)
    yield context
    context.close()


@pytest.mark.not_in("firefox", "webkit", reason="their drivers do not tell of cookies")
def test_over_https_pages_follow_sockets_open_and_sessions_last(
    browser: Browser, root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trustme")
    pytest.importorskip("wsproto")
    save(root, "counter.rpy", COUNTER)
    save(root, "echo.rpy", ECHO)
    with (
        serving(root, tmp_path, "--tls", "--host", "0.0.0.0", scheme="https") as server,
        visiting(browser, ignore_https_errors=True) as context,
    ):
        page = open_tab(context, f"{server.url}/counter")
        expect(page.locator("p")).to_have_text("visit 1")
        (cookie,) = context.cookies()
        assert cookie["secure"] and cookie["httpOnly"]
        save(root, "counter.rpy", COUNTER.replace("visit {", "the visit {"))
        expect(page.locator("p")).to_have_text("the visit 2")
        assert page.evaluate(SAY, f"wss://127.0.0.1:{server.port}/echo") == "echo hi"


@pytest.mark.not_in("firefox", "webkit", reason="their drivers give no password by themselves")
def test_behind_a_password_pages_follow(browser: Browser, root: Path, tmp_path: Path) -> None:
    save(root, "page.rpy", "def resource(request):\n    return f'<p>one for {request.user}</p>'\n")
    source = (
        'from rpyserve import BasicAuth, Directory, run\nrun(BasicAuth(Directory("site"), '
        '{"ada": "pw"}), port=0)\n'
    )
    with (
        running(source, tmp_path) as server,
        visiting(browser, http_credentials={"username": "ada", "password": "pw"}) as context,
    ):
        page = open_tab(context, f"{server.url}/page", "ada:pw")
        expect(page.locator("p")).to_have_text("one for ada")
        save(
            root,
            "page.rpy",
            "def resource(request):\n    return f'<p>two for {request.user}</p>'\n",
        )
        expect(page.locator("p")).to_have_text("two for ada")
        with visiting(browser) as stranger:
            answer = stranger.request.get(f"{server.url}/page")
            assert answer.status == 401 and "for ada" not in answer.text()


def test_a_page_follows_its_template_and_what_that_extends(
    browser: Browser, root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("jinja2")
    save(
        root,
        "base.html.j2",
        "<!DOCTYPE html><title>x</title><h1>Base</h1>{% block main %}{% endblock %}",
    )
    save(
        root,
        "page.html.j2",
        '{% extends "base.html.j2" %}{% block main %}<p>{{ name }}</p>{% endblock %}',
    )
    for first in ("", "cache()\n"):
        save(
            root, f"page{len(first)}.rpy",
            f'from rpyserve import template, cache\n{first}\ndef resource(request):\n'
            '    return template("page.html.j2", name="<Ada>")\n',
        )  # fmt: skip
    with serving(root, tmp_path) as server, visiting(browser) as context:
        pages = [open_tab(context, f"{server.url}/{name}") for name in ("page0", "page8")]
        for page in pages:
            expect(page.locator("p")).to_have_text("<Ada>")
        save(
            root,
            "base.html.j2",
            "<!DOCTYPE html><title>x</title><h1>New</h1>{% block main %}{% endblock %}",
        )
        for page in pages:
            expect(page.locator("h1")).to_have_text("New")
        save(
            root,
            "page.html.j2",
            '{% extends "base.html.j2" %}{% block main %}<p>Dear {{ name }}</p>{% endblock %}',
        )
        for page in pages:
            expect(page.locator("p")).to_have_text("Dear <Ada>")


def test_hosts_have_their_own_sites_and_sessions(
    browser: Browser, root: Path, tmp_path: Path
) -> None:
    save(root, "index.rpy", COUNTER)
    source = (
        "from rpyserve import Directory, NameVirtualHost, run\n"
        "hosts = NameVirtualHost(lambda request: 'other')\n"
        'hosts.addHost("one.localhost", Directory("site"))\n'
        'hosts.addHost("two.localhost", Directory("site"))\n'
        "run(hosts, port=0)\n"
    )
    with running(source, tmp_path) as server, visiting(browser) as context:
        page = context.new_page()

        def seen(host: str) -> str:
            page.goto(f"http://{host}:{server.port}/")
            return str(page.inner_text("body"))

        hosts = ("one.localhost", "two.localhost", "one.localhost", "localhost", "two.localhost")
        assert [seen(host) for host in hosts] == [
            "visit 1",
            "visit 1",
            "visit 2",
            "other",
            "visit 2",
        ]


FETCH = """(url) => fetch(url, {method: "POST", credentials: "include", headers: {"X-Own": "1"}}).then(
    (answer) => answer.text(), () => "refused")"""


@pytest.mark.parametrize("allowed", [True, False])
def test_a_page_of_another_origin(
    allowed: bool, browser: Browser, root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("wsproto")
    save(root, "index.html", "<!DOCTYPE html><title>other</title>")
    with serving(root, tmp_path) as other, visiting(browser) as context:
        origin = f"http://localhost:{other.port}" if allowed else "http://localhost:1"
        source = (
            "from rpyserve import Resource, cors, run, websocket\n"
            "root = Resource()\n"
            "def count(request):\n"
            "    session = request.getSession()\n"
            "    session['n'] = session.get('n', 0) + 1\n"
            "    return f'visit {session[\"n\"]}'\n"
            "async def echo(socket):\n"
            "    async for message in socket:\n"
            "        await socket.send('echo ' + message)\n"
            f"root.putChild('count', cors(count, {origin!r}, credentials=True))\n"
            f"root.putChild('echo', websocket(echo, origins={origin!r}))\n"
            "run(root, port=0)\n"
        )
        directory = tmp_path / "other"
        directory.mkdir()
        with running(source, directory) as server:
            page: Page = context.new_page()
            page.goto(f"http://localhost:{other.port}/")
            fetched = [
                page.evaluate(FETCH, f"http://localhost:{server.port}/count") for _ in range(2)
            ]
            assert fetched == (["visit 1", "visit 2"] if allowed else ["refused", "refused"])
            said = page.evaluate(SAY, f"ws://localhost:{server.port}/echo")
            assert said == ("echo hi" if allowed else "refused")
