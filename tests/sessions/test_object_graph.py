"""What hangs below a value, in every kind of container, becomes of the present classes."""

from __future__ import annotations

import gc
import weakref
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Iterator
from enum import Enum
from functools import partial
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpyserve import Request, Site
from rpyserve.scripts import definitions
from rpyserve.sessions.containers import container_type_of
from rpyserve.sessions.session import Registry, Session
from rpyserve.sessions.store import SessionStore
from tests.support.edited_site import HEAD, told
from tests.support.script_site import ScriptSite

DEFINITIONS = """
from functools import lru_cache
class Plain:
    def __init__(self, n=1): self.n = n
    def greet(self): return f"{WORD} {self.n}"
    @classmethod
    def make(cls): return cls()
    @staticmethod
    def say(): return WORD
class Turn(Enum):
    X = "x"
    O = "o"
class Level(IntEnum):
    LOW = 1
    HIGH = 2
class Perm(Flag):
    READ = auto()
    WRITE = auto()
@dataclass
class Data:
    n: int = 0
    inner: object = None
@dataclass(frozen=True)
class Frozen:
    turn: Turn
@dataclass(slots=True)
class Slotted:
    n: int
    inner: object = None
class Pair(NamedTuple):
    a: object
    b: object = None
class Names(list): pass
class Table(dict): pass
class Group(set): pass
class Fixed(frozenset): pass
class Slim(frozenset): __slots__ = ("turn",)
class Row(tuple): pass
class Money(int): pass
class Text(str): pass
class Wrong(Exception): pass
class IThing(Interface): pass
class Stored:
    def __init__(self): self._turn = Turn.X
    @property
    def turn(self): return self._turn
def function(): return WORD
@lru_cache
def remembered(): return WORD
class Outer:
    class Inner: pass
"""


class Edits:
    """One script that is edited; `save` returns the namespace that its execution leaves."""

    def __init__(self, root: Path) -> None:
        self.site = ScriptSite(root)

    def save(
        self, text: str = DEFINITIONS, word: str = "hello", name: str = "a.rpy"
    ) -> dict[str, Any]:
        self.site.write(
            name, f"{HEAD}\nWORD = {word!r}\n{text}\ndef resource(request): return globals()\n"
        )
        namespace: dict[str, Any] = self.site.get(name)
        return namespace


@pytest.fixture
def edits(tmp_path: Path) -> Iterator[Edits]:
    edits = Edits(tmp_path)
    yield edits
    edits.site.scripts.close()


def carried(edits: Edits, value: Any, **words: Any) -> tuple[Any, Any]:
    """What *value*, a function of a namespace, has become after an edit, and the new namespace."""
    session = Session(None, None)
    session["value"] = value(SimpleNamespace(**edits.save()))
    new = SimpleNamespace(**edits.save(word="goodbye"))
    return session["value"], new


# In every container


