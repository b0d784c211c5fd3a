"""The benchmark of receipts, with fewer edits."""

from __future__ import annotations

import pytest

from benchmarks.livereload.receipts import measure

pytestmark = pytest.mark.process


def test_no_verdict_is_wrong_under_load() -> None:
    result = measure(30, clients=1, seed=7)
    assert result.wrong == []
    assert len(result.seconds) >= 30 and 0 < result.longest <= 1_600
