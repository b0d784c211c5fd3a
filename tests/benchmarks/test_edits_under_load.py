"""Edits under load: never an old answer after a save, never a lost visit."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.robustness.edits_under_load import EditedSite, measure
from tests.support.real_process import serving


@pytest.mark.process
async def test_edits_under_load(tmp_path: Path) -> None:
    root = tmp_path / "site"
    root.mkdir()
    site = EditedSite(root)
    with serving(root, tmp_path, "--quiet") as server:
        result = await measure(server.url + "/", site, edits=72, clients=4)
    assert result.edits == 72
    assert result.requests > 72
    assert result.stale == []
    assert result.errors == []
    assert result.lost == []
