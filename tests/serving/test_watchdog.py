"""Scripts that block the loop are named while they do."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.lowlevel

from rpyserve.http.request import Request
from rpyserve.resources.resource import FunctionResource
from rpyserve.serving.watchdog import Watchdog


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
