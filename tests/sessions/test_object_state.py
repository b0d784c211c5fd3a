"""What objects have themselves, and what their classes say that they should have."""

from __future__ import annotations

from typing import Any

import pytest

from rpyserve.sessions.object_state import (
    assigned_by_class,
    assigned_by_function,
    attributes,
    code_text,
    field_defaults,
    field_names,
    missing_of,
    set_attribute,
    sources_of,
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
    assert assigned_by_class(same) == assigned_by_class(one)
    [name] = assigned_by_class(more) - assigned_by_class(one)
    assert not name.isidentifier()


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
    set_attribute(thing, "b", 2)
    assert attributes(thing) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("body", "sources"),
    [
        ("self.x = a", {"a"}),
        ("self.x = 1", set()),
        ("self.x: int = a + b", {"a", "b"}),
        ("self.y, self.x = a, b", {"b"}),
        ("(self.y, *self.x), z = a, 1", {"a"}),
        ("c = a; self.x = [c]", {"a"}),
        ("c = []; c.append(a); self.x = c", {"a"}),
        ("self.x = self.y", {".y"}),
        ("self.x = []; self.x.append(a)", {"a"}),
        ("self.x = [0]; self.x[0] = a", {"a"}),
        ("self.x = []; sort(self.x, a)", {"a"}),
        ("self.x = {}; self.x.y.z = a", {"a"}),
        ("setattr(self, 'x', a)", {"a"}),
        ("object.__setattr__(self, 'x', a)", {"a"}),
        ("self.x = 0\n        if a: self.x = 1", {"a"}),
        ("self.x = 0\n        if a: return\n        self.x = 1", {"a"}),
        ("self.x = 0\n        for each in a: self.x += each", {"a"}),
        ("for each in a:\n            if b: break\n        else: self.x = 1", {"a", "b"}),
        ("with a as c: self.x = c", {"a"}),
        ("match a:\n            case [c]: self.x = c", {"a"}),
        ("try: self.x = 1\n        except a as c: self.x = c", {"a"}),
        ("self.x = [each for each in a]", {"a"}),
        ("self.x = lambda: a", {"a"}),
        ("def inner(): return a\n        self.x = inner()", {"a"}),
        ("while (c := a): self.x = 1; break", {"a"}),
        ("self.fill(a)\n    def fill(self, z): self.x = z", {"a"}),
        ("self.fill(1)\n    def fill(self, z): self.x = z", set()),
        ("self.fill(1)\n    def fill(self, z): self.x = z + self.y; self.fill(z)", {".y"}),
        ("if a: self.fill()\n    def fill(self): self.x = 1", {"a"}),
        ("super().__init__(a); self.y = b", {"a"}),
        ("Base.__init__(self, a); self.y = b", {"a"}),
        ("self.p = a", {"a"}),
    ],
)  # fmt: skip
def test_what_the_value_of_an_attribute_is_made_of(body: str, sources: set[str]) -> None:
    base = "class Base:\n    def __init__(self, q): self.x = q\n"
    prop = "    @property\n    def p(self): pass\n    @p.setter\n    def p(self, p): self.x = p\n"
    text = f"{base}class A(Base):\n{prop}    def __init__(self, a, b=1):\n        {body}\n"
    assert sources_of(classes(text)["A"]).of["x"] == sources


def test_private_names_and_decorated_and_generated_constructors() -> None:
    text = """
class A:
    @wraps(len)
    def other(self): pass
    def __init__(self, a): self.__x = self._y = a
@dataclass
class B:
    x: int
    y: int = field(init=False)
    def __post_init__(self): self.y = self.x
"""
    found = classes(text)
    assert sources_of(found["A"]).of == {"_A__x": {"a"}, "_y": {"a"}}
    assert sources_of(found["A"]).kept_as == {"a": ["_A__x", "_y"]}
    made = sources_of(found["B"])
    assert (made.of["x"], made.of["y"]) == ({"x"}, {".x"})
    assert made.kept_as["x"] == ["x", "_x"]


def test_a_parameter_that_is_another_by_then_is_not_kept() -> None:
    text = "class A:\n    def __init__(self, a, b): a = a or b; self.a = a; self.b = b\n"
    assert sources_of(classes(text)["A"]).kept_as == {"b": ["b"]}


def test_a_constructor_without_source_says_nothing() -> None:
    namespace = classes("exec('class A:\\n  def __init__(self, a): self.b = a')\n")
    assert "b" not in sources_of(namespace["A"]).of


@pytest.mark.parametrize(
    ("edit", "is_same"),
    [
        ("# a comment\n", True),
        ("x = 2", False),
        ("class A:\n    def helped(self): return 2\n", True),
    ],
)
def test_whether_code_says_the_same(edit: str, is_same: bool) -> None:
    text = "class A:\n    def f(self): return self.helped()\n    def helped(self): return 1\n"
    changed = text.replace("return 1", "return 2") if edit == "x = 2" else edit + "\n" + text
    old, new = (classes(each)["A"] for each in (text, changed))
    texts = [code_text(each, each.f.__code__) for each in (old, new)]
    assert (texts[0] == texts[1]) is is_same


def test_defaults_of_a_dataclass() -> None:
    text = "@dataclass\nclass A:\n    a: int\n    b: int = 1\n    c: list = field(default_factory=list)"
    kind = classes(text)["A"]
    defaults = {name: make(None) for name, make in field_defaults(kind).items()}
    assert defaults == {"b": 1, "c": []} and field_names(kind) == {"a", "b", "c"}
    assert field_defaults(object) == {} and field_names(object) == frozenset()


def test_defaults_of_libraries() -> None:
    attrs, msgspec = pytest.importorskip("attrs"), pytest.importorskip("msgspec")
    text = """
@attrs.define
class A:
    a: int
    b: int = 1
    c: list = attrs.field(factory=list)
    d: int = attrs.field(default=attrs.Factory(lambda self: self.b + 1, takes_self=True))
class S(msgspec.Struct):
    a: int
    b: int = 1
    c: list = []
"""
    found = execute("cache()\n" + text, attrs=attrs, msgspec=msgspec)
    for kind, expected in (("A", {"b": 1, "c": [], "d": 2}), ("S", {"b": 1, "c": []})):
        thing = found[kind](0)
        made = {name: make(thing) for name, make in field_defaults(found[kind]).items()}
        assert made == expected and field_names(found[kind]) == {"a", *expected}
