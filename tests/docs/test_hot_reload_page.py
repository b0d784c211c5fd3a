"""The page about hot reload is true: its advice, its figures. Its example is played
by `test_docs`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rpyserve.sessions.migration import AT_ONCE
from rpyserve.sessions.missing_attributes import MOST_SLOW_CALLS, SLOW, TOO_SLOW
from tests.support.edited_site import Editing

TEXT = (Path(__file__).parent.parent.parent / "docs" / "hot-reload.md").read_text(encoding="utf-8")
(ADVISED,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
WORDS = " ".join(TEXT.split())


async def test_the_advice(tmp_path: Path) -> None:
    before = re.sub(r"    lives = 3\n\n|        self\.lives = 3\n", "", ADVISED)
    assert "lives" not in before
    async with Editing.at(tmp_path) as site:
        site.script(before, "s.setdefault('player', Player('ada'))._name")
        assert await site.get() == "Ada"
        site.script(ADVISED.replace("    lives = 3\n\n", ""), "hasattr(s['player'], 'lives')")
        assert await site.get() == "False"
        site.script(ADVISED, "s['player'].lives, s['player']._name")
        assert await site.get() == "(3, 'Ada')"


# Each row of the table of attributes: its beginning; the class before the edit, how an object is
# made, and the class after it; what is asked of the object, and the answer.
ROWS = [
    (
        "`self.slug = title.lower()`",
        "class A:\n def __init__(self, title='Untitled'): self.title = title",
        "A('My Trip')",
        "class A:\n def __init__(self, title='Untitled'): self.title = title; self.slug = title.lower()",
        "it.slug", "my trip",
    ),
    (
        "`self.count = len(tags)`",
        "class A:\n def __init__(self, *tags): self.tags = list(tags)",
        "A(1, 2)",
        "class A:\n def __init__(self, *tags): self.tags = list(tags); self.count = len(tags)",
        "it.count", "2",
    ),
    (
        "a parameter with a default, and",
        "class A:\n def __init__(self, name): self.name = name",
        "A('Ada')",
        "class A:\n def __init__(self, name, lives=3): self.name = name; self.lives = lives",
        "it.lives", "3",
    ),
    (
        "`self.pages = []`",
        "class A: pass",
        "A(), A()",
        "class A:\n def __init__(self): self.pages = []",
        "it[0].pages.append(1), it[1].pages", "(None, [])",
    ),
    (
        "`self.size = len(deck)`",
        "class A:\n def __init__(self, deck=()): self.n = 1",
        "A([1])",
        "class A:\n def __init__(self, deck=()): self.n = 1; self.size = len(deck)",
        "hasattr(it, 'size')", "False",
    ),
    (
        "`self.count = len(self.moves)`",
        "class A:\n def __init__(self): self.moves = []\ndef made(a): a.moves.append(1); return a",
        "A(), made(A())",
        "class A:\n def __init__(self): self.moves = []; self.count = len(self.moves)",
        "it[0].count, hasattr(it[1], 'count')", "(0, False)",
    ),
    (
        "a parameter that must be given",
        "class A: pass",
        "A()",
        "class A:\n def __init__(self, name): self.name = name",
        "hasattr(it, 'name')", "False",
    ),
    (
        "`self.total` in place of a property `total`",
        "class A:\n @property\n def total(self): return 11",
        "A()",
        "class A:\n def __init__(self): self.total = 0",
        "it.total", "11",
    ),
    (
        "`self.lives` in place of `lives = 3`",
        "class A:\n lives = 3; log = [1]",
        "A(), A()",
        "class A:\n def __init__(self): self.lives = 5; self.log = []",
        "it[0].lives, it[0].log, it[0].log is it[1].log", "(3, [1], False)",
    ),
    (
        "a method `total` in place of `self.total`",
        "class A:\n def __init__(self): self.total = 3",
        "A()",
        "class A:\n def total(self): return 7",
        "it.total()", "7",
    ),
    (
        "another body of a `cached_property`",
        "from functools import cached_property\nclass A:\n @cached_property\n def a(self): return 1",
        "(a := A(), a.a)[0]",
        "from functools import cached_property\nclass A:\n @cached_property\n def a(self): return 2",
        "it.a", "2",
    ),
    (
        "a field with a default or a `default_factory`",
        "@dataclass\nclass A:\n a: int",
        "A(1)",
        "@dataclass\nclass A:\n a: int\n b: int = 2\n c: list = field(default_factory=list)",
        "it", "A(a=1, b=2, c=[])",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "before", "made", "after", "asked", "answer"), ROWS)
async def test_a_row_of_the_table_of_attributes(
    tmp_path: Path, row: str, before: str, made: str, after: str, asked: str, answer: str
) -> None:
    assert f"| {row}" in WORDS
    async with Editing.at(tmp_path) as site:
        site.script(before, f"s.update(it=({made}))")
        await site.get()
        site.script(after, f"(lambda it: ({asked}))(s['it'])")
        assert await site.get() == answer


def test_every_row_of_the_table_of_attributes_is_played() -> None:
    table = TEXT.split("| the edit adds |")[1].split("\n\n")[0]
    rows = table.splitlines()[2:]
    # The last two are played by the tests of components and of sessions.
    assert len(rows) - 2 == len(ROWS)


def test_the_limits_of_slow_constructors() -> None:
    assert "over 20 ms three times in a row" in WORDS
    assert (SLOW, MOST_SLOW_CALLS, TOO_SLOW) == (0.02, 3, 1.0)


def test_how_much_is_updated_at_once() -> None:
    assert f"the nearest {AT_ONCE.objects:,} are updated at once" in WORDS
    assert f"no more than {AT_ONCE.plain:,} plain lists, dicts and sets" in WORDS


async def test_names_in_the_script_begin_anew_and_the_others_do_not(tmp_path: Path) -> None:
    page = """
visits = 0


def visit(s):
    global visits
    visits += 1
    for kept in (s, registry):
        kept["visits"] = kept.get("visits", 0) + 1
    return visits, s["visits"], registry["visits"]
"""
    async with Editing.at(tmp_path) as site:
        for text in ("", "# an edit"):
            site.script(page + text, "visit(s)")
            answers = [await site.get(), await site.get()]
        assert answers == ["(1, 3, 3)", "(2, 4, 4)"]
