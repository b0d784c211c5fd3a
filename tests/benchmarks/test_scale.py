"""Each benchmark writes its section of docs/scale.md, and leaves the others alone."""

from __future__ import annotations

from pathlib import Path

from benchmarks.common.docs import wrap
from benchmarks.scale import report


def test_a_section_is_put_in_its_place(tmp_path: Path) -> None:
    document = tmp_path / "scale.md"
    report.write_section(report.CONNECTIONS, "idle", document)
    report.write_section(report.SESSIONS, "old", document)
    report.write_section(report.SESSIONS, "new", document)
    sections = f"## {report.SESSIONS}\n\nnew\n\n## {report.CONNECTIONS}\n\nidle\n"
    assert document.read_text(encoding="utf-8") == f"{wrap(report.INTRODUCTION)}\n{sections}"


def test_the_document_in_the_tree_has_all_sections() -> None:
    assert report.DOCUMENT.read_text(encoding="utf-8").startswith(wrap(report.INTRODUCTION))
    assert tuple(report.read_sections(report.DOCUMENT)) == report.HEADINGS
