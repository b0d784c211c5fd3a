"""Injected faults: a short run finds nothing wrong, and would find wrong answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common.server_process import ServerProcess

if sys.platform != "linux":
    pytest.skip("Linux only", allow_module_level=True)

from benchmarks.robustness.faults import FIXED, KINDS, Answer, Result, Trial, inject


@pytest.mark.process
def test_a_round_of_each_kind_finds_nothing_wrong(tmp_path: Path) -> None:
    result = inject(tmp_path, 1, seconds=120, round_seconds=0.4, rounds=len(KINDS))
    assert result.wrong == []
    assert result.injected.total() > 10
    assert result.answers["right"] > 50


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return Trial(tmp_path, ServerProcess(process, 0, tmp_path / "console"), 1, Result())


@pytest.mark.parametrize(
    ("answer", "is_right", "is_beginning", "what"),
    [
        (Answer(200, whole=True), True, True, "right"),
        (Answer(500, whole=True), False, False, "refused (500)"),
        (Answer(200, whole=False), False, True, "cut"),
        (Answer(), False, False, "none"),
        (Answer(200, whole=True), False, True, "wrong"),
        (Answer(200, whole=False), False, False, "wrong"),
        (Answer(400, whole=True), False, False, "wrong"),
    ],
)
def test_answers_are_judged(
    answer: Answer, is_right: bool, is_beginning: bool, what: str, trial: Trial
) -> None:
    trial.judge(FIXED[0], answer, is_right, is_beginning)
    seen = {**trial.result.answers, **({"wrong": 1} if trial.result.wrong else {})}
    assert seen == {what: 1}


def test_growth_is_found() -> None:
    growing = Result(memory=[2**25, 2**25, 2**25, 2**26], files=[10, 10, 10, 30])
    growing.check_growth()
    assert [message.split()[0] for message in growing.wrong] == ["memory", "open"]
    flat = Result(memory=[2**25] * 4, files=[10, 10, 10, 12])
    flat.check_growth()
    assert flat.wrong == []
