"""A million sessions in one process, beside Twisted's: what each costs, and how long others wait.

``python -m benchmarks.scale.sessions``. Sessions are made, found, touched, adapted, and expire,
once with nothing in them and once after each was adapted. Rounds alternate between the two servers.
Each round is a process of its own, in which garbage is collected as the command does it. All is
CPU time, so that others on the machine count as little as can be; visitors come in random
order, the same for both.
"""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from time import process_time
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from zope.interface import Interface

from benchmarks.common.docs import ROOT, table
from benchmarks.common.options import add_environment, add_write, option_parser
from benchmarks.common.servers import TWISTED, install
from benchmarks.scale import report
from rpyserve import Resource, Session, Site, registerAdapter
from rpyserve.serving import gc_tuning

OWN_SESSIONS, TWISTED_SESSIONS = 1_000_000, 400_000
ROUNDS = 3
CHUNK = 50
"""How many sessions are treated in one turn of the loop, before other tasks have theirs."""
LIMITS = {"make": 0.45, "touch": 0.5, "expire": 0.3, "bytes": 0.35}
"""Of the ratios to Twisted's figures."""
PAUSE_LIMIT = 20
"""Milliseconds."""
ROWS = {
    "make": "create, µs",
    "find": "look up by cookie, µs",
    "touch": "touch, µs",
    "adapt": "adapt, µs",
    "expire": "expire, µs",
    "bytes": "bytes per session",
}
PAUSES = {
    "make": "are created",
    "find": "are looked up",
    "touch": "are touched",
    "expire": "expire",
    "adapt": "are adapted",
    "expire adapted": "expire, with a component in each",
}

Figures = dict[str, float]
"""Those of `ROWS`, and of each of `PAUSES` one with `` pause`` after its name."""

TWISTED_PROGRAM = """
import json, os, random, sys, time
from time import process_time
from twisted.internet import reactor
from twisted.python.components import registerAdapter
from twisted.web.resource import Resource
from twisted.web.server import Session, Site
from zope.interface import Interface, implementer


class ICounter(Interface):  # type: ignore[misc]
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


class ICounter(Interface):  # type: ignore[misc]
    pass


class Counter:
    def __init__(self, session: object) -> None:
        self.value = 0


# This server's figures, measured in this process


def measure(count: int) -> Figures:
    with gc_tuning.tuned_gc():
        return trio.run(_measure, count, clock=MockClock(rate=1))


async def _measure(count: int) -> Figures:
    gc.freeze()
    registerAdapter(Counter, Session, ICounter)
    site = Site(Resource(), sessionTimeout=900, maxSessions=None)
    sessions = site.sessions
    figures: Figures = {}
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
        await _expire_all(figures, "expire", sessions)
        for number in range(count):
            sessions.make()
            if number % CHUNK == 0:
                await trio.lowlevel.checkpoint()
        await _each(figures, "adapt", list(sessions), ICounter)
        await _expire_all(figures, "expire adapted", sessions)
    return figures


async def _each(
    figures: Figures, name: str, things: Any, function: Callable[[Any], object]
) -> None:
    """Call *function* with each of *things*, a few in each turn of the loop."""
    gc.freeze()  # the list of a million things is the benchmark's own, and not to be traversed
    took = 0.0
    async with measuring_pauses(figures, f"{name} pause"):
        for start in range(0, len(things), CHUNK):
            began = process_time()
            for thing in things[start : start + CHUNK]:
                function(thing)
            took += process_time() - began
            await trio.lowlevel.checkpoint()
    figures[name] = took / len(things) * 1e6


async def _expire_all(figures: Figures, name: str, sessions: Any) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    count, began = len(sessions), process_time()
    async with measuring_pauses(figures, f"{name} pause"):
        clock.jump(1000)
        while len(sessions):  # noqa: ASYNC110  # nothing is called when the last one has expired
            await trio.sleep(0.01)
    figures[name] = (process_time() - began) / count * 1e6


@asynccontextmanager
async def measuring_pauses(figures: Figures, name: str) -> AsyncIterator[None]:
    """While inside, measure the longest CPU time for which a task that sleeps 1 ms waits.

    It is put into *figures* under *name*, in milliseconds.
    """
    longest = 0.0

    async def sleep_repeatedly() -> None:
        nonlocal longest
        while True:
            began = process_time()
            await trio.sleep(0.001)
            longest = max(longest, process_time() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep_repeatedly)
        await wait_all_tasks_blocked()
        yield
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    figures[name] = longest * 1000


def _memory() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


# Both servers, in turn


def figures_of(command: Iterable[object]) -> Figures:
    words = [str(word) for word in command]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
    figures: Figures = json.loads(done.stdout)
    return figures


def medians(rounds: list[Figures]) -> Figures:
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def section(own: Figures, most: Figures, twisted: Figures, count: int, rounds: int) -> str:
    """The text of the section.

    Args:
        own: this server's figures, with as many sessions as Twisted.
        most: this server's figures, with *count* sessions.
        twisted: Twisted's.
        count: how many sessions.
        rounds: how often each was measured.
    """
    rows = []
    for name, title in ROWS.items():
        digits = 0 if name == "bytes" else 2
        rows.append(
            [
                title,
                f"{own[name]:.{digits}f}",
                f"{twisted[name]:.{digits}f}",
                report.marked(own[name] / twisted[name], LIMITS.get(name, 9)),
                str(LIMITS.get(name, "")),
                f"{most[name]:.{digits}f}",
            ]
        )
    pauses = [
        [f"while they {done}", report.marked(most[f"{name} pause"], PAUSE_LIMIT)]
        for name, done in PAUSES.items()
    ]
    runs = report.count_of(rounds, "run")
    return f"""\
{TWISTED_SESSIONS:,} sessions in rpyserve, {TWISTED_SESSIONS:,} in Twisted, and {count:,} in
rpyserve, each in a separate process. The figures are medians of {runs} of each in turn, in CPU
time. Sessions are used in random order, as real visitors would. {report.machine()}

