"""Twisted's own tests of reactors, run with `TrioReactor`: ``python -m`` this, ``epoll`` or ``trio``.

In those tests a reactor is made, and asked for all sorts of things, before its `run`: so it has a
loop of its own here. It is also the reactor of the process, which runs the tests that know of no
other. The outcome of each test is printed as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked
from twisted.internet import error
from twisted.internet.main import installReactor
from twisted.trial.reporter import TestResult

from rpyserve.twisted.reactor import TrioReactor

MODULES = ("tcp", "tls", "udp", "unix", "fdset", "threads", "endpoints", "process", "core")


class StandaloneReactor(TrioReactor):
    """One whose `run` is that of the loop as well."""

    def run(self, installSignalHandlers: bool = True) -> None:
        if self._started:
            raise error.ReactorAlreadyRunning
        if self._startedBefore:
            raise error.ReactorNotRestartable
        self._scope = trio.CancelScope(shield=True)
        trio.run(self.run_tasks, restrict_keyboard_interrupt_to_checkpoints=False)

    def doIteration(self, delay: float | None) -> None:
        """What only the tests' own runner needs: to clean up after each, outside of any loop."""
        trio.run(self._iterate, delay)

    async def _iterate(self, delay: float) -> None:
        async with trio.open_nursery() as nursery:
            with self._reads.running(nursery), self._writes.running(nursery):
                await trio.sleep(delay)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()


REACTORS = {
    "epoll": "twisted.internet.epollreactor.EPollReactor",
    "trio": f"{StandaloneReactor.__module__}.{StandaloneReactor.__qualname__}",
}


class Outcomes(TestResult):
    """What became of each test."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, str] = {}

    def _note(self, test: Any, outcome: str) -> None:
        self.of[test.id().replace("StandaloneReactor", "").replace("EPollReactor", "")] = outcome

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._note(test, "passed")

    def addFailure(self, test: Any, fail: Any) -> None:
        super().addFailure(test, fail)
        self._note(test, f"failed: {fail}")

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self._note(test, f"error: {error}")

    def addSkip(self, test: Any, reason: Any) -> None:
        super().addSkip(test, reason)
        self._note(test, f"skipped: {reason}")


def main(name: str, *modules: str) -> None:
    from twisted.python.reflect import namedAny

    installReactor(namedAny(REACTORS[name])())
    from twisted.internet.test.reactormixins import ReactorBuilder
    from twisted.trial.runner import TestLoader

    ReactorBuilder._reactors = [REACTORS[name]]
    outcomes = Outcomes()
    suite = TestLoader().loadByNames(
        [f"twisted.internet.test.test_{each}" for each in modules or MODULES], recurse=True
    )
    suite.run(outcomes)
    json.dump(outcomes.of, sys.stdout, indent=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
