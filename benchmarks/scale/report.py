"""A document of figures of which several benchmarks write one section each: its headings, and their order.

Data and text only; who measures knows what its section says.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
HEADINGS = ("A million sessions", "Start-up", "Idle connections")
INTRODUCTION = """\
# At scale

Written by the benchmarks, not by hand: `benchmarks/million_sessions.py`, `benchmarks/start_up.py` and
`benchmarks/many_connections.py` each write their section anew. What counts are the ratios, each measured side by side
in one run; the figures beside them are of the machine at hand.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    first, *others = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([first, "|" + "---|" * len(head), *others])


def machine() -> str:
    return f"Python {platform.python_version()} on {platform.system()}."


def verdict(ratio: float, limit: float) -> str:
    return f"{ratio:.2f}" if ratio <= limit else f"**{ratio:.2f}**"


def write(heading: str, text: str, document: Path = DOCUMENT) -> None:
    """Put *text* under *heading*, in place of what is there."""
    known = read(document)
    known[heading] = text.strip()
    parts = [INTRODUCTION, *(f"## {each}\n\n{known[each]}\n" for each in HEADINGS if each in known)]
    document.write_text("\n".join(parts), encoding="utf-8")


def read(document: Path) -> dict[str, str]:
    """The sections that are there, by their headings."""
    text = document.read_text(encoding="utf-8") if document.exists() else ""
    found = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return {heading: body.strip() for heading, body in zip(found[::2], found[1::2], strict=True)}
