"""Where the documents are that the benchmarks write, and the Markdown tables in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [table_row(header), "|" + "---|" * len(header), *map(table_row, rows)]
    return "\n".join(lines)


def table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
