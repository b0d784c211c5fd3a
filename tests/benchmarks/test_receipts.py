"""Edits under load: each has the verdict that its files deserve, and nobody sleeps for it."""

from __future__ import annotations

import pytest

from benchmarks.livereload.receipts import measure


@pytest.mark.process
def test_receipts_under_load() -> None:
    result = measure(edits=60, clients=2, seed=3)
    assert result.wrong == []
    assert len(result.seconds) > 60
    assert 0 < result.longest <= 1600
