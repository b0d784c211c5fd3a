"""Twisted's own tests of reactors pass with ours as they do with its own, the exceptions apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("twisted")
pytest.importorskip("hamcrest", reason="Twisted's own tests need it")

LEFT_OUT = {
    "test_core.SystemEventTestsBuilder_Tests.test_signalHandlersInstalledDuringStartup": (
        "signals are trio's business"
    ),
    "test_core.SystemEventTestsBuilder_Tests.test_iterate": (
        "a loop of trio's cannot be run for a moment; the suite's own reactor can"
    ),
}
"""The tests that need not pass, each with the reason."""

PREFIX = "twisted.internet.test."


def outcomes(reactor: str, directory: Path) -> dict[str, str]:
    """What became of each test with *reactor*."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.twisted.reactor_suite", reactor],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout)
    return {name.removeprefix(PREFIX): outcome for name, outcome in found.items()}


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="compares with the epoll of Linux")
def test_as_many_pass_as_with_epoll(tmp_path: Path) -> None:
    passed = {}
    for reactor in ("epoll", "trio"):
        directory = tmp_path / reactor
        directory.mkdir()
        found = outcomes(reactor, directory)
        passed[reactor] = {name for name, outcome in found.items() if outcome == "passed"}
    print({reactor: len(names) for reactor, names in passed.items()})
    missing = passed["epoll"] - passed["trio"] - LEFT_OUT.keys()
    assert not missing, {name: found[name][-1000:] for name in missing}
    assert len(passed["epoll"]) > 480
