"""Plain functions in worker threads: who goes on meanwhile, who waits, and how they end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import Directory, Request, Resource, Session, Site, in_thread
from rpyserve.http.errors import ClientDisconnected
from rpyserve.scripts import threads
from tests.support.edited_site import Editing
from tests.support.in_process import Visitor, ask

SOON = 20
"""Seconds: far more than anything here takes."""


class Gate:
    """Where a function in a thread waits until the test lets it go on."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.reached = threading.Semaphore(0)
        self.passed = 0

    def wait(self) -> None:
        self.reached.release()
        assert self._open.wait(SOON)
        self.passed += 1

    def open(self) -> None:
        self._open.set()

    async def is_reached(self) -> None:
        assert await trio.to_thread.run_sync(partial(self.reached.acquire, timeout=SOON))


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def pages(**functions: Callable[[Request], Any]) -> Site:
    root = Resource()
    for name, function in functions.items():
        root.putChild(name, function)
    return Site(root)


def count(request: Request) -> str:
    session = request.getSession()
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[tuple[trio.Nursery, Visitor]]:
    """Have *site* run. Gives a nursery, and a visitor who has a session."""
    async with site.running(), trio.open_nursery() as nursery:
        anna = Visitor(site)
        await anna.get("/count")
        yield nursery, anna


async def in_background(nursery: trio.Nursery, visitor: Visitor, path: str) -> list[str]:
    """Have *visitor* ask for *path*; the answer will be in the list."""
    answers: list[str] = []

    async def run() -> None:
        answers.append((await visitor.get(path)).text)

    nursery.start_soon(run)
    return answers


async def test_others_are_answered_meanwhile(gate: Gate) -> None:
    @in_thread
    def slow(request: Request) -> str:
        gate.wait()
        return f"slow {request.path} {threading.current_thread() is threading.main_thread()}"

    site = pages(slow=slow, count=count)
    async with site.running(), trio.open_nursery() as nursery:
        answers = await in_background(nursery, Visitor(site), "/slow")
        await gate.is_reached()
        assert (await ask(site, "/count")).text == "1"
        assert answers == []
        gate.open()
    assert answers == ["slow /slow False"]


async def test_methods_results_and_failures() -> None:
    class Page(Resource):
        isLeaf = True

        @in_thread
        def render_GET(self, request: Request) -> Any:
            """What it says."""
            if request.postpath == ["fail"]:
                raise ValueError("too slow")
            return {"n": 1}

    assert Page.render_GET.__doc__ == "What it says."
    site = pages(page=lambda request: "")
    site.root.putChild("page", Page())
    assert (await ask(site, "/page/x")).text == '{"n": 1}'
    answer = await ask(site, "/page/fail")
    assert answer.status == 500
    assert "ValueError: too slow" in answer.text


async def test_a_helper_is_awaited() -> None:
    @in_thread
    def add(a: int, *, b: int) -> int:
        return a + b

    async def page(request: Request) -> str:
        return str(await add(1, b=2))

    assert (await ask(Site(page), "/")).text == "3"


async def test_a_generator() -> None:
    steps = []

    @in_thread
    def numbers(request: Request) -> Iterator[str]:
        try:
            for number in range(3):
                steps.append(threading.current_thread().name)
                yield str(number)
        finally:
            steps.append("end " + threading.current_thread().name)

    assert (await ask(Site(numbers), "/")).text == "012"
    assert len(steps) == 4
    assert threading.main_thread().name not in " ".join(steps)


def test_what_it_does_not_take() -> None:
    async def already(request: Request) -> None: ...

    with pytest.raises(TypeError, match="leave @in_thread out"):
        in_thread(already)
    with pytest.raises(TypeError, match="above a function or a method"):
        in_thread(Resource)
    with pytest.raises(TypeError, match="above a function or a method"):
        in_thread("x")  # type: ignore[arg-type]


async def test_one_visitor_has_one_such_function_at_a_time(gate: Gate) -> None:
    """What it reads and writes back is not lost, though another one wants to do the same."""

    @in_thread
    def slow(request: Request) -> str:
        session = request.getSession()
        before = session.get("n", 0)
        gate.wait()
        session["n"] = before + 1
        return str(session["n"])

    site = pages(slow=slow, count=count)
    async with site.running(), trio.open_nursery() as nursery:
        anna = Visitor(site)
        assert (await anna.get("/count")).text == "1"
        first = await in_background(nursery, anna, "/slow")
        await gate.is_reached()
        others = [await in_background(nursery, anna, path) for path in ("/slow", "/count")]
        assert (await Visitor(site).get("/count")).text == "1"
        await trio.testing.wait_all_tasks_blocked()
        assert [first, *others] == [[], [], []]
        gate.open()
    assert first == ["2"]
    assert sorted(others[0] + others[1]) == ["3", "4"]
    assert not site.session_locks.held


