"""Workers that share their sessions in a real Redis, while workers and Redis are killed.

Short forms of `benchmarks.robustness.workers`, which has the figures. How long it takes depends on
the machine, so that is not looked at here.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from benchmarks.robustness import workers
from benchmarks.robustness.workers import Visitor, running
from tests.support.redis_server import needs_redis, redis_server

pytestmark = [
    pytest.mark.process,
    needs_redis,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP, and no Unix sockets"),
]


@pytest.fixture(autouse=True)
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LONGEST_WAIT", math.inf)
    monkeypatch.setattr(workers, "LATEST", math.inf)


SCENARIOS: dict[str, Callable[[], Awaitable[list[str]]]] = {
    "workers are killed": lambda: workers.kills(10, 25),
    "Redis is killed, too": lambda: workers.kills(10, 25, redis_too=True),
    "a worker stands still in a request": lambda: workers.stalled(1),
    "eight requests at once": lambda: workers.crowd(3, 8, 2),
    "sessions expire": lambda: workers.expiries(60),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_no_visit_is_lost(name: str) -> None:
    with trio.fail_after(120):
        assert await SCENARIOS[name]() == []


async def test_a_session_lives_in_several_servers() -> None:
    with trio.fail_after(60):
        async with running("--session-timeout", "60") as (all_workers, _):
            visitor = Visitor("/component")
            for port in all_workers.ports * 3:
                await visitor.visit(port)
            assert visitor.numbers == list(range(1, 13)) and not visitor.faults


# At the start


def start(site: Path, *options: str, **environment: str) -> str:
    """Return what the command says, as it refuses to start."""
    command = [sys.executable, "-m", "rpyserve", str(site), "--port", "0", *options]
    clean = {name: value for name, value in os.environ.items() if name != "RPYSERVE_SECRET_FILE"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean | environment, timeout=60
    )
    assert done.returncode == 1, done
    return done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "secret").write_text("0123456789" * 5)
    return tmp_path / "site"


def test_without_a_secret_nothing_starts(site: Path) -> None:
    said = start(site, "--session-store", "redis://localhost:1")
    assert said.startswith("Error: Redis needs a secret") and said.count("\n") == 1


def test_without_redis_nothing_starts(site: Path, tmp_path: Path) -> None:
    url = f"unix://:hidden@{tmp_path}/none"
    said = start(site, "--session-store", url, RPYSERVE_SECRET_FILE=str(tmp_path / "secret"))
    assert re.fullmatch(
        r"Error: Redis at .*/none cannot be used: No such file or directory\.\n", said
    )


def test_a_store_is_emptied_by_forget(site: Path, tmp_path: Path) -> None:
    with redis_server() as server:
        command = [sys.executable, "-m", "rpyserve", str(site), "--session-store", server.url]
        done = subprocess.run([*command, "--forget"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "is empty now: 0 sessions" in done.stderr
