"""Values as text: bounded, masked, and made without calling anything of the author's."""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import pathlib
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve import Request, Session
from rpyserve.diagnostics.redaction import MASK, Redactor
from rpyserve.diagnostics.values import LONGEST, safe_repr, variables
from tests.support.executions import execute

Point = namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = 1


class Many(enum.Flag):
    A = 1
    B = 2


@dataclass
class Account:
    name: str
    password: str
    friends: list[Any]


class Slots:
    __slots__ = ("a", "missing", "token")

    def __init__(self) -> None:
        self.a, self.token = 1, "abc"


class Loud:
    """Everything that could be called ends the test."""

    def __init__(self) -> None:
        self.n = 1

    def __repr__(self) -> str:
        raise SystemExit

    __str__ = __dir__ = __len__ = __iter__ = __bool__ = __repr__  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise SystemExit

    @property
    def __class__(self) -> Any:
        raise SystemExit


class LoudList(list):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        raise SystemExit

    __len__ = __repr__ = __iter__  # type: ignore[assignment]


class LoudDict(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise SystemExit

    __len__ = __repr__ = __iter__ = items


class LoudText(str):
    def __repr__(self) -> str:
        raise SystemExit

    __len__ = __str__ = __getitem__ = __repr__  # type: ignore[assignment]


async def later() -> None: ...


AS_PYTHON_WRITES = [
    None, True, 1, -2, 1.5, 2j, "text", "it's", b"bytes", bytearray(b"x").hex(), [1, "a"], (1,),
    (), (1, 2), {"a": [1]}, {}, [], frozenset({1}), deque([1]),
    datetime.date(2026, 1, 2), datetime.timedelta(1), decimal.Decimal("1.5"),
    range(3), slice(1), ...,
]  # fmt: skip


@pytest.mark.parametrize("value", AS_PYTHON_WRITES, ids=repr)
def test_plain_values_are_written_as_python_does(value: object) -> None:
    assert safe_repr(value) == repr(value)


def test_classes_of_pythons_private_modules_have_their_public_names() -> None:
    assert safe_repr(io.BytesIO()) == "<io.BytesIO>"
    assert safe_repr(threading.Lock()) == "<_thread.lock>"  # there is no thread.lock


def test_paths_and_enums() -> None:
    assert safe_repr(pathlib.PurePosixPath("/a")) == "PurePosixPath('/a')"
    assert "Path('x')" in safe_repr(pathlib.Path("x"))
    assert safe_repr(Colour.RED) == "Colour.RED"
    assert safe_repr(Many.A | Many.B).startswith("Many.")


def test_dicts_and_lists_of_other_classes() -> None:
    assert safe_repr(defaultdict(list, a=[1])) == "{'a': [1]}"
    assert safe_repr(OrderedDict(a=1)) == "{'a': 1}"
    assert safe_repr(Counter("aab")) == "{'a': 2, 'b': 1}"
    assert safe_repr({1}) == "set({1})"


def test_objects_of_the_authors_are_shown_by_their_attributes() -> None:
    assert (
        safe_repr(Account("Ada", "hunter2", []))
        == f"<Account name='Ada' password={MASK} friends=[]>"
    )
    assert safe_repr(Slots()) == f"<Slots a=1 token={MASK}>"


def test_named_tuples_are_shown_as_objects() -> None:
    assert safe_repr(Point(1, 2)) == "<Point x=1 y=2>"


def test_objects_of_a_script_too() -> None:
    names = execute("class Basket:\n    def __init__(self): self.n = 2\nbasket = Basket()\n")
    assert safe_repr(names["basket"]) == "<Basket n=2>"


def test_other_objects_by_their_class() -> None:
    import threading

    assert safe_repr(threading.Event()) == "<threading.Event>"


def test_functions_classes_modules_and_coroutines() -> None:
    work = later()
    assert safe_repr(work) == "<coroutine of later>"
    work.close()
    assert safe_repr(later) == "<function later>"
    assert safe_repr(Account) == "<class Account>"
    assert safe_repr(pathlib) == "<module pathlib>"
    assert safe_repr(n for n in ()).startswith("<generator ")
    assert safe_repr(ValueError("no", 1)) == "ValueError('no', 1)"


def test_nothing_of_the_authors_is_called() -> None:
    assert safe_repr(Loud()) == "<Loud n=1>"
    assert safe_repr(LoudList([1, 2])) == "[1, 2]"
    assert safe_repr(LoudDict(a=1)) == "{'a': 1}"
    assert safe_repr(LoudText("x")) == "'x'"


def test_size_does_not_matter() -> None:
    huge = [list(range(1000))] * 100_000
    for value in (
        huge,
        {n: huge for n in range(1000)},
        "x" * 10**7,
        b"x" * 10**7,
        10**100_000,
        [[[[[[huge]]]]]],
    ):
        assert len(safe_repr(value)) <= LONGEST + 1
    assert safe_repr("x" * 1000) == repr("x" * 160) + "…"
    assert safe_repr(list(range(20))).endswith("11, … 8 more]")
    assert safe_repr(10**1000) == "<an int of 3322 bits>"


def test_what_is_nested_in_itself() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert safe_repr(loop) == "[1, …]"
    ada = Account("Ada", "", [])
    ada.friends.append({"best": ada})
    assert safe_repr(ada) == f"<Account name='Ada' password={MASK} friends=[{{'best': …}}]>"


def test_secrets_are_masked_at_every_level() -> None:
    value = {
        "user": "Ada",
        "password": "p1",
        "nested": [{"api_key": "p2", b"Authorization": b"p3"}],
        "none": None,
    }
    text = safe_repr(value)
    assert "p1" not in text and "p2" not in text and "p3" not in text
    nested = f"[{{'api_key': {MASK}, b'Authorization': {MASK}}}]"
    assert text == f"{{'user': 'Ada', 'password': {MASK}, 'nested': {nested}, 'none': None}}"
    assert (
        safe_repr([(b"cookie", b"x=1"), (b"accept", b"*/*")])
        == f"[(b'cookie', {MASK}), (b'accept', b'*/*')]"
    )
    assert safe_repr("hunter2", "password") == MASK
    assert safe_repr(None, "password") == "None"
    assert "hunter2" not in safe_repr("POST /?password=hunter2&x=1")


def test_a_secret_is_hidden_even_where_it_is_cut() -> None:
    secret = "0123456789" * 4
    text = safe_repr("x" * 140 + secret + "y" * 100, redactor=Redactor([secret]))
    assert "0123" not in text
    assert "0123" not in safe_repr(secret.encode(), redactor=Redactor([secret]))


def test_a_request_is_shown_without_its_cookie() -> None:
    request = Request("GET", "/page?token=t1&name=Ada", [(b"cookie", b"login=abcdefgh")])
    assert safe_repr(request) == "<Request GET /page>"
    assert request.args
    assert safe_repr(request) == f"<Request GET /page args={{'token': {MASK}, 'name': ['Ada']}}>"


def test_a_session_is_shown_without_its_id() -> None:
    session = Session(None, "0123456789abcdef")
    session["user"], session["password"] = "Ada", "hunter2"
    assert safe_repr(session) == f"<Session user='Ada' password={MASK}>"


def test_public_classes_may_hide_their_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Request, Session):
        monkeypatch.setattr(kind, "__module__", "rpyserve")
    test_a_request_is_shown_without_its_cookie()
    test_a_session_is_shown_without_its_id()


def test_surrogates_and_controls() -> None:
    assert safe_repr("a\udc80\x1b[31m\n") == r"'a\udc80\x1b[31m\n'"


def test_the_variables_of_a_frame() -> None:
    names = {"a": 1, "__name__": "x", "f": later, "P": Point, "password": "p"}
    assert [(v.name, v.value) for v in variables(names, Redactor())] == [
        ("a", "1"), ("password", MASK),
    ]  # fmt: skip
    many = variables({f"n{n}": n for n in range(1000)}, Redactor())
    assert len(many) == 31
    assert many[-1].value == "and more"


LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_value_is_shown_in_few_characters(value: object) -> None:
    assert 0 < len(safe_repr(value)) <= LONGEST + 1
