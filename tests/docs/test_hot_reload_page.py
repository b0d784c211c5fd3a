"""The page about hot reload is true: its advice, its figures. Its example is played
by `test_docs`.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.edited_site import Editing

TEXT = (Path(__file__).parent.parent.parent / "docs" / "hot-reload.md").read_text(encoding="utf-8")
(ADVISED,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
WORDS = " ".join(TEXT.split())


async def test_the_advice(tmp_path: Path) -> None:
    before = re.sub(r"    lives = 3\n\n|        self\.lives = 3\n", "", ADVISED)
    assert "lives" not in before
    async with Editing.at(tmp_path) as site:
        site.script(before, "s.setdefault('player', Player('Ada'))._name")
        assert await site.get() == "Ada"
        site.script(ADVISED.replace("    lives = 3\n\n", ""), "hasattr(s['player'], 'lives')")
        assert await site.get() == "False"
        site.script(ADVISED, "s['player'].lives, s['player']._name")
        assert await site.get() == "(3, 'Ada')"


async def test_a_player_is_made_from_what_it_has(tmp_path: Path) -> None:
    assert "`Player(name)` from `player.name`" in WORDS
    player = "class Player:\n    def __init__(self, name):\n        self.name = name\n"
    async with Editing.at(tmp_path) as site:
        site.script(player, "s.setdefault('player', Player('Ada')).name")
        await site.get()
        site.script(player + "        self.letters = list(name)\n", "s['player'].letters")
        assert await site.get() == "['A', 'd', 'a']"


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
