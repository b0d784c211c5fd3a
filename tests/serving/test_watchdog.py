"""Finding the author's code on a stack, and naming what blocks."""

from __future__ import annotations

import functools
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
import trio.lowlevel

from rpyserve.http.request import Request
from rpyserve.resources.resource import FunctionResource
from rpyserve.serving import watchdog
from rpyserve.serving.watchdog import Watchdog, timed
from rpyserve.util import author_code
from rpyserve.util.author_code import display_position, innermost_author_frame


def here() -> FrameType:
    return sys._getframe(1)


def rendered(function: Callable[[Request], Any]) -> None:
    """Have *function* called as a script's is: below frames of rpyserve and trio."""

    async def main() -> None:
        FunctionResource(function).render(Request("GET", "/"))

    trio.run(main)


def test_the_authors_frame_is_found() -> None:
    seen: list[tuple[FrameType | None, FrameType]] = []

    def page(request: Request) -> str:
        seen.append((innermost_author_frame(here()), here()))
        return ""

    rendered(page)
    assert seen[0][0] is seen[0][1]


def test_pythons_own_frames_are_skipped() -> None:
    """The author's code calls json, which is at work."""
    seen: list[FrameType | None] = []
    code: list[object] = []

    def page(request: Request) -> str:
        code.append(here().f_code)
        frame = None

        def note(frame: FrameType, event: str, arg: object) -> None:
            if frame.f_code.co_filename == json.__file__:
                seen.append(innermost_author_frame(frame))

        sys.setprofile(note)
        json.dumps({})
        sys.setprofile(None)
        return str(frame)

    rendered(page)
    assert seen
    assert all(frame is not None and frame.f_code is code[0] for frame in seen)


def test_our_own_work_is_not_the_authors() -> None:
    seen: list[FrameType | None] = []

    def page(request: Request) -> str:
        def note(frame: FrameType, event: str, arg: object) -> None:
            if frame.f_code.co_name == "setHeader":
                seen.append(innermost_author_frame(frame))

        sys.setprofile(note)
        request.setHeader("X-A", "b")
        sys.setprofile(None)
        return ""

    rendered(page)
    assert seen
    assert set(seen) == {None}


def test_a_program_below_the_loop_is_not_meant() -> None:
    """The author's own program calls `run`, and the loop waits: nothing of the author's is at work."""
    seen: list[FrameType | None] = []

    async def main() -> None:
        def look() -> None:
            seen.append(innermost_author_frame(sys._current_frames()[thread]))

        await trio.to_thread.run_sync(look)

    thread = threading.get_ident()
    trio.run(main)
    assert seen == [None]


def test_no_frame() -> None:
    assert innermost_author_frame(None) is None


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frame = here()
    monkeypatch.chdir(tmp_path)
    assert display_position(frame) == f"{__file__}, line {frame.f_lineno}"
    monkeypatch.chdir(Path(__file__).parent)
    assert display_position(frame) == f"{Path(__file__).name}, line {frame.f_lineno}"


def test_its_line_of_source() -> None:
    line = author_code.source_line(here())
    assert line == "line = author_code.source_line(here())"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setattr(watchdog, "_named", {})
    monkeypatch.setattr(logging.getLogger("rpyserve"), "propagate", True)
    caplog.set_level(logging.INFO, "rpyserve")
    return lambda: [record.getMessage() for record in caplog.records]


class Hours:
    """A clock that says what it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    clock = Hours()
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def take(hours: Hours, label: str, seconds: float) -> None:
    with timed(label):
        hours.now += seconds


def test_slow_code_is_named_once_a_minute(lines: Callable[[], list[str]], hours: Hours) -> None:
    take(hours, "/fast", 0.09)
    take(hours, "/slow", 0.35)
    take(hours, "/slow", 0.35)
    take(hours, "/other", 1.5)
    assert [line.split(",")[0] for line in lines()] == ["/slow took 350 ms", "/other took 1.5 s"]
    assert "async def" in lines()[0]
    assert "trio.to_thread.run_sync" in lines()[0]
    hours.now += 60
    take(hours, "/slow", 0.35)
    assert len(lines()) == 3


def test_slow_code_that_fails_is_named_but_not_what_was_interrupted(
    lines: Callable[[], list[str]], hours: Hours
) -> None:
    for exc in (ValueError(), KeyboardInterrupt()):
        with pytest.raises(type(exc)), timed(type(exc).__name__):
            hours.now += 1
            raise exc
    assert [line.split()[0] for line in lines()] == ["ValueError"]


def test_labels_are_not_kept_for_ever(lines: Callable[[], list[str]], hours: Hours) -> None:
    for number in range(2500):
        take(hours, f"/{number}", 0.2)
    assert len(watchdog._named) <= 1000


def block(hours: Hours, dog: Watchdog, seconds: float) -> None:
    """The author's code is in the middle of something, and the dog looks."""

    def page(request: Request) -> str:
        dog.after_io_wait(0)
        hours.now += seconds
        thread = threading.Thread(target=dog.look)
        thread.start()
        thread.join()
        thread = threading.Thread(target=dog.look)
        thread.start()
        thread.join()
        return ""

    rendered(page)


def test_a_blocking_script_is_named_once_while_it_blocks(lines: Callable[[], list[str]], hours: Hours) -> None:
    dog = Watchdog()
    block(hours, dog, 1.9)
    assert lines() == []
    block(hours, dog, 2.1)
    assert len(lines()) == 1
    assert "test_watchdog.py, line " in lines()[0]
    assert "\n    thread." in lines()[0]
    assert "trio.to_thread.run_sync" in lines()[0]
    block(hours, dog, 5)
    assert len(lines()) == 2


def test_it_may_be_asking_itself(lines: Callable[[], list[str]], hours: Hours) -> None:
    block(hours, Watchdog(lambda: True), 3)
    assert "A connection to this server is waiting" in lines()[0]


def test_a_waiting_loop_is_not_blocked(lines: Callable[[], list[str]], hours: Hours) -> None:
    dog = Watchdog()
    dog.after_io_wait(0)
    hours.now += 10
    assert dog.blocked_for() == 10
    dog.before_io_wait(0)
    dog.look()
    assert dog.blocked_for() == 0
    assert lines() == []


def test_a_debugger_is_no_block(lines: Callable[[], list[str]], hours: Hours) -> None:
    dog = Watchdog()
    namespace: dict[str, Any] = {"__name__": "pdb"}
    exec("def debugged(request):\n    block()\n    return ''", namespace)
    namespace["block"] = functools.partial(block_inside, hours, dog)
    rendered(namespace["debugged"])
    assert lines() == []


def block_inside(hours: Hours, dog: Watchdog) -> None:
    dog.after_io_wait(0)
    hours.now += 5
    thread = threading.Thread(target=dog.look)
    thread.start()
    thread.join()


def test_watching_from_a_thread(lines: Callable[[], list[str]]) -> None:
    """All together: a loop that really blocks, for as long as it takes to be named."""

    def page(request: Request) -> str:
        deadline = time.monotonic() + 10
        while not lines() and time.monotonic() < deadline:
            time.sleep(0.01)
        return ""

    async def main() -> None:
        with Watchdog(patience=0.05).watching():
            await trio.lowlevel.checkpoint()
            FunctionResource(page).render(Request("GET", "/"))

    trio.run(main)
    assert "test_watchdog.py" in lines()[0]
