"""Programs by chance: some of them on every run, and the check finds what is lost."""

from __future__ import annotations

import pytest

from benchmarks.robustness import edit_programs
from rpyserve.scripts import definitions


def test_some_programs_lose_nothing() -> None:
    edit_programs.run_programs(200, first=1)


def test_an_object_of_an_old_class_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "current_definition", lambda defined: defined)
    with pytest.raises(BaseExceptionGroup) as caught:
        edit_programs.run_programs(50, first=1)
    assert caught.group_contains(AssertionError)
