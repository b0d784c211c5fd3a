"""What top-level code binds, by every way that Python has."""

from __future__ import annotations

import ast

import pytest

from rpyserve.check.bindings import ModuleBindings


def at(text: str) -> ModuleBindings:
    return ModuleBindings(ast.parse(text))


WAYS = [
    "resource = 1",
    "resource: int = 1",
    "a = resource = 1",
    "a, (b, *resource) = 1, [2, 3]",
    "resource = None\nresource += 1",
    "if a:\n    resource = 1",
    "if a:\n    pass\nelse:\n    resource = 1",
    "try:\n    resource = 1\nexcept ValueError:\n    pass",
    "try:\n    pass\nexcept ValueError:\n    resource = 1",
    "try:\n    pass\nfinally:\n    resource = 1",
    "with a as resource:\n    pass",
    "with a:\n    resource = 1",
    "for resource in a:\n    pass",
    "while a:\n    resource = 1",
    "print(resource := 1)",
    "[resource := x for x in a]",
    "match a:\n    case {'a': resource}:\n        pass",
    "match a:\n    case [1, *resource]:\n        pass",
    "match a:\n    case {**resource}:\n        pass",
    "match a:\n    case resource:\n        pass",
    "match a:\n    case 1:\n        resource = 2",
    "import resource",
    "import a as resource",
    "import resource.b",
    "from a import resource",
    "from a import b as resource",
    "def resource(request):\n    pass",
    "async def resource(request):\n    pass",
    "class resource:\n    pass",
    "def make():\n    global resource\n    resource = 1\nmake()",
]


@pytest.mark.parametrize("text", WAYS)
def test_bound(text: str) -> None:
    assert "resource" in at(text).names
    assert not at(text).has_dynamic_names


@pytest.mark.parametrize(
    "text",
    ["resource", "resource: int", "def f():\n    resource = 1", "class A:\n    resource = 1", "a.resource = 1",
     "[0 for resource in a]", "lambda resource: 1", "a['resource'] = 1", "import a.resource", "from resource import a",
     "try:\n    pass\nexcept ValueError as resource:\n    pass", "del resource", "f(resource=1)"],
)  # fmt: skip
def test_not_bound(text: str) -> None:
    assert "resource" not in at(text).names


@pytest.mark.parametrize(
    "text",
    ["from a import *", "exec(a)", "globals()['resource'] = 1", "if a:\n    from a import *"],
)
def test_what_may_bind_anything(text: str) -> None:
    assert at(text).has_dynamic_names


def test_the_last_binding_counts() -> None:
    top = at("resource = 1; resource = 'a'\nif a:\n    def resource(): pass\n")
    bound = top.names["resource"]
    assert [type(each) for each in bound] == [ast.Assign, ast.Assign, type(None)]
    assert isinstance(bound[1], ast.Assign) and ast.unparse(bound[1].value) == "'a'"


@pytest.mark.parametrize(
    ("above", "base", "expected"),
    [
        ("from rpyserve import Resource", "Resource", True),
        ("from rpyserve import Resource as R", "R", True),
        ("from rpyserve import *", "Resource", True),
        ("import rpyserve", "rpyserve.Resource", True),
        ("from twisted.web.resource import Resource", "Resource", True),
        ("from twisted.web import resource", "resource.Resource", True),
        ("from rpyserve import Resource\nclass B(Resource): pass", "B", True),
        ("from rpyserve import Session", "Session", None),
        ("from tour import Page", "Page", None),
        ("import tour", "tour.Page", None),
        ("class B: pass", "B", False),
        ("", "object", False),
        ("class B(B): pass", "B", False),
    ],
)
def test_which_class_is_a_resource(above: str, base: str, expected: bool | None) -> None:
    top = at(f"{above}\nclass A({base}): pass")
    assert top.is_resource("A") is expected
