"""What objects from before an edit get that their class now has, and from where."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.support.edited_site import Editing, told
from tests.support.executions import COUNTER
from tests.support.in_process import Visitor

KEPT = "s.setdefault('it', make())"


@pytest.fixture
async def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Editing]:
    caplog.set_level(logging.INFO, logger="rpyserve")
    async with Editing.at(tmp_path) as editing:
        yield editing


async def edited(site: Editing, before: str, after: str, answer: str, keep: str = KEPT) -> str:
    """Keep an object of the module *before*, and ask for *answer* with the module *after*.

    In it, ``it`` is what is kept.
    """
    site.script(before, keep)
    await site.get()
    site.script(after, f"(lambda it: ({answer}))(s.get('it'))")
    return await site.get()


# What the constructor is given


@pytest.mark.parametrize(
    ("before", "added", "make", "answer", "expected"),
    [
        ("title='Untitled'): self.title = title", "slug = title.lower()", "'My Trip'", "it.slug", "my trip"),
        ("title='Untitled'): self._title = title", "slug = title.lower()", "'My Trip'", "it.slug", "my trip"),
        ("*tags): self.tags = list(tags)", "count = len(tags)", "1, 2, 3", "it.count", "3"),
        ("**options): self.options = options", "count = len(options)", "a=1, b=2", "it.count", "2"),
        ("a, *, b=2): self.a, self.b = a, b", "sum = a + b", "1, b=5", "it.sum", "6"),
        ("a, /, b=2): self.a, self.b = a, b", "sum = a + b", "1, 5", "it.sum", "6"),
        ("a=1, *rest): self.rest = rest", "last = rest[-1]", "7, 8, 9", "it.last", "9"),
        ("name): self.name = name", "upper = self.name.upper()", "'ada'", "it.upper", "ADA"),
        ("name): self.name = name", "points = []", "'ada'", "it.points.append(1), it.points", "(None, [1])"),
        ("deck=None): self.cards = list(deck or [1])", "discard = []", "[3]", "it.discard", "[]"),
    ],
)  # fmt: skip
async def test_a_constructor_is_given_what_the_object_has(
    site: Editing, before: str, added: str, make: str, answer: str, expected: str
) -> None:
    old = f"class Page:\n    def __init__(self, {before}"
    make = f"\ndef make(): return Page({make})\n"
    assert await edited(site, old + make, f"{old}; self.{added}{make}", answer) == expected


async def test_a_parameter_that_the_edit_adds_has_its_default(site: Editing) -> None:
    before = (
        "class P:\n    def __init__(self, name): self.name = name\ndef make(): return P('Ada')\n"
    )
    after = before.replace("name)", "name, lives=3)").replace(
        "= name", "= name; self.lives = lives"
    )
    assert await edited(site, before, after, "it.lives, it.name") == "(3, 'Ada')"


async def test_what_a_dataclass_makes_after_its_constructor(site: Editing) -> None:
    before = "@dataclass\nclass P:\n    name: str = 'anonymous'\ndef make(): return P('Ann')\n"
    after = before.replace(
        "'anonymous'\n",
        "'anonymous'\n    key: str = field(init=False)\n\n"
        "    def __post_init__(self):\n        self.key = self.name.lower()\n\n",
    )
    assert (
        await edited(site, before, after, "it.key, repr(it)")
        == "('ann', \"P(name='Ann', key='ann')\")"
    )


async def test_the_console_says_what_the_constructor_was_called_with(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    before = "class P:\n    def __init__(self, name, hp=9): self._name, self.hp = name, hp\n"
    before += "def make(): return P('Ada')\n"
    assert (
        await edited(site, before, before.replace("name, hp\n", "name, hp; self.x = 1\n"), "it.x")
        == "1"
    )
    assert told(caplog) == [
        "a.rpy: objects of the class P from before the edit got x from P(name=self._name, hp=self.hp)"
    ]


# What cannot be known


@pytest.mark.parametrize(
    ("before", "added", "why"),
    [
        ("deck=None): self.cards = list(deck or [1])", "size = len(deck or [1])", "made of deck, which they do not keep"),
        ("deck=None): self.cards = list(deck or [1])", "size = len(self.cards)", "made of cards, which may be another by now"),
        ("deck=None): self.cards = list(deck or [1])", "full = [0]\n        if deck: self.full[0] = 1", "made of deck"),
        ("deck=None): self.cards = list(deck or [1])", "n = 0\n        for card in deck or []: self.n += 1", "made of deck"),
        ("deck=None): self.cards = list(deck or [1])", "size = self.count()\n    def count(self): return len(self.cards)", "made of cards"),
        ("*tags): self.n = len(tags)", "tags = list(tags)", "made of tags"),
    ],
)  # fmt: skip
async def test_a_value_that_cannot_be_known_is_named_and_not_invented(
    site: Editing, caplog: pytest.LogCaptureFixture, before: str, added: str, why: str
) -> None:
    before = before.replace("): ", "):\n        ")
    old = f"class Page:\n    def __init__(self, {before}"
    make = (
        "\ndef make(): return Page()\n"
        if "tags" in before
        else "\ndef make(): return Page([5, 6])\n"
    )
    name = added.split()[0]
    answer = await edited(
        site, old + make, f"{old}\n        self.{added}{make}", f"hasattr(it, {name!r})"
    )
    assert answer == "False"
    [line] = told(caplog)
    assert f"lack {name}: it is {why}" in line
    assert line.endswith(f"Give the class itself a value, as in `{name} = None`.")


async def test_an_attribute_that_is_lacking_is_an_ordinary_error(site: Editing) -> None:
    before = (
        "class P:\n    def __init__(self, name=1): self.points = name\ndef make(): return P(2)\n"
    )
    after = before.replace("= name\n", "= name; self.total = len(str(other))\n")
    after += """
