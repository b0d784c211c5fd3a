"""The fuzzer finds nothing in a short time, and would find something if it were there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common.server_process import ServerProcess, serving
from benchmarks.robustness import fuzz

pytestmark = pytest.mark.process


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    return site


def test_some_hundred_connections_find_nothing() -> None:
    found = fuzz.fuzz(1, first=1)
    assert re.match(r"\d+ connections in \d+ s, nothing found, memory ", found)


def test_a_server_that_answers_otherwise_or_ends_is_found(site: Path, tmp_path: Path) -> None:
    with serving(site, tmp_path / "console") as server:
        with pytest.raises(AssertionError):
            fuzz.check(server)  # there is no page that says GET
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        with pytest.raises(AssertionError, match="the server has ended"):
            fuzz.check(ServerProcess(process, server.port, server.console))


def test_what_a_server_uses_of_the_machine_is_measured(site: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc")
    with serving(site, tmp_path / "console") as server:
        assert 2**20 < server.memory() <= server.peak_memory() < 2**30
        assert 0 < server.cpu_time() < 60
        assert 3 < server.open_files() < 100
