"""The edits: what a file had before, what it has after, and what must be true of an object then.

Data only. The tests play each row with a script and with a module, and `benchmarks.edits.run` plays
them with other tools, too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One edit.

    Args:
        edit: what the author does.
        before: the file's definitions before the edit.
        make: an expression for what is kept before the edit, under the name ``kept``.
        after: the definitions after it.
        check: an expression that must be true after it, of ``kept`` and the definitions.
        javascript: the same four in JavaScript, for tools that have that, if it has a sense there.
    """

    edit: str
    before: str
    make: str
    after: str
    check: str
    javascript: tuple[str, str, str, str] | None = None


_PLAYER = """
class Player:
    def __init__(self, name):
        self.name = name

    def greeting(self):
        return "Hello " + self.name
"""
_PLAYER_JS = """
class Player {
  constructor(name) { this.name = name }
  greeting() { return "Hello " + this.name }
}
"""
_TURN = """
from enum import Enum


class Turn(Enum):
    X = "x"
    O = "o"
"""
_POINT = """
from dataclasses import dataclass, field


@dataclass
class Point:
    x: int
    y: int = 0
"""


ROWS = [
    Row(
        "the text of a page, a method, a function",
        _PLAYER,
        'Player("Ada")',
        _PLAYER.replace("Hello ", "Welcome "),
        'kept.greeting() == "Welcome Ada" and isinstance(kept, Player)',
        (
            _PLAYER_JS,
            'new Player("Ada")',
            _PLAYER_JS.replace("Hello ", "Welcome "),
            'kept.greeting() === "Welcome Ada" && kept instanceof Player',
        ),
    ),
    Row(
        "a method is added or removed",
        _PLAYER,
        'Player("Ada")',
        _PLAYER + "\n    def initial(self):\n        return self.name[0]\n",
        'kept.initial() == "A"',
        (
            _PLAYER_JS,
            'new Player("Ada")',
            _PLAYER_JS.replace("greeting()", "initial() { return this.name[0] }\n  greeting()"),
            'kept.initial() === "A"',
        ),
    ),
    Row(
        "an attribute is added in `__init__`",
        _PLAYER,
        'Player("Ada")',
        _PLAYER.replace(
            "self.name = name\n", "self.name = name\n        self.letters = len(name)\n"
        ),
        "kept.letters == 3",
        (
            _PLAYER_JS,
            'new Player("Ada")',
            _PLAYER_JS.replace("this.name = name", "this.name = name; this.letters = name.length"),
            "kept.letters === 3",
        ),
    ),
    Row(
        "an attribute is removed in `__init__`",
        _PLAYER.replace("self.name = name\n", "self.name = name\n        self.lives = 2\n"),
        'Player("Ada")',
        _PLAYER,
        "kept.lives == 2 and isinstance(kept, Player)",
    ),
    Row(
        "an attribute becomes a method",
        "class Cart:\n    def __init__(self):\n        self.total = 3\n        self.items = [1, 2]\n",
        "Cart()",
        "class Cart:\n    def __init__(self):\n        self.items = [1, 2]\n\n"
        "    def total(self):\n        return sum(self.items)\n",
        "kept.total() == 3",
    ),
    Row(
        "members are added to an `Enum` or reordered",
        _TURN,
        "{Turn.X: [Turn.O]}",
        _TURN.replace('    X = "x"\n', '    NONE = "-"\n') + '    X = "x"\n',
        "kept[Turn.X][0] is Turn.O and list(kept) == [Turn.X]",
    ),
    Row(
        "a member of an `Enum` is removed",
        _TURN,
        "[Turn.X, Turn.O]",
        _TURN.replace('    X = "x"\n', ""),
        'kept[0].value == "x" and kept[1] is Turn.O',
    ),
    Row(
        "a dataclass gets a field with a default or a `default_factory`",
        _POINT,
        "[Point(1), Point(2)]",
        _POINT + "    seen: list = field(default_factory=list)\n    z: int = 7\n",
        "(kept[0].seen, kept[0].z) == ([], 7) and kept[0].seen is not kept[1].seen"
        " and kept[0] == Point(1)",
    ),
    Row(
        "a class becomes a dataclass, becomes frozen, or stops being one",
        "class Point:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n",
        "Point(1, 2)",
        _POINT.replace("@dataclass", "@dataclass(frozen=True)"),
        "kept == Point(1, 2) and hash(kept) == hash(Point(1, 2))",
    ),
    Row(
        "a `NamedTuple` gets a field with a default",
        "from typing import NamedTuple\n\n\nclass Move(NamedTuple):\n    at: int\n",
        "{'last': [Move(3)]}",
        "from typing import NamedTuple\n\n\nclass Move(NamedTuple):\n    at: int\n"
        "    by: str = 'x'\n",
        "kept['last'][0] == Move(3, 'x') and isinstance(kept['last'][0], Move)",
    ),
    Row(
        "`__slots__` are added, changed or removed",
        "class Board:\n    __slots__ = ('size',)\n\n    def __init__(self, size=3):\n"
        "        self.size = size\n",
        "[Board(4)]",
        "class Board:\n    __slots__ = ('size', 'turn')\n\n    def __init__(self, size=3, turn='x'):"
        "\n        self.size = size\n        self.turn = turn\n",
        "(kept[0].size, kept[0].turn) == (4, 'x') and type(kept[0]) is Board",
    ),
    Row(
        "a field is added to `@dataclass(slots=True)`",
        _POINT.replace("@dataclass", "@dataclass(slots=True)"),
        "{'here': Point(1, 2)}",
        _POINT.replace("@dataclass", "@dataclass(slots=True)") + "    z: int = 7\n",
        "kept['here'].z == 7 and kept['here'] == Point(1, 2)",
    ),
    Row(
        "a base such as `ABC`, `Generic` or a mixin comes or goes",
        _PLAYER,
        '[Player("Ada")]',
        "from abc import ABC\n" + _PLAYER.replace("class Player:", "class Player(ABC):"),
        "isinstance(kept[0], Player) and kept[0].greeting() == 'Hello Ada'",
    ),
    Row(
        "a base class with methods of its own comes",
        _PLAYER,
        'Player("Ada")',
        "class Named:\n    def initial(self):\n        return self.name[0]\n\n"
        + _PLAYER.replace("class Player:", "class Player(Named):"),
        "kept.initial() == 'A' and isinstance(kept, Named)",
    ),
    Row(
        "`__hash__` or `__eq__` is edited",
        "class P:\n    def __init__(self, x):\n        self.x = x\n\n    def __eq__(self, other):\n"
        "        return self.x == other.x\n\n    def __hash__(self):\n        return hash(self.x)\n",
        "({P(1)}, {P(2): 'two'})",
        "class P:\n    def __init__(self, x):\n        self.x = x\n        self.y = -x\n\n"
        "    def __eq__(self, other):\n        return (self.x, self.y) == (other.x, other.y)\n\n"
        "    def __hash__(self):\n        return hash((self.x, self.y))\n",
        "P(1) in kept[0] and kept[1][P(2)] == 'two'",
    ),
    Row(
        "a property becomes an attribute",
        "class Cart:\n    def __init__(self, prices):\n        self.prices = prices\n\n"
        "    @property\n    def total(self):\n        return sum(self.prices)\n",
        "Cart([5, 6])",
        "class Cart:\n    def __init__(self, prices):\n        self.prices = prices\n"
        "        self.total = sum(prices)\n",
        "kept.total == 11",
    ),
    Row(
        "another body of a `cached_property`",
        "from functools import cached_property\n\n\nclass Page:\n    @cached_property\n"
        "    def title(self):\n        return 'old'\n",
        "(lambda page: (page.title, page)[1])(Page())",
        "from functools import cached_property\n\n\nclass Page:\n    @cached_property\n"
        "    def title(self):\n        return 'new'\n",
        "kept.title == 'new'",
    ),
    Row(
        "a class, a function or a method that is stored as a value",
        _PLAYER + "\n\ndef double(x):\n    return 2 * x\n",
        "[Player, double, Player('Ada').greeting]",
        _PLAYER.replace("Hello ", "Welcome ") + "\n\ndef double(x):\n    return x + x + 1\n",
        "kept[0] is Player and kept[1](2) == 5 and kept[2]() == 'Welcome Ada'",
    ),
    Row(
        "a class inside a class",
        "class Game:\n    class Card:\n        def name(self):\n            return 'old'\n",
        "Game.Card()",
        "class Game:\n    class Card:\n        def name(self):\n            return 'new'\n",
        "kept.name() == 'new' and isinstance(kept, Game.Card)",
    ),
    Row(
        "objects in each other, in tuples and as keys",
        _POINT.replace("@dataclass", "@dataclass(frozen=True)"),
        "{Point(1): (Point(2), [Point(3)])}",
        _POINT.replace("@dataclass", "@dataclass(frozen=True)")
        + "\n    def sum(self):\n        return self.x + self.y\n",
        "kept[Point(1)][0].sum() == 2 and kept[Point(1)][1][0] == Point(3)"
        " and all(type(key) is Point for key in kept)",
    ),
    Row(
        "a class of attrs gets a field with a default",
        "import attrs\n\n\n@attrs.define\nclass Item:\n    name: str\n",
        "[Item('tea')]",
        "import attrs\n\n\n@attrs.define\nclass Item:\n    name: str\n    price: int = 3\n",
        "kept[0] == Item('tea', 3) and kept[0].price == 3",
    ),
    Row(
        "a model of pydantic gets a field with a default",
        "import pydantic\n\n\nclass Item(pydantic.BaseModel):\n    name: str\n",
        "Item(name='tea')",
        "import pydantic\n\n\nclass Item(pydantic.BaseModel):\n    name: str\n    price: int = 3\n",
        "kept.price == 3 and kept == Item(name='tea') and kept.model_dump()['price'] == 3",
    ),
    Row(
        "a subclass of a builtin",
        "class Tags(list):\n    def text(self):\n        return ', '.join(self)\n",
        "Tags(['a', 'b'])",
        "class Tags(list):\n    def text(self):\n        return ' and '.join(self)\n",
        "kept.text() == 'a and b' and kept == ['a', 'b']",
    ),
    Row(
        "`super()` in a method",
        "class Base:\n    def who(self):\n        return 'base'\n\n\nclass Child(Base):\n"
        "    def who(self):\n        return 'child of ' + super().who()\n",
        "Child()",
        "class Base:\n    def who(self):\n        return 'new base'\n\n\nclass Child(Base):\n"
        "    def who(self):\n        return 'new child of ' + super().who()\n",
        "kept.who() == 'new child of new base'",
    ),
]