def error_of(it, name):
    try:
        getattr(it, name)
    except AttributeError as exc:
        return str(exc), exc.name, exc.obj is it
"""
    answer = await edited(site, before, after, "error_of(it, 'total'), error_of(it, 'nope')")
    assert answer == str(
        tuple((f"'P' object has no attribute '{name}'", name, True) for name in ("total", "nope"))
    )


# What the class gave before


async def test_a_property_becomes_an_attribute(site: Editing) -> None:
    before = """
class Cart:
    def __init__(self):
        self.prices = []

    @property
    def total(self):
        return sum(self.prices)

def make():
    cart = Cart()
    cart.prices += [5, 6]
    return cart
"""
    after = """
class Cart:
    def __init__(self):
        self.prices = []
        self.total = 0

    def add(self, price):
        self.prices.append(price)
        self.total += price
"""
    assert await edited(site, before, after, "it.add(4), it.total") == "(None, 15)"


async def test_an_attribute_becomes_a_property_and_an_attribute_again(site: Editing) -> None:
    attribute = "class P:\n    def __init__(self, total=0):\n        self.total = total\ndef make(): return P(3)\n"
    prop = "class P:\n    def __init__(self, total=0):\n        self._total = total\n\n"
    prop += "    @property\n    def total(self):\n        return self._total\n"
    assert await edited(site, attribute, prop, "it.total") == "3"
    site.script(attribute, "s['it'].total")
    assert await site.get() == "3"


async def test_a_value_of_the_class_becomes_each_object_s_own(site: Editing) -> None:
    before = "class P:\n    lives = 3\n    log = []\ndef make():\n    P.log.append('made')\n    return [P(), P()]\n"
    after = "class P:\n    def __init__(self):\n        self.lives = 5\n        self.log = []\n"
    answer = "it[0].lives, it[0].log.append('x'), it[0].log, it[1].log"
    assert await edited(site, before, after, answer) == "(3, None, ['made', 'x'], ['made'])"


async def test_a_default_of_the_class_becomes_a_slot(site: Editing) -> None:
    """Twice edited: what an object took from its class is its own in the slot that comes then."""
    head = "class P:\n    def __init__(self, name): self.name = name\n"
    field = "@dataclass\nclass P:\n    name: str\n    lives: int = 3\n"
    slots = (
        "class P:\n    __slots__ = 'name', 'lives'\n    def __init__(self, name, lives=3):\n"
        "        self.name = name\n        self.lives = lives\n"
    )
    make = "def make(): return P('Ada')\n"
    site.script(head + make, KEPT)
    await site.get()
    site.script(field + make, "s['it'].lives")
    assert await site.get() == "3"
    site.script(slots + make, "(s['it'].lives, s['it'].name, type(s['it']) is P)")
    assert await site.get() == "(3, 'Ada', True)"


async def test_an_attribute_becomes_a_method(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    before = "class P:\n    def __init__(self):\n        self.total = 3\ndef make(): return P()\n"
    after = "class P:\n    def total(self):\n        return 7\n"
    assert await edited(site, before, after, "it.total()") == "7"
    [line] = told(caplog)
    assert line.startswith(
        "a.rpy: objects of the class P from before the edit lose their attribute total:"
    )


async def test_an_edited_cached_property_is_computed_anew(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
from functools import cached_property

class P:
    @cached_property
    def same(self):
        return []

    @cached_property
    def edited(self):
        return self.helped() + 1

    def helped(self):
        return 1

def make():
    it = P()
    it.same.append(it.edited)
    return it
"""
    answer = "it.same, it.edited"
    assert await edited(site, text, text + "# edited", answer) == "([2], 2)"
    site.script(text.replace("return 1\n", "return 10\n"), f"(lambda it: ({answer}))(s['it'])")
    assert await site.get() == "([2], 11)"
    [line] = told(caplog)
    assert "compute edited again" in line


