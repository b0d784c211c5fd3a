"""The real command as a process: what it prints where, how it ends, and that no script keeps it
from ending.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent.parent
posix_only = pytest.mark.skipif(
    os.name == "nt", reason="Windows cannot send a Ctrl-C to one process"
)
SOON = 10
"""Seconds: far more than anything here takes, and far less than a script that sleeps."""

HELD = 0.25
"""Seconds after which a script counts as one that holds the loop."""


class Command:
    """A running ``rpyserve``."""

    def __init__(
        self, *arguments: str, directory: Path, environment: dict[str, str], stderr: Any
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rpyserve", *arguments],
            cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=stderr,
            bufsize=0,  # so that `told` reads no line more
        )  # fmt: skip
        self.port = 0
        self.limit = threading.Timer(3 * SOON, self.process.kill)  # so that no test waits for ever
        self.limit.daemon = True
        self.limit.start()

    def started(self) -> Command:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\r?\n", line)
        assert match, (line, self.process.communicate()[1])
        self.port = int(match[1])
        return self

    def ask(self, path: str) -> socket.socket:
        """Send a request on a new connection, and leave it open."""
        sock = socket.create_connection(("127.0.0.1", self.port), SOON)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return sock

    def get(self, path: str) -> bytes:
        with self.ask(path) as sock:
            return sock.recv(65536)

    def told(self, words: bytes) -> None:
        """Wait until a line on stderr has *words*, which a script prints when it is where it should
        be.
        """
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if words in line:
                return
        raise AssertionError(f"it ended without {words!r}")

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def ended(self) -> tuple[int, str, str]:
        """The exit status, and what was printed since the URL (since the last `told`,
        for stderr).
        """
        out, err = self.process.communicate(timeout=SOON)
        assert b"Traceback" not in err, err.decode()
        return self.process.returncode, out.decode(), err.decode()


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start(*options, script=..., **environment)``: the command on a site with that
    ``script.rpy``.
    """
    commands: list[Command] = []

    def start(
        *options: str,
        script: str = "",
        site: str = "site",
        stderr: Any = subprocess.PIPE,
        **environment: str,
    ) -> Command:
        directory = tmp_path / "site"
        directory.mkdir(exist_ok=True)
        (directory / "script.rpy").write_text(script, encoding="utf-8")
        variables = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("RPYSERVE_", "PYTHONIOENC"))},
            "PYTHONPATH": str(ROOT), **environment,
        }  # fmt: skip
        command = Command(site, *options, directory=tmp_path, environment=variables, stderr=stderr)
        commands.append(command)
        return commands[-1]

    yield start
    for command in commands:
        if command.process.poll() is None:
            command.process.kill()
        command.limit.cancel()
        command.process.communicate()


def serving(start: Start, script: str = "", *options: str, **environment: str) -> Command:
    return start("--port", "0", *options, script=script, **environment).started()


PAGE = "def resource(request):\n    request.getSession()\n    return 'hello'\n"
NOTE = "import sys, time\nprint('begun', file=sys.stderr)\n"


def in_render(body: str) -> str:
    lines = "\n".join("    " + line for line in (NOTE + body).splitlines())
    return f"def resource(request):\n{lines}\n    return 'done'\n"


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(start: Start, number: int) -> None:
    command = serving(start, PAGE)
    assert b"hello" in command.get("/script")
    assert b"hello" in command.get("/script")
    idle, kept = socket.create_connection(("127.0.0.1", command.port)), command.ask("/script")
    assert b"hello" in kept.recv(65536)
    command.interrupt(number)
    status, out, err = command.ended()
    assert status == 0
    assert out == ""
    assert "Stopped. 3 sessions ended, and the contents of `registry` are gone." in err
    assert kept.recv(1) == b""
    idle.close()
    kept.close()


@posix_only
def test_a_request_in_flight_is_finished(start: Start) -> None:
    command = serving(
        start,
        "import sys, trio\nasync def resource(request):\n    print('begun', file=sys.stderr)\n"
        "    await trio.sleep(0.7)\n    return 'whole'\n",
    )
    with command.ask("/script") as sock:
        command.told(b"begun")
        time.sleep(0.1)
        command.interrupt()
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert b"whole" in answer
    assert b"connection: close" in answer.lower()
    assert command.ended()[0] == 0


