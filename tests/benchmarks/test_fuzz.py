"""The fuzzer finds nothing in a short time, and would find something if it were there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.robustness import fuzz
from tests.support.real_process import serving


@pytest.mark.process
def test_some_hundred_connections_find_nothing() -> None:
    assert re.match(r"\d+ connections in \d+ s, nothing found, memory ", fuzz.fuzz(1, first=1))


@pytest.mark.process
def test_a_server_that_answers_otherwise_or_ends_is_found(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with serving(site, tmp_path) as real:
        server = fuzz.Server(real.process, real.console, real.port)
        with pytest.raises(AssertionError):
            server.check()  # there is no page that says GET
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        with pytest.raises(AssertionError, match="the server has ended"):
            fuzz.Server(process, real.console, real.port).check()


@pytest.mark.process
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
def test_memory_is_measured(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with serving(site, tmp_path) as real:
        size: Any = fuzz.Server(real.process, real.console, real.port).size()
        assert 2**20 < size < 2**30
