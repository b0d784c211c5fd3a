"""Where the documents are that the benchmarks write, and the Markdown in them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOT_PROSE = ("#", "|", "- ", "!")
"""What headings, tables, lists and pictures begin with."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [table_row(header), "|" + "---|" * len(header), *map(table_row, rows)]
    return "\n".join(lines)


def table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def wrap(text: str) -> str:
    """Return *text* with its paragraphs in lines of at most 100 characters."""
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        if not paragraph.startswith(NOT_PROSE):
            paragraph = textwrap.fill(
                paragraph, 100, break_long_words=False, break_on_hyphens=False
            )
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs) + "\n"