@posix_only
@pytest.mark.parametrize(
    "script",
    [
        in_render("while True: pass"),
        in_render("time.sleep(3600)"),
        NOTE + "while True: pass",
        NOTE + "time.sleep(3600)",
        in_render("while True: request.setHeader('X-A', 'b')"),
        in_render("import json\nwhile True: json.dumps([1] * 1000)"),
        in_render(
            "import signal\nfor n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)\n"
            "time.sleep(0.8)\nprint('now', file=sys.stderr)\nwhile True: pass"
        ),
        f"import sys, time\nasync def resource(request):\n    {NOTE.splitlines()[1]}\n"
        "    while True: pass\n",
        f"import sys, time\ndef resource(request):\n    yield 'x'\n    {NOTE.splitlines()[1]}\n"
        "    while True: pass\n",
    ],
    ids=["loop", "sleep", "loop at import", "sleep at import", "our code", "Python's", "ignored", "async", "stream"],
)  # fmt: skip
def test_a_script_that_holds_the_loop_is_interrupted_and_named(start: Start, script: str) -> None:
    command = serving(start, script)
    with command.ask("/script"):
        command.told(b"now" if "'now'" in script else b"begun")
        time.sleep(HELD)
        command.interrupt(signal.SIGTERM)
        status, _, err = command.ended()
    assert status == 0
    assert re.search(r"Interrupted script\.rpy, line \d+: (while True|time\.sleep)", err), err
    assert "Stopped." in err


@posix_only
def test_an_expiry_callback_that_holds_the_loop(start: Start) -> None:
    command = serving(
        start,
        "import sys\ndef loop():\n    print('begun', file=sys.stderr)\n    while True: pass\n"
        "def resource(request):\n    request.getSession().notifyOnExpire(loop)\n    return 'hello'\n",
        "--session-timeout",
        "0.1",
    )
    assert b"hello" in command.get("/script")
    command.told(b"begun")
    time.sleep(HELD)
    command.interrupt(signal.SIGTERM)
    assert command.ended()[0] == 0


@posix_only
def test_a_second_signal_ends_whatever_swallows_the_first(start: Start) -> None:
    command = serving(
        start,
        in_render(
            "while True:\n    try:\n        time.sleep(3600)\n"
            "    except BaseException:\n        print('again', file=sys.stderr)"
        ),
    )
    with command.ask("/script"):
        command.told(b"begun")
        time.sleep(HELD)
        command.interrupt(signal.SIGTERM)
        command.told(b"again")
        command.interrupt(signal.SIGTERM)
        status, _, _ = command.ended()
    assert status == 130


@posix_only
def test_a_second_signal_does_not_wait_for_a_stream(start: Start) -> None:
    command = serving(
        start,
        "import trio\nasync def resource(request):\n"
        "    while True:\n        yield 'x'\n        await trio.sleep(0.01)\n",
    )
    with command.ask("/script") as sock:
        assert sock.recv(65536)
        command.interrupt()
        command.told(b"Stopping: waiting up to 5 seconds")
        command.interrupt()
        assert command.ended()[0] == 130


@posix_only
def test_a_thread_that_was_left_running_does_not_hold_the_exit(start: Start) -> None:
    script = (
        "import atexit, sys, threading, time\ndef resource(request):\n"
        "    threading.Thread(target=time.sleep, args=(3600,)).start()\n"
        "    atexit.register(print, 'cleaned up', file=sys.stderr)\n    return 'hello'\n"
    )
    command = serving(start, script)
    assert b"hello" in command.get("/script")
    command.interrupt()
    status, _, err = command.ended()
    assert status == 0
    assert "cleaned up" in err


