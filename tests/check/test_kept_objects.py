"""What an uncached script would have sessions keep, as far as its text shows it."""

from __future__ import annotations

import ast

import pytest

from rpyserve.check.bindings import ModuleBindings
from rpyserve.check.findings import Rule
from rpyserve.check.kept_objects import find_kept_objects

HEAD = """
from enum import Enum
from rpyserve import registry, cache as cached
class Item:
    count = 3
    def __init__(self, name): ...
class Mark(Enum):
    EMPTY = 0
class MySession(Session): ...
def resource(request):
    s = request.getSession()
"""


def found(body: str, head: str = HEAD) -> list[str]:
    text = head + "".join(f"    {line}\n" for line in body.splitlines())
    findings = list(find_kept_objects(ModuleBindings(ast.parse(text))))
    assert all(each.rule is Rule.TRANSIENT_OBJECT for each in findings)
    assert all("cache()" in each.hint and each.line > 10 for each in findings)
    return [each.message for each in findings]


REFUSED = {
    's.setdefault("items", []).append(Item("tea"))': "s.setdefault('items', [])",
    's["board"] = [[Mark.EMPTY] * 3 for _ in range(3)]': "s['board']",
    "s.item = Item()": "s.item",
    "request.getSession().item = Item()": "request.getSession().item",
    'items = s["items"]\nitem = Item()\nitems.append(item)': "items",
    's["a"]["b"] = {"x": (1, Item())}': "s['a']['b']",
    's["items"] += [Item()]': "s['items']",
    'registry["a"] = list([Item()])': "registry['a']",
    'request.site.registry["a"] = Item()': "request.site.registry['a']",
    's["a"] = Item() if request.args else None': "s['a']",
    "request.site.sessionFactory = MySession": "request.site.sessionFactory",
}


@pytest.mark.parametrize("body", REFUSED)
def test_an_object_of_an_own_class_is_named_with_its_place(body: str) -> None:
    [message] = found(body)
    assert message.startswith(f"`{REFUSED[body]}` cannot keep")


@pytest.mark.parametrize(
    "body",
    [
        's["n"] = len([Item()])',
        's["n"] = Item.count',
        's["n"] = Item("a").name',
        's["n"] = Mark.EMPTY.value',
        "items = []\nitems.append(Item())",
        'items = s["items"]\nitems = []\nitems.append(Item())',
        'registry = {}\nregistry["a"] = Item()',
        's["a"] = Other()',
    ],
)
def test_what_is_not_certain_is_left_alone(body: str) -> None:
    assert not found(body)


def test_a_cached_script_may_keep_all() -> None:
    body = 's["a"] = Item()'
    assert found(body) and not found(
        body, HEAD + "    pass\ncached()\ndef f(request):\n    s = request.getSession()\n"
    )
