"""docs/scale.md, of which several benchmarks write a section each: its headings, and their order.

Text only; who measures knows what its section says.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

from benchmarks.common.docs import DOCS

DOCUMENT = DOCS / "scale.md"
SESSIONS = "A million sessions"
STARTUP = "Start-up"
CONNECTIONS = "Idle connections"
HEADINGS = (SESSIONS, STARTUP, CONNECTIONS)
INTRODUCTION = """\
# At scale

Written by the benchmarks, not by hand: `python -m benchmarks.scale.sessions`,
`python -m benchmarks.scale.startup` and `python -m benchmarks.scale.connections` each write their
section anew. What counts are the ratios, each measured side by side in one run; the figures beside
them are those of one machine.
"""


def machine() -> str:
    return f"Python {platform.python_version()} on {platform.system()}."


def marked(value: float, limit: float) -> str:
    """*value* as text, in bold if it is over *limit*."""
    return f"{value:.2f}" if value <= limit else f"**{value:.2f}**"


def write_section(heading: str, text: str, document: Path = DOCUMENT) -> None:
    """Put *text* under *heading*, in place of what is there."""
    sections = read_sections(document) | {heading: text.strip()}
    parts = [INTRODUCTION]
    parts += [f"## {name}\n\n{sections[name]}\n" for name in HEADINGS if name in sections]
    document.write_text("\n".join(parts), encoding="utf-8")


def read_sections(document: Path) -> dict[str, str]:
    """The sections that are there, by their headings."""
    text = document.read_text(encoding="utf-8") if document.exists() else ""
    found = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(found[::2], found[1::2], strict=True)}
