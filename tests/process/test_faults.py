"""What goes wrong around a server: names, directories, processes, threads, streams, interrupts.

The real command, on programs as people write them.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.process.test_live_reload import body, fetch, tab
from tests.support.real_process import free_port, serving

pytestmark = pytest.mark.process

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows knows no such thing")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    (root / "a.rpy").write_text("def resource(request):\n    return 'before'\n")
    return root


# Names that are not UTF-8


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_pages_follow_beside_a_name_that_is_no_text(site: Path, tmp_path: Path, kind: str) -> None:
    odd = Path(os.fsdecode(os.fsencode(site) + b"/caf\xe9"))
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    with serving(site, tmp_path) as server, tab(server.port, "/a") as page:
        if kind == "file":
            odd.rmdir()
            odd.write_text("from an old archive")
            assert page.event()[0] == "change"
        for text in ("one", "two"):
            (site / "a.rpy").write_text(f"def resource(request):\n    return {text!r}\n")
            page.follow()
            assert body(server.port, "/a") == text
    assert "Watching the files failed" not in server.output()


# A site that is removed and made again

CART = """cache()
class Cart:
    def __init__(self):
        self.items = []

def resource(request):
    session = request.getSession()
    cart = session.setdefault("cart", Cart())
    cart.items.append(open("words.txt").read())
    return str(len(cart.items))
"""
FAILS = "def resource(request):\n    return 1 / 0\n"


def cookie_of(answer: str) -> str:
    return answer.partition("Set-Cookie: ")[2].partition(";")[0]


@posix_only
@pytest.mark.parametrize("options", [(), ("--no-reload",)], ids=["reload", "no reload"])
def test_a_site_that_is_made_again(site: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    (site / "cart.rpy").write_text(CART)
    (site / "fails.rpy").write_text(FAILS)
    (site / "words.txt").write_text("before")
    (site / "template.txt").write_text("")
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    (copy / "cart.rpy").write_text(CART + "# edited\n")
    with serving(site, tmp_path, *options) as server:
        first = fetch(server.port, "/cart")
        assert first.endswith("\r\n\r\n1")
        shutil.rmtree(site)
        assert "404 Not Found" in fetch(server.port, "/cart")
        copy.rename(site)
        cookie = f"Cookie: {cookie_of(first)}"
        assert body(server.port, "/cart", cookie) == "2"
        assert "ZeroDivisionError" in body(server.port, "/fails")
    assert "ZeroDivisionError" in server.output()


@posix_only
def test_a_script_that_enters_a_directory_that_goes_away(site: Path, tmp_path: Path) -> None:
    (site / "enters.rpy").write_text(
        "import os, tempfile\ndef resource(request):\n"
        "    with tempfile.TemporaryDirectory() as place:\n        os.chdir(place)\n"
        "    return 1 / 0\n"
    )
    (site / "words.txt").write_text("the site's")
    (site / "reads.rpy").write_text("def resource(request):\n    return open('words.txt').read()\n")
    (site / "lib").mkdir()
    (site / "lib" / "inner.py").write_text("WORD = 'imported'\n")
    (site / "imports.rpy").write_text(
        "import sys\nsys.path.append('lib')\nfrom inner import WORD\nresource = lambda request: WORD\n"
    )
    with serving(site, tmp_path) as server:
        assert body(server.port, "/imports") == "imported"
        for _ in range(2):
            assert "ZeroDivisionError" in body(server.port, "/enters")
            assert body(server.port, "/imports") == "imported"
        assert body(server.port, "/reads") == "the site's"


# KeyboardInterrupt in a script

PLACES = """
import threading, trio
from rpyserve import Interface, Resource, Session, background, registerAdapter

class INote(Interface): pass
class INever(Interface): pass

def fail(*args):
    raise KeyboardInterrupt

async def fail_late(*args):
    await trio.sleep(0)
    raise KeyboardInterrupt

registerAdapter(fail, Session, INote)

