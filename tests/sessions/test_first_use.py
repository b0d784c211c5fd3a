"""Of very many objects, those beyond a number are brought up to date when they are first used."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from rpyserve.sessions import migration
from rpyserve.sessions.object_graph import Limits
from rpyserve.sessions.session import Session
from tests.sessions.test_object_graph import DEFINITIONS, Edits

MORE = """
@dataclass
class Card:
    turn: Turn = Turn.X
    n: int = 1
class Deck:
    def __init__(self, cards): self.cards = cards
    def __len__(self): return len(self.cards) + len(WORD)
    def __iter__(self): return iter(self.cards)
    def __call__(self): return WORD
    def __getattr__(self, name): return (WORD, name)
    def __add__(self, other): return WORD
class Base:
    def __init__(self): self.word = WORD
class Derived(Base):
    def __init__(self):
        super().__init__()
        self.more = super().__repr__()[:1]
"""
TEXT = DEFINITIONS + MORE


@pytest.fixture
def edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edits]:
    monkeypatch.setattr(migration, "AT_ONCE", Limits(objects=0, plain=100))
    edits = Edits(tmp_path)
    yield edits
    edits.site.scripts.close()


def waiting(edits: Edits, make: Any, after: str = TEXT) -> tuple[Any, SimpleNamespace]:
    """An object in a list, not yet used since an edit, and the new namespace."""
    session = Session(None, None)
    session["value"] = [make(SimpleNamespace(**edits.save(TEXT)))]
    new = SimpleNamespace(**edits.save(after, word="goodbye"))
    return session["value"][0], new


@pytest.mark.parametrize(
    ("make", "use", "expected"),
    [
        (lambda m: m.Plain(3), lambda v, new: v.greet(), "goodbye 3"),
        (lambda m: m.Plain(3), lambda v, new: isinstance(v, new.Plain), True),
        (lambda m: m.Plain(3), lambda v, new: v.__class__ is new.Plain, True),
        (lambda m: m.Plain(3), lambda v, new: vars(v) and type(v) is new.Plain, True),
        (lambda m: m.Plain(3), lambda v, new: setattr(v, "n", 4) or type(v) is new.Plain, True),
        (lambda m: m.Card(m.Turn.O), lambda v, new: v == new.Card(new.Turn.O), True),
        (lambda m: m.Card(m.Turn.O), lambda v, new: new.Card(new.Turn.O) == v, True),
        (lambda m: m.Card(m.Turn.O), lambda v, new: v.turn is new.Turn.O, True),
        (lambda m: m.Card(), lambda v, new: v in [new.Card()] and [new.Card()].index(v), 0),
        (lambda m: m.Card(), lambda v, new: repr(v) == repr(new.Card()), True),
        (lambda m: m.Card(), lambda v, new: type(copy.copy(v)) is new.Card, True),
        (lambda m: m.Card(), lambda v, new: b"Card" in pickle.dumps(v), True),
        (lambda m: m.Deck([m.Card()]), lambda v, new: len(v), 8),
        (lambda m: m.Deck([m.Card()]), lambda v, new: [*v] == [new.Card()], True),
        (lambda m: m.Deck([m.Card()]), lambda v, new: (v(), v + 1), ("goodbye", "goodbye")),
        (lambda m: m.Deck([]), lambda v, new: v.lacks, ("goodbye", "lacks")),
        (lambda m: m.Deck({m.Turn.X: 1}), lambda v, new: v.cards[new.Turn.X], 1),
        (lambda m: m.Deck([m.Plain(m.Plain(1))]), lambda v, new: v.cards[0].n.greet(), "goodbye 1"),
        (
            lambda m: m.Plain(3),
            lambda v, new: SimpleNamespace(card=v).card.greet(),
            "goodbye 3",
        ),
    ],
)
def test_whatever_is_done_with_it_is_done_with_the_new_one(
    edits: Edits, make: Any, use: Any, expected: Any
) -> None:
    value, new = waiting(edits, make)
    assert use(value, new) == expected


def test_a_pattern_matches(edits: Edits) -> None:
    value, new = waiting(edits, lambda m: m.Card(m.Turn.O, 7))
    match value:
        case new.Card(turn=new.Turn.O, n=n):
            assert n == 7
        case _:
            pytest.fail("it is a Card")


def test_an_operator_that_the_edit_adds(edits: Edits) -> None:
    after = TEXT.replace("class Plain:", "class Plain:\n    def __len__(self): return 5")
    value, _ = waiting(edits, lambda m: m.Plain(), after)
    assert len(value) == 5 and bool(value)


def test_keys_are_found_at_once(edits: Edits) -> None:
    session, text = Session(None, None), TEXT + "\n@dataclass(frozen=True)\nclass At:\n    x: int\n"
    at = edits.save(text)["At"]
    session["dict"], session["set"], session["nested"] = {at(1): "a"}, {at(1)}, {(2, at(1)): "b"}
    at = edits.save(text.replace("x: int", "x: int\n    y: int = 0"))["At"]
    assert session["dict"][at(1)] == "a" and at(1) in session["set"]
    assert session["nested"][2, at(1)] == "b"


def test_old_code_makes_objects_as_before(edits: Edits) -> None:
    session = Session(None, None)
    old = edits.save(TEXT)
    session["value"] = [old["Derived"](), old["Card"]()]
    new = edits.save(TEXT, word="goodbye")
    assert session["value"]
    made = eval("Derived()", old)
    assert made.word == "hello" and made.more == "<"
    assert isinstance(made, new["Derived"])


def test_the_first_ones_are_changed_at_once_and_the_others_when_they_are_used(
    edits: Edits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "AT_ONCE", Limits(objects=50, plain=100))
    session = Session(None, None)
    old = edits.save(TEXT)
    session["near"], session["many"] = old["Plain"](), [old["Plain"](n) for n in range(5_000)]
    new = edits.save(TEXT, word="goodbye")
    assert type(session["near"]) is new["Plain"]
    kinds = [type(each) for each in session["many"]]
    assert kinds[-1] is old["Plain"]
    assert [each.greet() for each in session["many"]] == [f"goodbye {n}" for n in range(5_000)]
    assert {*map(type, session["many"])} == {new["Plain"]}


async def test_the_others_are_changed_between_requests(edits: Edits) -> None:
    session = Session(None, None)
    old = edits.save(TEXT)
    session["many"] = [old["Deck"]([old["Card"](old["Turn"].O)]) for n in range(3_000)]
    session["data"] = [[{"turn": [old["Turn"].X]}] for n in range(3_000)]
    new = edits.save(TEXT, word="goodbye")
    assert len(session["many"]) == 3_000
    await trio.testing.wait_all_tasks_blocked()
    assert {*map(type, session["many"])} == {new["Deck"]}
    assert {type(deck.__dict__["cards"][0]) for deck in session["many"]} == {new["Card"]}
    assert all(row[0]["turn"][0] is new["Turn"].X for row in session["data"])


async def test_two_edits_in_a_row(edits: Edits) -> None:
    session = Session(None, None)
    old = edits.save(TEXT)
    session["many"] = [old["Plain"](n) for n in range(1_000)]
    for word in ("one", "two"):
        new = edits.save(TEXT, word=word)
        assert session["many"][-1].greet() == f"{word} 999"
    assert session["many"][0].greet() == "two 0"
    await trio.testing.wait_all_tasks_blocked()
    assert {*map(type, session["many"])} == {new["Plain"]}


async def test_old_classes_go_when_all_have_been_changed(edits: Edits) -> None:
    session = Session(None, None)
    old = edits.save(TEXT)
    session["many"] = [old["Plain"](n) for n in range(1_000)]
    gone = weakref.ref(old["Plain"])
    del old
    edits.save(TEXT, word="goodbye")
    assert session["many"]
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    assert gone() is None
