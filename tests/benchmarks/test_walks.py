"""The walks are recorded, whatever the modules of the package are called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import rpyserve
from benchmarks.structure import walks

PACKAGE = Path(rpyserve.__file__).parent


def test_each_walk_is_recorded_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    recorded = walks.trace(rounds=1, settle=0)
    assert sys.getprofile() is None
    walks.report(recorded, files=True, calls=True)
    printed = capsys.readouterr().out
    assert len(recorded) == 5
    for walk in recorded:
        row = next(line for line in printed.splitlines() if line.startswith(walk.title))
        assert row.removeprefix(walk.title).split() == [str(figure) for figure in walk.figures()]
        assert len(walk.calls) > 50
        assert all((PACKAGE / file).is_file() for file in walk.files)


def test_figures_of_a_walk() -> None:
    files = ["a/x.py", "a/x.py", "a/y.py", "b/z.py", "a/x.py"]
    walk = walks.Walk("a walk", tuple(walks.Call(file, "function") for file in files))
    assert walk.files == ["a/x.py", "a/y.py", "b/z.py", "a/x.py"]
    assert walk.figures() == [5, 3, 3, 2, 2]