async def test_a_page_that_uses_no_session_holds_up_nobody(gate: Gate) -> None:
    @in_thread
    def slow(request: Request) -> str:
        gate.wait()
        return "slow"

    site = pages(slow=slow, count=count)
    async with running(site) as (nursery, anna):
        await in_background(nursery, anna, "/slow")
        await gate.is_reached()
        assert (await anna.get("/count")).text == "2"
        gate.open()


@pytest.mark.parametrize("gives", ["session", "request"])
async def test_a_session_that_it_is_given(gate: Gate, gives: str) -> None:
    @in_thread
    def work(given: Any) -> str:
        gate.wait()
        session = given if isinstance(given, Session) else given.getSession()
        session["n"] += 10
        return str(session["n"])

    async def slow(request: Request) -> str:
        session = request.getSession()
        return str(await work(session if gives == "session" else request))

    site = pages(slow=slow, count=count)
    async with running(site) as (nursery, anna):
        slow_answer = await in_background(nursery, anna, "/slow")
        await gate.is_reached()
        waiting = await in_background(nursery, anna, "/count")
        await trio.testing.wait_all_tasks_blocked()
        assert waiting == []
        gate.open()
    assert (slow_answer, waiting) == (["11"], ["12"])


async def test_a_request_waits_for_all_functions_that_wait_before_it() -> None:
    for _ in range(10):  # the order in which trio resumes tasks is not the same each time
        gates = [Gate(), Gate()]

        @in_thread
        def work(session: Session, gate: Gate) -> None:
            gate.wait()
            session["n"] += 10

        async def slow(request: Request, gates: list[Gate] = gates, work: Any = work) -> str:
            async with trio.open_nursery() as nursery:
                for gate in gates:
                    nursery.start_soon(work, request.getSession(), gate)
                    await trio.testing.wait_all_tasks_blocked()
            return ""

        site = pages(slow=slow, count=count)
        async with running(site) as (nursery, anna):
            await in_background(nursery, anna, "/slow")
            await trio.testing.wait_all_tasks_blocked()
            waiting = await in_background(nursery, anna, "/count")
            await trio.testing.wait_all_tasks_blocked()
            gates[0].open()
            await gates[1].is_reached()
            await trio.testing.wait_all_tasks_blocked()
            gates[1].open()
            assert waiting == []
        assert waiting == ["22"]


async def test_a_session_that_is_made_ended_and_renamed_in_a_thread() -> None:
    ended = []

    @in_thread
    def login(request: Request) -> str:
        session = request.getSession()
        assert request.getSession() is session
        before = session.uid
        session.regenerate()
        session.notifyOnExpire(lambda: ended.append(threading.current_thread()))
        return str(before != session.uid)

    @in_thread
    def logout(request: Request) -> str:
        request.getSession().expire()
        return str(request.getSession().new)

    site = pages(login=login, logout=logout, count=count)
    async with site.running():
        anna = Visitor(site)
        await anna.get("/count")
        assert (await anna.get("/login")).text == "True"
        assert (await anna.get("/count")).text == "2"
        assert (await anna.get("/logout")).text == "True"
        assert ended == [threading.main_thread()]


async def test_a_client_that_leaves(gate: Gate) -> None:
    """The function is interrupted at its next step, cleans up, and its session is free."""
    cleaned, left = [], trio.Event()

    @in_thread
    def loop(request: Request) -> str:
        request.getSession()["n"] = 5
        gate.reached.release()
        try:
            while True:
                pass
        finally:
            cleaned.append(True)

    site = pages(loop=loop, count=count)
    async with running(site) as (nursery, anna):

        async def ask_and_leave() -> None:
            with pytest.raises(ClientDisconnected):
                await anna.ask("GET", "/loop", wait_client_left=left.wait)

        nursery.start_soon(ask_and_leave)
        await gate.is_reached()
        left.set()
        assert (await anna.get("/count")).text == "6"
    assert cleaned == [True]


