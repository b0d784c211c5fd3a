"""A million sessions in one process, beside Twisted's: what each costs, and for how long nobody else has a turn.

``python benchmarks/million_sessions.py``. Sessions are made, found, touched, adapted, and end when their time has come,
once with nothing in them and once after each was adapted. Rounds alternate between the two servers. Each round is a
process of its own, in which garbage is looked for as the command does it. All is processor time, so that others on the
machine count as little as can be; visitors come in no order, the same for both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.scale import report as sections

OURS, THEIRS = 1_000_000, 400_000
ROUNDS = 3
CHUNK = 50
"""How many are treated in one turn, before other tasks have theirs."""
LIMITS = {"make": 0.45, "touch": 0.5, "expire": 0.3, "bytes": 0.35}
PAUSE_LIMIT = 20
ROWS = {
    "make": "make, µs",
    "find": "find by the cookie, µs",
    "touch": "touch, µs",
    "adapt": "adapt, µs",
    "expire": "expire, µs",
    "bytes": "bytes each",
}

TWISTED = """
import json, os, random, sys, time
from time import process_time
from twisted.internet import reactor
from twisted.python.components import registerAdapter
from twisted.web.resource import Resource
from twisted.web.server import Session, Site
from zope.interface import Interface, implementer


class ICounter(Interface):
    pass


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)


def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def each(things, function):
    began = process_time()
    for thing in things:
        function(thing)
    return (process_time() - began) / len(things) * 1e6


count = int(sys.argv[1])
later = 0
reactor.seconds = lambda: time.time() + later
site = Site(Resource())
figures, before = {}, memory()
figures["make"] = each(range(count), lambda number: site.makeSession())
figures["bytes"] = (memory() - before) / count
sessions = list(site.sessions.values())
random.Random(1).shuffle(sessions)
ids = [session.uid for session in sessions]
figures["find"] = each(ids, site.getSession)
figures["touch"] = each(sessions, Session.touch)
del sessions
later = 1000
began = process_time()
reactor.runUntilCurrent()
figures["expire"] = (process_time() - began) / count * 1e6
assert not site.sessions
later = 0
for _ in range(count):
    site.makeSession()
