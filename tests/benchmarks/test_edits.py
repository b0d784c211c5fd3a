"""Each edit of the comparison, in a script and in a module; and the page that is made of it."""

from __future__ import annotations

import re
import sys

import pytest

from benchmarks.edits.rows import ROWS, Row
from benchmarks.edits.run import DOCUMENT, OWN, Outcome, document, play


@pytest.fixture(scope="module", params=OWN, ids=lambda tool: tool.driver[1])
def outcomes(request: pytest.FixtureRequest) -> dict[str, Outcome]:
    played = play(request.param, sys.executable)
    return {row.edit: outcome for row, outcome in zip(ROWS, played, strict=True)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.edit)
def test_an_object_lives_through_the_edit(row: Row, outcomes: dict[str, Outcome]) -> None:
    for library in re.findall(r"^import (attrs|pydantic)", row.before):
        pytest.importorskip(library)
    assert outcomes[row.edit] is True


def test_the_page_in_the_tree_is_written_by_this_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    titles = re.findall(r"^\| ([^|]*) \| yes \| yes \| ", text, re.M)
    assert titles == [row.edit for row in ROWS], "rpyserve passes each"
    blank = document({tool.name: [True] * len(ROWS) for tool in OWN})
    assert text.partition("|")[0] == blank.partition("|")[0]
