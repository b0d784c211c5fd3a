"""Random programs: some of them on every run, and the check finds what is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.robustness.edit_programs import Class, Program, Thing, run_programs
from rpyserve.scripts import definitions


def test_some_programs_lose_nothing() -> None:
    run_programs(200, first=1)


async def test_an_object_of_an_old_class_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(tmp_path, [Class("A", "plain", "page", {"f0": 5})], {"v0": Thing("A", 1)})
    async with program.site.running():
        await program.make("ann", "session", "v0")
        program.edit("A", "touch", "")
        program.save()
        await program.look("ann", "session", "v0", "page")
        monkeypatch.setattr(definitions, "current_definition", lambda defined: defined)
        program.edit("A", "touch", "")
        program.save()
        with pytest.raises(AssertionError):
            await program.look("ann", "session", "v0", "page")