figures["adapt"] = each(list(site.sessions.values()), ICounter)
print(json.dumps(figures))
"""


def measure_ours(count: int) -> dict[str, float]:
    """All figures of this server, in this process."""
    import trio
    from trio.testing import MockClock

    from rpyserve.serving import gc_tuning

    with gc_tuning.rarely():
        return trio.run(_measure, count, clock=MockClock(rate=1))


async def _measure(count: int) -> dict[str, float]:
    import gc
    import random

    import trio

    from rpyserve import Resource, Session, Site, registerAdapter

    gc.freeze()
    registerAdapter(_Counter, Session, _counter_interface())
    site = Site(Resource(), sessionTimeout=900, maxSessions=None)
    sessions = site.sessions
    figures: dict[str, float] = {}
    async with site.running():
        before = _memory()
        await _each(figures, "make", range(count), lambda number: sessions.make())
        figures["bytes"] = (_memory() - before) / count
        living = list(sessions)
        random.Random(1).shuffle(living)
        ids = [session.uid for session in living]
        await _each(figures, "find", ids, sessions.find)
        await _each(figures, "touch", living, Session.touch)
        del living
        await _expire(figures, "expire", sessions)
        for number in range(count):
            sessions.make()
            if number % CHUNK == 0:
                await trio.lowlevel.checkpoint()
        await _each(figures, "adapt", list(sessions), _counter_interface())
        await _expire(figures, "expire adapted", sessions)
    return figures


_interfaces: list[Any] = []


def _counter_interface() -> Any:
    from zope.interface import Interface
    from zope.interface.interface import InterfaceClass

    if not _interfaces:
        _interfaces.append(InterfaceClass("ICounter", (Interface,), __module__=__name__))
    return _interfaces[0]


class _Counter:
    def __init__(self, session: object) -> None:
        self.value = 0


async def _each(figures: dict[str, float], what: str, things: Any, function: Callable[[Any], object]) -> None:
    """Call *function* with each of *things*, a few in each turn of the loop."""
    import gc

    import trio

    gc.freeze()  # a list of a million things, which Python would look at, is the benchmark's own
    took = 0.0
    async with _pauses(figures, what):
        for start in range(0, len(things), CHUNK):
            began = process_time()
            for thing in things[start : start + CHUNK]:
                function(thing)
            took += process_time() - began
            await trio.lowlevel.checkpoint()
    figures[what] = took / len(things) * 1e6


async def _expire(figures: dict[str, float], what: str, sessions: Any) -> None:
    """Let all sessions end because their time has come."""
    import trio

    clock = trio.lowlevel.current_clock()
    count, began = len(sessions), process_time()
    async with _pauses(figures, what):
        clock.jump(1000)  # type: ignore[attr-defined]
        while len(sessions):  # noqa: ASYNC110  # nobody tells of the last one
            await trio.sleep(0.01)
    figures[what] = (process_time() - began) / count * 1e6


@asynccontextmanager
async def _pauses(figures: dict[str, float], what: str) -> AsyncIterator[None]:
    """While inside, measure for how long a task that sleeps 1 ms is kept waiting: the processor time others took."""
    import trio

    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            began = process_time()
            await trio.sleep(0.001)
            longest = max(longest, process_time() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        yield
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    figures[f"{what} pause"] = longest * 1000


def _memory() -> int:
    import os

    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


# Both, in turn


def twisted(directory: Path) -> Path:
    """An environment with Twisted in it; its Python."""
    python = directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "twisted"], check=True, stderr=subprocess.DEVNULL)
    return python


def figures_of(command: Iterable[object]) -> dict[str, float]:
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {what: statistics.median(each[what] for each in rounds) for what in rounds[0]}


def section(ours: dict[str, float], many: dict[str, float], theirs: dict[str, float], count: int, rounds: int) -> str:
    rows = [
        [
            named,
            f"{ours[what]:.2f}" if what != "bytes" else f"{ours[what]:.0f}",
            f"{theirs[what]:.2f}" if what != "bytes" else f"{theirs[what]:.0f}",
            sections.verdict(ours[what] / theirs[what], LIMITS.get(what, 9)),
            str(LIMITS.get(what, "")),
            f"{many[what]:.2f}" if what != "bytes" else f"{many[what]:.0f}",
        ]
        for what, named in ROWS.items()
    ]
    pauses = [
        [f"while they are {named}", sections.verdict(many[f"{what} pause"], PAUSE_LIMIT)]
        for what, named in {
            "make": "made", "find": "found", "touch": "touched", "expire": "ended",
            "adapt": "adapted", "expire adapted": "ended, with a component in each",
        }.items()
    ]  # fmt: skip
    return f"""\
{THEIRS:,} sessions of rpyserve, as many of Twisted, and {count:,} of rpyserve, each in a process of its own; {rounds}
of each in turn and their medians, in processor time, and with the sessions in no order, as visitors come.
{sections.machine()}

{sections.table(["", "rpyserve", "Twisted", "ratio", "at most", f"of {count:,}"], rows)}

{sections.table([f"longest pause of the loop, with {count:,}", "ms"], pauses)}

Three things keep the pauses short. Python's full collections, which look at all there is and take longer the more
that is, wait for a quiet moment (`garbage`). The sessions lie in many small dicts, as one of a million entries takes
30 ms to grow (`shelves`). And those that are due end a few in each turn of the loop (`clock`)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="where Twisted is, or will be, installed (a temporary one)")
    parser.add_argument("--sessions", type=int, default=OURS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--ours", action="store_true", help="only this server's figures, as JSON, of this process")
    parser.add_argument("--write", type=Path, default=sections.DOCUMENT, metavar="FILE", help="where the section goes")
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(measure_ours(options.sessions)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        python = twisted((options.environment or Path(temporary)).absolute())
        ours, many, theirs = [], [], []
        own = [sys.executable, "-m", "benchmarks.scale.sessions", "--ours", "--sessions"]
        for _ in range(options.rounds):
            ours.append(figures_of([*own, THEIRS]))
            theirs.append(figures_of([python, "-c", TWISTED, THEIRS]))
            many.append(figures_of([*own, options.sessions]))
    mine, most, other = medians(ours), medians(many), medians(theirs)
    text = section(mine, most, other, options.sessions, options.rounds)
    sections.write(sections.HEADINGS[0], text, options.write)
    print(text)
    good = all(mine[what] <= limit * other[what] for what, limit in LIMITS.items())
    sys.exit(not good or any(took > PAUSE_LIMIT for what, took in most.items() if what.endswith(" pause")))


if __name__ == "__main__":
    main()
