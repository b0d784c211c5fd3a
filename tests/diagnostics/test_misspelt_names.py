"""Names that are nearly right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rpyserve.diagnostics.name_advice import near
from rpyserve.http.request import Request
from tests.support.script_site import ScriptSite


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptSite]:
    monkeypatch.chdir(tmp_path)
    made = ScriptSite(tmp_path)
    yield made
    made.scripts.close()


CLASS = (
    "class Shop:\n    def __init__(self): self.basket = []\n    def total(self): return 1\n"
    "    def page(self): return {}\nShop().page()\n"
)
CASES = {
    "a variable": ("counter = 1\ncoutner + 1", "Did you mean this?\ncounter"),
    "a function": ("def greet(): pass\ngret()", "Did you mean this?\ngreet"),
    "a builtin": ("pritn(1)", "Did you mean this?\nprint"),
    "letters": ("userName = 1\nusername", "Did you mean this?\nuserName"),
    "a method of one's own": (CLASS.format("total()"), "total belongs to the object. Write:\nself.total"),
    "an attribute of one's own": (CLASS.format("basket"), "basket belongs to the object. Write:\nself.basket"),
    "a misspelt one of one's own": (CLASS.format("baskt"), "Did you mean this?\nself.basket"),
    "an attribute": (CLASS.format("self.baskte"), "Did you mean this?\n.basket"),
    "a method of a list": ("[].apend(1)", "Did you mean this?\n.append"),
    "a name of rpyserve": ("from rpyserve import Resorce", "Did you mean this?\nfrom rpyserve import Resource"),
    "a name of a module": ("from math import sqr", "Did you mean this?\nfrom math import sqrt"),
    "a module": ("import jsno", "There is no jsno. Did you mean this?\nimport json"),
    "a module of the site": ("import wrods", "There is no wrods. Did you mean this?\nimport words"),
    "a name of the site": ("from words import gret", "Did you mean this?\nfrom words import greet"),
    "a name beside": ("from .words import gret", "Did you mean this?\nfrom words import greet"),
    "nothing like it": ("zzzzzz", ""),
    "two letters": ("ab = 1\nac", ""),
    "one letter more": ("import httpx_", " -m pip install httpx_"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_slips(site: ScriptSite, case: str) -> None:
    source, hint = CASES[case]
    site.write("words.py", "def greet(): pass\n")
    found = site.error(source + "\n").hint
    assert found == hint if "pip" not in hint else hint in found


def test_nothing_is_called_to_find_out(site: ScriptSite) -> None:
    error = site.error(
        "class Odd:\n    total = 1\n    def __dir__(self): raise SystemExit\n"
        "    def __getattr__(self, name): raise AttributeError(name, name=name, obj=self)\nOdd().totl\n"
    )
    assert error.hint == "Did you mean this?\n.total"


def test_near() -> None:
    assert near("counter", ["Counter", "count"]) == "Counter"
    assert near("x" * 1000, ["x" * 999]) == ""
    assert near("a", ["b"]) == ""


def test_a_variable_that_a_function_assigns(site: ScriptSite) -> None:
    site.write("a.rpy", "n = 0\ndef resource(request):\n    n += 1\n    return str(n)\n")
    with pytest.raises(UnboundLocalError) as caught:
        site.load().render(Request("GET", "/"))
    from rpyserve.diagnostics.advice import advice_for

    assert advice_for(caught.value) == (
        "The function assigns n, so n is its own, and has no value yet. To keep a value from one visit to the next "
        'write:\nsession = request.getSession()\nsession["n"] = session.get("n", 0) + 1'
    )
