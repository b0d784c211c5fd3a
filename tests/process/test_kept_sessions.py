"""Sessions that outlive the server, with the real command."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.robustness import kills
from tests.support.real_process import Server, serving

pytestmark = pytest.mark.process
posix_only = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")

COUNTER = """
from rpyserve import Interface, Resource, Session, cache, implementer, registerAdapter

cache()


class ICounter(Interface):
    pass


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)


class Page(Resource):
    def render_GET(self, request):
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        counter = ICounter(session)
        counter.value += 1
        registry["all"] = registry.get("all", 0) + 1
        return f"{session['n']} {counter.value} {registry['all']}"


resource = Page()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    (site / "counter.rpy").write_text(COUNTER)
    (site / "hello.rpy").write_text("cache()\ndef resource(request):\n    return 'Hello'\n")
    return site


class Browser:
    """A client that keeps the cookie of its session, whatever the port."""

    value = ""

    def get(self, server: Server, path: str = "/counter") -> str:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        cookie = f"kept={self.value}" if self.value else ""
        connection.request("GET", path, headers={"Cookie": cookie})
        response = connection.getresponse()
        text = response.read().decode()
        if found := re.match("kept=([^;]+)", response.getheader("Set-Cookie") or ""):
            self.value = found[1]
        connection.close()
        return text


OPTIONS = "--session-store", "sqlite", "--cookie-name", "kept"


@posix_only
@pytest.mark.parametrize("ends", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_all_comes_back(site: Path, tmp_path: Path, ends: str) -> None:
    browsers = [Browser() for _ in range(3)]
    for life in range(3):
        with serving(site, tmp_path, *OPTIONS) as server:
            for number, browser in enumerate(browsers):
                n = life + 1
                assert browser.get(server) == f"{n} {n} {3 * life + number + 1}"
            server.process.send_signal(signal.Signals[ends])
            server.process.wait()
            if ends == "SIGKILL":
                server.expected_code = None
            else:
                end = server.output().splitlines()[-1]
                assert end == "Stopped. 3 sessions kept in .rpyserve/sessions.db."
    data = b"".join(each.read_bytes() for each in (site / ".rpyserve").iterdir())
    assert not [browser for browser in browsers if browser.value.encode() in data]


@posix_only
def test_without_a_store_the_farewell_says_how_to_keep_them(site: Path, tmp_path: Path) -> None:
    with serving(site, tmp_path, "--cookie-name", "kept") as server:
        Browser().get(server)
        server.process.send_signal(signal.SIGINT)
        server.process.wait()
        end = server.output().splitlines()[-1]
        assert end.startswith("Stopped. 1 session ended, and the contents of `registry` are gone.")
        assert "--session-store sqlite keeps them" in end
    assert not (site / ".rpyserve").exists()


def run(site: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)} | more
    command = [sys.executable, "-m", "rpyserve", str(site), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def test_a_file_that_is_in_use(site: Path, tmp_path: Path) -> None:
    with serving(site, tmp_path, *OPTIONS) as server:
        browser = Browser()
        browser.get(server)
        expected = f"Error: .rpyserve/sessions.db is in use by process {server.process.pid}\n"
        second = run(site, "--port", "0", *OPTIONS)
        assert (second.returncode, second.stderr, second.stdout) == (1, expected, "")
        forget = run(site, "--forget")
        assert (forget.returncode, forget.stderr) == (1, expected)
        assert run(site, "--get", "/counter", *OPTIONS).stdout == "1 1 1"
        assert "in use" not in run(site, "--check", *OPTIONS).stderr
        assert browser.get(server).startswith("2 2")
    forget = run(site, "--forget", RPYSERVE_SESSION_STORE="sqlite")
    assert forget.returncode == 0
    assert forget.stderr == (
        ".rpyserve/sessions.db is empty now: 1 session and the registry are forgotten.\n"
    )
    with serving(site, tmp_path, *OPTIONS) as server:
        assert browser.get(server) == "1 1 1"


def test_a_path_of_ones_own(site: Path, tmp_path: Path) -> None:
    refused = run(site, "--session-store", f"sqlite:{site / 'kept.db'}", "--port", "0")
    assert refused.returncode == 1 and "a file of the site" in refused.stderr
    store = f"sqlite:{tmp_path / 'kept.db'}?sync=full"
    browser = Browser()
    for life in "12":
        with serving(site, tmp_path, "--session-store", store, "--cookie-name", "kept") as server:
            assert browser.get(server) == f"{life} {life} {life}"
    assert not (site / ".rpyserve").exists()


@pytest.mark.parametrize(
    ("store", "why"),
    [
        ("mysql", "'mysql' is no kind of store"),
        ("sqlite?sync=maybe", "'sync=maybe' is no option of sqlite"),
    ],
)
def test_what_is_no_store(site: Path, store: str, why: str) -> None:
    done = run(site, "--session-store", store)
    assert done.returncode == 2 and why in done.stderr


def test_what_is_damaged_is_one_line(site: Path) -> None:
    (site / ".rpyserve").mkdir()
    (site / ".rpyserve" / "sessions.db").write_bytes(b"nonsense" * 1000)
    done = run(site, "--port", "0", *OPTIONS)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "it is no database" in done.stderr


@posix_only
async def test_kills_at_random_moments(tmp_path: Path) -> None:
    result = await kills.run(tmp_path, kills=4, answers=500, mean=0.3)
    assert result.faults == [] and result.answers >= 500 and result.kills >= 4


@contextmanager
def counted_fsyncs(server: Server, directory: Path) -> Iterator[Callable[[], int]]:
    """While inside, the waits of the server for the disk are counted; afterwards, call what is given."""
    calls = directory / "calls"
    command = ["strace", "-f", "-e", "trace=fsync,fdatasync,sync_file_range", "-o", str(calls)]
    command += ["-p", str(server.process.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        if "attached" not in (said := strace.stderr.readline()):
            strace.kill()
            pytest.skip(f"strace may not look at other processes here: {said}")
        yield lambda: len(re.findall(r"(fsync|fdatasync)\(", calls.read_text()))
        strace.send_signal(signal.SIGINT)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    ("store", "least", "most"), [("sqlite", 0, 0), ("sqlite:{}?sync=full", 50, 60)]
)
def test_waits_for_the_disk(site: Path, tmp_path: Path, store: str, least: int, most: int) -> None:
    """None by default, and with ``?sync=full`` one for each request that changes something."""
    store = store.format(tmp_path / "kept.db")
    with serving(site, tmp_path, "--session-store", store, "--cookie-name", "kept") as server:
        browser = Browser()
        browser.get(server)
        with counted_fsyncs(server, tmp_path) as count:
            for _ in range(50):
                browser.get(server)
                browser.get(server, "/hello")
        assert least <= count() <= most
