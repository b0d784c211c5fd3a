"""Which execution defined what, and what the next request would not know."""

from __future__ import annotations

import copy
import enum
import gc
import logging
import pickle
import weakref
from collections import defaultdict, deque
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from zope.interface import Interface

from rpyserve.scripts.execution import (
    Execution,
    ExecutionName,
    definition_key,
    execution_of,
    function_name,
    is_interface,
    refuse_transient,
)
from tests.support.executions import COUNTER, execute

DEFINITIONS = """
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple
from zope.interface import Interface

class Plain: pass
@dataclass
class Data:
    n: int = 0
class Colour(Enum):
    RED = 1
class Pair(NamedTuple):
    a: int
class IThing(Interface): pass
class Child(dict): pass
def function(): pass
"""


@pytest.mark.parametrize("name", ["Plain", "Data", "Colour", "Pair", "IThing", "function"])
def test_what_a_script_defines_knows_its_execution(name: str) -> None:
    script = execute(DEFINITIONS)
    assert execution_of(script[name]) is script["execution"]
    assert execution_of(partial(partial(script[name], 1), 2)) is script["execution"]


def test_ordinary_things_have_no_execution() -> None:
    for thing in (
        dict,
        Interface,
        len,
        3,
        None,
        "text",
        self_made := type("C", (), {}),
        self_made(),
    ):
        assert execution_of(thing) is None


def test_a_name_equals_the_plain_text_and_travels_as_such() -> None:
    name = Execution("site.a", Path("a.rpy")).name
    assert name == "site.a" and hash(name) == hash("site.a")
    assert {name: 1}["site.a"] == 1
    assert type(pickle.loads(pickle.dumps(name))) is str
    assert type(copy.deepcopy(name)) is str


def test_a_kept_name_keeps_no_execution() -> None:
    script = execute(COUNTER)
    kept = script["__name__"]
    execution = weakref.ref(script["execution"])
    logging.getLogger(kept)
    del script
    gc.collect()
    assert execution() is None
    assert isinstance(kept, ExecutionName) and kept.execution is None


def test_two_executions_number_their_interfaces_alike() -> None:
    source = """
from zope.interface import Interface
class IA(Interface): pass
FIRST = IA
class IA(Interface): pass
class IB(Interface): pass
"""
    one, two = execute(source), execute(source)
    definition_key(two["IB"])  # first seen in another order: of no account
    for name in ("FIRST", "IA", "IB"):
        (home, key), (other_home, other_key) = definition_key(one[name]), definition_key(two[name])  # type: ignore[misc]
        assert key == other_key
        assert home is one["execution"] and other_home is two["execution"]
    assert len({definition_key(one[name])[1] for name in ("FIRST", "IA", "IB")}) == 3  # type: ignore[index]


def test_a_class_and_an_interface_of_one_name_are_two_keys() -> None:
    script = execute(
        "from zope.interface import Interface\nclass A: pass\nC = A\nclass A(Interface): pass"
    )
    assert definition_key(script["C"])[1] != definition_key(script["A"])[1]  # type: ignore[index]


def test_an_interface_outlives_its_namespace_with_its_place() -> None:
    script = execute(DEFINITIONS)
    interface, place = script["IThing"], definition_key(script["IThing"])
    script.clear()
    del script
    gc.collect()
    assert definition_key(interface) is place


def test_is_interface() -> None:
    assert is_interface(Interface)
    assert not is_interface(dict) and not is_interface(Interface.__class__)


def values(script: dict[str, Any]) -> dict[str, Any]:
    thing = script["Plain"]()
    return {
        "object": thing,
        "dataclass": script["Data"](),
        "enum member": script["Colour"].RED,
        "namedtuple": script["Pair"](1),
        "dict subclass": script["Child"](),
        "class": script["Plain"],
        "interface": script["IThing"],
        "in a list": [1, thing],
        "in a tuple": (1, thing),
        "in a dict": {"a": thing},
        "as a dict's key": {script["Colour"].RED: 1},
        "in a set": {thing},
        "in a frozenset": frozenset([thing]),
        "in a deque": deque([thing]),
        "in a defaultdict": defaultdict(list, a=thing),
        "class in a list": [script["Plain"]],
        "interface in a list": [script["IThing"]],
    }


@pytest.mark.parametrize("what", values(execute(DEFINITIONS)))
def test_what_the_next_request_would_not_know_is_refused(what: str) -> None:
    value = values(execute(DEFINITIONS, may_cache=False))[what]
    with pytest.raises(TypeError) as refusal:
        refuse_transient(value, "session['x']")
    text = str(refusal.value)
    assert "session['x'] cannot keep" in text and "its script runs anew for every request" in text
    assert "Write cache() as the first line of the script" in text and "plain values" in text


@pytest.mark.parametrize("what", values(execute(DEFINITIONS)))
def test_the_same_is_welcome_from_a_cached_script(what: str) -> None:
    refuse_transient(values(execute("cache()\n" + DEFINITIONS))[what], "session['x']")


def test_a_refusal_names_the_class() -> None:
    script = execute(DEFINITIONS)
    with pytest.raises(
        TypeError, match=r"an object of the class Colour.*move the class Colour into a \.py file"
    ):
        refuse_transient([script["Colour"].RED], "session['x']")
    with pytest.raises(TypeError, match="cannot keep the class Plain"):
        refuse_transient(script["Plain"], "session['x']")


def test_ordinary_values_are_welcome() -> None:
    class Local(enum.Enum):
        A = 1

    for value in (
        None,
        1,
        "text",
        b"",
        [],
        {},
        {"a": [1]},
        (1,),
        {2},
        Local.A,
        Local,
        object(),
        [Local],
        range(9),
    ):
        refuse_transient(value, "session['x']")


def test_a_running_execution_that_may_still_call_cache_is_given_the_benefit() -> None:
    execute("class A: pass\nrefuse(A(), 'x')\ncache()", refuse=refuse_transient)
    with pytest.raises(TypeError, match="cannot keep"):
        execute("class A: pass\nrefuse(A(), 'x')", may_cache=False, refuse=refuse_transient)
    script = execute("class A: pass")
    with pytest.raises(TypeError, match="cannot keep"):
        refuse_transient(script["A"](), "x")


def test_it_is_known_of_executions_that_are_gone_too() -> None:
    refuse_transient(execute("cache()\nclass A: pass")["A"](), "x")
    orphan = execute("class A: pass")["A"]()
    gc.collect()
    assert execution_of(type(orphan)) is None
    with pytest.raises(TypeError, match="cannot keep"):
        refuse_transient(orphan, "x")


def test_a_later_execution_has_a_later_serial() -> None:
    assert execute("")["execution"].serial < execute("")["execution"].serial


def test_names_of_functions() -> None:
    class Logger:
        def __call__(self) -> None: ...
        def bye(self) -> None: ...

    here = "test_names_of_functions.<locals>."
    assert function_name(Logger().bye) == here + "Logger.bye"
    assert function_name(partial(partial(Logger().bye))) == here + "Logger.bye"
    assert function_name(Logger()) == here + "Logger"
    assert function_name(print) == "print"