@posix_only
def test_callbacks_run_when_it_stops(start: Start) -> None:
    script = (
        "import trio\nasync def late():\n    await trio.sleep(0.05)\n    print('late')\n"
        "def resource(request):\n    session = request.getSession()\n"
        "    session.notifyOnExpire(late)\n"
        "    session.notifyOnExpire(lambda: print('ended', session.ended.value))\n"
        "    return 'hello'\n"
    )
    command = serving(start, script)
    command.get("/script")
    command.interrupt(signal.SIGTERM)
    status, out, _ = command.ended()
    assert (status, out) == (0, "ended stopped\nlate\n")


def test_a_script_that_asks_its_own_server_is_told(start: Start) -> None:
    command = serving(
        start,
        "from urllib.request import urlopen\ndef resource(request):\n"
        "    return urlopen(f'http://127.0.0.1:{request.server[1]}/').read()\n",
    )
    assert b"sends a request to its own server" in command.get("/script")


@posix_only
def test_what_a_script_says_is_seen_at_once_whatever_the_console(start: Start) -> None:
    script = (
        "import logging\ndef resource(request):\n    print('grüße')\n    logging.info('naïve')\n"
        "    logging.getLogger('mine').info('☃')\n    return 'hello'\n"
    )
    command = serving(start, script, PYTHONIOENCODING="ascii")
    assert b"hello" in command.get("/script")
    assert command.process.stdout is not None
    assert command.process.stdout.readline() == rb"gr\xfc\xdfe" + b"\n"
    command.get("/gr%C3%BC%C3%9Fe%1b[31m")
    command.told(rb"INFO:mine:\u2603")
    command.interrupt()
    status, _, err = command.ended()
    assert status == 0
    assert r"GET /gr\xfc\xdfe%1B[31m 404" in err
    assert "\x1b" not in err


@posix_only
def test_the_banner_and_the_lines(start: Start, tmp_path: Path) -> None:
    command = serving(start, PAGE, "--session-timeout", "90s")
    command.get("/script?a=%20b")
    command.get("/favicon.ico")
    command.interrupt()
    _, _, err = command.ended()
    title, inspector, life, line, last = err.splitlines()
    assert re.fullmatch(
        r"rpyserve \S+ serves " + re.escape(str((tmp_path / "site").resolve())), title
    )
    assert re.fullmatch(r"What the server is doing: http://127\.0\.0\.1:\d+/-/", inspector)
    assert (
        life
        == "Sessions expire after 90 seconds without a visit. Ctrl-C stops the server and ends "
        "all sessions."
    )
    assert re.fullmatch(r"\d\d:\d\d:\d\d GET /script\?a=%20b 200 5 B [\d.]+ ms \S{6}", line)
    assert last.startswith("Stopped. 1 session ended")


@posix_only
def test_quiet(start: Start) -> None:
    command = serving(start, PAGE, "-q")
    command.get("/script")
    command.interrupt()
    assert command.ended() == (0, "", "")


@posix_only
@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_are_for_terminals(tmp_path: Path, no_color: str, coloured: bool) -> None:
    (tmp_path / "page.html").write_text("hello")
    shown = on_a_terminal(tmp_path, {"TERM": "xterm", "NO_COLOR": no_color})
    assert b"GET /page.html" in shown
    assert (b"\x1b[32m200\x1b[0m" in shown) is coloured
    assert (b"\x1b" in shown) is coloured


