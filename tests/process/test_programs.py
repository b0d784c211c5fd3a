"""``rpyserve program.py``, with Twisted and without: the same tests run in both environments."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from tests.support.real_process import Server, free_port, program

pytestmark = pytest.mark.process

HAS_TWISTED = any(metadata.distributions(name="twisted"))
needs_twisted = pytest.mark.skipif(not HAS_TWISTED, reason="Twisted is not installed")
without_twisted = pytest.mark.skipif(HAS_TWISTED, reason="Twisted is installed")

# As the series prints it, in the syntax of Python 3; but for the seconds, and any free port.
ENDINGS = """\
from twisted.web.server import Site, Session
from twisted.web.resource import Resource
from twisted.internet import reactor

class ShortSession(Session):
   sessionTimeout = 1

class ExpirationLogger(Resource):
   sessions = set()

   def render_GET(self, request):
       session = request.getSession()
       if session.uid not in self.sessions:
           self.sessions.add(session.uid)
           session.notifyOnExpire(lambda: self._expired(session.uid))
       return ""

   def _expired(self, uid):
       print("Session", uid, "has expired.")
       self.sessions.remove(uid)

rootResource = Resource()
rootResource.putChild("logme", ExpirationLogger())
factory = Site(rootResource)
factory.sessionFactory = ShortSession

reactor.listenTCP(0, factory)
reactor.run()
"""

PAGE = """\
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

class Page(Resource):
    isLeaf = True

    def render_GET(self, request):
        return b"hello"

