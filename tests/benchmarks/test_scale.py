"""Each benchmark writes its section of docs/scale.md, and leaves the others alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.common.docs import wrap
from benchmarks.scale import edits, report


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


@pytest.mark.parametrize("shape", edits.SHAPES)
async def test_an_edit_with_many_objects(shape: str, tmp_path: Path) -> None:
    figures = await edits.measure(shape, count=20_000, modules=2, root=tmp_path)
    assert figures.keys() == {"pause", "request", "done"}
    text = edits.section({shape: figures}, {shape: figures}, 20_000, 2)
    assert shape in text and "pause before" in text
