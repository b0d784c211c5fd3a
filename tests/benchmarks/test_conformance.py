"""Every MUST of the RFCs about requests is kept, and the table in the documents says so of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.conformance.pages import RPYSERVE
from benchmarks.conformance.probe import probe
from benchmarks.conformance.rules import RULES, Rule
from benchmarks.conformance.run import DOCUMENT, introduction, rule_cells
from rpyserve import Directory, Site
from rpyserve.serving.listen import trusted_hosts
from tests.support.http_client import connect_to

IDS = [f"{n}-{rule.section}" for n, rule in enumerate(RULES)]


def rows() -> Iterator[list[str]]:
    """The cells of each row about a rule, in the document's order."""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if len(cells) > 5 and cells[3].startswith("`"):
            yield cells[1:-1]


def sorted_rules() -> list[Rule]:
    sections = list(dict.fromkeys(rule.section for rule in RULES))
    return sorted(RULES, key=lambda rule: sections.index(rule.section))


@pytest.mark.parametrize("rule", RULES, ids=IDS)
async def test_each_is_kept(
    rule: Rule, tmp_path: Path, nursery: object, autojump_clock: object
) -> None:
    for name, code in RPYSERVE.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    site = Site(Directory(tmp_path))
    async with site.running():
        client = connect_to(trusted_hosts(site.respond, []), nursery)
        answer = await probe(client.stream, rule)
    assert re.fullmatch(rule.accepted, answer) and answer != "no answer", f"{rule.text}: {answer}"
    (row,) = [cells for cells in rows() if cells[:3] == rule_cells(rule)]
    assert row[3] == answer


def test_the_table_has_these_rules_and_no_others() -> None:
    assert [cells[:3] for cells in rows()] == [rule_cells(rule) for rule in sorted_rules()]


def test_the_introduction_is_that_of_the_program() -> None:
    assert DOCUMENT.read_text(encoding="utf-8").startswith(introduction())


def test_none_of_ours_is_marked() -> None:
    assert not [cells for cells in rows() if cells[3].startswith(("✗", "~"))]