# When: at the first use, and not where a constructor is slow


async def test_a_constructor_runs_at_the_first_use_of_what_is_lacking(site: Editing) -> None:
    text = "calls = []\nclass P:\n    def __init__(self):\n        calls.append(1)\n        self.a = 1\n"
    before = text + "def make(): return [P() for _ in range(5)]\n"
    after = before.replace("self.a = 1", "self.a = self.b = 1")
    answer = "len(calls), it[0].a, len(calls), it[0].b, it[0].b, len(calls), hasattr(it[1], 'c'), len(calls)"
    assert await edited(site, before, after, answer) == "(0, 1, 0, 1, 1, 1, False, 1)"


async def test_a_slow_constructor_is_called_no_more(
    site: Editing, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpyserve.sessions.missing_attributes.SLOW", -1.0)
    text = "calls = []\nclass P:\n    def __init__(self):\n        calls.append(1)\n        self.a = 1\n"
    before = text + "def make(): return [P() for _ in range(9)]\n"
    after = before.replace("self.a = 1", "self.a = self.b = 1")
    answer = "[hasattr(each, 'b') for each in it], len(calls)"
    assert await edited(site, before, after, answer) == str(([True] * 3 + [False] * 6, 3))
    assert told(caplog)[-1] == (
        "a.rpy: objects of the class P from before the edit lack b: its constructor is too slow to be "
        "called for each of them. Give the class itself a value, as in `b = None`."
    )


class Clock:
    """A clock that stands until it is put forward."""

    def __init__(self) -> None:
        self.now = time.perf_counter()

    def __call__(self) -> float:
        return self.now

    def forward(self) -> None:
        self.now += 0.5


@pytest.mark.parametrize("is_ours", [True, False])
async def test_nobody_is_blamed_for_the_time_that_our_calls_take(
    site: Editing,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    is_ours: bool,
) -> None:
    name = "ours" if is_ours else "theirs"  # a page of one name is named once a minute
    site.site.registry["clock"] = clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    before = "class P:\n    def __init__(self):\n        self.a = 1\ndef make(): return P()\n"
    site.script(before, KEPT, f"{name}.rpy")
    await site.get(f"/{name}")
    after = before.replace("self.a = 1", "self.a = self.b = 1; registry['clock'].forward()")
    site.script(after, "s['it'].b" if is_ours else "P().b", f"{name}.rpy")
    assert await site.get(f"/{name}") == "1"
    assert ("to_thread" in caplog.text) is not is_ours


async def test_objects_of_after_the_edit_are_as_ever(site: Editing) -> None:
    before = "class P:\n    def __init__(self): self.a = 1\ndef make(): return [P(), P()]\n"
    after = before.replace("self.a = 1", "self.a = self.b = 1")
    answer = (
        "[(new := type(it[0])()), delattr(new, 'b')] and hasattr(new, 'b'), '__getattr__' in vars(type(new)),"
        "it[0].b, it[1].b, '__getattr__' in vars(type(new))"
    )
    assert await edited(site, before, after, answer) == "(False, True, 1, 1, False)"


async def test_a_class_s_own_getattr_goes_on(site: Editing) -> None:
    before = "class P:\n    def __init__(self): self.a = 1\n    def __getattr__(self, name):\n"
    before += "        if name.startswith('x'): return name\n        raise AttributeError(name)\n"
    before += "class Q(P):\n    pass\ndef make(): return [P(), Q(), Q()]\n"
    after = before.replace("self.a = 1", "self.a = self.b = 1")
    answer = "[(each.xyz, each.b, each.xyz, hasattr(each, 'c')) for each in it[:2]], it[2].x"
    assert await edited(site, before, after, answer) == str(([("xyz", 1, "xyz", False)] * 2, "x"))


async def test_a_metaclass_that_allows_no_attributes(site: Editing) -> None:
    before = "class Sealed(type):\n    def __setattr__(cls, name, value): raise TypeError(name)\n"
    before += "    __delattr__ = None\ncalls = []\nclass P(metaclass=Sealed):\n"
    before += (
        "    def __init__(self):\n        calls.append(1); self.a = 1\ndef make(): return P()\n"
    )
    after = before.replace("self.a = 1", "self.a = self.b = 1")
    answer = "calls[:], it.b, calls, '__getattr__' in vars(P)"
    assert await edited(site, before, after, answer) == "([], 1, [1], False)"


async def test_a_very_slow_constructor_is_called_once(
    site: Editing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpyserve.sessions.missing_attributes.TOO_SLOW", 0.0)
    before = "class P:\n    def __init__(self): self.a = 1\ndef make(): return [P(), P()]\n"
    after = before.replace("self.a = 1", "self.a = self.b = 1")
    assert await edited(site, before, after, "[hasattr(p, 'b') for p in it]") == "[True, False]"


async def test_a_cached_property_becomes_an_attribute(site: Editing) -> None:
    before = "from functools import cached_property\nclass P:\n    def __init__(self): self.a = 2\n"
    before += "    @cached_property\n    def b(self): return self.a + 1\ndef make(): return P()\n"
    after = "class P:\n    def __init__(self):\n        self.a, self.b = 2, 0\n"
    assert await edited(site, before, after, "it.b") == "3"


async def test_constructors_that_read_one_another(site: Editing) -> None:
    before = "class P:\n    def __init__(self): self.a = 1\n"
    before += (
        "def make():\n    registry['all'] = [P() for _ in range(3)]\n    return registry['all']\n"
    )
    after = before.replace(
        "self.a = 1", "self.a = 1; self.b = 1 + max(getattr(p, 'b', 0) for p in registry['all'])"
    )
    assert await edited(site, before, after, "sorted(p.b for p in it)") == "[1, 2, 3]"


@pytest.mark.parametrize("slots", ["'a', 'b', '__weakref__'", "'a', 'b'"])
async def test_slots(site: Editing, slots: str) -> None:
    before = f"class P:\n    __slots__ = ({slots})\n    def __init__(self, a): self.a = a\ndef make(): return P(3)\n"
    after = before.replace("self.a = a", "self.a = a; self.b = a + 1")
    assert await edited(site, before, after, "it.b, hasattr(it, 'c')") == "(4, False)"


async def test_a_hash_that_needs_what_the_edit_adds(site: Editing) -> None:
    before = "class P:\n    def __init__(self, x): self.x = x\n    def __hash__(self): return hash(self.x)\n"
    before += "    def __eq__(self, other): return self.x == other.x\n"
    before += "def make(): return {P(1): 'one'}, {P(1)}\n"
    after = before.replace("self.x = x", "self.x = x; self.y = x + 1").replace(
        "hash(self.x)", "hash((self.x, self.y))"
    )
    assert await edited(site, before, after, "it[0][P(1)], P(1) in it[1]") == "('one', True)"


async def test_what_vars_shows(site: Editing) -> None:
    before = "import copy\nclass P:\n    def __init__(self): self.a = 1\ndef make(): return P()\n"
    after = before.replace("self.a = 1", "self.a = 1; self.b = []")
    answer = "dict(vars(it)), it.b, copy.deepcopy(it).b, vars(it)"
    assert await edited(site, before, after, answer) == "({'a': 1}, [], [], {'a': 1, 'b': []})"


# What the constructor does elsewhere

PLAYER = """
class Player:
    def __init__(self, name):
        self.name = name
        {more}

def make():
    return Player('Ada')
"""


@pytest.mark.parametrize(
    ("register", "shown", "expected"),
    [
        ("registry.setdefault('all', []).append(self)", "registry['all'] == [it]", "True"),
        ("registry.setdefault('all', set()).add(self)", "registry['all'] == {it}", "True"),
        ("registry.setdefault('all', {})[name] = self", "registry['all'] == {'Ada': it}", "True"),
        ("registry.setdefault('all', {})[id(self)] = self", "list(registry['all'].values()) == [it]", "True"),
        ("registry['latest'] = self", "registry['latest'] is it", "True"),
        ("registry['n'] = registry.get('n', 0) + 1", "registry['n']", "1"),
        ("registry.setdefault('calls', []).append(self.hello)", "[f.__self__ is it for f in registry['calls']]", "[True]"),
        ("registry.setdefault('log', []).append(('in', self))", "[p is it for _, p in registry['log']]", "[True]"),
    ],
)  # fmt: skip
async def test_what_it_puts_of_itself_anywhere_is_taken_out_again(
    site: Editing, register: str, shown: str, expected: str
) -> None:
    text = PLAYER.format(more=register).replace(
        "\ndef make", "\n    def hello(self): pass\n\ndef make"
    )
    after = text.replace("self.name = name", "self.name = name; self.score = 0")
    assert await edited(site, text, after, f"it.score, {shown}") == f"(0, {expected})"


@pytest.mark.parametrize(
    ("register", "keep", "shown"),
    [
        ("registry.setdefault('all', {})[name] = self", KEPT + " and registry['all'].clear()", "registry['all'] == {}"),
        ("registry.setdefault('seats', [None, 1])[0] = self", KEPT, "registry['seats'] == [it, 1]"),
        ("registry.setdefault('calls', {})[name] = self.hello", KEPT, "registry['calls']['Ada'].__self__ is it"),
        ("d = registry.setdefault('all', {}); d.setdefault('log', []).append(d.get(name)); d[name] = self", KEPT, "registry['all']['Ada'] is it"),
    ],
)  # fmt: skip
async def test_the_object_has_the_places_that_it_had(
    site: Editing, register: str, keep: str, shown: str
) -> None:
    text = PLAYER.format(more=register + "\n\n    def hello(self): pass")
    after = text.replace("self.name = name", "self.name = name; self.score = 0")
    assert await edited(site, text, after, f"it.score, {shown}", keep) == "(0, True)"


async def test_a_registry_that_is_first_used_by_a_constructor(site: Editing) -> None:
    text = PLAYER.format(more="registry['all'][name] = self")
    many = "registry.setdefault('all', {}).update({n: Player(n) for n in range(1500)})"
    site.script(text, f"[{many}, s.setdefault('it', make())] and None")
    await site.get()
    after = text.replace("self.name = name", "self.name = name; self.score = 0")
    site.script(after, "s['it'].score, registry['all'].get('Ada') is s['it'], len(registry['all'])")
    assert await site.get() == "(0, True, 1501)"


async def test_an_object_that_others_have_is_no_new_one(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    before = """
class Seat:
    def __new__(cls, n=0):
        return registry.setdefault('pool', {}).setdefault(n, object.__new__(cls))

    def __init__(self, n=0):
        self.a = 1

def make():
    return [Seat(0), Seat(1)]
"""
    after = before.replace("self.a = 1", "self.a = 1; self.b = []")
    answer = "hasattr(it[1], 'b'), [*map(id, registry['pool'].values())] == [*map(id, it)]"
    assert await edited(site, before, after, answer) == "(False, True)"
    assert "lack b: its class has no other object" in told(caplog)[-1]


async def test_it_may_be_anywhere_else(site: Editing) -> None:
    text = "class Hub: pass\n" + PLAYER.format(
        more="Player.all.append(self); registry.setdefault('hub', Hub()).last = self"
    )
    text = text.replace("class Player:", "class Player:\n    all = []\n")
    after = text.replace("self.name = name", "self.name = name; self.score = 0")
    assert (
        await edited(site, text, after, "it.score, Player.all, registry['hub'].last is it")
        == "(0, [], True)"
    )


async def test_what_it_makes_of_itself_belongs_to_the_object(site: Editing) -> None:
    text = "class Engine:\n    def __init__(self, car): self.car = car\n" + PLAYER.format(
        more="pass"
    )
    after = text.replace(
        "pass",
        "self.engine, self.me, self.list, self.pair = Engine(self), self, [self], (1, self)\n"
        "        self.call, self.later = self.hello, lambda: self\n\n"
        "    def hello(self): return self",
    )
    answer = (
        "[x is it for x in (it.engine.car, it.me, it.list[0], it.pair[1], it.call(), it.later())]"
    )
    assert await edited(site, text, after, answer) == str([True] * 6)


async def test_what_it_shares_with_the_registry_stays_there(site: Editing) -> None:
    text = PLAYER.format(more="pass")
    after = text.replace("pass", "self.room = registry.setdefault('room', [])")
    assert await edited(site, text, after, "it.room is registry['room']") == "True"


async def test_players_of_several_visitors_are_two_and_no_ghosts(site: Editing) -> None:
    text = PLAYER.format(more="registry.setdefault('players', []).append(self)")
    keep = "[Player('Ada'), Player('Ben')] and len(registry['players'])"
    after = text.replace("self.name = name", "self.name = name; self.score = 0")
    answer = "[(p.name, p.score) for p in registry['players']], len(registry['players'])"
    site.script(text, keep)
    assert await site.get() == "2"
    site.script(after, answer)
    assert await site.get() == "([('Ada', 0), ('Ben', 0)], 2)"


# Libraries


async def test_pydantic(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pydantic")
    before = "from pydantic import BaseModel, Field, PrivateAttr\nclass M(BaseModel):\n    a: int\n"
    before += "def make(): return M(a=1)\n"
    after = before.replace(
        "a: int\n",
        "a: int\n    b: int = 2\n    c: list = Field(default_factory=list)\n    _n: int = PrivateAttr(3)\n",
    )
    answer = "it.b, it.c, it._n, it.model_dump(), it == M(a=1), setattr(it, '_n', 4), it._n"
    expected = "(2, [], 3, {'a': 1, 'b': 2, 'c': []}, True, None, 4)"
    assert await edited(site, before, after, answer) == expected
    later = after.replace(
        "PrivateAttr(3)\n", "PrivateAttr(3)\n    _m: list = PrivateAttr(default_factory=list)\n"
    )
    site.script(
        later.replace("a: int\n", "a: int\n    must: int\n"),
        "s['it']._n, s['it']._m, hasattr(s['it'], 'must')",
    )
    caplog.clear()
    assert await site.get() == "(4, [], False)"
    assert "lack must: " in told(caplog)[-1]


async def test_attrs_without_slots(site: Editing) -> None:
    pytest.importorskip("attrs")
    before = "import attrs\n@attrs.define(slots=False)\nclass M:\n    a: int\n"
    before += "def make(): return M(1)\n"
    after = before.replace(
        "a: int\n", "a: int\n    b: int = 2\n    c: list = attrs.field(factory=list)\n"
    )
    answer = "it.b, it.c, it == M(1)"
    assert await edited(site, before, after, answer) == "(2, [], True)"


# Programs as people write them


async def test_slots_of_all_kinds_get_a_field(site: Editing) -> None:
    for library in ("attrs", "msgspec"):
        pytest.importorskip(library)
    before = "import attrs, msgspec\n@attrs.define\nclass A:\n    x: int\n"
    before += "@dataclass(slots=True)\nclass D:\n    x: int\nclass S(msgspec.Struct):\n    x: int\n"
    before += "@attrs.frozen\nclass F:\n    x: int\ndef make(): return [A(1), D(1), S(1), F(1)]\n"
    after = before.replace("x: int\n@", "x: int\n    y: list = attrs.field(factory=list)\n@", 1)
    after = after.replace("class S", "    y: list = field(default_factory=list)\nclass S", 1)
    after = after.replace(
        "(msgspec.Struct):\n    x: int\n", "(msgspec.Struct):\n    x: int\n    y: list = []\n"
    )
    after = after.replace("def make", "    y: list = attrs.Factory(list)\ndef make", 1)
    answer = "[each.y for each in it], it == [A(1), D(1), S(1), F(1)], isinstance(it[0], A)"
    assert await edited(site, before, after, answer) == "([[], [], [], []], True, True)"


async def test_a_frozen_dataclass_with_slots_is_in_a_set(site: Editing) -> None:
    before = (
        "@dataclass(frozen=True, slots=True)\nclass P:\n    x: int\ndef make(): return {P(1)}\n"
    )
    after = before.replace("x: int\n", "x: int\n    y: tuple = field(default_factory=tuple)\n")
    assert await edited(site, before, after, "P(1) in it, it") == "(True, {P(x=1, y=())})"


async def test_a_frozen_class_whose_constructor_sets_by_name(site: Editing) -> None:
    text = "@dataclass(frozen=True)\nclass P:\n    x: int\n    def __post_init__(self):\n        "
    before = text + "pass\ndef make(): return P(2)\n"
    after = before.replace("pass", "object.__setattr__(self, 'double', 2 * self.x)")
    assert await edited(site, before, after, "it.double, hasattr(it, 'other')") == "(4, False)"


async def test_subclasses_and_their_super(site: Editing) -> None:
    before = """
class Thing:
    def __init__(self, name):
        self.name = name

class Ship(Thing):
    def __init__(self, name, guns=0):
        super().__init__(name)
        self.guns = guns

def make():
    return [Thing('rock'), Ship('Argo', 4)]
"""
    after = before.replace("self.name = name", "self.name = name\n        self.label = f'<{name}>'")
    answer = "[(each.label, vars(each).get('guns')) for each in it]"
    assert await edited(site, before, after, answer) == "[('<rock>', None), ('<Argo>', 4)]"


async def test_edit_upon_edit(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    text = "class P:\n    def __init__(self, a):\n        self.a = a\n{more}\ndef make(): return P(1)\n"
    site.script(text.format(more=""), KEPT)
    await site.get()
    # It lacks b, which nobody asks for; then b goes and c comes; then b is there again.
    site.script(text.format(more="        self.b = a + 1"), "s['it'].a")
    assert await site.get() == "1"
    site.script(text.format(more="        self.c = a + 2"), "hasattr(s['it'], 'b'), s['it'].a")
    assert await site.get() == "(False, 1)"
    site.script(text.format(more="        self.b, self.c = a + 3, a + 4"), "s['it'].b, s['it'].c")
    assert await site.get() == "(4, 5)"


async def test_a_default_in_the_class_is_there_at_the_next_edit(site: Editing) -> None:
    text = "class P:\n{head}    def __init__(self, who):\n        self.a = who.lower()\n{more}"
    text += "def make(): return P('A')\n"
    site.script(text.format(head="", more=""), KEPT)
    await site.get()
    site.script(text.format(head="", more="        self.b = 1\n"), "hasattr(s['it'], 'b')")
    assert await site.get() == "False"
    site.script(text.format(head="    b = None\n", more="        self.b = 1\n"), "s['it'].b")
    assert await site.get() == "None"


async def test_a_component_is_filled_by_its_adapter_when_it_is_used(site: Editing) -> None:
    site.script(COUNTER, "visit(s)")
    ada, ben = Visitor(site.site), Visitor(site.site)
    assert [await site.get(visitor=each) for each in (ada, ben, ada)] == ["1", "1", "2"]
    more = COUNTER.replace("self.value = 0", "self.value = 0\n        self.uid = session.uid")
    site.script(more, "visit(s), ICounter(s).uid == s.uid")
    assert [await site.get(visitor=each) for each in (ada, ben)] == ["(3, True)", "(2, True)"]


async def test_what_the_component_s_constructor_derives_from_its_value(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    site.script(COUNTER, "visit(s)")
    await site.get()
    more = COUNTER.replace("self.value = 0", "self.value = 0\n        self.half = self.value / 2")
    site.script(more, "hasattr(ICounter(s), 'half')")
    assert await site.get() == "False"
    assert "lack half: it is made of value, which may be another by now" in told(caplog)[-1]


async def test_two_threads_ask_at_once(site: Editing) -> None:
    before = "class P:\n    def __init__(self): self.a = 1\ndef make(): return P()\n"
    after = before.replace("self.a = 1", "registry['gate'](); self.a = self.b = [1]")
    site.script(before, KEPT)
    await site.get()
    kept = next(iter(site.site.sessions))
    entered, leave, calls = threading.Event(), threading.Event(), []

    def gate() -> None:
        calls.append(1)
        entered.set()
        leave.wait(10)

    site.site.registry["gate"] = gate
    site.script(after, "s['it'].a")
    await site.get()
    thing, found = kept["it"], []
    threads = [threading.Thread(target=lambda: found.append(thing.b)) for _ in range(2)]
    threads[0].start()
    assert await trio.to_thread.run_sync(entered.wait, 10)
    threads[1].start()
    leave.set()
    for thread in threads:
        await trio.to_thread.run_sync(thread.join, 10)
    assert found == [[1], [1]] and found[0] is found[1] and calls == [1]


@pytest.mark.parametrize("copied", ["copy.copy(it)", "copy.deepcopy(it)"])
async def test_a_copy_lacks_nothing(site: Editing, copied: str) -> None:
    before = "import copy\nclass P:\n    def __init__(self, name): self.name = name\n"
    before += "def make(): return P('Ada')\n"
    after = before.replace("= name\n", "= name; self.pages = []\n")
    answer = f"(vars({copied}), '__reduce_ex__' in vars(P))"
    assert await edited(site, before, after, answer) == "({'name': 'Ada', 'pages': []}, False)"


async def test_a_class_with_its_own_reduce(site: Editing) -> None:
    before = "import copy\nclass P:\n    def __init__(self, name): self.name = name\n"
    before += (
        "    def __reduce__(self): return P, (self.name + '!',)\ndef make(): return P('Ada')\n"
    )
    after = before.replace("= name\n", "= name; self.n = len(name)\n")
    answer = "vars(copy.copy(it)), vars(it)"
    expected = "({'name': 'Ada!', 'n': 4}, {'name': 'Ada', 'n': 3})"
    assert await edited(site, before, after, answer) == expected


async def test_a_class_without_source(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    before = "exec('class P:\\n  def __init__(self, *a, **k): self.a = a')\n"
    before += "P.__module__ = __name__\ndef make(): return P(1)\n"
    after = before.replace("self.a = a", "self.a = a; self.b = []")
    assert await edited(site, before, after, "it.a, hasattr(it, 'b')") == "((1,), False)"
    assert "lack b: it may be made of k, which they do not keep" in told(caplog)[-1]


async def test_a_constructor_that_changes_its_arguments(site: Editing) -> None:
    before = "class Deck:\n    def __init__(self, cards):\n        self.cards = cards\n"
    before += "def make(): return Deck([3, 1, 2])\n"
    after = before.replace(
        "self.cards = cards", "self.cards = self.all = cards; self.n = len(cards); cards.sort()"
    )
    answer = "it.n, it.cards, it.all is it.cards"
    assert await edited(site, before, after, answer) == "(3, [3, 1, 2], True)"


async def test_a_constructor_that_fails_after_it_has_put_itself_somewhere(site: Editing) -> None:
    before = PLAYER.format(more="registry.setdefault('all', {})[name] = self")
    after = before.replace("= self", "= self; self.score = 1 / 0")
    answer = "hasattr(it, 'score'), registry['all'] == {'Ada': it}"
    assert await edited(site, before, after, answer) == "(False, True)"


async def test_a_class_with_one_object(site: Editing) -> None:
    before = """
class Only:
    def __new__(cls):
        return registry.setdefault('only', object.__new__(cls))

    def __init__(self):
        self.a = 1

def make():
    it = Only()
    it.a = 5
    return it
"""
    after = before.replace("self.a = 1", "self.a = self.b = 1")
    assert await edited(site, before, after, "it.a, it.b, Only() is it") == "(5, 1, True)"


async def test_a_class_with_a_finalizer(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    before = "class P:\n    def __init__(self): self.a = 1\n    def __del__(self): 1 / 0\n"
    before += "def make(): return registry.setdefault('it', P())\n"
    after = before.replace("self.a = 1", "self.a = self.b = 1").replace("1 / 0", "pass")
    assert await edited(site, before, after, "hasattr(it, 'b')") == "False"
    assert "its class has a __del__, which would run for a new one" in told(caplog)[-1]


async def test_a_descriptor_that_keeps_its_value_under_another_name(site: Editing) -> None:
    descriptor = """
class Positive:
    def __set_name__(self, owner, name): self.name = '_' + name
    def __get__(self, thing, owner): return getattr(thing, self.name)
    def __set__(self, thing, value): setattr(thing, self.name, max(value, 0))

class P:
    def __init__(self, name):
        self.name = name

def make():
    return P('Ada')
"""
    after = descriptor.replace("class P:\n", "class P:\n    score = Positive()\n")
    after = after.replace("self.name = name\n\n", "self.name = name; self.score = len(name)\n\n")
    assert await edited(site, descriptor, after, "it.score, it.name") == "(3, 'Ada')"


async def test_the_registry_is_brought_up_to_date_before_it_is_restored(site: Editing) -> None:
    before = "class Turn(Enum):\n    X = 1\nclass P:\n    def __init__(self): self.a = 1\n"
    before += "def make():\n    registry['turn'] = Turn.X\n    return P()\n"
    after = before.replace("self.a = 1", "self.a = 1; self.turn = registry['turn']")
    answer = "it.turn is Turn.X, registry['turn'] is Turn.X"
    assert await edited(site, before, after, answer) == "(True, True)"


async def test_what_other_objects_were_constructed_with_does_not_count(site: Editing) -> None:
    player = "class Player:\n    def __init__(self{}):\n        self.name = 'Ada'{}\n"
    other = Visitor(site.site)
    for parameters, body in (("", ""), (", lives=3", "; self.lives = lives")):
        make = player.format(parameters, body)
        site.script(make, "s.setdefault('it', Player()).name")
        await site.get(visitor=None if body == "" else other)
    site.script(make + "# edited\n", "s['it'].lives")
    assert await site.get(visitor=other) == "3"
    assert await site.get() == "3", "it was made before there was such a parameter"


async def test_an_object_that_waits_is_made_again(site: Editing) -> None:
    player = "class Player:\n    {}\n    def __init__(self{}):\n        self.name = 'Ada'{}\n"
    site.script(player.format("", "", ""), "s.setdefault('it', Player()).name")
    await site.get()
    added = ", lives=3", "; self.lives = lives"
    site.script(player.format("", *added), "s['it'].name")
    assert await site.get() == "Ada", "nothing has asked for its lives"
    slots = "__slots__ = 'name', 'lives'"
    site.script(player.format(slots, *added), "(s['it'].lives, type(s['it']) is Player)")
    assert await site.get() == "(3, True)"
