"""Scripts that block the loop are named while they do."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from rpyserve.http.request import Request
from rpyserve.resources.resource import FunctionResource
from rpyserve.scripts.execution import Execution
from rpyserve.serving.watchdog import BusyRun, Watchdog
from rpyserve.util.exceptions import Interruption, ScriptInterrupted


def rendered(function: Callable[[Request], Any]) -> None:
    """Have *function* called as a script's is: below frames of rpyserve and trio."""

    async def main() -> None:
        FunctionResource(function).render(Request("GET", "/"))

    trio.run(main)


@pytest.fixture
def lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    monkeypatch.setattr(logging.getLogger("rpyserve"), "propagate", True)
    caplog.set_level(logging.INFO, "rpyserve")
    return lambda: [record.getMessage() for record in caplog.records]


class FakeClock:
    """A clock that says what it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def look(dog: Watchdog) -> None:
    """From a thread of its own, as it does."""
    thread = threading.Thread(target=dog.look)
    thread.start()
    thread.join()


def block(clock: FakeClock, dog: Watchdog, seconds: float) -> None:
    """The author's code is in the middle of something, and the dog looks."""

    def page(request: Request) -> str:
        dog.after_io_wait(0)
        clock.now += seconds
        look(dog)
        look(dog)
        return ""

    rendered(page)


def test_a_blocking_script_is_named_once_while_it_blocks(
    lines: Callable[[], list[str]], clock: FakeClock
) -> None:
    dog = Watchdog()
    block(clock, dog, 1.9)
    assert lines() == []
    block(clock, dog, 2.1)
    assert len(lines()) == 1
    assert "test_watchdog.py, line " in lines()[0]
    assert "\n    thread." in lines()[0]
    assert "trio.to_thread.run_sync" in lines()[0]
    block(clock, dog, 5)
    assert len(lines()) == 2


def test_it_may_be_asking_itself(lines: Callable[[], list[str]], clock: FakeClock) -> None:
    dog = Watchdog(lambda: True)

    def page(request: Request) -> str:
        namespace: dict[str, Any] = {"__name__": "socket", "look": functools.partial(look, dog)}
        exec("def recv(): look()", namespace)
        dog.after_io_wait(0)
        clock.now += 3
        namespace["recv"]()
        return ""

    rendered(page)
    advice, asked = lines()
    assert "trio.to_thread.run_sync" in advice
    assert "A connection to this server is waiting" in asked


def test_a_visitor_who_waits_is_no_request_of_the_script(
    lines: Callable[[], list[str]], clock: FakeClock
) -> None:
    block(clock, Watchdog(lambda: True), 3)
    (line,) = lines()
    assert "trio.to_thread.run_sync" in line
    assert "waiting" not in line


def test_an_async_function_is_not_told_to_become_one(
    lines: Callable[[], list[str]], clock: FakeClock
) -> None:
    dog = Watchdog()

    def loop_for_ever() -> None:
        dog.after_io_wait(0)
        clock.now += 3
        look(dog)

    async def page(request: Request) -> str:
        loop_for_ever()
        return ""

    async def main() -> None:
        await FunctionResource(page).render(Request("GET", "/"))

    trio.run(main)
    (line,) = lines()
    assert "async def" not in line
    assert "await trio.sleep(0)" in line


def test_a_waiting_loop_is_not_blocked(lines: Callable[[], list[str]], clock: FakeClock) -> None:
    dog = Watchdog()
    dog.after_io_wait(0)
    clock.now += 10
    assert dog.blocked_for() == 10
    dog.before_io_wait(0)
    dog.look()
    assert dog.blocked_for() == 0
    assert lines() == []


def test_a_debugger_is_no_block(lines: Callable[[], list[str]], clock: FakeClock) -> None:
    dog = Watchdog()
    namespace: dict[str, Any] = {"__name__": "pdb"}
    exec("def debugged(request):\n    block()\n    return ''", namespace)
    namespace["block"] = functools.partial(block_inside, clock, dog)
    rendered(namespace["debugged"])
    assert lines() == []


def block_inside(clock: FakeClock, dog: Watchdog) -> None:
    dog.after_io_wait(0)
    clock.now += 5
    look(dog)


def test_watching_from_a_thread(lines: Callable[[], list[str]]) -> None:
    """All together: a loop that really blocks, for as long as it takes to be named."""

    def page(request: Request) -> str:
        deadline = time.monotonic() + 10
        while not lines() and time.monotonic() < deadline:
            time.sleep(0.01)
        return ""

    async def main() -> None:
        with Watchdog(threshold=0.05).watching():
            await trio.lowlevel.checkpoint()
            FunctionResource(page).render(Request("GET", "/"))

    trio.run(main)
    assert "test_watchdog.py" in lines()[0]


# Interruption


class Recorder:
    """Notes what is to be interrupted, and why."""

    def __init__(self) -> None:
        self.causes: list[ScriptInterrupted | None] = []

    def interrupt(self, run: BusyRun, cause: ScriptInterrupted | None) -> None:
        self.causes.append(cause)

    @property
    def reasons(self) -> list[Interruption]:
        return [cause.reason for cause in self.causes if cause is not None]


def running(path: Path, clock: FakeClock, dog: Watchdog, *during: Callable[[], object]) -> None:
    """Run the script at *path* in the loop, with looks in between *during*, a second apart."""
    source = path.read_bytes()
    execution = Execution("script", path, source=source)

    def work() -> None:
        for change in during:
            change()
            for _ in range(2):
                clock.now += 1
                look(dog)

    namespace = {"__execution__": execution, "work": work}
    exec(compile(source, path, "exec"), namespace)

    async def main() -> None:
        dog.after_io_wait(0)
        clock.now += 1
        look(dog)
        namespace["page"]()  # type: ignore[operator]

    trio.run(main)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "page.rpy"
    path.write_text("def page():\n    work()\n")
    return path


def test_a_save_while_it_runs(script: Path, clock: FakeClock) -> None:
    recorder = Recorder()
    dog = Watchdog(interruptor=recorder)
    running(script, clock, dog, lambda: None)
    assert recorder.causes
    assert recorder.reasons == []
    running(script, clock, dog, lambda: None, lambda: script.write_text("new = 1\n"))
    assert recorder.reasons == [Interruption.SAVED]
    assert "page.rpy was saved" in str(recorder.causes[-1])


def test_a_file_that_is_deleted(script: Path, clock: FakeClock) -> None:
    recorder = Recorder()
    running(script, clock, Watchdog(interruptor=recorder), lambda: None, script.unlink)
    assert recorder.reasons == [Interruption.SAVED]


def test_a_save_without_a_change_interrupts_nothing(script: Path, clock: FakeClock) -> None:
    recorder = Recorder()
    running(script, clock, Watchdog(interruptor=recorder), lambda: None, script.touch)
    assert recorder.reasons == []


def test_the_time_limit(script: Path, clock: FakeClock) -> None:
    recorder = Recorder()
    running(script, clock, Watchdog(interruptor=recorder, timeout=9), lambda: None)
    assert recorder.reasons == []
    running(script, clock, Watchdog(interruptor=recorder, timeout=1.5), lambda: None)
    assert set(recorder.reasons) == {Interruption.TIMEOUT}
    assert "1.5 seconds" in str(recorder.causes[-1])