def on_a_terminal(site: Path, variables: dict[str, str]) -> bytes:
    """What stands on a terminal after one request and a SIGINT."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rpyserve", str(site), "--port", "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while b"Ctrl-C" not in shown:
            shown += os.read(ours, 65536)
        match = re.search(rb"http://127\.0\.0\.1:(\d+)/", shown)
        assert match
        with socket.create_connection(("127.0.0.1", int(match[1])), SOON) as sock:
            sock.sendall(b"GET /page.html HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(65536)
        process.send_signal(signal.SIGINT)
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # how Linux says that the other end is closed
    finally:
        os.close(ours)
        assert process.wait(SOON) == 0
    return shown


MANY = 3000


def asked_often(port: int) -> int:
    """How many of `MANY` requests on one connection were answered."""
    answered = 0
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)) as connection:
        for _ in range(MANY):
            connection.request("GET", "/script")
            answered += connection.getresponse().read() == b"hello"
    return answered


@posix_only
def test_a_console_that_nobody_reads_holds_up_nobody(start: Start) -> None:
    command = serving(start, "import logging\ndef resource(request):\n    logging.info('x' * 30)\n"
                             "    return 'hello'\n")  # fmt: skip
    assert asked_often(command.port) == MANY
    command.interrupt()
    assert command.process.wait(SOON) == 0
    assert command.process.stderr is not None
    assert b"GET /script" in command.process.stderr.read()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_holds_up_nobody(start: Start) -> None:
    with open("/dev/full", "wb") as full:
        command = start("--port", "0", script=PAGE, stderr=full).started()
    assert asked_often(command.port) == MANY
    command.interrupt()
    assert command.process.wait(SOON) == 0


@posix_only
def test_a_terminal_that_was_stopped_holds_up_nobody(start: Start) -> None:
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    command = start("--port", "0", script=PAGE, stderr=theirs).started()
    shown = b""
    while b"Ctrl-C" not in shown:
        shown += os.read(ours, 65536)
    termios.tcflow(theirs, termios.TCOOFF)  # what a terminal does after Ctrl-S
    assert asked_often(command.port) == MANY
    termios.tcflow(theirs, termios.TCOON)
    while shown.count(b"GET /script") < MANY:
        shown += os.read(ours, 65536)
    termios.tcflow(theirs, termios.TCOOFF)
    command.interrupt()
    assert command.process.wait(SOON) == 0
    os.close(ours)
    os.close(theirs)


def test_a_port_that_is_taken(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = start("--port", str(port)).ended()
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"Error: Port {port} of 127.0.0.1 is in use. Stop the program that uses it, "
        "or choose another port; 0 takes any free one."
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "203.0.113.5"), "203.0.113.5 is not an address of this machine."),
        (("--host", "a b"), "no host 'a b'"),
    ],
)
def test_where_it_cannot_listen(start: Start, arguments: tuple[str, ...], words: str) -> None:
    status, out, err = start("--port", "0", *arguments).ended()
    assert (status, out) == (1, "")
    assert words in err
    assert len(err.splitlines()) == 1


@posix_only
def test_bound_to_the_network(start: Start) -> None:
    command = serving(start, PAGE, "--host", "0.0.0.0", "-q")
    assert b" 200 " in command.get("/script")
    command.interrupt()
    _, _, err = command.ended()
    assert "Anyone on the network" in err


@posix_only
def test_who_may_ask(start: Start) -> None:
    command = serving(start, PAGE, "--allowed-host", "my.example")
    for host, status in (("my.example", b"200"), ("evil.example", b"403"), ("10.1.2.3", b"200")):
        with socket.create_connection(("127.0.0.1", command.port), SOON) as sock:
            sock.sendall(f"GET /script HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 " + status), host
        assert (b"--allowed-host evil.example" in answer) is (status == b"403")


def test_get_prints_one_response(start: Start) -> None:
    script = (
        "def resource(request):\n    print('said')\n"
        "    return b'\\xff' + request.field('x', '').encode()\n"
    )
    command = start("--get", "script?x=ü y", script=script)
    out, err = command.process.communicate(timeout=SOON)
    assert command.process.returncode == 0
    assert out in (b"said\n\xff\xc3\xbc y", b"said\r\n\xff\xc3\xbc y")
    assert err == b""


def test_get_shows_the_head_when_asked_to(start: Start) -> None:
    status, out, err = start("--get", "/script", "-v", script=PAGE).ended()
    assert (status, out) == (0, "hello")
    assert err.splitlines()[0] == "200 OK"
    assert "Content-Type: text/html; charset=utf-8" in err.splitlines()
    assert "Set-Cookie: " in err


@pytest.mark.parametrize(
    ("path", "script", "words"),
    [
        ("/nowhere", "", "404 Not Found"),
        ("/script", "def resource(request):\n    1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_get_fails_where_the_page_does(start: Start, path: str, script: str, words: str) -> None:
    status, out, _ = start("--get", path, script=script).ended()
    assert status == 1
    assert words in out


def test_get_of_a_stream_and_of_a_file(start: Start, tmp_path: Path) -> None:
    script = "async def resource(request):\n    for n in range(3):\n        yield str(n)\n"
    assert start("--get", "/script", script=script).ended()[:2] == (0, "012")
    (tmp_path / "site" / "file.txt").write_bytes(b"text" * 100_000)
    command = start("--get", "/file.txt")
    assert command.process.communicate(timeout=SOON)[0] == b"text" * 100_000


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_get_of_a_stream_that_fails_half_way(start: Start, kind: str) -> None:
    script = f"{kind} resource(request):\n    yield 'begun'\n    1 / 0\n"
    status, out, err = start("--get", "/script", script=script).ended()
    assert (status, out) == (1, "begun")
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err


ECHO = """
from rpyserve import Resource
class Echo(Resource):
    def render(self, request):
        request.addCookie("seen", "yes")
        names = "content-type", "accept", "cookie", "x-a"
        headers = ", ".join(f"{name}: {request.getHeader(name)}" for name in names)
        return f"{request.method} {request.content.read().decode()} {headers}"
