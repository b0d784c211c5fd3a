"""Requests without a cookie, each of which makes a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.common.server_process import serving
from benchmarks.robustness import cookieless


@pytest.mark.process
async def test_each_request_without_a_cookie_is_answered_as_a_first_visit(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "counter.rpy").write_text(cookieless.COUNTER)
    with serving(site, tmp_path / "console", "--quiet", "--max-sessions", "10") as server:
        result = await cookieless.run(server, 800)
    assert result.answers == 800
    assert len(result.memory) == cookieless.MEASUREMENTS


def test_lost_answers_and_growing_memory_are_no_good_result() -> None:
    memory = [10, 3 * 1024**2, 1024**2]
    assert cookieless.Result(800, 800, memory).good
    assert not cookieless.Result(800, 799, memory).good
    assert not cookieless.Result(800, 800, [10, 20, 10 + 3 * 1024**2]).good