{table(["", "rpyserve", "Twisted", "ratio", "at most", f"with {count:,}"], rows)}

{table([f"longest pause of the event loop, with {count:,}", "ms"], pauses)}

Three things keep the pauses short. Full garbage collections, whose cost grows with the number of
live objects, run when the server is idle, the longer they take the less often, and otherwise only
after six million new objects: with Python's usual thresholds, one of them takes 200 ms here. The
sessions are stored in many small dicts (shards), because resizing one dict with a million entries
takes 25 ms. And sessions expire in small batches, a few in each iteration of the event loop."""


def main() -> None:
    parser = option_parser(__doc__)
    add_environment(parser)
    parser.add_argument("--sessions", type=int, default=OWN_SESSIONS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--own", action="store_true", help="only this server's figures, as JSON, of this process"
    )
    add_write(parser, report.DOCUMENT)
    options = parser.parse_args()
    if options.own:
        print(json.dumps(measure(options.sessions)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        python = install((options.environment or Path(temporary)).absolute(), [TWISTED]) / "python"
        rounds: list[tuple[Figures, Figures, Figures]] = []
        own = [sys.executable, "-m", "benchmarks.scale.sessions", "--own", "--sessions"]
        for _ in range(options.rounds):
            rounds.append(
                (
                    figures_of([*own, TWISTED_SESSIONS]),
                    figures_of([python, "-c", TWISTED_PROGRAM, TWISTED_SESSIONS]),
                    figures_of([*own, options.sessions]),
                )
            )
    few, twisted, most = (medians(list(each)) for each in zip(*rounds, strict=True))
    text = section(few, most, twisted, options.sessions, options.rounds)
    report.write_section(report.SESSIONS, text, options.write)
    print(text)
    good = all(few[name] <= limit * twisted[name] for name, limit in LIMITS.items())
    short = all(most[f"{name} pause"] <= PAUSE_LIMIT for name in PAUSES)
    sys.exit(not (good and short))


if __name__ == "__main__":
    main()