class Place(Resource):
    isLeaf = True

    def render_GET(self, request):
        session = request.getSession()
        return getattr(self, "in_" + request.postpath[0])(request, session)

    def in_sync(self, request, session): fail()
    def in_async(self, request, session): return fail_late()
    def in_generator(self, request, session):
        yield "begun"
        fail()
    async def in_async_generator(self, request, session):
        yield "begun"
        await fail_late()
    async def in_nursery(self, request, session):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_late)
    def in_thread(self, request, session): return trio.to_thread.run_sync(fail)
    def in_other_thread(self, request, session):
        threading.excepthook = lambda args: None
        threading.Thread(target=fail).start()
        return "begun"
    def in_task(self, request, session):
        request.start_soon(fail_late)
        return "begun"
    def in_background(self, request, session):
        request.site.background(fail_late)
        return "begun"
    def in_callback(self, request, session):
        session.notifyOnExpire(fail)
        session.expire()
        return "begun"
    def in_async_callback(self, request, session):
        session.notifyOnExpire(fail_late)
        session.expire()
        return "begun"
    def in_adapter(self, request, session): return INote(session)
    def in_factory(self, request, session):
        request.site.sessionFactory = fail
        session.expire()
        try:
            return request.getSession()
        finally:
            del request.site.sessionFactory
    def in_write(self, request, session):
        request.write("begun")
        fail()

resource = Place()
"""


def test_a_keyboard_interrupt_of_a_script_ends_that_script_only(site: Path, tmp_path: Path) -> None:
    (site / "top.rpy").write_text("raise KeyboardInterrupt\n")
    (site / "helper.py").write_text("raise KeyboardInterrupt\n")
    (site / "imports.rpy").write_text("import helper\n")
    (site / "404.rpy").write_text("def resource(request):\n    raise KeyboardInterrupt\n")
    (site / "place.rpy").write_text(PLACES)
    places = [
        line.split("in_")[1].split("(")[0] for line in PLACES.splitlines() if "def in_" in line
    ]
    with serving(site, tmp_path) as server:
        for path in ("/top", "/imports", "/nowhere"):
            assert "KeyboardInterrupt" in body(server.port, path)
        for place in places:
            fetch(server.port, f"/place/{place}")
            assert body(server.port, "/a") == "before", place
        (site / "top.rpy").write_text(
            "from rpyserve import background\nimport trio\n@background\n"
            "async def wait():\n    await trio.sleep_forever()\nresource = lambda request: 'x'\n"
        )
        assert body(server.port, "/top") == "x"
        (site / "top.rpy").write_text("raise KeyboardInterrupt\n")  # the watch executes it
        server.wait_for("its background task goes on unchanged")
        assert body(server.port, "/a") == "before"


# Processes and threads that scripts leave behind

POOL = """cache()
import os, trio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

pool = ProcessPoolExecutor(2, mp_context=get_context("fork"))

async def resource(request):
    return str(await trio.to_thread.run_sync(pool.submit(os.getpid).result))
"""
HELPER_PROCESS = """cache()
import time
from multiprocessing import get_context

process = get_context("fork").Process(target=time.sleep, args=(3600,))
process.start()

def resource(request):
    return str(process.pid)
