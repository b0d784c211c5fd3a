"""Large bodies leave the server's memory where it was: the script of the benchmarks, with less."""

from __future__ import annotations

import pytest

from benchmarks.robustness import large_bodies as gigabyte

pytestmark = pytest.mark.process


def test_large_bodies_and_slow_readers_do_not_grow_the_server() -> None:
    assert gigabyte.measure(128) < 100 * gigabyte.MIB
