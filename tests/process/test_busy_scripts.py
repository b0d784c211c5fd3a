"""The real command with scripts that hold it: a save, Ctrl-C or a time limit ends their runs, and
nothing else.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.real_process import Server, serving

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name == "nt", reason="Windows cannot send a Ctrl-C to one process"),
]

LIMIT = 30
"""Seconds: far more than anything here takes."""


@dataclass
class Reply:
    status: int
    text: str


@dataclass
class Visitor:
    """A client that keeps its cookies."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, path: str, method: str = "GET", accept: str = "*/*") -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Accept": accept} | ({"Cookie": cookie} if cookie else {})
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            for name, value in response.getheaders():
                if name.lower() == "set-cookie":
                    key, _, rest = value.partition("=")
                    self.cookies[key] = rest.partition(";")[0]
            return Reply(response.status, response.read().decode())
        finally:
            connection.close()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    return tmp_path / "site"


@pytest.fixture
def later() -> Iterator[Callable[..., Future[Reply]]]:
    """``later(function, *args)``: call it in a thread, while the test goes on."""
    with ThreadPoolExecutor(40) as pool:
        yield pool.submit


Hold = Callable[..., AbstractContextManager[tuple[Server, Visitor, Future[Reply]]]]


@pytest.fixture
def hold(site: Path, tmp_path: Path, later: Callable[..., Future[Reply]]) -> Hold:
    """``hold(script, method)``: a server while *script*, the page ``/page``, holds it; one who has
    visited ``/count`` before; and what ``/page`` answers to somebody else.
    """

    @contextmanager
    def hold(script: str, method: str = "GET") -> Iterator[tuple[Server, Visitor, Future[Reply]]]:
        (site / "page.rpy").write_text(script)
        (site / "count.rpy").write_text(COUNTS)
        with serving(site, tmp_path) as server:
            visitor = Visitor(server.port)
            assert visitor.ask("/count").text == "1"
            page = later(Visitor(server.port).ask, "/page", method)
            wait_until_busy(server)
            yield server, visitor, page

    return hold


BEGUN = "    print('begun', flush=True)\n"


def busy(statement: str) -> str:
    """A script whose function holds the server with *statement*."""
    lines = statement.replace("\n", "\n    ")
    return f"import time\ndef resource(request):\n{BEGUN}    {lines}\n"


MENDED = "def resource(request):\n    return 'mended'\n"
COUNTS = (
    "def resource(request):\n    session = request.getSession()\n"
    "    session['n'] = session.get('n', 0) + 1\n    return str(session['n'])\n"
)


def wait_until_busy(server: Server) -> None:
    """Until the script has been at work for long enough to count as busy."""
    server.wait_for("begun")
    time.sleep(0.5)


HOLDING = {
    "loop": busy("while True: pass"),
    "sleep": busy("time.sleep(3600)"),
    "cached": "cache()\n" + busy("while True: pass"),
    "loop at import": "print('begun', flush=True)\nwhile True: pass",
    "our code": busy("while True: request.setHeader('X-A', 'b')"),
    "the registry": busy("while True: request.site.registry['n'] = 1"),
    "Python's code": busy("import json\nwhile True: json.dumps([1] * 1000)"),
    "except Exception": busy("while True:\n    try: time.sleep(0.1)\n    except Exception: pass"),
    "bare except": busy("while True:\n    try: time.sleep(3600)\n    except: pass"),
    "except around a call": busy(
        "def wait():\n    try: time.sleep(3600)\n    except BaseException: return\n"
        "while True:\n    try: wait()\n    except BaseException: continue"
    ),
    "finally": busy("while True:\n    try: time.sleep(3600)\n    finally: continue"),
    "own handlers": busy(
        "import signal\nfor n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)\n"
        "while True: pass"
    ),
    "async": f"async def resource(request):\n{BEGUN}    while True: pass\n",
    "in a nursery": (
        "import trio\nasync def work():\n    while True: pass\n"
        f"async def resource(request):\n{BEGUN}"
        "    async with trio.open_nursery() as nursery:\n        nursery.start_soon(work)\n"
    ),
}


@pytest.mark.parametrize("script", HOLDING.values(), ids=HOLDING)
def test_a_save_interrupts_the_old_run(site: Path, hold: Hold, script: str) -> None:
    with hold(script) as (server, visitor, page):
        (site / "page.rpy").write_text(MENDED)
        assert visitor.ask("/count").text == "2"
        assert page.result(LIMIT) == Reply(200, "mended")
        server.wait_for(r"Interrupted \S*page\.rpy, line \d+: .*\(it was saved meanwhile\)")
        assert "mended" not in server.output()  # the line that ran, not the one that is there now


def test_a_save_of_a_module_on_its_stack(site: Path, hold: Hold) -> None:
    (site / "helper.py").write_text(f"def work():\n{BEGUN}    while True: pass\n")
    script = "import helper\ndef resource(request): return helper.work()\n"
    with hold(script) as (_, _, page):
        (site / "helper.py").write_text("def work():\n    return 'mended'\n")
        assert page.result(LIMIT) == Reply(200, "mended")


def test_a_module_that_loops_while_it_is_imported(site: Path, hold: Hold) -> None:
    (site / "helper.py").write_text("print('begun', flush=True)\nwhile True: pass\n")
    with hold("import helper\ndef resource(request): return helper.text\n") as (_, _, page):
        (site / "helper.py").write_text("text = 'mended'\n")
        assert page.result(LIMIT) == Reply(200, "mended")


def test_a_save_of_another_script_interrupts_nothing(site: Path, hold: Hold) -> None:
    with hold(busy("time.sleep(1.5)\nreturn 'slow'")) as (server, _, page):
        (site / "other.rpy").write_text(MENDED)
        (site / "page.rpy").touch()
        assert page.result(LIMIT) == Reply(200, "slow")
        assert "Interrupted" not in server.output()


def test_what_may_have_had_an_effect_is_not_done_again(site: Path, hold: Hold) -> None:
    with hold(busy("while True: pass"), "POST") as (_, visitor, page):
        (site / "page.rpy").write_text(MENDED)
        reply = page.result(LIMIT)
        assert reply.status == 503
        assert "page.rpy was saved while this run of it was busy" in reply.text
        assert visitor.ask("/page", "POST").text == "mended"


def test_a_stream_that_has_begun_is_cut_off(site: Path, tmp_path: Path) -> None:
    (site / "page.rpy").write_text(
        f"def resource(request):\n    yield 'first '\n{BEGUN}    while True: pass\n"
    )
    with serving(site, tmp_path) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
        connection.request("GET", "/page")
        response = connection.getresponse()
        assert response.read(6) == b"first "
        wait_until_busy(server)
        (site / "page.rpy").write_text(MENDED)
        with pytest.raises(http.client.IncompleteRead):
            response.read()
        connection.close()
        assert Visitor(server.port).ask("/page").text == "mended"


def test_a_background_task_that_loops(site: Path, tmp_path: Path) -> None:
    script = "from rpyserve import background\ncache()\n@background\nasync def work():\n"
    (site / "page.rpy").write_text(f"{script}{BEGUN}    while True: pass\n{MENDED}")
    with serving(site, tmp_path) as server:
        assert Visitor(server.port).ask("/page").text == "mended"
        wait_until_busy(server)
        (site / "page.rpy").write_text(f"{script}    print('begun anew', flush=True)\n{MENDED}")
        server.wait_for("begun anew")
        assert Visitor(server.port).ask("/page").text == "mended"


def test_a_class_of_thirty_with_one_endless_loop(
    site: Path, tmp_path: Path, later: Callable[..., Future[Reply]]
) -> None:
    for number in range(30):
        (site / f"pupil{number}.rpy").write_text(COUNTS)
    with serving(site, tmp_path) as server:
        pupils = [Visitor(server.port) for _ in range(30)]
        paths = [f"/pupil{number}" for number in range(30)]
        assert {later(each.ask, path).result(LIMIT).text for each, path in zip(pupils, paths, strict=True)} == {"1"}  # fmt: skip
        (site / "pupil7.rpy").write_text(COUNTS.replace("    return", f"{BEGUN}    while True: pass\n    return"))  # fmt: skip
        looping = later(pupils[7].ask, paths[7])
        wait_until_busy(server)
        others = [number for number in range(30) if number != 7]
        waiting = [later(pupils[number].ask, paths[number]) for number in others]
        time.sleep(0.5)
        assert not any(each.done() for each in waiting)
        (site / "pupil7.rpy").write_text(COUNTS)
        saved = time.monotonic()
        assert {each.result(LIMIT).text for each in waiting} == {"2"}
        print(f"others waited for {time.monotonic() - saved:.2f} s after the save")
        assert looping.result(LIMIT) == Reply(200, "3")  # what it counted before the loop stays
        assert pupils[7].ask(paths[7]).text == "4"


# Ctrl-C


@pytest.mark.parametrize("script", HOLDING.values(), ids=HOLDING)
def test_the_first_ctrl_c_ends_the_run_and_the_next_stops_the_server(
    hold: Hold, script: str
) -> None:
    with hold(script) as (server, visitor, page):
        server.process.send_signal(signal.SIGINT)
        reply = page.result(LIMIT)
        assert reply.status == 503
        assert "Ctrl-C was pressed" in reply.text
        assert visitor.ask("/count").text == "2"
        server.wait_for(r"Interrupted .*\(the server goes on; Ctrl-C again stops it\)")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(LIMIT) == 0
        assert "Stopped. 1 session ended" in server.output()
        assert server.output().count("Interrupted") == 1


def test_ctrl_c_twice_while_visitors_come_back_to_the_loop(
    site: Path, tmp_path: Path, later: Callable[..., Future[Reply]]
) -> None:
    (site / "page.rpy").write_text(busy("while True: pass"))
    with serving(site, tmp_path) as server:
        pages = [later(Visitor(server.port).ask, "/page") for _ in range(3)]
        wait_until_busy(server)
        server.process.send_signal(signal.SIGINT)
        server.wait_for("the server goes on")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(LIMIT) == 0
        assert "Stopped." in server.output()
        for page in pages:
            assert page.exception(LIMIT) is not None or page.result().status == 503


KEEPS_IT = """
import time, trio
kept = []
async def resource(request):
    try:
        print("begun", flush=True)
        while True: pass
    except BaseException as exc:
        kept.append(exc)
    await trio.sleep(0.1)
    kept.clear()
    end = time.monotonic() + 0.6
    while time.monotonic() < end: pass
    return "went on"
"""


def test_an_interruption_is_over_when_others_had_their_turn(hold: Hold) -> None:
    with hold(KEEPS_IT) as (server, _, page):
        server.process.send_signal(signal.SIGINT)
        assert page.result(LIMIT) == Reply(200, "went on")
        server.wait_for("the server goes on")
        assert server.output().count("Interrupted") == 1


def test_ctrl_c_in_a_long_regular_expression(hold: Hold) -> None:
    with hold(busy("import re\nre.match('(a+)+$', 'a' * 60 + 'b')")) as (server, _, page):
        server.process.send_signal(signal.SIGINT)
        assert page.result(LIMIT).status == 503


def test_sigterm_stops_the_server_at_once(hold: Hold) -> None:
    with hold(busy("while True: pass")) as (server, _, page):
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LIMIT) == 0
        assert "Stopped." in server.output()
        assert page.exception(LIMIT) is not None


UNINTERRUPTIBLE = """
import ctypes, os, threading, time
from pathlib import Path

def unlock(lib, mutex):
    while not Path({go!r}).exists():
        time.sleep(0.01)
    lib.pthread_mutex_unlock(mutex)

def resource(request):
    lib, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    lib.pthread_mutex_lock(mutex)
    threading.Thread(target=unlock, args=(lib, mutex)).start()
    print('begun', flush=True)
    lib.pthread_mutex_lock(mutex)
    while True: pass
"""


def test_what_cannot_be_interrupted_is_told_and_interrupted_when_it_ends(
    site: Path, tmp_path: Path, hold: Hold
) -> None:
    go = tmp_path / "go"
    with hold(UNINTERRUPTIBLE.format(go=str(go))) as (server, _, page):
        (site / "page.rpy").write_text(MENDED)
        server.wait_for("cannot be interrupted before it ends")
        go.touch()
        assert page.result(LIMIT) == Reply(200, "mended")


# The time limit


@pytest.mark.parametrize("name", ["loop", "sleep", "loop at import", "bare except", "async"])
def test_a_time_limit(
    site: Path, tmp_path: Path, later: Callable[..., Future[Reply]], name: str
) -> None:
    (site / "page.rpy").write_text(HOLDING[name])
    (site / "count.rpy").write_text(COUNTS)
    with serving(site, tmp_path, "--script-timeout", "0.5s") as server:
        visitor = Visitor(server.port)
        assert visitor.ask("/count").text == "1"
        page = later(visitor.ask, "/page", accept="text/html")
        reply = page.result(LIMIT)
        assert reply.status == 500
        assert (
            "it held the server for 0.5 seconds, the limit that --script-timeout sets" in reply.text
        )
        assert re.search(r"page\.rpy:?.*line \d|page\.rpy:\d", reply.text)
        assert "@in_thread" in reply.text
        assert visitor.ask("/count").text == "2"
        found = server.wait_for(r"page\.rpy:(\d+)(?: in \S+)?\n\s+(.*)\n")
        assert "while True" in found[2] or "time.sleep" in found[2] or "except" in found[2]


def test_what_awaits_may_take_longer_than_the_limit(site: Path, tmp_path: Path) -> None:
    (site / "page.rpy").write_text(
        "import trio\nasync def resource(request):\n    for _ in range(8):\n"
        "        await trio.sleep(0.1)\n    return 'slow'\n"
    )
    with serving(site, tmp_path, "--script-timeout", "0.3") as server:
        assert Visitor(server.port).ask("/page") == Reply(200, "slow")


def test_a_constructor_that_the_server_calls_for_an_object_of_before_an_edit(
    site: Path, tmp_path: Path, later: Callable[..., Future[Reply]]
) -> None:
    """Bringing the object up to date goes on, in order, with that attribute missing until then."""
    head = "from rpyserve import registry\ncache()\n"
    page = (
        "class Thing:\n    def __init__(self):\n        self.a = 1\n{}"
        "if 'thing' not in registry: registry['thing'] = Thing()\n"
        "def resource(request):\n    return str({})\n"
    )
    (site / "page.rpy").write_text(head + page.format("", "registry['thing'].a"))
    second = page.format("        self.b = work(self.a)\n", "registry['thing'].b")
    with serving(site, tmp_path) as server:
        visitor = Visitor(server.port)
        assert visitor.ask("/page").text == "1"
        (site / "page.rpy").write_text(f"{head}def work(a):\n{BEGUN}    while True: pass\n{second}")
        answer = later(visitor.ask, "/page")
        wait_until_busy(server)
        (site / "page.rpy").write_text(f"{head}def work(a):\n    return a + 1\n{second}")
        answer.result(LIMIT)
        assert visitor.ask("/page").text == "2"


# Threads and jobs

IN_THREAD = "import time\nfrom rpyserve import in_thread\n@in_thread\n"


def test_an_edit_does_not_disturb_a_function_in_a_thread(
    site: Path, tmp_path: Path, hold: Hold
) -> None:
    go = tmp_path / "go"
    wait = f"import os\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nreturn 'old'"
    with hold(busy(wait).replace("import time\n", IN_THREAD)) as (server, visitor, page):
        (site / "page.rpy").write_text(MENDED)
        assert visitor.ask("/page").text == "mended"
        server.wait_for("page.rpy changed")
        go.touch()
        assert page.result(LIMIT) == Reply(200, "old")
        assert "Interrupted" not in server.output()


@pytest.mark.parametrize("statement", ["time.sleep(1)\nreturn 'slept'", "while True: pass"])
def test_ctrl_c_while_functions_run_in_threads(hold: Hold, statement: str) -> None:
    """They have the time that all open requests have, and are interrupted then."""
    with hold(busy(statement).replace("import time\n", IN_THREAD)) as (server, _, page):
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(LIMIT) == 0
        assert "Not waiting" not in server.output()
        if "slept" in statement:
            assert page.result(LIMIT) == Reply(200, "slept")
        else:
            assert page.exception(LIMIT) is not None


@pytest.mark.parametrize("first", ["", "cache()\n"])
def test_a_task_that_is_started_right_after_a_save_goes_on(
    site: Path, tmp_path: Path, first: str
) -> None:
    """The event of that very save comes later."""
    (site / "index.rpy").write_text(MENDED)
    script = (
        f"{first}import trio\nnotes = registry.setdefault('notes', [])\n"
        "async def work(*args):\n    notes.append('begun')\n    try:\n"
        "        await trio.sleep_forever()\n    except trio.Cancelled:\n"
        "        notes.append('cancelled')\n        raise\n"
        "def resource(request):\n    {}\n    return ' '.join(notes)\n"
    )
    with serving(site, tmp_path) as server:
        visitor = Visitor(server.port)
        visitor.ask("/")
        (site / "job.rpy").write_text(script.format("request.site.background(work, 1)"))
        visitor.ask("/job", "POST")
        (site / "task.rpy").write_text(script.format("request.site.background(work)"))
        visitor.ask("/task", "POST")
        server.wait_for("task.rpy added")
        assert visitor.ask("/task").text == "begun begun"