"""
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")


def ask(port: int, path: str) -> socket.socket:
    """Send a request on a new connection, and leave that open."""
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its exit status that nobody has asked for."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text() if os.path.exists("/proc") else ""
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] != ["Z"]


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} is still running"
        time.sleep(0.02)


@forks
@pytest.mark.parametrize("to_all", [False, True], ids=["the server", "the whole group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_pool_does_not_outlive_the_server(
    site: Path, tmp_path: Path, number: int, to_all: bool
) -> None:
    (site / "pool.rpy").write_text(POOL)
    with serving(site, tmp_path, own_group=True) as server:
        pid = int(body(server.port, "/pool"))  # which waits for the end of the connection
        assert pid != server.process.pid and is_running(pid)
        (os.killpg if to_all else os.kill)(server.process.pid, number)
        assert server.process.wait(10) == 0  # it needs one second; 12 if it waited for the pool
        wait_until_gone(pid)
        with socket.create_server(("127.0.0.1", server.port)):
            pass  # the port is free
    assert "Traceback" not in server.output()
    assert server.output().count("Stopped.") == 1


@forks
def test_a_process_that_works_on_is_ended_and_named(site: Path, tmp_path: Path) -> None:
    (site / "helper.rpy").write_text(HELPER_PROCESS)
    with serving(site, tmp_path) as server:
        pid = int(body(server.port, "/helper"))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        wait_until_gone(pid)
    assert "A process that a script started was still running, and was ended." in server.output()


@forks
def test_a_second_ctrl_c_ends_such_processes_too(site: Path, tmp_path: Path) -> None:
    (site / "helper.rpy").write_text(HELPER_PROCESS)
    (site / "endless.rpy").write_text(
        "import trio\nasync def resource(request):\n    await trio.sleep_forever()\n"
    )
    with serving(site, tmp_path) as server, ask(server.port, "/endless"):
        pid = int(body(server.port, "/helper"))
        server.process.send_signal(signal.SIGINT)
        server.wait_for("Ctrl-C again quits now")
        server.process.send_signal(signal.SIGINT)
        server.expected_code = 130
        assert server.process.wait(20) == 130
        wait_until_gone(pid)


@forks
def test_what_a_worker_holds_is_not_the_servers(site: Path, tmp_path: Path) -> None:
    """A server that is killed leaves workers behind, but neither its port nor connections."""
    (site / "helper.rpy").write_text(HELPER_PROCESS)
    with serving(site, tmp_path) as server:
        with ask(server.port, "/helper") as kept:
            pid = int(kept.recv(65536).rpartition(b"\r\n")[2])
            server.process.kill()
            server.process.wait()
            try:
                assert is_running(pid)
                assert kept.recv(1) == b""
                with socket.create_server(("127.0.0.1", server.port)):
                    pass
            finally:
                os.kill(pid, signal.SIGKILL)
        server.expected_code = None


@forks
def test_a_pool_that_works_is_ended_with_its_request(site: Path, tmp_path: Path) -> None:
    (site / "pool.rpy").write_text(
        POOL.replace("os.getpid", "time.sleep, 600")
        .replace("import os", "import time")
        .replace("    return", "    print('begun')\n    return")
    )
    with serving(site, tmp_path) as server, ask(server.port, "/pool"):
        server.wait_for("begun")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert "that a script started were still running" in server.output()


@posix_only
@pytest.mark.parametrize("where", ["request", "task"])
def test_a_call_in_a_thread_holds_the_end_no_longer_than_is_said(
    site: Path, tmp_path: Path, where: str
) -> None:
    (site / "slow.rpy").write_text(
        "import sys, time, trio\n"
        "async def wait():\n"
        "    print('begun', file=sys.stderr)\n    await trio.to_thread.run_sync(time.sleep, 60)\n"
        "async def resource(request):\n"
        "    request.getSession().notifyOnExpire(lambda: print('callback', file=sys.stderr))\n"
        + ("    await wait()\n" if where == "request" else "    request.site.background(wait)\n")
        + "    return 'done'\n"
    )
    with serving(site, tmp_path) as server, ask(server.port, "/slow"):
        server.wait_for("begun")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0  # 5 seconds are announced; the call takes 60
    for words in ("waiting up to 5 seconds", "callback", "Not waiting for", "Stopped. 1 session"):
        assert words in server.output()


# Streams that nobody reads

PRINTS = """
import sys
def resource(request):
    print("said")
    print("said at once", flush=True)
    print("said", file=sys.stderr, flush=True)
    sys.stdout.write("said by write\\n")
    return "page"
"""


@contextmanager
def command(
    stdout: Any, site: Path, stderr: Any = subprocess.PIPE, port: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rpyserve", str(site), "--port", str(port)],
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@posix_only
@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_pages_print_though_nobody_reads_it_any_more(site: Path, both: bool) -> None:
    """As behind ``| head -1``."""
    (site / "prints.rpy").write_text(PRINTS)
    stderr = subprocess.STDOUT if both else subprocess.DEVNULL
    with command(subprocess.PIPE, site, stderr) as process:
        assert process.stdout is not None
        line = b""
        while b"http://" not in line:
            line = process.stdout.readline()
        process.stdout.close()
        for _ in range(2):
            assert body(int(line.rpartition(b":")[2].strip(b"/\n")), "/prints") == "page"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_pages_print_though_the_disk_is_full(site: Path) -> None:
    (site / "prints.rpy").write_text(PRINTS)
    port = free_port()
    with open("/dev/full", "wb") as full, command(full, site, port=port) as process:
        assert process.stderr is not None
        while b"Ctrl-C stops" not in process.stderr.readline():
            pass
        for _ in range(2):
            assert body(port, "/prints") == "page"
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=20)[1]
        assert process.returncode == 0
    assert errors.count(b"said") == 2 and b"Traceback" not in errors and b"Errno" not in errors
