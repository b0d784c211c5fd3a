"""Values that JSON cannot hold are named, with their place and what to write."""

from __future__ import annotations

import datetime
import enum
import json
import math
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve import Request, Resource, Site
from rpyserve.http.errors import NotJSON
from rpyserve.http.response import encode_json
from tests.support.in_process import ask


class int64:
    """As numpy has it."""

    def tolist(self) -> int:
        raise AssertionError("no code of the author's is called")


class Key:
    def __repr__(self) -> str:
        raise AssertionError("no code of the author's is called")


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int


PROBLEMS: dict[str, tuple[Any, str]] = {
    "a date": ({"a": datetime.date(2026, 1, 1)}, "a value x of type date at ['a']: write x.isoformat()"),
    "a number of numpy": ([{"b": [1, int64()]}], "of type int64 at [0]['b'][1]: write x.tolist()"),
    "not a number": ({"a": (math.nan,)}, "it has nan at ['a'][0]: write None"),
    "infinity": ([-math.inf], "it has -inf at [0]: write None"),
    "a set": ({"a": {1}}, "of type set at ['a']: write list(x)"),
    "bytes": ({"a": b"x"}, "of type bytes at ['a']: write x.decode()"),
    "a decimal": ({"a": Decimal(1)}, "of type Decimal at ['a']: write float(x)"),
    "a member": ([Colour.RED], "of type Colour at [0]: write x.value"),
    "a record": ([Point(1)], "of type Point at [0]: write dataclasses.asdict(x)"),
    "an id": ([uuid.UUID(int=1)], "of type UUID at [0]: write str(x)"),
    "a key": ({"a": {(1, 2): 3}}, "it has keys of type tuple: write str(key)"),
    "a key of the site": ({Key(): 1}, "it has keys of type Key: write str(key)"),
}  # fmt: skip


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_json_cannot_hold(case: str) -> None:
    value, problem = PROBLEMS[case]
    with pytest.raises(NotJSON) as caught:
        encode_json(value)
    assert str(caught.value).endswith(problem)


def test_what_holds_itself() -> None:
    value: dict[str, Any] = {}
    value["me"] = value
    with pytest.raises(NotJSON, match="circular reference"):
        encode_json(value)


@given(
    st.recursive(
        st.none() | st.floats() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_what_is_sent_is_json(value: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    try:
        sent = encode_json([value])
    except NotJSON as exc:
        assert "write None" in str(exc)
    except UnicodeEncodeError:  # half of a pair of surrogates
        assert any(0xD800 <= ord(char) < 0xE000 for char in str(value))
    else:
        assert json.loads(sent, parse_constant=refuse) == [value]


async def test_the_page_names_the_line_that_returns_it() -> None:
    class Page(Resource):
        def render_GET(self, request: Request) -> dict[str, object]:
            today = datetime.date(2026, 1, 1)
            return {"today": today}

    page = Page()
    answer = await ask(Site(page), "/")
    assert answer.status == 500
    assert "Page.render_GET returned what JSON cannot hold" in answer.text
    assert 'return {"today": today}' in answer.text
    assert "^^^" in answer.text
