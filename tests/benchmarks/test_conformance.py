"""Every MUST of the RFCs about requests is kept, and the table in the documents says so of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.conformance.pages import SITE
from benchmarks.conformance.probe import told
from benchmarks.conformance.rules import MUSTS, Must
from benchmarks.conformance.run import what
from rpyserve import Directory, Site
from rpyserve.http.hosts import only_known_hosts
from tests.support.http_client import connect_to

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "conformance.md"
IDS = [f"{n}-{must.section}" for n, must in enumerate(MUSTS)]


def rows() -> Iterator[list[str]]:
    """The cells of each row about a rule, in the document's order."""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if len(cells) > 5 and cells[3].startswith("`"):
            yield cells[1:-1]


def sorted_musts() -> list[Must]:
    sections = list(dict.fromkeys(must.section for must in MUSTS))
    return sorted(MUSTS, key=lambda must: sections.index(must.section))


@pytest.mark.parametrize("must", MUSTS, ids=IDS)
async def test_each_is_kept(must: Must, tmp_path: Path, nursery: object, autojump_clock: object) -> None:
    for name, code in SITE.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    site = Site(Directory(tmp_path))
    async with site.running():
        client = connect_to(only_known_hosts(site.respond, []), nursery)
        answer = await told(client.stream, must)
    assert re.fullmatch(must.good, answer) and answer != "no answer", f"{must.rule}: {answer}"
    (told_of,) = [cells for cells in rows() if cells[:3] == what(must)]
    assert told_of[3] == answer


def test_the_table_has_these_rules_and_no_others() -> None:
    assert [cells[:3] for cells in rows()] == [what(must) for must in sorted_musts()]


def test_none_of_ours_is_marked() -> None:
    assert not [cells for cells in rows() if cells[3].startswith(("✗", "~"))]
