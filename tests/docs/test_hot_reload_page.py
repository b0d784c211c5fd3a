"""The page about hot reload is true: its advice, its figures. Its example is played
by `test_docs`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from benchmarks.edits.rows import ROWS as COMPARED_ROWS
from rpyserve.sessions.migration import AT_ONCE
from rpyserve.sessions.missing_attributes import MOST_SLOW_CALLS, SLOW, TOO_SLOW
from tests.support.edited_site import Editing
from tests.support.in_process import Visitor

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
    assert len(rows) == len(ROWS) + len(STAGES_OF_ATTRIBUTES)
    assert all(f"| {row} |" in TEXT for row in STAGES_OF_ATTRIBUTES)


# The table of edits. What `benchmarks.edits.rows` has is played by its tests, in a script and in a
# module; the others here: the files and what each of their visits answers, one stage after another,
# and words that the console says.

COMPARED = {
    "the text of a page, a method, a function": ["the text of a page, a method, a function"],
    "a method is added or removed": ["a method is added or removed"],
    "an attribute is added in `__init__`": ["an attribute is added in `__init__`"],
    "an attribute is removed in `__init__`": [
        "an attribute is removed in `__init__`",
        "an attribute becomes a method",
    ],
    "members are added to an `Enum` or reordered": ["members are added to an `Enum` or reordered"],
    "a member of an `Enum` is removed": ["a member of an `Enum` is removed"],
    "a dataclass gets a field with a default or a `default_factory`": [
        "a dataclass gets a field with a default or a `default_factory`"
    ],
    "a class becomes a dataclass, becomes frozen, or stops being one": [
        "a class becomes a dataclass, becomes frozen, or stops being one"
    ],
    "a `NamedTuple` gets a field with a default": ["a `NamedTuple` gets a field with a default"],
    "`__slots__` are added, changed or removed; a base such as `ABC`, `Generic`, `Protocol` or a "
    "mixin comes or goes; a field is added to `@dataclass(slots=True)` or `attrs.define`": [
        "`__slots__` are added, changed or removed",
        "a base such as `ABC`, `Generic` or a mixin comes or goes",
        "a field is added to `@dataclass(slots=True)`",
        "a class of attrs gets a field with a default",
    ],
    "a `cached_property` is edited": ["another body of a `cached_property`"],
    "`__hash__` or `__eq__` is edited": ["`__hash__` or `__eq__` is edited"],
    "a class, a function or a method that is stored as a value": [
        "a class, a function or a method that is stored as a value"
    ],
}

Stage = tuple[dict[str, str | None], dict[str, str]]
"""Files to write, or to remove; and what pages answer then. A page is the definitions, ``---``, and
an expression: ``s`` is the session."""

KEEP = "s.setdefault('it', make()) and 1"
PLAYER = "class Player:\n    def __init__(self): self.n = 7\n    def who(self): return '{}'\n"
MAKE = "def make(): return [Player()]\n"
ASK = "s['it'][0].who(), s['it'][0].n, isinstance(s['it'][0], Player)"
COUNTER = (
    "{interface}class {name}:\n    def __init__(self, session): self.n = 0\n"
    "    def up(self):\n        self.n += 1\n        return self.n\n"
    "registerAdapter({name}, Session, ICounter)\n"
)
ICOUNTER = "class ICounter(Interface): pass\n"
UP = "ICounter(s).up()"

STAGES: dict[str, tuple[list[Stage], list[str]]] = {
    "a `NamedTuple` gets a field without a default": (
        [
            ({"a.rpy": f"class Move(NamedTuple):\n    at: int\ndef make(): return [Move(3)]\n---{KEEP}"}, {"/a": "1"}),
            (
                {"a.rpy": "class Move(NamedTuple):\n    at: int\n    by: str\n---s['it'], isinstance(s['it'][0], Move)"},
                {"/a": "([Move(at=3)], False)"},
            ),
        ],
        ["Move"],
    ),
    "a class is renamed": (
        [
            (
                {"a.rpy": PLAYER.format("old") + MAKE + COUNTER.format(interface=ICOUNTER, name="Counter") + f"---({KEEP}, {UP})"},
                {"/a": "(1, 1)"},
            ),
            (
                {"a.rpy": PLAYER.format("new").replace("Player", "Gamer") + COUNTER.format(interface=ICOUNTER, name="Tally") + f"---s['it'][0].who(), s['it'][0].n, {UP}"},
                {"/a": "('old', 7, 2)"},
            ),
            ({"a.rpy": PLAYER.format("new") + f"---{ASK}"}, {"/a": "('new', 7, True)"}),
        ],
        ["Player, which is no longer there"],
    ),
    "a class or its base class moves to a module of the site, or back": (
        [
            ({"a.rpy": f"{PLAYER.format('script')}{MAKE}---{KEEP}"}, {"/a": "1"}),
            (
                {"models.py": PLAYER.format("module"), "a.rpy": f"from models import Player\n---{ASK}"},
                {"/a": "('module', 7, True)"},
            ),
            ({"a.rpy": f"{PLAYER.format('script')}---{ASK}"}, {"/a": "('script', 7, True)"}),
            (
                {"models.py": PLAYER.format("base"), "a.rpy": f"import models\nclass Player(models.Player): pass\n---{ASK}"},
                {"/a": "('base', 7, True)"},
            ),
        ],
        [],
    ),
    "a module of the site is renamed, and the import with it": (
        [
            ({"models.py": PLAYER.format("old"), "a.rpy": f"from models import Player\n{MAKE}---{KEEP}"}, {"/a": "1"}),
            (
                {"models.py": None, "game.py": PLAYER.format("new"), "a.rpy": f"from game import Player\n---{ASK}"},
                {"/a": "('new', 7, True)"},
            ),
            (
                {"game.py": None, "play.py": PLAYER.format("newer"), "a.rpy": f"import play\n---{ASK.replace(', Player', ', play.Player')}"},
                {"/a": "('newer', 7, True)"},
            ),
        ],
        [],
    ),
    "the base class is another builtin, such as `list`": (
        [
            (
                {"a.rpy": PLAYER.format("old") + MAKE + COUNTER.format(interface=ICOUNTER, name="Counter") + f"---({KEEP}, {UP}, {UP})"},
                {"/a": "(1, 1, 2)"},
            ),
            (
                {"a.rpy": (PLAYER.format("new") + COUNTER.format(interface=ICOUNTER, name="Counter")).replace("Player:", "Player(list):").replace("Counter:", "Counter(list):") + f"---s['it'][0].who(), s['it'][0].n, {UP}"},
                {"/a": "('old', 7, 1)"},
            ),
        ],
        ["class Player that Python cannot change", "the Counter that", "is made afresh"],
    ),
    "an interface is removed": (
        [
            ({"a.rpy": COUNTER.format(interface=ICOUNTER, name="Counter") + f"---{UP}"}, {"/a": "1"}),
            ({"a.rpy": "---2"}, {"/a": "2"}),
            ({"a.rpy": COUNTER.format(interface=ICOUNTER, name="Counter") + f"---{UP}"}, {"/a": "2"}),
        ],
        [],
    ),
    "an interface moves to a module of the site, or back": (
        [
            ({"a.rpy": COUNTER.format(interface=ICOUNTER, name="Counter") + f"---{UP}"}, {"/a": "1"}),
            (
                {
                    "words.py": f"from rpyserve import Interface\n{ICOUNTER}",
                    "a.rpy": COUNTER.format(interface="from words import ICounter\n", name="Counter") + f"---{UP}",
                },
                {"/a": "2"},
            ),
            ({"a.rpy": COUNTER.format(interface=ICOUNTER, name="Counter") + f"---{UP}"}, {"/a": "3"}),
        ],
        [],
    ),
    "`registerAdapter` names another factory": (
        [
            ({"a.rpy": COUNTER.format(interface=ICOUNTER, name="Counter") + f"---{UP}"}, {"/a": "1"}),
            (
                {
                    "a.rpy": COUNTER.format(interface=ICOUNTER, name="Counter")
                    + "class Tens(Counter):\n    def up(self):\n        self.n += 10\n        return self.n\n"
                    + f"registerAdapter(Tens, Session, ICounter)\n---{UP}"
                },
                {"/a": "2", "/a (another visitor)": "10"},
            ),
        ],
        [],
    ),
    "a `Session` subclass": (
        [
            (
                {"a.rpy": "class Mine(Session):\n    sessionTimeout = 900\n    def word(self): return 'old'\n---setattr(request.site, 'sessionFactory', Mine)"},
                {"/a": "None"},
            ),
            (
                {"a.rpy": "class Mine(Session):\n    sessionTimeout = 900\n    def word(self): return 'old'\n---s.word()"},
                {"/a (another visitor)": "old"},
            ),
            (
                {"a.rpy": "class Mine(Session):\n    sessionTimeout = 60\n    def word(self): return 'new'\n---s.word(), s.sessionTimeout, s._timeout, type(s) is Mine"},
                {"/a (another visitor)": "('new', 60, 60, True)"},
            ),
        ],
        [],
    ),
    "a script is renamed": (
        [
            ({"a.rpy": f"{PLAYER.format('old')}{MAKE}{COUNTER.format(interface=ICOUNTER, name='Counter')}---({KEEP}, {UP})"}, {"/a": "(1, 1)"}),
            (
                {"a.rpy": None, "b.rpy": f"{PLAYER.format('new')}{COUNTER.format(interface=ICOUNTER, name='Counter')}---s['it'][0].who(), isinstance(s['it'][0], Player), {UP}"},
                {"/b": "('old', False, 1)"},
            ),
        ],
        [],
    ),
    "`cache()` is removed or added": (
        [
            ({"a.rpy": f"{PLAYER.format('old')}{MAKE}{COUNTER.format(interface=ICOUNTER, name='Counter')}---({KEEP}, {UP})"}, {"/a": "(1, 1)"}),
            (
                {"a.rpy": f"# no cache\n{PLAYER.format('new')}{COUNTER.format(interface=ICOUNTER, name='Counter')}---s['it'][0].who(), s['it'][0].n, {UP}"},
                {"/a": "('old', 7, 1)"},
            ),
            ({"a.rpy": f"{PLAYER.format('newer')}{COUNTER.format(interface=ICOUNTER, name='Counter')}---({ASK}, {UP})"}, {"/a": "('newer', 7, True, 1)"}),
        ],
        ["does not call cache() any more", "(Player, "],
    ),
    "a save with a syntax error or another error, an empty file": (
        [
            ({"a.rpy": f"{PLAYER.format('old')}{MAKE}---{KEEP}"}, {"/a": "1"}),
            ({"a.rpy": "class Player(:\n---1"}, {"/a (an error)": "SyntaxError"}),
            ({"a.rpy": f"{PLAYER.format('old')}1 / 0\n---1"}, {"/a (an error)": "ZeroDivisionError"}),
            ({"a.rpy": ""}, {"/a (an error)": "a.rpy"}),
            ({"a.rpy": f"{PLAYER.format('new')}---{ASK}"}, {"/a": "('new', 7, True)"}),
        ],
        [],
    ),
}  # fmt: skip


STAGES_OF_ATTRIBUTES: dict[str, tuple[list[Stage], list[str]]] = {
    "anything in the factory or class of a component": (
        [
            ({"a.rpy": COUNTER.format(interface=ICOUNTER, name="Counter") + f"---{UP}"}, {"/a": "1"}),
            (
                {"a.rpy": COUNTER.format(interface=ICOUNTER, name="Counter").replace("self.n = 0", "self.n = 0; self.whose = session") + "---ICounter(s).whose is s, ICounter(s).n"},
                {"/a": "(True, 1)"},
            ),
        ],
        ["Counter from before the edit got whose"],
    ),
    "anything in a `Session` subclass": (
        [
            (
                {"a.rpy": "class Mine(Session): pass\n---setattr(request.site, 'sessionFactory', Mine)"},
                {"/a": "None"},
            ),
            (
                {"a.rpy": "class Mine(Session): pass\n---s.__dict__.setdefault('n', 4)"},
                {"/a (another visitor)": "4"},
            ),
            (
                {"a.rpy": "class Mine(Session):\n    def __init__(self, site, uid):\n        super().__init__(site, uid)\n        self.n, self.seen = 0, [uid]\n---s.n, s.seen == [s.uid]"},
                {"/a (another visitor)": "(4, True)"},
            ),
        ],
        ["Mine from before the edit got "],
    ),
}  # fmt: skip


def save(site: Editing, name: str, text: str | None) -> None:
    if text is None:
        (site.root / name).unlink()
    elif "---" not in text:
        (site.root / name).write_text(text)
    else:
        definitions, _, answer = text.partition("---")
        site.script(definitions, answer, name)
        if definitions.startswith("# no cache"):
            path = site.root / name
            path.write_text(path.read_text().replace("cache()\n", "", 1))


@pytest.mark.parametrize("row", [*STAGES, *STAGES_OF_ATTRIBUTES])
async def test_a_row_of_the_table_of_edits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, row: str
) -> None:
    caplog.set_level(logging.INFO, logger="rpyserve")
    stages, words = (STAGES | STAGES_OF_ATTRIBUTES)[row]
    async with Editing.at(tmp_path) as site:
        another = Visitor(site.site)
        for files, answers in stages:
            for name, text in files.items():
                save(site, name, text)
            for page, answer in answers.items():
                target, _, how = page.partition(" ")
                if how == "(an error)":
                    assert answer in await site.get(target, status=500)
                else:
                    visitor = another if how else site.visitor
                    assert await site.get(target, visitor) == answer, files
    for word in words:
        assert word in caplog.text


def test_every_row_of_the_table_of_edits_is_played() -> None:
    table = TEXT.split("| you edit |")[1].split("\n\n")[0]
    cells = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]
    assert sorted(cells) == sorted([*COMPARED, *STAGES])
    compared = {title for titles in COMPARED.values() for title in titles}
    assert compared <= {each.edit for each in COMPARED_ROWS}


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
