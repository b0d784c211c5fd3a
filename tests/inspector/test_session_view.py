"""Contents of sessions, and their differences: right, bounded, and without the author's code."""

from __future__ import annotations

import enum
import math
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from rpyserve import Interface, Session, implementer, registerAdapter
from rpyserve.inspector.session_view import (
    MOST_LEAVES,
    Change,
    Contents,
    contents_of,
    differences,
)


@dataclass
class Item:
    name: str
    count: int = 1
    tags: list[str] = field(default_factory=list)


class ICounter(Interface):
    pass


@implementer(ICounter)
class Counter:
    def __init__(self, session: Any) -> None:
        self.value = 3


registerAdapter(Counter, Session, ICounter)


@pytest.fixture
def session() -> Session:
    return Session(None, "an-id-that-is-not-shown")


def changes(session: Session, change: Any) -> list[Change]:
    before = contents_of(session)
    change()
    return list(differences(before, contents_of(session)))


def shown(session: Session) -> dict[str, str]:
    return {leaf.path: leaf.shown for leaf in contents_of(session).leaves}


def test_what_there_is(session: Session) -> None:
    session["user"] = "Ada"
    session["cart"] = [Item("pen"), {"a": (1, 2.5)}]
    ICounter(session)
    session.colour = "red"  # type: ignore[attr-defined]
    assert shown(session) == {
        "session['user']": "'Ada'",
        "session['cart']": "list of 2",
        "ICounter": "<Counter>",
        "session.colour": "'red'",
        "session['cart'][0]": "<Item>",
        "session['cart'][1]": "dict of 1",
        "ICounter.value": "3",
        "session['cart'][0].name": "'pen'",
        "session['cart'][0].count": "1",
        "session['cart'][0].tags": "empty list",
        "session['cart'][1]['a']": "tuple of 2",
        "session['cart'][1]['a'][0]": "1",
        "session['cart'][1]['a'][1]": "2.5",
    }
    assert "an-id" not in str(contents_of(session))


def test_the_series_counter(session: Session) -> None:
    counter = ICounter(session)
    counter.value = 3

    def visit() -> None:
        counter.value += 1

    assert changes(session, visit) == [Change("ICounter.value", "3", "4")]


def test_new_replaced_and_removed(session: Session) -> None:
    session["a"], session["b"], session["c"] = 1, [1], "gone"

    def change() -> None:
        session["a"], session["b"] = "1", (1,)
        del session["c"]
        session["d"] = {"x": None}

    assert changes(session, change) == [
        Change("session['a']", "1", "'1'"),
        Change("session['b']", "list of 1", "tuple of 1"),
        Change("session['d']", None, "dict of 1"),
        Change("session['d']['x']", None, "None"),
        Change("session['c']", "'gone'", None),
    ]


def test_nested(session: Session) -> None:
    session["cart"] = {"items": [Item("pen")]}

    def change() -> None:
        session["cart"]["items"][0].count = 2
        session["cart"]["items"].append(5)

    assert changes(session, change) == [
        Change("session['cart']['items']", "list of 1", "list of 2"),
        Change("session['cart']['items'][1]", None, "5"),
        Change("session['cart']['items'][0].count", "1", "2"),
    ]


def test_secrets_are_masked_and_their_changes_seen(session: Session) -> None:
    session["password"], session["api_key"] = "swordfish", {"deep": "swordfish"}
    assert "swordfish" not in str(contents_of(session).leaves)

    def change() -> None:
        session["password"] = "swordfisk"

    assert changes(session, change) == [Change("session['password']", "•••", "•••")]


def test_a_change_in_the_middle_of_a_long_text_is_seen(session: Session) -> None:
    session["text"] = "a" * 10_000_000

    def change() -> None:
        session["text"] = "a" * 5_000_000 + "b" + "a" * 4_999_999

    (found,) = changes(session, change)
    assert found.was == found.now
    assert len(found.was or "") < 500


@pytest.mark.parametrize(
    ("one", "other"),
    [(-1, -2), (1, True), (1, 1.0), (0.0, -0.0), ("1", b"1"), (2**5000, 2**5000 + 1), (math.nan, math.inf),
     ({1}, {2}), (deque([1]), deque([2])), ("\ud800", "\ud801")],
)  # fmt: skip
def test_values_that_are_not_the_same(session: Session, one: Any, other: Any) -> None:
    session["x"] = one
    assert changes(session, lambda: session.__setitem__("x", one)) == []
    assert changes(session, lambda: session.__setitem__("x", other)) != []


def test_what_holds_itself_and_what_is_large_is_bounded(session: Session) -> None:
    session["self"] = loop = []  # type: ignore[var-annotated]
    loop.append(loop)
    session["long"] = list(range(1_000_000))
    session["deep"] = [[[[[[1]]]]]]
    session["last"] = 5
    contents = contents_of(session)
    assert len(contents.leaves) <= MOST_LEAVES
    assert not contents.is_whole
    found = shown(session)
    assert found["session['long']"] == "list of 1,000,000"
    assert found["session['last']"] == "5"

    def change() -> None:
        session["long"].append(1)
        session["new"] = 1

    assert changes(session, change) == [
        Change("session['long']", "list of 1,000,000", "list of 1,000,001"),
        Change("session['new']", None, "1"),
    ]


def test_nothing_is_said_of_what_is_not_compared(session: Session) -> None:
    for number in range(400):
        session[f"key {number}"] = number
    before = contents_of(session)
    assert len(before.leaves) == MOST_LEAVES
    assert not before.is_whole
    del session["key 0"]  # so that another one comes into what is looked at
    assert list(differences(before, contents_of(session))) == []
    assert list(differences(Contents(), Contents())) == []


class Colour(enum.Enum):
    RED = 1


def test_enums_have_names(session: Session) -> None:
    session["colour"] = Colour.RED
    assert shown(session) == {"session['colour']": "Colour.RED"}


def test_nothing_of_the_authors_is_called(session: Session) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if armed:
            raise AssertionError("called")
        return object.__hash__(args[0])

    armed = False
    names = ["repr", "str", "eq", "hash", "len", "iter", "getitem", "getattribute", "getattr", "bool", "format"]  # fmt: skip
    methods = {f"__{name}__": refuse for name in names}

    class Meta(type):
        __getattribute__ = refuse
        __hash__ = refuse
        __eq__ = refuse
        __instancecheck__ = refuse

    things: dict[str, Any] = {}
    for base in (object, dict, list, str, int, set, tuple):
        cls = type(f"Own{base.__name__}", (base,), {**methods, "__module__": "__main__"})
        things[base.__name__] = base.__new__(cls)
    wild = Meta("Wild", (), {"__module__": "__main__", "p": property(refuse)})
    wild_object = object.__new__(wild)
    session._values = {**things, "wild": wild_object}
    armed = True
    contents = contents_of(session)
    differences(contents, contents_of(session))
    armed = False
    found = {leaf.path: leaf.shown for leaf in contents.leaves}
    assert found["session['wild']"] == "<Wild>"
    assert found["session['dict']"] == "empty Owndict"


def test_looking_is_no_visit(session: Session) -> None:
    before = session._last_access, session._generation
    contents_of(session)
    assert (session._last_access, session._generation) == before


def test_a_dict_that_a_thread_changes(session: Session) -> None:
    session["busy"] = busy = {}  # type: ignore[var-annotated]
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            busy[number % 50] = number
            busy.pop((number - 7) % 50, None)
            number += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            assert contents_of(session).leaves[0].path == "session['busy']"
    finally:
        stop.set()
        thread.join()
