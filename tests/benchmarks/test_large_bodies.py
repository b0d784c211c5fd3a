"""Large bodies leave the server's memory where it was: the script of the benchmarks, with less."""

from __future__ import annotations

import pytest

from benchmarks.robustness import large_bodies

pytestmark = pytest.mark.process


def test_large_bodies_and_slow_readers_do_not_grow_the_server() -> None:
    assert large_bodies.measure(128) < large_bodies.MOST_MEMORY
