"""Imports in threads while helpers are saved: no request fails, none sees an old helper."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.robustness.thread_imports import ImportingSite, measure
from tests.support.real_process import serving


@pytest.mark.process
async def test_imports_in_threads_under_edits(tmp_path: Path) -> None:
    site = ImportingSite(tmp_path / "site")
    with serving(site.root, tmp_path, "--quiet") as server:
        result = await measure(server.url + "/", site, requests=400, clients=4, pause=0.1)
    assert result.requests >= 400
    assert result.edits > 1
    assert result.failed == []
    assert result.stale == []
