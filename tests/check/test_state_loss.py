"""What a script is told that it will lose, and what it is not told."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from rpyserve.check.bindings import ModuleBindings
from rpyserve.check.findings import Finding, Rule
from rpyserve.check.state_loss import find_state_losses
from tests.support.tutorial import EXPIRATION_LOGGER

HEAD = """
import functools
import itertools
from collections import Counter, deque
from types import SimpleNamespace

from rpyserve import Resource, registry

"""


def find(text: str, *, is_module: bool = False) -> list[Finding]:
    return find_state_losses(ModuleBindings(ast.parse(text)), is_module=is_module)


def source(text: str, cached: bool) -> str:
    return HEAD + ("cache()\n" if cached else "") + dedent(text)


def lost(text: str, *, cached: bool = False, module: bool = False) -> list[str]:
    return [
        finding.message.split("`")[1] for finding in find(source(text, cached), is_module=module)
    ]


def rules(text: str, *, cached: bool = False, is_module: bool = False) -> set[Rule]:
    return {finding.rule for finding in find(source(text, cached), is_module=is_module)}


def page(
    body: str, *, first: str = "pass", above: str = "", made: str = "resource = Page()"
) -> str:
    """A script with a Resource whose render_GET has this body, and whose class this first line."""
    lines = "\n".join("        " + line for line in body.splitlines())
    return (
        f"{above}\nclass Page(Resource):\n    {first}\n    def render_GET(self, "
        f"request):\n{lines}\n{made}\n"
    )


GLOBALS = {
    "counted": "count = 0\ndef resource(request):\n    global count\n    count += 1",
    "assigned": "count = 0\ndef resource(request):\n    global count\n    count = "
    "len(request.path)",
    "one of two": "count = 0\ndef resource(request):\n    global count\n    a, count = 1, 2",
    "by a walrus": "count = 0\ndef resource(request):\n    global count\n    if (count := 3):\n  "
    "      return ''",
    "appended to": "count = []\ndef resource(request):\n    count.append(1)",
    "an item": "count = {}\ndef resource(request):\n    count[request.path] = 1",
    "an item counted": "count = Counter()\ndef resource(request):\n    count[request.path] += 1",
    "deep": "count = {'a': []}\ndef resource(request):\n    count['a'].append(1)",
    "an item deleted": "count = dict()\ndef resource(request):\n    del count['a']",
    "a deque": "count = deque(maxlen=5)\ndef resource(request):\n    count.appendleft(1)",
    "a list of noughts": "count = [0] * 10\ndef resource(request):\n    count[0] += 1",
    "in a helper": "count = []\ndef note(x):\n    count.append(x)\ndef resource(request):\n    "
    "note(1)",
    "in a lambda": "count = []\nresource = lambda request: count.append(1)",
    "in a nested function": "count = []\ndef resource(request):\n    def f():\n        "
    "count.append(1)\n    f()",
    "a heap": "import heapq\ncount = []\ndef resource(request):\n    heapq.heappush(count, 1)",
    "in an async method": (
        "count = []\nclass P(Resource):\n    async def render_GET(self, request):\n"
        "        count.append(1)"
    ),
    "drawn": "count = itertools.count(1)\ndef resource(request):\n    return str(next(count))",
    "a closure": (
        "def make():\n    count = 0\n    def page(request):\n        nonlocal count\n"
        "        count += 1\n    return page\nresource = make()"
    ),
}


@pytest.mark.parametrize("text", GLOBALS.values(), ids=GLOBALS)
def test_names_of_the_top_level(text: str) -> None:
    assert lost(text) == ["count"]
    assert rules(text) == {Rule.STATE_LOST_ON_REQUEST}
    assert lost(text, cached=True) == ["count"]
    assert rules(text, cached=True) == rules(text, is_module=True) == {Rule.STATE_LOST_ON_EDIT}


PARTS = {
    "state.n": "class State:\n    n = 0\nstate = State()\ndef resource(request):\n    state.n += 1",
    "space.n": "space = SimpleNamespace(n=0)\ndef resource(request):\n    space.n = 1",
    "resource.n": "def resource(request):\n    resource.n += 1\nresource.n = 0",
    "Store.items": (
        "class Store:\n    items = []\n    @classmethod\n    def add(cls, x):\n"
        "        Store.items.append(x)\ndef resource(request):\n    Store.add(1)"
    ),
    "state.items": (
        "class State:\n    def __init__(self):\n        self.items = []\nstate = State()\n"
        "def resource(request):\n    state.items.append(1)"
    ),
}


@pytest.mark.parametrize("thing", PARTS)
def test_attributes_of_things_at_the_top_level(thing: str) -> None:
    assert lost(PARTS[thing]) == lost(PARTS[thing], cached=True) == [thing]


ATTRIBUTES = {
    "counted": page("self.n += 1", first="n = 0"),
    "made of itself": page("self.n = self.n + 1", first="n = 0"),
    "appended to": page("self.n.append(1)", first="def __init__(self):\n        self.n = []"),
    "of the class": page("self.n.add(1)", first="n = set()"),
    "by type()": page("type(self).n += 1", first="n = 0"),
    "an item": page("self.n['a'] = 1", first="def __init__(self):\n        self.n: dict = {}"),
    "seen before": page("old = self.n\nself.n = request.path\nreturn old", first="n = ''"),
    "an object's": page(
        "self.n.x += 1",
        first="def __init__(self):\n        self.n = State()",
        above="class State:\n    x = 0",
    ),
    "of a child that is made once": page(
        "self.n += 1",
        first="n = 0",
        made="class Root(Resource):\n    def __init__(self):\n        self.putChild('p', "
        "Page())\nresource = Root()",
    ),
    "of a base": (
        "class Base(Resource):\n    n = 0\n    def render_GET(self, request):\n"
        "        self.n += 1\nclass Page(Base):\n    pass\nresource = Page()"
    ),
    "begun in a base": (
        "class Base(Resource):\n    def __init__(self):\n        self.n = []\nclass Page(Base):\n"
        "    def render_GET(self, request):\n        self.n.append(1)\nresource = Page()"
    ),
    "asked for by another method": (
        "class Page(Resource):\n    n = ''\n    def render_GET(self, request):\n"
        "        return self.n\n    def render_POST(self, request):\n"
        "        self.n = request.field('n')\n        return ''\nresource = Page()"
    ),
    "of a Resource from elsewhere": (
        "from tour import Framed\nclass Page(Framed):\n    n = 0\n"
        "    def render_GET(self, request):\n        self.n += 1\nresource = Page()"
    ),
    "through a factory": page(
        "self.n += 1", first="n = 0", made="def make():\n    return Page()\nresource = make()"
    ),
}


@pytest.mark.parametrize("text", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_attributes_of_the_resource(text: str) -> None:
    assert lost(text) == ["self.n"]
    assert rules(text) == {Rule.STATE_LOST_ON_REQUEST}
    assert lost(text, cached=True) == ["self.n"]
    assert rules(text, cached=True) == {Rule.STATE_LOST_ON_EDIT}


NOTHING = {
    "a local name": "count = []\ndef resource(request):\n    count = []\n    count.append(1)",
    "a parameter": "count = []\ndef resource(request, count=None):\n    count.append(1)",
    "a loop's name": "row = []\ndef resource(request):\n    for row in request.args:\n        "
                     "row.append(1)",
    "a comprehension's name": "row = []\ndef resource(request):\n    return [row.pop() for row "
                              "in request.args]",
    "a constant": "WORDS = ['a']\ndef resource(request):\n    return WORDS[0] + str(sorted(WORDS))",
    "filled at the start": "WORDS = []\ndef load():\n    WORDS.append(1)\nload()",
    "filled at the start, deeply": (
        "WORDS = []\ndef add():\n    WORDS.append(1)\ndef load():\n    add()\nload()"
    ),
    "a global given at the start": (
        "def load():\n    global WORDS\n    WORDS = ['a']\nload()\ndef resource(request):\n"
        "    return WORDS[0]"
    ),
    "a table of routes": (
        "ROUTES = {}\ndef route(path):\n    def deco(f):\n        ROUTES[path] = f\n"
        "        return f\n    return deco\n@route('/a')\ndef a(request):\n    return ''\n"
        "def resource(request):\n    return ROUTES['/a'](request)"
    ),
    "the session": "def resource(request):\n    request.getSession()['n'] = 1",
    "the registry": "def resource(request):\n    registry['n'] = registry.get('n', 0) + 1",
    "a value of the registry": "book = registry.setdefault('book', [])\ndef resource(request):\n "
                               "   book.append(1)",
    "a database": "db = open_it()\ndef resource(request):\n    db['a'] = 1\n    db.update(b=2)\n "
                  "   db.timeout = 3",
    "a module's": "import os\ndef resource(request):\n    os.environ['A'] = '1'\n    os.umask.x "
                  "= 1",
    "an attribute made in __init__": page("return self.n", first="def __init__(self):\n        "
                                                                 "self.n = 0"),
    "a leaf": page("self.isLeaf = True\nreturn ''"),
    "passed on within a request": page(
        "self.user = request.path\nreturn self.show()", first="def show(self): return self.user"
    ),
    "an error passed on to another method": (
        "class Page(Resource):\n    error = ''\n    def render_GET(self, request):\n"
        "        return self.error\n    def render_POST(self, request):\n"
        "        self.error = 'no'\n        return self.render_GET(request)\nresource = Page()"
    ),
    "of a child made for a request": (
        "class Child(Resource):\n    n = 0\n    def render_GET(self, request):\n"
        "        self.n += 1\nclass Root(Resource):\n    def getChild(self, name, request):\n"
        "        return Child()\nresource = Root()"
    ),
    "of a class that is no Resource": (
        "class Counter:\n    def __init__(self, session):\n        self.n = 0\n"
        "        self.all = []\n    def up(self):\n        self.n += 1\n"
        "        self.all.append(1)\ndef resource(request):\n    return ''"
    ),
    "a static method's first parameter": (
        "class Page(Resource):\n    n = 0\n    @staticmethod\n    def up(box):\n"
        "        box.n += 1\nresource = Page()"
    ),
    "nonlocal within a request": (
        "def resource(request):\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n"
        "    up()"
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING)
def test_no_false_alarm(text: str) -> None:
    assert lost(text) == []


@pytest.mark.parametrize(
    "name", [name for name in NOTHING if name not in {"passed on within a request"}]
)
def test_no_false_alarm_in_cached_scripts(name: str) -> None:
    assert [thing for thing in lost(NOTHING[name], cached=True) if thing != "self.error"] == []


FOR_SPEED = {
    "functools": "@functools.lru_cache(maxsize=5)\ndef look(x):\n    return x",
    "functools by name": "from functools import cache as kept\n@kept\ndef look(x):\n    return x",
    "a dict called a cache": "look_cache = {}\ndef resource(request):\n    "
                             "look_cache[request.path] = 1",
    "made when first needed": (
        "look = None\ndef resource(request):\n    global look\n    if look is None:\n"
        "        look = open('x')"
    ),
    "an attribute made when first needed": page("if not self.look:\n    self.look = 3", first="look = 0"),
}  # fmt: skip


@pytest.mark.parametrize("text", FOR_SPEED.values(), ids=FOR_SPEED)
def test_what_only_serves_speed_is_missed_by_uncached_scripts_only(text: str) -> None:
    assert rules(text) == {Rule.USELESS_CACHE}
    assert lost(text, cached=True) == lost(text, module=True) == []


def test_cache_of_functools_does_not_cache_a_script() -> None:
    text = (
        "from functools import cache\n@cache\ndef f(x):\n    return x\n"
        "n = []\ndef resource(request):\n    n.append(1)"
    )
    assert rules(text) == {Rule.USELESS_CACHE, Rule.STATE_LOST_ON_REQUEST}


@pytest.mark.parametrize(
    "call",
    [
        "cache('words.txt')",
        "import rpyserve\nrpyserve.cache()",
        "from rpyserve import cache as keep\nkeep()",
        "if True:\n    cache()",
    ],
)
def test_a_script_is_cached_by_any_way_of_calling_it(call: str) -> None:
    assert rules(f"{call}\nn = []\ndef resource(request):\n    n.append(1)") == {
        Rule.STATE_LOST_ON_EDIT
    }


def test_the_series_logger_is_told_gently() -> None:
    text = EXPIRATION_LOGGER + "resource = ExpirationLogger()\n"
    (loss,) = find(source(text, cached=True))
    assert (
        loss.message
        == "`self.sessions` is shared by all visitors, but lost when this file is edited."
    )
    assert 'registry["sessions"]' in loss.hint and 'session["sessions"]' in loss.hint


def test_each_thing_is_told_once_at_its_first_line() -> None:
    text = "n = 0\ndef resource(request):\n    global n\n    n += 1\n    n += 2\n"
    (loss,) = find(text)
    assert loss.line == 4
    assert loss.message == "`n` is lost after each request, as the script runs again for each."


def test_two_classes_have_two_attributes_of_a_name() -> None:
    text = page("self.n += 1", first="n = 0") + page("self.n += 1", first="n = 0").replace(
        "Page", "Other"
    )
    assert lost(text) == ["self.n", "self.n"]


@pytest.mark.parametrize(
    "text", ["n = " + " + ".join(["1"] * 900), "def f():\n    x" + ".a" * 900 + " = 1\n"]
)
def test_depth_is_no_obstacle(text: str) -> None:
    assert find(text) == []
