"""The soak, for a few seconds: no wrong answer and nothing lost.

Whether anything grows takes minutes to see.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.robustness.soak import soak


@pytest.mark.process
def test_everything_at_once(tmp_path: Path) -> None:
    result = soak(tmp_path, seconds=4, clients=16)
    assert result.wrong == []
    assert result.visits > 0 and result.edits > 0 and result.resets > 0