async def test_what_cannot_be_interrupted_keeps_its_session_until_it_ends(gate: Gate) -> None:
    @in_thread
    def stuck(session: Session) -> None:
        for _ in range(2):
            with threading.Lock():
                gate.wait()
        session["n"] = 100

    async def page(request: Request) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stuck, request.getSession())
            await gate.is_reached()
            nursery.cancel_scope.cancel()
        return "given up"

    site = pages(page=page, count=count)
    async with running(site) as (nursery, anna):
        assert (await anna.get("/page")).text == "given up"
        waiting = await in_background(nursery, anna, "/count")
        await trio.testing.wait_all_tasks_blocked()
        assert waiting == []
        gate.open()
    assert waiting == ["2"]  # it was interrupted when that ended


async def test_a_generator_that_cannot_be_interrupted_is_not_waited_for(gate: Gate) -> None:
    @in_thread
    def stuck(session: Session) -> Iterator[str]:
        gate.wait()
        yield ""

    async def page(request: Request) -> str:
        async def take() -> None:
            async for _ in stuck(request.getSession()):
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await gate.is_reached()
            nursery.cancel_scope.cancel()
        return "given up"

    site = pages(page=page)
    async with site.running():
        with trio.fail_after(SOON / 2):
            assert (await Visitor(site).get("/page")).text == "given up"
        gate.open()


async def test_one_that_has_not_begun_never_does(
    monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    monkeypatch.setattr(threads, "MOST_THREADS", 1)
    begun = []

    @in_thread
    def slow(number: int) -> None:
        begun.append(number)
        gate.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow, 1)
        await gate.is_reached()
        with trio.move_on_after(0.05):
            await slow(2)
        gate.open()
    assert begun == [1]


async def test_a_thread_serves_others_after_an_interruption() -> None:
    """An exception that is on its way when the function ends strikes nobody else."""

    @in_thread
    def loop() -> None:
        while True:
            time.sleep(0.0001)

    for _ in range(20):
        with trio.move_on_after(0.01):
            await loop()
        assert await trio.to_thread.run_sync(lambda: sum(range(1000))) == 499500


TRACED = """
import sys, time, trio
from rpyserve import in_thread

@in_thread
def work(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.0001)

async def work_for(seconds):
    for _ in range(10):
        with trio.move_on_after(0.01):
            await work(seconds)

def numbers():
    yield from range(10)

def trace(frame, event, arg):
    return trace

trio.run(work_for, float(sys.argv[1]))
for install in sys.setprofile, sys.settrace:
    install(trace)
    total = sum(numbers())
    install(None)
    print(total)
"""


@pytest.mark.parametrize("seconds", [0, 5], ids=["not interrupted", "interrupted"])
def test_a_debugger_or_profiler_goes_on_after_it(tmp_path: Path, seconds: float) -> None:
    """CPython 3.11 would hang if an exception had been withdrawn from the thread."""
    program = tmp_path / "program.py"
    program.write_text(TRACED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program, str(seconds)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "45\n45\n"), done.stderr


async def test_an_exception_is_sent_to_no_thread_that_is_not_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_raise_in", None)

    @in_thread
    def work(fails: bool) -> int:
        return 1 // (not fails)

    assert await work(False) == 1
    with pytest.raises(ZeroDivisionError):
        await work(True)


async def test_objects_of_before_an_edit_are_brought_up_to_date(tmp_path: Any) -> None:
    page = "from rpyserve import in_thread\n@in_thread\ndef resource(request):\n    session = request.getSession()\n"
    async with Editing.at(tmp_path) as editing:
        editing.save(
            f"class A:\n    x = 1\n{page}    session['a'] = A()\n    registry['a'] = A()\n    return 'ok'\n"
        )
        assert await editing.get() == "ok"
        editing.save(
            f"class A:\n    x = 2\n{page}    return str(session['a'].x + registry['a'].x)\n"
        )
        assert await editing.get() == "4"


async def test_a_script_without_cache(tmp_path: Any) -> None:
    (tmp_path / "a.rpy").write_text(
        "from rpyserve import in_thread\n@in_thread\ndef resource(request):\n    return 'in a thread'\n"
    )
    site = Site(Directory(tmp_path))
    async with site.running():
        assert (await ask(site, "/a")).text == "in a thread"