@pytest.mark.parametrize(
    ("hold", "take"),
    [
        (lambda x: x, lambda v: v),
        (lambda x: [1, x], lambda v: v[1]),
        (lambda x: {"a": x}, lambda v: v["a"]),
        (lambda x: {x: 1}, lambda v: next(iter(v))),
        (lambda x: {(1, x): 1}, lambda v: next(iter(v))[1]),
        (lambda x: {x}, lambda v: next(iter(v))),
        (lambda x: frozenset([x]), lambda v: next(iter(v))),
        (lambda x: (1, (2, x)), lambda v: v[1][1]),
        (lambda x: deque([x], maxlen=3), lambda v: v[0]),
        (lambda x: OrderedDict(a=x), lambda v: v["a"]),
        (lambda x: OrderedDict({x: 1, "b": 2}), lambda v: next(iter(v))),
        (lambda x: Counter([x]), lambda v: next(iter(v))),
        (lambda x: defaultdict(list, a=[x]), lambda v: v["a"][0]),
        (lambda x: UserDict(a=x), lambda v: v["a"]),
        (lambda x: SimpleNamespace(a=[x]), lambda v: v.a[0]),
        (lambda x: MappingProxyType({"a": x}), lambda v: v["a"]),
        (lambda x: ChainMap({"a": x}), lambda v: v["a"]),
        (lambda x: partial(print, x, a=1), lambda v: v.args[0]),
        (lambda x: partial(print, a=x), lambda v: v.keywords["a"]),
        (lambda x: ValueError(x), lambda v: v.args[0]),
        (lambda x: [[[{"a": ({1: [x]},)}]]], lambda v: v[0][0][0]["a"][0][1][0]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["object", "member", "named tuple", "frozen"])
def test_in_a_container(edits: Edits, hold: Any, take: Any, kind: str) -> None:
    make = {
        "object": lambda m: m.Plain(),
        "member": lambda m: m.Turn.X,
        "named tuple": lambda m: m.Pair(m.Turn.X),
        "frozen": lambda m: m.Frozen(m.Turn.O),
    }[kind]
    value, new = carried(edits, lambda m: hold(make(m)))
    if kind == "object":
        assert type(take(value)) is new.Plain and take(value).greet() == "goodbye 1"
    else:
        assert take(value) == make(new)
    if kind == "member":
        assert take(value) is new.Turn.X
    if isinstance(value, dict) and not isinstance(take(value), new.Plain):
        assert all(value[key] is not None for key in value), "it can be looked up by its keys"


@pytest.mark.parametrize(
    ("hold", "take"),
    [
        (lambda m, x: m.Plain(x), lambda v: v.n),
        (lambda m, x: m.Data(1, m.Data(2, x)), lambda v: v.inner.inner),
        (lambda m, x: m.Slotted(1, m.Slotted(2, x)), lambda v: v.inner.inner),
        (lambda m, x: m.Frozen(x), lambda v: v.turn),
        (lambda m, x: m.Pair(1, x), lambda v: v.b),
        (lambda m, x: m.Names([x]), lambda v: v[0]),
        (lambda m, x: m.Table(a=x), lambda v: v["a"]),
        (lambda m, x: m.Table({x: 1}), lambda v: next(iter(v))),
        (lambda m, x: m.Group([x]), lambda v: next(iter(v))),
        (lambda m, x: m.Fixed([x]), lambda v: next(iter(v))),
        (lambda m, x: m.Row([x]), lambda v: v[0]),
        (lambda m, x: m.Wrong("no", x), lambda v: v.args[1]),
    ],
)  # fmt: skip
def test_in_a_class_of_the_scripts_own(edits: Edits, hold: Any, take: Any) -> None:
    value, new = carried(edits, lambda m: hold(m, m.Turn.X))
    assert type(value) is getattr(new, type(value).__name__)
    assert take(value) is new.Turn.X


@pytest.mark.parametrize(
    "kind", ["Names", "Table", "Group", "Fixed", "Slim", "Row", "Money", "Text", "Wrong"]
)
def test_a_subclass_of_a_builtin_keeps_its_attributes(edits: Edits, kind: str) -> None:
    def make(m: Any) -> Any:
        thing = getattr(m, kind)()
        thing.turn = m.Turn.X
        return thing

    value, new = carried(edits, make)
    assert type(value) is getattr(new, kind) and value.turn is new.Turn.X


def test_values_of_a_number_and_a_text(edits: Edits) -> None:
    value, new = carried(edits, lambda m: [m.Money(7), m.Text("x")])
    assert value == [7, "x"] and [type(each) for each in value] == [new.Money, new.Text]


def test_what_a_property_gives_is_renewed_where_it_is_stored(edits: Edits) -> None:
    value, new = carried(edits, lambda m: m.Stored())
    assert value.turn is new.Turn.X


# Members of enumerations


def test_members(edits: Edits) -> None:
    value, new = carried(
        edits,
        lambda m: [m.Turn.X, m.Level.HIGH, m.Perm.READ, m.Perm.READ | m.Perm.WRITE, m.Perm(0)],
    )
    assert value[0] is new.Turn.X and value[1] is new.Level.HIGH and value[1] > new.Level.LOW
    assert value[2:] == [new.Perm.READ, new.Perm.READ | new.Perm.WRITE, new.Perm(0)]


def test_an_enumeration_grows_and_is_renumbered(edits: Edits) -> None:
    session = Session(None, None)
    old = edits.save()
    session["turn"], session["perm"] = {old["Turn"].X: 1}, old["Perm"].READ | old["Perm"].WRITE
    text = DEFINITIONS.replace('X = "x"', 'N = "n"\n    X = "ex"').replace(
        "READ = auto()", "LOOK = auto()\n    READ = auto()"
    )
    new = edits.save(text)
    assert session["turn"][new["Turn"].X] == 1
    assert session["perm"] == new["Perm"].READ | new["Perm"].WRITE


def test_a_member_that_is_gone_is_kept_and_named_until_it_returns(
    edits: Edits, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(None, None)
    old = edits.save()
    session["turn"], session["perm"] = old["Turn"].X, old["Perm"].READ | old["Perm"].WRITE
    edits.save(DEFINITIONS.replace('X = "x"', "").replace("READ = auto()", ""))
    assert session["turn"] is old["Turn"].X
    gone = "which is no longer there. It is kept as it was until there is one of that name again."
    assert told(caplog) == [
        f"a.rpy: session['turn'] holds Turn.X, {gone}",
        f"a.rpy: session['perm'] holds Perm.READ|WRITE, {gone}",
    ]
    new = edits.save()
    assert (
        session["turn"] is new["Turn"].X and session["perm"] == new["Perm"].READ | new["Perm"].WRITE
    )


# Definitions kept as values


def test_classes_functions_and_methods(edits: Edits) -> None:
    value, new = carried(
        edits,
        lambda m: [
            m.Plain,
            m.function,
            m.Plain(3).greet,
            m.Plain.make,
            m.Plain.say,
            m.IThing,
            m.remembered,
            m.Outer.Inner,
            partial(m.function),
            {m.Plain: 1},
            m.Outer.Inner(),
        ],
    )
    assert value[0] is new.Plain and value[1] is new.function and value[5] is new.IThing
    assert value[2]() == "goodbye 3" and value[2].__func__ is new.Plain.greet
    assert type(value[3]()) is new.Plain and value[4]() == "goodbye"
    assert value[6] is new.remembered and value[7] is new.Outer.Inner
    assert (
        value[8]() == "goodbye"
        and value[9] == {new.Plain: 1}
        and type(value[10]) is new.Outer.Inner
    )


def test_a_method_kept_as_a_value_has_the_object_that_is_kept_elsewhere(edits: Edits) -> None:
    def make(m: Any) -> Any:
        thing = m.Pair(m.Plain())
        return [thing.a.greet, thing, thing.a]

    value, _ = carried(edits, make)
    assert value[0].__self__ is value[1].a is value[2]


def test_what_is_defined_inside_a_function_is_kept_and_named(
    edits: Edits, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(None, None)
    old = edits.save(
        DEFINITIONS + "def local():\n    class A: pass\n    return [A(), lambda: WORD]\n"
    )
    session["value"] = old["local"]()
    kept = list(session["value"])
    edits.save(DEFINITIONS + "def local(): pass\n")
    assert session["value"] == kept and kept[1]() == "hello"
    assert told(caplog) == [
        f"a.rpy: session['value'] holds {what}, which is defined inside a function, where the "
        "new one cannot be found. "
        "It is kept as it was."
        for what in ("an object of the class local.<locals>.A", "local.<locals>.<lambda>")
    ]


# Shared, cyclic, deep, many


def test_what_is_shared_stays_shared_and_keeps_its_identity(edits: Edits) -> None:
    def make(m: Any) -> Any:
        thing, pair = m.Plain(), m.Pair(m.Turn.X)
        return {"list": [thing, pair], "dict": {"a": thing}, "thing": thing, "pair": pair}

    session = Session(None, None)
    session["value"] = value = make(SimpleNamespace(**edits.save()))
    thing, inner = value["thing"], value["list"]
    edits.save()
    assert session["value"] is value and value["list"] is inner
    assert thing is value["thing"] is value["list"][0] is value["dict"]["a"]
    assert value["list"][1] is value["pair"]


def test_cycles(edits: Edits) -> None:
    def make(m: Any) -> Any:
        thing = m.Plain()
        thing.n = (thing, [thing])
        thing.n[1].append(thing.n)
        table = m.Table()
        table["self"] = (table, m.Turn.X)
        return [thing, table]

    (thing, table), new = carried(edits, make)
    assert thing.n[0] is thing and thing.n[1][0] is thing and type(thing) is new.Plain
    assert thing.n[1][1] is thing.n
    assert table["self"][0] is table and table["self"][1] is new.Turn.X


def test_a_tuple_in_a_list_in_itself_is_exchanged_in_both_places(edits: Edits) -> None:
    def make(m: Any) -> Any:
        inner: list[Any] = []
        outer = (inner, m.Turn.X)
        inner.append(outer)
        return outer

    value, new = carried(edits, make)
    assert value[1] is new.Turn.X and value[0][0] is value


def test_nothing_is_too_deep(edits: Edits) -> None:
    def make(m: Any) -> Any:
        value: Any = m.Turn.X
        for n in range(30_000):
            value = (value,) if n % 3 else [value]
        return value

    value, new = carried(edits, make)
    depth = 0
    while isinstance(value, (tuple, list)):
        depth, above, value = depth + 1, value, value[0]
        above = None if isinstance(above, tuple) else above.clear()
    assert depth == 30_000 and value is new.Turn.X


def test_plain_data_does_not_starve_what_lies_deeper(edits: Edits) -> None:
    def make(m: Any) -> Any:
        rows = [{"id": n, "tags": ["a"]} for n in range(60_000)]
        return [rows, m.Data(0, [[m.Data(1, [[m.Plain()]])]])]

    value, new = carried(edits, make)
    deepest = value[1].inner[0][0].inner[0][0]
    assert deepest.greet() == "goodbye 1" and type(deepest) is new.Plain
    assert value[0][-1] == {"id": 59_999, "tags": ["a"]}


# What is left alone


def test_weak_references_are_left_alone(edits: Edits) -> None:
    def make(m: Any) -> Any:
        thing = m.Plain()
        return [
            thing,
            weakref.ref(thing),
            weakref.WeakSet([thing]),
            weakref.WeakValueDictionary(a=thing),
        ]

    (thing, ref, group, table), new = carried(edits, make)
    assert ref() is thing is table["a"] and list(group) == [thing] and type(thing) is new.Plain


def test_other_sessions_and_the_site_are_not_entered(edits: Edits) -> None:
    other, session = Session(None, None), Session(None, None)
    old = edits.save()
    other["thing"] = thing = old["Plain"]()
    session["other"] = other
    new = edits.save()
    assert session["other"] is other and type(thing) is old["Plain"]
    assert type(other["thing"]) is new["Plain"]


@pytest.mark.parametrize("cls", [Site, Request, Session, Registry, SessionStore])
def test_what_belongs_to_the_server_is_left_alone(cls: type) -> None:
    assert container_type_of(cls) is None
    assert container_type_of(type("Sub", (cls,), {"__module__": "site"})) is None


def test_nothing_of_the_authors_is_called(edits: Edits) -> None:
    text = (
        DEFINITIONS
        + """
class Touchy(dict):
    def __getattr__(self, name): raise RuntimeError(name)
    def __setattr__(self, name, value): raise RuntimeError(name)
    def __iter__(self): raise RuntimeError
    def __setitem__(self, name, value): raise RuntimeError
    items = values = keys = __len__ = __contains__ = __iter__
    def __init__(self, turn): dict.__init__(self, a=turn); self.__dict__["turn"] = turn
"""
    )
    session = Session(None, None)
    old = edits.save(text)
    session["value"] = [[old["Touchy"](old["Turn"].X)]]
    new = edits.save(text)
    [[value]] = session["value"]
    assert type(value) is new["Touchy"]
    assert dict.__getitem__(value, "a") is value.__dict__["turn"] is new["Turn"].X


def test_keys_that_cannot_be_hashed_any_more(
    edits: Edits, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(None, None)
    session["value"] = {edits.save()["Plain"](): 1}
    edits.save(DEFINITIONS.replace("class Plain:", "class Plain:\n    __hash__ = None"))
    assert list(session["value"].values()) == [1]
    assert told(caplog) == [
        "session['value'] holds a dict that is kept as it was, with keys from before the edit: "
        "TypeError: unhashable type: 'Plain'."
    ]


def test_a_set_of_objects_whose_hash_has_changed_finds_them(edits: Edits) -> None:
    session = Session(None, None)
    text = DEFINITIONS + "@dataclass(frozen=True)\nclass At:\n    x: int\n    y: int = 0\n"
    old = edits.save(text)
    session["value"], session["dict"] = {old["At"](1), old["At"](2)}, {old["At"](1): "one"}
    new = edits.save(text.replace("    y: int = 0\n", "    y: int = 0\n    z: int = 0\n"))
    assert new["At"](1) in session["value"] and len(session["value"]) == 2
    assert session["dict"][new["At"](1)] == "one"


# Tuples with names


def test_a_named_tuple_gets_and_loses_fields(
    edits: Edits, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(None, None)
    session["pair"] = edits.save()["Pair"](1, 2)
    more = edits.save(
        DEFINITIONS.replace("    b: object = None\n", "    b: object = None\n    c: int = 3\n")
    )
    assert session["pair"] == more["Pair"](1, 2, 3) and session["pair"].c == 3
    other = edits.save(
        DEFINITIONS.replace(
            "    a: object\n    b: object = None\n", "    b: object\n    a: object\n"
        )
    )
    assert session["pair"] == other["Pair"](a=1, b=2)
    edits.save(
        DEFINITIONS.replace("    a: object\n    b: object = None\n", "    a: object\n    d: int\n")
    )
    assert session["pair"] == (2, 1) and type(session["pair"]) is other["Pair"]
    assert told(caplog) == [
        "a.rpy: session['pair'] holds an object of the class Pair that Python cannot change into "
        "one of the new class: "
        "there is no value for its field d; give that a default. It is kept as it was, with its "
        "old methods."
    ]


def test_a_named_tuple_that_becomes_something_else_is_kept(
    edits: Edits, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(None, None)
    session["pair"] = old = edits.save()["Pair"](1, 2)
    edits.save(DEFINITIONS.replace("class Pair(NamedTuple)", "@dataclass\nclass Pair"))
    assert session["pair"] is old
    assert (
        "cannot change into one of the new class: its __slots__ or its base classes differ"
        in "".join(told(caplog))
    )


# The registry, attributes of the session


def test_the_registry_is_carried_likewise(edits: Edits) -> None:
    registry = Registry()
    old = edits.save()
    registry["turn"], registry.note = old["Turn"].X, [old["Turn"].O]
    new = edits.save()
    assert registry["turn"] is new["Turn"].X and registry.note == [new["Turn"].O]


@pytest.mark.parametrize(
    "ask",
    [
        lambda s: s["a"],
        lambda s: s.get("a"),
        lambda s: s.setdefault("a", 1),
        lambda s: s.pop("a"),
        lambda s: next(iter(s.values())),
        lambda s: next(iter(s.items()))[1],
        lambda s: s.popitem()[1],
        lambda s: dict(s)["a"],
    ],
)  # fmt: skip
def test_every_way_to_a_value(edits: Edits, ask: Any) -> None:
    session = Session(None, None)
    session["a"] = edits.save()["Turn"].X
    new = edits.save()
    assert ask(session) is new["Turn"].X


def test_an_old_class_is_free_when_what_was_of_it_has_been_renewed(edits: Edits) -> None:
    session = Session(None, None)
    old = edits.save()
    session["value"] = {
        old["Turn"].X: [old["Plain"](), old["Pair"](old["function"], old["Plain"]().greet)]
    }
    gone = [
        weakref.ref(old[name]) for name in ("Plain", "Turn", "Pair", "function", "__execution__")
    ]
    del old
    edits.save(word="goodbye")
    gc.collect()
    assert None not in [ref() for ref in gone], "the session holds them until it is used"
    assert session["value"]
    gc.collect()
    assert [ref() for ref in gone] == [None] * 5


# Anything at all

LEAVES = st.sampled_from(
    [
        "Turn.X",
        "Turn.O",
        "Perm.READ | Perm.WRITE",
        "Money(3)",
        "1",
        "'a'",
        "None",
        "Plain",
        "function",
    ]
)
KEYS = st.sampled_from(
    ["Turn.X", "Frozen(Turn.O)", "Pair(Turn.X, 1)", "(1, Turn.O)", "'k'", "Money(2)", "Level.LOW"]
)
VALUES = st.recursive(
    LEAVES | KEYS,
    lambda below: st.one_of(
        st.lists(below, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.lists(below, max_size=3).map(lambda parts: f"Names([{', '.join(parts)}])"),
        st.lists(below, min_size=1, max_size=3).map(lambda parts: f"({', '.join(parts)},)"),
        st.lists(below, max_size=3).map(lambda parts: f"Row([{', '.join(parts)}])"),
        st.dictionaries(KEYS, below, max_size=3).map(
            lambda d: f"{{{', '.join(f'{k}: {v}' for k, v in d.items())}}}"
        ),
        st.sets(KEYS, max_size=3).map(lambda parts: f"Group([{', '.join(sorted(parts))}])"),
        st.sets(KEYS, max_size=3).map(lambda parts: f"frozenset([{', '.join(sorted(parts))}])"),
        st.tuples(below, below).map(lambda pair: f"Data({pair[0]}, {pair[1]})"),
        st.tuples(below, below).map(lambda pair: f"Slotted({pair[0]}, {pair[1]})"),
        st.tuples(below, below).map(lambda pair: f"Pair({pair[0]}, {pair[1]})"),
    ),
    max_leaves=12,
)


def kinds_in(value: Any) -> Iterator[type]:
    """The class of *value*, and of all that hangs below it."""
    yield value if isinstance(value, type) else type(value)
    container_type = None if isinstance(value, (type, Enum)) else container_type_of(type(value))
    if container_type is not None:
        for each in container_type.children(value):
            yield from kinds_in(each)


def test_anything_is_as_if_it_had_been_made_after_the_edit(edits: Edits) -> None:
    old, new = edits.save(), edits.save(word="goodbye")

    @given(VALUES)
    @settings(deadline=None, max_examples=150)
    def check(text: str) -> None:
        session = Session(None, None)
        session["value"] = [eval(text, dict(old))]
        definitions.advance()
        [value] = session["value"]
        assert value == eval(text, dict(new))
        assert not outdated & set(kinds_in(value))

    outdated = {
        each for each in old.values() if isinstance(each, type) and not definitions.is_current(each)
    }
    check()
