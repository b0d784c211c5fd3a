"""Which definitions stand, and what has moved where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import definition_key
from tests.support.edited_site import HEAD
from tests.support.script_site import ScriptSite

TEXT = """
class IThing(Interface): pass
IFirst = IThing
class IThing(Interface): pass
class Thing:
    class Inner: pass
    def method(self): pass
    @staticmethod
    def static(): pass
def function(): pass
class Kind(Enum):
    A = 1
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ScriptSite]:
    site = ScriptSite(tmp_path)
    yield site
    site.scripts.close()


def run(site: ScriptSite, text: str = TEXT, name: str = "a.rpy") -> dict[str, Any]:
    site.write(name, f"{HEAD}\n{text}\ndef resource(request): return globals()\n")
    namespace: dict[str, Any] = site.get(name)
    return namespace


def test_what_stands_for_a_definition(site: ScriptSite) -> None:
    old = run(site)
    for name in ("Thing", "function", "Kind", "IThing"):
        assert definitions.current_definition(old[name]) is old[name] and definitions.is_current(
            old[name]
        )
    new = run(site, TEXT + "# edited")
    for name in ("Thing", "function", "Kind"):
        assert definitions.current_definition(old[name]) is new[
            name
        ] and not definitions.is_current(old[name])
        assert definitions.current_definition(new[name]) is new[name] and definitions.is_current(
            new[name]
        )
    assert definitions.current_definition(old["Thing"].Inner) is new["Thing"].Inner
    assert definitions.current_definition(old["Thing"].method) is new["Thing"].method
    assert definitions.current_definition(old["Thing"].static) is new["Thing"].static


def test_an_interface_is_found_by_its_key(site: ScriptSite) -> None:
    old, new = run(site), run(site, TEXT + "# edited")
    for name in ("IFirst", "IThing"):
        place = definition_key(old[name])
        assert place is not None and definitions.interface_at(place[1]) is new[name]


def test_what_is_gone_or_of_another_kind_has_no_successor(site: ScriptSite) -> None:
    old = run(site)
    run(site, "class Kind: pass\nThing = 3")
    assert definitions.current_definition(old["Thing"]) is None
    assert definitions.current_definition(old["Kind"]) is None, (
        "an enumeration is no ordinary class"
    )
    assert definitions.current_definition(old["IFirst"]) is None


def test_ordinary_things_stay(site: ScriptSite) -> None:
    for thing in (dict, Path, len, 3, test_ordinary_things_stay):
        assert definitions.current_definition(thing) is thing and definitions.is_current(thing)


def test_an_execution_that_fails_stands_for_nothing(site: ScriptSite) -> None:
    old = run(site)
    site.error(HEAD + TEXT + "kept = registry.setdefault('kept', Thing())\n1 / 0")
    assert definitions.is_current(old["Thing"])
    assert definitions.current_definition(type(site.scripts.registry["kept"])) is old["Thing"]


def test_what_an_uncached_script_defines_has_no_successor(site: ScriptSite) -> None:
    site.write("a.rpy", "class Thing: pass\ndef resource(request): return globals()\n")
    old, _ = site.get(), site.get()
    assert definitions.current_definition(old["Thing"]) is old["Thing"]


def test_the_generation_grows_with_edits_and_not_with_requests(site: ScriptSite) -> None:
    run(site)
    before = definitions.generation
    site.get()
    site.get()
    assert definitions.generation == before
    run(site, TEXT + "# edited")
    assert definitions.generation > before


def test_it_grows_as_an_uncached_script_shows_that_a_class_has_moved(site: ScriptSite) -> None:
    text = "from {} import Thing\ndef resource(request): return Thing\n"
    site.write("one.py", "class Thing: pass\n")
    site.write("a.rpy", text.format("one"))
    old: Any = site.get()
    site.write("one.py", "")
    site.error()
    assert definitions.current_definition(old) is None
    before = definitions.generation
    site.write("two.py", "class Thing: pass\n")
    site.write("a.rpy", text.format("two"))
    new = site.get()
    assert definitions.generation > before
    assert definitions.current_definition(old) is new


def test_it_does_not_grow_with_what_is_loaded_for_the_first_time(site: ScriptSite) -> None:
    run(site)
    before = definitions.generation
    site.write("helper.py", "class Thing: pass")
    run(site, "import helper", "b.rpy")
    assert definitions.generation == before


def test_a_request_that_began_before_an_edit_and_ends_after_it_makes_it_grow_once(
    site: ScriptSite,
) -> None:
    then = definitions.edits
    definitions.advance_if_edited_since(then)
    before = definitions.generation
    definitions.advance()
    definitions.advance_if_edited_since(then)
    assert definitions.generation == before + 2
    definitions.advance_if_edited_since(definitions.edits)
    assert definitions.generation == before + 2


def test_moves_there_and_back(site: ScriptSite) -> None:
    first = run(site)
    site.write("helper.py", "class Thing: pass")
    second = run(site, "from helper import Thing")
    assert second["Thing"].__module__ == "helper"
    assert definitions.current_definition(first["Thing"]) is second["Thing"]
    third = run(site, TEXT + "# back")
    assert (
        definitions.current_definition(first["Thing"])
        is third["Thing"]
        is definitions.current_definition(second["Thing"])
    )
    fourth = run(site, "from helper import Thing")
    assert definitions.current_definition(third["Thing"]) is fourth["Thing"] is second["Thing"]
    here, there = definitions.home_of(third["Thing"]), definitions.home_of(fourth["Thing"])
    assert definitions.is_same_definition((there, "Thing.method"), (here, "Thing.method"))
    assert not definitions.is_same_definition((here, "Thing"), (there, "Thing"))


def test_modules_of_one_name_of_two_sites(site: ScriptSite, tmp_path: Path) -> None:
    other = ScriptSite(tmp_path / "other")
    for each in (site, other):
        each.write("helper.py", "class Thing: pass")
    old = run(site, "from helper import Thing")["Thing"]
    others = run(other, "from helper import Thing")["Thing"]
    assert (
        definitions.current_definition(old) is old
        and definitions.current_definition(others) is others
    )
    site.write("helper.py", "class Thing: edited = 1")
    new = run(site, "from helper import Thing")["Thing"]
    run(other, "from helper import Thing")
    assert definitions.current_definition(old) is new is not old, (
        "though the other's has the name just now"
    )
    assert definitions.current_definition(others) is others
    other.scripts.close()


def test_nothing_is_known_of_a_site_that_is_closed(site: ScriptSite) -> None:
    site.write("helper.py", "class Thing: pass")
    run(site)
    run(site, "from helper import Thing")
    site.scripts.close()
    homes = [
        *definitions._published,
        *definitions._uses,
        *(
            place[0]
            for moves in (definitions._moved_to, definitions._moved_from)
            for place in moves
        ),
    ]
    own = site.scripts._prefix + ".", site.scripts.modules.package + ":"
    assert not [home for home in homes if home.startswith(own)]
