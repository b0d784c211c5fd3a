"""Requests without a cookie, each of which makes a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.common.server_process import serving
from benchmarks.robustness import cookieless


@pytest.mark.process
async def test_sessions_of_visitors_without_cookies_are_evicted(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "counter.rpy").write_text(cookieless.COUNTER)
    with serving(site, tmp_path / "console", "--quiet", "--max-sessions", "10") as server:
        result = await cookieless.run(server, 800)
    assert result.answers == 800
    assert len(result.memory) == cookieless.MEASUREMENTS


def test_what_is_lost_and_what_grows_is_seen() -> None:
    grown = cookieless.Result(800, [10, 20, 10 + 3 * 1024**2])
    assert grown.growth > cookieless.MOST_GROWTH
