"""The project speaks the field's words: those of its own, which a reader had to learn, are gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

OWN_WORDS = [
    "almanack?",
    "carryover",
    "complaints",
    "idlest",
    "is none any more",
    "knowing",
    "lineage",
    "loopguard",
    "natures",
    "none any more",
    "owe[ds]?",
    "patience",
    "seldom",
    "shelves",
    "telephone",
    "trespass",
    "unsay",
    "untold",
    "veil",
]
"""The field says throttled for seldom, redactor for veil, migration for carryover, and so on."""

SOUGHT = [
    "broadcast", "CSRF", "CSV", "debugpy", "htmx", "kick", "layout", "pagination", "pandas", "PATCH",
    "pdb", "persist", "progress", "QR", "Ren'Py", "subdirectories", "venv",
]  # fmt: skip
"""What newcomers have searched the docs for."""

TEXTS = sorted(
    path
    for pattern in ("rpyserve/**/*.py", "rpyserve/**/*.js", "docs/*.md", "sample_site/*", "*.md")
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix in (".py", ".js", ".md", ".rpy", ".j2", ".css", ".txt")
    if path.name != "CHANGELOG.md"
)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_of_its_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("_", " ")
    found = re.findall(rf"\b(?:{'|'.join(OWN_WORDS)})\b", text, re.I)
    assert not found, f"{path.relative_to(ROOT)}: {sorted(set(map(str.lower, found)))}"


@pytest.mark.parametrize("word", SOUGHT)
def test_the_search_finds_what_newcomers_look_for(word: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    prose = [re.sub(r"```.*?```", "", text, flags=re.DOTALL) for text in texts]
    assert any(re.search(rf"(?<![\w/.-]){word}\b", text, re.I) for text in prose)


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:rpyserve|tests|files|protocol|livereload|util|serving)/[\w/.]+)`", text
    )
    assert len(named) > 15
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "rpyserve" / name).exists(), name
