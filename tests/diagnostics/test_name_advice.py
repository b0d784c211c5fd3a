"""Advice about names: of other servers, not imported, misspelled."""

from __future__ import annotations

import importlib

import pytest

from rpyserve import Request, Session
from rpyserve.diagnostics import name_advice
from rpyserve.diagnostics.advice import advice_for
from rpyserve.diagnostics.name_advice import closest, for_member
from tests.support.script_site import ScriptSite

# Names of other servers


def missing(thing: object, name: str) -> str:
    with pytest.raises(AttributeError) as caught:
        getattr(thing, name)
    return advice_for(caught.value)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("getClientIP", "request.client[0]"),
        ("form", 'request.field("name")'),
        ("isSecure", 'request.scheme == "https"'),
        ("headers", 'request.getHeader("user-agent")'),
        ("get_json", "request.json()"),
        (
            "notifyFinish",
            "async def render_GET(self, request):\n    try:\n        ...\n    finally:",
        ),
    ],
)
def test_requests(name: str, instead: str) -> None:
    advice = f"rpyserve's Request has no {name}. Write:\n{instead}"
    assert missing(Request("GET", "/"), name) == advice


def test_sessions() -> None:
    assert missing(Session(None, None), "permanent") == (
        "rpyserve's Session has no permanent. Write:\nsession.sessionTimeout = None"
    )


def test_what_there_is_is_not_in_the_tables() -> None:
    things = {Request: Request("GET", "/"), Session: Session(None, None)}
    for kind, names in name_advice._MEMBERS.items():
        assert not [name for name in names if hasattr(things[kind], name)]
    assert for_member(AttributeError(name="form", obj=object())) == ""


# Names that must be imported


def test_every_module_has_what_is_imported_from_it() -> None:
    for name, module in name_advice._HOMES.items():
        is_found = hasattr(importlib.import_module(module), name)
        assert is_found or name == "registry", f"{module}.{name}"  # that of a running script


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Redirect", "from rpyserve import Redirect"),
        ("Path", "from pathlib import Path"),
        ("json", "import json"),
        ("escape", "from html import escape"),
        ("sleep", "from trio import sleep"),
        ("trio", "import trio"),
    ],
)
def test_what_must_be_imported(site: ScriptSite, name: str, line: str) -> None:
    assert site.error(f"{name}\n").hint == f"Import it first:\n{line}"


# Names that are misspelled

CLASS = (
    "class Shop:\n    def __init__(self): self.basket = []\n    def total(self): return 1\n"
    "    def page(self): return {}\nShop().page()\n"
)
MISSPELLED = {
    "a variable": ("counter = 1\ncoutner + 1", "Did you mean this?\ncounter"),
    "a function": ("def greet(): pass\ngret()", "Did you mean this?\ngreet"),
    "a builtin": ("pritn(1)", "Did you mean this?\nprint"),
    "letters": ("userName = 1\nusername", "Did you mean this?\nuserName"),
    "a method of the object": (
        CLASS.format("total()"),
        "total belongs to the object. Write:\nself.total",
    ),
    "an attribute of the object": (
        CLASS.format("basket"),
        "basket belongs to the object. Write:\nself.basket",
    ),
    "an attribute": (CLASS.format("self.baskte"), "Did you mean this?\nbasket"),
    "a method of a list": ("[].apend(1)", "Did you mean this?\nappend"),
    "a name of rpyserve": (
        "from rpyserve import Resorce",
        "Did you mean this?\nResource",
    ),
    "a name of a module": (
        "from math import sqr",
        "Did you mean this?\nsqrt",
    ),
    "a module": ("import jsno", "There is no jsno. Did you mean this?\nimport json"),
    "a module of the site": ("import wrods", "There is no wrods. Did you mean this?\nimport words"),
    "a name of the site": (
        "from words import gret",
        "Did you mean this?\ngreet",
    ),
    "a name beside": ("from .words import gret", "Did you mean this?\ngreet"),
    "nothing like it": ("zzzzzz", ""),
    "two letters": ("ab = 1\nac", ""),
    "one letter more": ("import httpx_", " -m pip install httpx_"),
}


@pytest.mark.parametrize("case", MISSPELLED)
def test_misspelled_names(site: ScriptSite, case: str) -> None:
    source, hint = MISSPELLED[case]
    site.write("words.py", "def greet(): pass\n")
    found = site.error(source + "\n").hint
    assert found == hint if "pip" not in hint else hint in found


def test_nothing_is_called_to_find_out(site: ScriptSite) -> None:
    error = site.error(
        "class Odd:\n    total = 1\n    def __dir__(self): raise SystemExit\n"
        "    def __getattr__(self, name):\n"
        "        raise AttributeError(name, name=name, obj=self)\n"
        "Odd().totl\n"
    )
    assert error.hint == "Did you mean this?\ntotal"


def test_closest() -> None:
    assert closest("counter", ["Counter", "count"]) == "Counter"
    assert closest("x" * 1000, ["x" * 999]) is None
    assert closest("a", ["b"]) is None


def test_a_variable_that_a_function_assigns(site: ScriptSite) -> None:
    site.write("a.rpy", "n = 0\ndef resource(request):\n    n += 1\n    return str(n)\n")
    with pytest.raises(UnboundLocalError) as caught:
        site.load().render(Request("GET", "/"))
    assert advice_for(caught.value) == (
        "The function assigns n, so n is a local variable, and has no value yet. To keep a value from one visit to the next, write:\n"
        'session = request.getSession()\nsession["n"] = session.get("n", 0) + 1'
    )
