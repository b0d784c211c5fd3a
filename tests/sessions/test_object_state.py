"""What objects from before an edit lack."""

from __future__ import annotations

from typing import Any

import pytest

from rpyserve.sessions.object_state import (
    add_default_fields,
    add_missing_attributes,
    added_attributes,
    assigned_by_class,
    assigned_by_function,
    construct_like,
    missing_of,
    record_missing,
)
from tests.support.executions import execute


def classes(text: str) -> dict[str, Any]:
    return execute(
        "cache()\nfrom dataclasses import dataclass, field\nfrom functools import wraps\n" + text
    )


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("def __init__(self): self.a = 1; self.b, self.c = 2, 3", {"a", "b", "c"}),
        ("def __init__(self): self.a += 1", {"a"}),
        ("def __init__(self): self.fill()\n    def fill(self): self.a = 1", {"a"}),
        (
            "def __init__(self): self.one()\n    def one(self): self.two()\n"
            "    def two(self): self.a = 1",
            {"a"},
        ),
        ("def __init__(self): pass\n    def other(self): self.a = 1", set()),
        ("def __init__(self): [setattr for self.a in [1]]", {"a"}),
        ("def __new__(cls):\n        self = object.__new__(cls); self.a = 1; return self", {"a"}),
        ("def __post_init__(self): self.a = 1", {"a"}),
        ("@classmethod\n    def make(cls): cls.a = 1\n    def __init__(self): self.make()", {"a"}),
        ("def __init__(self):\n        def inner(): self.a = 1\n        inner()", {"a"}),
        ("pass", set()),
    ],
)  # fmt: skip
def test_what_a_constructor_sets(body: str, names: set[str]) -> None:
    found = assigned_by_class(classes(f"class A:\n    {body}\n")["A"])
    assert {name for name in found if name.isidentifier()} == names


def test_properties_and_base_classes_and_wrappers() -> None:
    text = """
def wrapped(f):
    @wraps(f)
    def inner(self): return f(self)
    return inner
class Base:
    @property
    def p(self): return self._p
    @p.setter
    def p(self, p): self._p = p
    def __init__(self): self.base = 1
class A(Base):
    @wrapped
    def __init__(self): super().__init__(); self.p = 2
"""
    assert assigned_by_class(classes(text)["A"]) == {"p", "_p", "base"}


def test_names_that_cannot_be_read_count_when_the_code_changes() -> None:
    text = "class A:\n    def __init__(self):\n        for name in {}: setattr(self, name, 1)\n"
    one, same, more = (classes(text.format(names))["A"] for names in (("a",), ("a",), ("a", "b")))
    assert added_attributes(same, one) == frozenset()
    assert added_attributes(more, one) and not any(
        name.isidentifier() for name in added_attributes(more, one)
    )


def test_ordinary_classes_and_functions_set_nothing_of_the_site_s() -> None:
    class Here:
        def __init__(self) -> None:
            self.a = 1

    def make(session: object) -> Here:
        here = Here()
        here.a = 2
        return here

    assert (
        assigned_by_class(Here)
        == frozenset()
        == assigned_by_function(make)
        == assigned_by_function(None)
        == assigned_by_function(Here)
    )


def test_what_goes_on_lacking_is_added_at_the_next_edit() -> None:
    one, two, three = (
        classes("class A:\n    def __init__(self): self.a = 1\n")["A"] for _ in range(3)
    )
    assert added_attributes(two, one) == frozenset()
    record_missing(two, frozenset({"a"}))
    assert added_attributes(three, two) == {"a"}
    assert added_attributes(two, one) == frozenset()


def test_what_the_class_has_is_not_lacking() -> None:
    kind = classes(
        "class A:\n    a = 1\n    @property\n    def b(self): return 1\n    def c(self): pass\n"
    )["A"]
    thing = kind()
    thing.d = 1
    assert missing_of(thing, frozenset("abcde")) == {"e"}


def test_a_slot_that_is_empty_is_lacking() -> None:
    thing = classes("class A:\n    __slots__ = ('a', 'b')\n")["A"]()
    thing.a = 1
    assert missing_of(thing, frozenset("ab")) == {"b"}
    assert (
        add_missing_attributes(thing, lambda: _with(type(thing)(), b=2)) == ["b"] and thing.b == 2
    )


def _with(thing: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(thing, name, value)
    return thing


def test_a_new_one_gives_only_what_is_lacking() -> None:
    thing, fresh = (classes("class A: pass")["A"]() for _ in range(2))
    thing.a = 1
    fresh.__class__ = type(thing)
    fresh.a, fresh.b = 2, 3
    assert add_missing_attributes(thing, lambda: fresh) == ["b"]
    assert vars(thing) == {"a": 1, "b": 3}


def test_another_kind_of_thing_gives_nothing() -> None:
    thing = classes("class A: pass")["A"]()
    with pytest.raises(TypeError, match="a new one is of the class dict"):
        add_missing_attributes(thing, dict)


def test_defaults_of_a_dataclass() -> None:
    kind = classes(
        "@dataclass(frozen=True)\nclass A:\n    a: int\n    b: int = 1\n    c: list = "
        "field(default_factory=list)"
    )["A"]
    thing = object.__new__(kind)
    assert add_default_fields(thing) == ["c"] and thing.c == [] and thing.b == 1
    assert add_default_fields(thing) == [] == add_default_fields(object())


@pytest.mark.parametrize(
    "parameters",
    ["self, a, b", "self, a, /, b", "self, a, *, b", "self, a, b, c=3", "self, a, b, *c, **d"],
)
def test_one_is_made_with_what_another_has(parameters: str) -> None:
    kind = classes(
        f"class A:\n    def __init__({parameters}): self.a, self.b, self.sum = a, b, a + b"
    )["A"]
    thing = kind(1, b=2)
    thing.b = 3
    made = construct_like(thing)
    assert (made.a, made.b, made.sum) == (1, 3, 4)
    del thing.b
    with pytest.raises(
        TypeError, match="its constructor wants b, and it has no attribute of that name"
    ):
        construct_like(thing)
