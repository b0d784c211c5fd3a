"""Many edits of one script leave nothing behind."""

from __future__ import annotations

from pathlib import Path

from benchmarks.robustness.edit_memory import edit_and_visit


async def test_edits_leave_memory_flat(tmp_path: Path) -> None:
    result = await edit_and_visit(tmp_path, edits=120, warm_up=40, step=40)
    assert result.visits == list(range(1, len(result.visits) + 1)), "no visit is lost"
    assert len(result.visits) == 160
    assert max(result.objects) - min(result.objects) < 60, result.objects
    assert result.old_executions == 0


async def test_a_session_that_nobody_visits_holds_no_execution_but_its_own(tmp_path: Path) -> None:
    result = await edit_and_visit(tmp_path, edits=20, warm_up=5, step=10, second_visitor=True)
    assert result.old_executions == 2, "of the script and of its module"
    assert max(result.objects) - min(result.objects) < 60, result.objects