"""


@contextmanager
def running(tmp_path: Path, text: str, *options: str) -> Iterator[Server]:
    """The program *text*, once it serves or says that it runs."""
    command = [*command_for(tmp_path, text), *options]
    with program(command, tmp_path / "console", tmp_path) as server:
        found = server.wait_for(r"http://[^/\s]+:(\d+)|Ctrl-C stops it")
        server.port = int(found[1] or 0)
        yield server


def command_for(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "program.py").write_text(textwrap.dedent(text), encoding="utf-8")
    return [sys.executable, "-m", "rpyserve", "program.py"]


def result_of(tmp_path: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What a program says that does not go on."""
    return subprocess.run(
        [*command_for(tmp_path, text), *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_program_of_the_series(tmp_path: Path) -> None:
    with running(tmp_path, ENDINGS) as server, httpx.Client(base_url=server.url) as client:
        for _ in range(4):  # visits keep the session alive for longer than its second
            assert client.get("/logme").status_code == 200
            time.sleep(0.4)
        assert "has expired" not in server.output()
        left = time.monotonic()
        (uid,) = client.cookies.values()
        found = server.wait_for(r"Session (\S+) has expired\.", 10)
        assert time.monotonic() - left > 0.3
        assert uid in found[1]
        time.sleep(1.2)
        assert server.output().count("has expired") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process")
def test_ctrl_c_returns_to_the_program(tmp_path: Path) -> None:
    text = PAGE + "reactor.listenTCP(0, Site(Page()))\nreactor.run()\nprint('after', __name__)\n"
    with running(tmp_path, text) as server:
        assert httpx.get(server.url).text == "hello"
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 5
        assert "Stopped." in server.output()
        assert server.output().splitlines()[-1] == "after __main__"


def test_metrics_beside_several_sites(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    text = PAGE + "for _ in range(2):\n    reactor.listenTCP(0, Site(Page()))\nreactor.run()\n"
    with running(tmp_path, text, "--metrics", str(free_port())) as server:
        other = server.wait_for(r"Another site is at (\S+)")[1]
        assert httpx.get(other).text == "hello"
        assert "Metrics at" in server.output()


def test_get_prints_one_response(tmp_path: Path) -> None:
    text = PAGE + "reactor.listenTCP(0, Site(Page()))\nreactor.run()\n"
    assert result_of(tmp_path, text, "--get", "/").stdout == "hello"


def test_get_asks_the_first_of_several_sites(tmp_path: Path) -> None:
    """Nothing is served meanwhile: another may have the ports."""
    text = PAGE + (
        "import socket\n"
        "taken = socket.create_server(('127.0.0.1', 0))\n"
        "for text in ('first', 'second'):\n"
        "    page = Page()\n"
        "    page.render_GET = lambda request, text=text: text\n"
        "    reactor.listenTCP(taken.getsockname()[1], Site(page))\n"
        "reactor.run()\n"
    )
    done = result_of(tmp_path, text, "--get", "/")
    assert (done.stdout, done.stderr, done.returncode) == ("first", "", 0)


def test_get_takes_its_options(tmp_path: Path) -> None:
    text = PAGE + (
        "    def render_POST(self, request):\n        return request.content.read()\n\n"
        "reactor.listenTCP(0, Site(Page()))\nreactor.run()\n"
    )
    assert result_of(tmp_path, text, "--get", "/", "-d", "a=1").stdout == "a=1"
    (tmp_path / "jar").write_text("no cookies")
    done = result_of(tmp_path, text, "--get", "/", "--cookie-jar", "jar")
    assert (done.returncode, done.stderr.startswith("Error: The cookies in ")) == (1, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("print('hello')", "program.py has ended without listening"),
        (PAGE + "reactor.listenTCP(0, Site(Page()))", "has ended without reactor.run()"),
        (PAGE + "reactor.listenTCP(0, Site(Pag()))", "NameError: name 'Pag' is not defined"),
        ("reactor.run(", "SyntaxError"),
    ],
)
def test_what_it_says_of_a_program_that_serves_nothing(
    tmp_path: Path, text: str, expected: str
) -> None:
    done = result_of(tmp_path, text)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_the_exit_status_is_the_programs(tmp_path: Path) -> None:
    assert result_of(tmp_path, "raise SystemExit(7)").returncode == 7


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    text = f"""
import socket
taken = socket.create_server(("127.0.0.1", 0))
{PAGE}
reactor.listenTCP(taken.getsockname()[1], Site(Page()), interface="127.0.0.1")
"""
    done = result_of(tmp_path, text)
    assert done.returncode == 1
    assert re.search(r"^(Error: )?Port \d+ of 127.0.0.1 is in use\.", done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_options_for_directories(tmp_path: Path) -> None:
    done = result_of(tmp_path, "", "--port", "9000")
    assert done.returncode == 2
    assert "--port is for a directory: leave it out with a program." in done.stderr


@without_twisted
def test_two_names_stand_in_for_the_reactor(tmp_path: Path) -> None:
    done = result_of(tmp_path, PAGE + "reactor.callLater(1, print)")
    assert "it has listenTCP(port, site) and run()" in done.stderr
    assert "-m pip install twisted" in done.stderr
    done = result_of(tmp_path, "from twisted.internet import defer")
    assert "-m pip install twisted" in done.stderr


@needs_twisted
def test_endpoints_several_sites_and_what_is_twisteds_own(tmp_path: Path) -> None:
    text = (
        PAGE
        + """
from twisted.internet import endpoints, protocol

class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data.upper())

def listen_too(port):
    print("echo at", reactor.listenTCP(0, protocol.Factory.forProtocol(Echo)).getHost().port)
    print("also at", reactor.listenTCP(0, site).getHost().port, flush=True)
    print("other at", reactor.listenTCP(0, Site(Other())).getHost().port, flush=True)

class Other(Page):
    def render_GET(self, request):
        reactor.callLater(0, self.finish, request)
        return NOT_DONE_YET

    def finish(self, request):
        request.write(b"other")
        request.finish()

site = Site(Page())
endpoint = endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1")
endpoint.listen(site).addCallback(lambda port: reactor.callWhenRunning(listen_too, port))
reactor.run()
"""
    )
    import socket

    with running(tmp_path, text) as server:
        assert httpx.get(server.url).text == "hello"
        also = server.wait_for(r"also at (\d+)")[1]
        other = server.wait_for(r"other at (\d+)")[1]
        assert httpx.get(f"http://127.0.0.1:{also}/").headers["server"].startswith("rpyserve")
        response = httpx.get(f"http://127.0.0.1:{other}/")
        assert response.text == "other"
        assert response.headers["server"].startswith("rpyserve")
        port = int(server.wait_for(r"echo at (\d+)")[1])
        with socket.create_connection(("127.0.0.1", port)) as echo:
            echo.sendall(b"hello")
            assert echo.recv(100) == b"HELLO"


@needs_twisted
def test_a_program_that_only_asks_others_ends_when_it_says_so(tmp_path: Path) -> None:
    text = """
from twisted.internet import defer, task

async def main(reactor):
    await task.deferLater(reactor, 0.1)
    print("done")

task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""
    done = result_of(tmp_path, text)
    assert done.stdout == "done\n"
    assert done.returncode == 0


@needs_twisted
@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process")
@pytest.mark.parametrize(
    ("body", "most"),
    [
        ("", 3),
        ("reactor.callInThread(time.sleep, 30)", 18),
        ("reactor.callLater(0, spin)", 9),
    ],
)
def test_ctrl_c_with_a_busy_reactor(tmp_path: Path, body: str, most: int) -> None:
    text = f"""
import time
{PAGE}
def spin():
    print("spins", flush=True)
    while True:
        pass

def begin():
    {body or "pass"}
    print("begun", flush=True)

reactor.listenTCP(0, Site(Page()))
reactor.callWhenRunning(begin)
reactor.run()
"""
    with running(tmp_path, text) as server:
        server.wait_for("spins" if "spin" in body else "begun")
        if "spin" not in body:
            assert httpx.get(server.url).text == "hello"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(most) == 0