resource = Echo()
"""
FORM = "content-type: application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ([], "GET  content-type: None, accept: */*, cookie: None, x-a: None"),
        (["-d", "a=ü"], f"POST a=ü {FORM}, accept: */*, cookie: None, x-a: None"),
        (
            ["-X", "PUT", "-d", "{}", "-H", "content-type: application/json"],
            "PUT {} content-type: application/json, accept: */*, cookie: None, x-a: None",
        ),
        (
            ["-X", "DELETE", "-H", "Accept: a/b", "-H", "X-A: 1", "-H", "X-A: 2"],
            "DELETE  content-type: None, accept: a/b, cookie: None, x-a: 1, 2",
        ),
    ],
)
def test_get_asks_as_curl_does(start: Start, options: list[str], answer: str) -> None:
    status, out, err = start("--get", "/script", *options, script=ECHO).ended()
    assert (status, out, err) == (0, answer, "")


def test_get_keeps_cookies_in_a_file(start: Start, tmp_path: Path) -> None:
    jar = tmp_path / "jar"
    asked = ["--get", "/script", "--cookie-jar", str(jar)]
    assert "cookie: None" in start(*asked, script=ECHO).ended()[1]
    assert "cookie: seen=yes" in start(*asked, script=ECHO).ended()[1]
    jar.write_text("no cookies")
    status, out, err = start(*asked, script=ECHO).ended()
    assert (status, out) == (1, "")
    assert err.startswith("Error: The cookies in ")


def test_get_and_curl_share_a_file_of_cookies(start: Start, tmp_path: Path) -> None:
    jar = tmp_path / "jar"
    begin = "localhost\tFALSE\t/\tFALSE"
    jar.write_text(
        f"# Netscape HTTP Cookie File\n\n{begin}\t0\ta\t1\n#HttpOnly_{begin}\t32503680000\tb\t2\n"
    )
    assert (
        "cookie: a=1; b=2"
        in start("--get", "/script", "--cookie-jar", str(jar), script=ECHO).ended()[1]
    )
    lines = jar.read_text().splitlines()
    assert f"{begin}\t0\ta\t1" in lines
    assert f"#HttpOnly_{begin}\t32503680000\tb\t2" in lines
    assert f"{begin}\t0\tseen\tyes" in lines


def test_get_without_a_header_line(start: Start) -> None:
    status, _, err = start("--get", "/script", "-H", "Accept", script=ECHO).ended()
    assert status == 2
    assert "'Accept' is no header line: write it as 'Name: value'" in err


@posix_only
def test_get_can_be_interrupted(start: Start) -> None:
    command = start("--get", "/script", script=in_render("while True: pass"))
    command.told(b"begun")
    time.sleep(HELD)
    command.interrupt()
    status, _, err = command.ended()
    assert status == 1
    assert "Interrupted script.rpy" in err
