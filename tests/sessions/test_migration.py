"""The edits that people really make, against what sessions and the registry hold."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.support.edited_site import Editing, told
from tests.support.executions import COUNTER
from tests.support.in_process import Visitor

GAME = """
class Turn(Enum):
    X = "x"
    O = "o"


@dataclass
class Game:
    turn: Turn
    moves: list = field(default_factory=list)


class Player:
    def __init__(self, name):
        self.name = name


def keep(s):
    s["turn"], s["game"], s["player"] = Turn.X, Game(Turn.X), Player("Ada")
    s["wins"] = {Turn.X: 1, Turn.O: 2}
"""


@pytest.fixture
async def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Editing]:
    caplog.set_level(logging.INFO, logger="rpyserve")
    async with Editing.at(tmp_path) as editing:
        yield editing


async def counted(site: Editing, definitions: str = COUNTER, answer: str = "visit(s)") -> str:
    """Save the counter, with *answer*, and visit it."""
    site.script(definitions, answer)
    return await site.get()


# The counter: components


async def test_the_counter_goes_on_with_the_new_text(site: Editing) -> None:
    site.script(COUNTER, "f'Visit #{visit(s)}'")
    assert [await site.get(), await site.get()] == ["Visit #1", "Visit #2"]
    site.script(COUNTER, "f'Welcome, {visit(s)}'")
    assert await site.get() == "Welcome, 3"
    assert await site.get(visitor=Visitor(site.site)) == "Welcome, 1"


async def test_a_method_is_added(site: Editing) -> None:
    assert await counted(site) == "1"
    more = COUNTER.replace(
        "self.value = 0", "self.value = 0\n\n    def twice(self):\n        return 2 * self.value"
    )
    assert await counted(site, more, "ICounter(s).twice()") == "2"


async def test_attributes_are_added_in_the_constructor(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    assert await counted(site) == "1"
    more = COUNTER.replace(
        "self.value = 0", "self.value, self.seen = 0, []\n        self.colour = 'red'"
    )
    site.script(more, "visit(s), ICounter(s).seen.append(1), ICounter(s).seen, ICounter(s).colour")
    caplog.clear()
    assert await site.get() == "(2, None, [1], 'red')"
    assert await site.get() == "(3, None, [1, 1], 'red')", "they are kept, not made each time"
    assert told(caplog) == [
        "a.rpy: objects of the class Counter from before the edit got colour, seen from a new one"
    ]


async def test_the_console_says_it_once_however_many_visitors_there_are(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    visitors = [Visitor(site.site) for _ in range(5)]
    site.script(COUNTER, "visit(s)")
    for visitor in visitors:
        await site.get(visitor=visitor)
    site.script(
        COUNTER.replace("self.value = 0", "self.value = self.more = 0"),
        "visit(s), ICounter(s).more",
    )
    caplog.clear()
    assert [await site.get(visitor=visitor) for visitor in visitors] == ["(2, 0)"] * 5
    assert len(told(caplog)) == 1


async def test_a_constructor_is_not_called_when_it_sets_nothing_new(site: Editing) -> None:
    more = COUNTER.replace("self.value = 0", "self.value = 0\n        made.append(1)")
    site.script("made = registry.setdefault('made', [])\n" + more, "visit(s), len(made)")
    assert await site.get() == "(1, 1)"
    site.script(
        "made = registry.setdefault('made', [])\n" + more + "\n# an edit", "visit(s), len(made)"
    )
    assert await site.get() == "(2, 1)"


async def test_what_a_constructor_does_to_the_session_is_undone(
    site: Editing, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = COUNTER.replace(
        "self.value = 0",
        "self.value = 0\n        session['list'] = []\n        session.notifyOnExpire(self.bye)\n\n"
        "    def bye(self):\n        print('bye', self.value)",
    )
    site.script(wide, "visit(s), s['list'].append(1), s['list']")
    assert await site.get() == "(1, None, [1])"
    site.script(
        wide.replace("= 0", "= 0; self.more = 1", 1),
        "visit(s), ICounter(s).more, s['list'], s.expire()",
    )
    assert await site.get() == "(2, 1, [1], None)"
    assert capsys.readouterr().out == "bye 2\n"


async def test_an_attribute_that_a_method_called_by_the_constructor_sets(site: Editing) -> None:
    helped = COUNTER.replace(
        "self.value = 0",
        "self.value = 0\n        self.reset()\n\n    def reset(self):\n        pass",
    )
    assert await counted(site, helped) == "1"
    assert (
        await counted(
            site, helped.replace("pass", "self.board = [0]"), "ICounter(s).board, visit(s)"
        )
        == "([0], 2)"
    )


async def test_an_attribute_behind_a_property(site: Editing) -> None:
    behind = """
    @property
    def total(self):
        return self._total

    @total.setter
    def total(self, total):
        self._total = total
"""
    assert await counted(site) == "1"
    more = COUNTER.replace(
        "        self.value = 0\n", "        self.value = 0\n        self.total = 9\n" + behind
    )
    assert await counted(site, more, "ICounter(s).total, visit(s)") == "(9, 2)"


async def test_an_attribute_that_a_constructor_sets_by_name(site: Editing) -> None:
    def by_name(*names: str) -> str:
        return COUNTER.replace("self.value = 0", f"for name in {names}: setattr(self, name, 0)")

    assert await counted(site, by_name("value", "other")) == "1"
    assert (
        await counted(site, by_name("value", "other", "third"), "visit(s), ICounter(s).third")
        == "(2, 0)"
    )


async def test_an_attribute_that_the_factory_sets(site: Editing) -> None:
    def by_factory(more: str) -> str:
        made = (
            f"def make(session):\n    counter = Counter(session)\n    {more}\n"
            "    return counter\n\n\n"
        )
        return COUNTER.replace("registerAdapter(Counter,", made + "registerAdapter(make,")

    assert await counted(site, by_factory("pass")) == "1"
    assert (
        await counted(site, by_factory("counter.more = 7"), "visit(s), ICounter(s).more")
        == "(2, 7)"
    )


async def test_a_constructor_that_fails_loses_nothing(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    assert await counted(site) == "1"
    failing = COUNTER.replace("self.value = 0", "self.value = 0\n        self.more = 1 / 0")
    assert await counted(site, failing) == "2"
    assert "lack" not in "".join(told(caplog)), "nobody has asked for it"
    assert await counted(site, failing, "hasattr(ICounter(s), 'more'), visit(s)") == "(False, 3)"
    assert (
        "a.rpy: objects of the class Counter from before the edit lack more: ZeroDivisionError: "
        "division by zero. Give the class itself a value, as in `more = None`." in told(caplog)
    )
    mended = failing.replace("1 / 0", "[1]")
    assert await counted(site, mended, "visit(s), ICounter(s).more") == "(4, [1])", (
        "the next edit mends it"
    )


async def test_a_nested_constructor_that_fails_is_mended(site: Editing) -> None:
    assert await counted(site, GAME, "keep(s)") == "None"
    failing = GAME.replace("self.name = name", "self.name = name\n        self.more = name + 1")
    answer = "s['player'].name, hasattr(s['player'], 'more')"
    assert await counted(site, failing, answer) == "('Ada', False)"
    assert await counted(site, failing + "# still", answer) == "('Ada', False)"
    assert await counted(site, failing.replace("+ 1", "+ '!'"), "s['player'].more") == "Ada!"


async def test_the_console_is_told_in_one_line_whatever_an_exception_says(
    site: Editing, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.root)
    site.script(GAME, "keep(s)", "sub/a.rpy")
    await site.get("/sub/a")
    raising = "if name: raise ValueError('one\\ntwo')\n        self.more = 1"
    failing = GAME.replace("self.name = name", f"self.name = name\n        {raising}")
    site.script(failing, "hasattr(s['player'], 'more')", "sub/a.rpy")
    caplog.clear()
    assert await site.get("/sub/a") == "False"
    [line] = told(caplog)
    assert "ValueError: one two." in line and line.startswith(
        str(Path("sub", "a.rpy")) + ": objects of the class Player"
    )


async def test_a_field_is_removed(site: Editing) -> None:
    assert (
        await counted(site, COUNTER.replace("self.value = 0", "self.value = 0; self.more = 5"))
        == "1"
    )
    assert await counted(site) == "2"
    assert await counted(site, answer="ICounter(s).more") == "5", "what an object has is kept"


async def test_slots_are_added_and_removed(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    assert [await counted(site), await site.get()] == ["1", "2"]
    slotted = COUNTER.replace("class Counter:\n", "class Counter:\n    __slots__ = ('value',)\n\n")
    caplog.clear()
    assert [await counted(site, slotted), await site.get()] == ["3", "4"]
    assert [await counted(site, slotted + "\n"), await site.get()] == ["5", "6"]
    assert await counted(site) == "7"
    assert not told(caplog)


async def test_a_class_becomes_a_dataclass(site: Editing) -> None:
    assert await counted(site) == "1"
    plain = "class Counter:\n    def __init__(self, session):\n        self.value = 0\n"
    data = "@dataclass\nclass Counter:\n    session: object\n    value: int = 0\n"
    data += "    seen: list = field(default_factory=list)\n"
    answer = "visit(s), ICounter(s).seen, Counter(s, 2) == ICounter(s), Counter(s) == ICounter(s)"
    assert await counted(site, COUNTER.replace(plain, data), answer) == "(2, [], True, False)"
    assert await counted(
        site, COUNTER.replace(plain, data), "ICounter(s).session is s, repr(ICounter(s))[:8]"
    ) == ("(True, 'Counter(')")


async def test_a_class_is_renamed_and_renamed_back(site: Editing) -> None:
    assert await counted(site, COUNTER, "visit(s), type(ICounter(s)).__name__") == "(1, 'Counter')"
    renamed = COUNTER.replace("Counter:", "Visits:").replace(
        "registerAdapter(Counter", "registerAdapter(Visits"
    )
    assert await counted(site, renamed, "visit(s), isinstance(ICounter(s), Visits)") == "(2, True)"
    assert await counted(site, COUNTER, "visit(s), isinstance(ICounter(s), Counter)") == "(3, True)"


async def test_the_factory_is_swapped(site: Editing) -> None:
    assert await counted(site) == "1"
    other = "\n\nclass Other(Counter):\n    pass\n\n\nregisterAdapter(Other, Session, ICounter)\n"
    assert (
        await counted(site, COUNTER + other, "visit(s), type(ICounter(s)).__name__")
        == "(2, 'Counter')"
    )
    answer = await site.get(visitor=Visitor(site.site))
    assert answer == "(1, 'Other')", "what was made stays, what is made now is the other"


async def test_an_interface_is_removed_and_returns(site: Editing) -> None:
    assert [await counted(site), await site.get()] == ["1", "2"]
    assert await counted(site, "", "'nothing here'") == "nothing here"
    assert (
        await counted(
            site, COUNTER.replace("= 0", "= 0; self.more = 1"), "visit(s), ICounter(s).more"
        )
        == "(3, 1)"
    )


async def test_an_interface_goes_while_its_class_is_edited(site: Editing) -> None:
    assert await counted(site) == "1"
    edited = (
        "class Counter:\n    def __init__(self, session):\n        self.value = 0\n"
        "        self.more = 1\n"
    )
    assert await counted(site, edited, "'nothing here'") == "nothing here"
    assert (
        await counted(
            site, COUNTER.replace("= 0", "= 0; self.more = 1"), "visit(s), ICounter(s).more"
        )
        == "(2, 1)"
    )


async def test_an_interface_with_methods(site: Editing) -> None:
    def told(word: str) -> str:
        return COUNTER.replace(
            '    value = Attribute("An int value which counts up once per page view.")',
            "    def tell():\n        'Say how many.'",
        ).replace(
            "self.value = 0",
            f"self.value = 0\n\n    def tell(self):\n        return f'{word} {{self.value}}'",
        )

    assert (
        await counted(site, told("visits:"), "visit(s), ICounter(s).tell()") == "(1, 'visits: 1')"
    )
    answer = "visit(s), ICounter(s).tell(), ICounter.providedBy(ICounter(s)), list(ICounter)"
    assert await counted(site, told("so often:"), answer) == "(2, 'so often: 2', True, ['tell'])"


async def test_two_interfaces_and_classes_of_one_name_stay_apart(site: Editing) -> None:
    def both(word: str) -> str:
        first = COUNTER.replace("self.value = 0", f"self.value = 0; self.word = {word!r}")
        return f"{first}\nIFirst, First = ICounter, Counter\n{COUNTER}"

    answer = "visit(s), IFirst(s).word, type(IFirst(s)) is First, type(ICounter(s)) is Counter"
    assert await counted(site, both("a"), answer) == "(1, 'a', True, True)"
    assert await counted(site, both("b"), answer) == "(2, 'a', True, True)"


async def test_components_by_hand(site: Editing) -> None:
    keep = "s.setComponent(Game, Game(Turn.X)), s.getComponent(Game).turn is Turn.X"
    assert await counted(site, GAME, keep) == "(None, True)"
    answer = "s.getComponent(Game).turn is Turn.X, type(s.getComponent(Game)) is Game"
    assert await counted(site, GAME, answer) == "(True, True)"


async def test_a_component_of_the_registry(site: Editing) -> None:
    shared = COUNTER.replace("(Counter, Session", "(Counter, Registry")
    assert await counted(site, shared, "visit(registry)") == "1"
    more = shared.replace("= 0", "= 0; self.more = 1")
    assert (
        await counted(site, more, "visit(request.site.registry), ICounter(registry).more")
        == "(2, 1)"
    )


# Values under names


async def test_an_enumeration_grows(site: Editing) -> None:
    assert await counted(site, GAME, "keep(s)") == "None"
    grown = GAME.replace('    X = "x"', '    NOBODY = "-"\n    X = "x"')
    answer = (
        "s['turn'] is Turn.X, s['game'].turn is Turn.X, s['turn'] == Turn.X, "
        "s['wins'][Turn.O], Turn.X in Turn"
    )
    assert await counted(site, grown, answer) == "(True, True, True, 2, True)"


async def test_a_dataclass_is_given_a_default_and_fields(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    assert await counted(site, GAME, "keep(s)") == "None"
    more = GAME.replace(
        "    turn: Turn\n",
        "    turn: Turn = Turn.X\n    size: int = 3\n    seen: set = field(default_factory=set)\n",
    )
    caplog.clear()
    answer = "s['game'] == Game(), isinstance(s['game'], Game), s['game'].size, s['game'].seen"
    assert await counted(site, more, answer) == "(True, True, 3, set())"
    assert told(caplog) == [
        "a.rpy: objects of the class Game from before the edit got seen from its default"
    ]


async def test_a_frozen_dataclass_with_a_new_field_made_by_a_function(site: Editing) -> None:
    frozen = GAME.replace("@dataclass\n", "@dataclass(frozen=True)\n")
    assert await counted(site, frozen, "keep(s)") == "None"
    more = frozen.replace("    moves", "    seen: list = field(default_factory=list)\n    moves")
    assert await counted(site, more, "s['game'] == Game(Turn.X), s['game'].seen") == "(True, [])"


async def test_an_attribute_is_added_to_a_nested_class(site: Editing) -> None:
    site.script(GAME, "s.update(all=[{'p': (Player('Ada'), Player('Ben'))}])")
    await site.get()
    more = GAME.replace("self.name = name", "self.name = name\n        self.points = []")
    answer = "[p.points.append(p.name) or p.points for p in s['all'][0]['p']]"
    assert await counted(site, more, answer) == "[['Ada'], ['Ben']]", "each has its own"


async def test_a_nested_object_that_cannot_be_made_anew_is_named(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    assert await counted(site, GAME, "keep(s)") == "None"
    more = GAME.replace(
        "(self, name):\n        self.name = name",
        "(self, called):\n        self._who = called.lower(); self.wins = 0",
    )
    caplog.clear()
    assert (
        await counted(site, more, "s['player'].name, hasattr(s['player'], 'wins')")
        == "('Ada', False)"
    )
    assert told(caplog) == [
        "a.rpy: objects of the class Player from before the edit lack _who, wins: its constructor "
        "wants called, and it has no attribute of that name. Give the class itself a value, as in "
        "`_who = None`."
    ]
    assert (
        await counted(
            site, more.replace("class Player:", "class Player:\n    wins = 0\n"), "s['player'].wins"
        )
        == "0"
    )


async def test_a_nested_object_that_cannot_be_changed_is_kept_and_named(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    assert await counted(site, GAME, "keep(s)") == "None"
    caplog.clear()
    listed = GAME.replace("class Player:", "class Player(list):")
    assert await counted(site, listed, "s['player'].name") == "Ada"
    assert told(caplog) == [
        "a.rpy: session['player'] holds an object of the class Player that Python cannot change "
        "into one of the new class: its base classes differ. It is kept as it was, with its old "
        "methods."
    ]
    assert await counted(site, GAME, "isinstance(s['player'], Player)") == "True"


async def test_a_component_that_cannot_be_changed_is_made_afresh(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    assert [await counted(site), await site.get()] == ["1", "2"]
    caplog.clear()
    listed = COUNTER.replace("class Counter:", "class Counter(list):")
    assert await counted(site, listed) == "1"
    assert told(caplog) == [
        "a.rpy: the Counter that ICounter(session) gave is made afresh: Python cannot change it "
        "into one of the new class: its base classes differ. What it held is gone."
    ]


async def test_a_nested_class_is_renamed_and_renamed_back(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    assert await counted(site, GAME, "keep(s)") == "None"
    caplog.clear()
    assert await counted(site, GAME.replace("Player", "Person"), "s['player'].name") == "Ada"
    assert told(caplog) == [
        "a.rpy: session['player'] holds an object of the class Player, which is no longer there. "
        "It is kept as it was "
        "until there is one of that name again."
    ]
    assert await counted(site, GAME, "isinstance(s['player'], Player)") == "True"


# Modules of the site

SHARED = """
from rpyserve import Interface, Session, implementer, registerAdapter

class Base:
    def greet(self):
        return "hello"

class Cart(Base):
    def __init__(self):
        self.things = []
"""


async def test_only_the_module_is_edited(site: Editing) -> None:
    site.save(SHARED, "helper.py")
    site.script(
        "from helper import Cart", "s.setdefault('cart', Cart()).greet(), type(s['cart']) is Cart"
    )
    assert await site.get() == "('hello', True)"
    site.save(SHARED.replace('"hello"', '"hi"'), "helper.py")
    assert await site.get() == "('hi', True)"
    site.save(
        SHARED.replace("self.things = []", "self.things = []\n        self.paid = False"),
        "helper.py",
    )
    assert await site.get() == "('hello', True)"
    site.script("from helper import Cart", "s['cart'].paid")
    assert await site.get() == "False"


async def test_two_scripts_share_a_module_s_class(site: Editing) -> None:
    site.save(SHARED, "helper.py")
    for name in ("a.rpy", "b.rpy"):
        site.script(
            "from helper import Cart",
            "s.setdefault('cart', Cart()).greet(), type(s['cart']) is Cart",
            name,
        )
    assert [await site.get("/a"), await site.get("/b")] == ["('hello', True)"] * 2
    site.script("from helper import Cart", "s['cart'].greet() + '!', type(s['cart']) is Cart")
    assert [await site.get("/a"), await site.get("/b")] == ["('hello!', True)", "('hello', True)"]
    site.save(SHARED.replace('"hello"', '"hi"'), "helper.py")
    assert [await site.get("/a"), await site.get("/b")] == ["('hi!', True)", "('hi', True)"]


async def test_an_uncached_script_with_a_class_of_a_module(site: Editing) -> None:
    site.save(SHARED, "helper.py")
    (site.root / "u.rpy").write_text(
        "from helper import Cart\n\n\ndef resource(request):\n    s = request.getSession()\n"
        "    cart = s.setdefault('cart', Cart())\n    cart.things.append(1)\n"
        "    return f'{cart.greet()} {len(cart.things)} {type(cart) is Cart}'\n"
    )
    assert [await site.get("/u"), await site.get("/u")] == ["hello 1 True", "hello 2 True"]
    site.save(SHARED.replace('"hello"', '"hi"'), "helper.py")
    assert await site.get("/u") == "hi 3 True"


HERE = """
class Cart:
    def __init__(self):
        self.things = []
"""
FILLED = (
    "s.setdefault('cart', Cart()).things.append(1), len(s['cart'].things), "
    "isinstance(s['cart'], Cart)"
)


async def test_a_class_moves_to_a_module_and_back(site: Editing) -> None:
    assert await counted(site, HERE, FILLED) == "(None, 1, True)"
    site.save(SHARED, "helper.py")
    assert await counted(site, "from helper import Cart", FILLED) == "(None, 2, True)"
    site.save(SHARED.replace("class Cart", "class Other"), "helper.py")
    assert await counted(site, HERE, FILLED) == "(None, 3, True)"
    site.save(SHARED, "helper.py")
    assert await counted(site, "from helper import Cart", FILLED) == "(None, 4, True)"
    (site.root / "helper.py").unlink()
    assert await counted(site, HERE, FILLED) == "(None, 5, True)"
    site.save(SHARED, "helper.py")
    assert await counted(site, "from helper import Cart", FILLED) == "(None, 6, True)"
    assert await counted(site, HERE, FILLED) == "(None, 7, True)", (
        "the module's own is there, but unused"
    )


async def test_a_class_is_copied_from_a_module_that_another_script_uses(site: Editing) -> None:
    site.save(SHARED, "helper.py")
    site.script("from helper import Cart", FILLED, "b.rpy")
    assert await site.get("/b") == "(None, 1, True)"
    assert await counted(site, "from helper import Cart", FILLED) == "(None, 2, True)"
    assert await counted(site, HERE, FILLED) == "(None, 3, False)"
    assert await site.get("/b") == "(None, 4, True)"
    site.save(SHARED.replace("hello", "hi"), "helper.py")
    assert [await site.get("/a"), await site.get("/b")] == ["(None, 5, False)", "(None, 6, True)"]


async def test_a_name_that_stands_for_another_class_moves_nothing(site: Editing) -> None:
    two = "class One:\n    pass\n\n\nclass Two:\n    pass\n\n\nCurrent = {}\n"
    assert (
        await counted(
            site, two.format("One"), "s.setdefault('one', One()), s['one'].__class__ is One"
        )
        != ""
    )
    assert await counted(site, two.format("Two"), "type(s['one']) is One") == "True"


async def test_a_base_class_moves_to_a_module(site: Editing) -> None:
    here = "class Base:\n    def greet(self):\n        return 'hello'\n\n\n"
    cart = "class Cart(Base):\n    def __init__(self):\n        self.things = []\n"
    answer = (
        "s.setdefault('cart', Cart()).greet(), isinstance(s['cart'], Base), "
        "isinstance(s['cart'], Cart)"
    )
    assert await counted(site, here + cart, answer) == "('hello', True, True)"
    site.save(SHARED.replace('"hello"', '"hi"'), "helper.py")
    assert (
        await counted(site, "from helper import Base\n\n\n" + cart, answer) == "('hi', True, True)"
    )
    assert await counted(site, here + cart, answer) == "('hello', True, True)"


async def test_the_whole_counter_moves_to_a_module_and_back(site: Editing) -> None:
    names = "from rpyserve import Attribute, Interface, Session, implementer, registerAdapter\n"
    assert [await counted(site), await site.get()] == ["1", "2"]
    site.save(names + COUNTER, "helper.py")
    assert await counted(site, "from helper import Counter, ICounter, visit") == "3"
    site.save("", "helper.py")
    assert await counted(site) == "4"


# Saves that are no good


@pytest.mark.parametrize(
    "bad",
    [
        "def (",
        "",
        "class Counter: pass",
        "1 / 0",
        "raise SystemExit",
        "resource = 7",
        "import nothing_like_it",
    ],
    ids=[
        "does not compile",
        "empty",
        "no resource",
        "fails",
        "exits",
        "wrong resource",
        "wrong import",
    ],
)
async def test_nothing_is_lost_by_a_save_that_is_no_good(site: Editing, bad: str) -> None:
    answer = "visit(s), s.setdefault('turn', Turn.X) is Turn.X, type(ICounter(s)) is Counter"
    assert await counted(site, GAME + COUNTER, answer) == "(1, True, True)"
    for cached in (True, False):
        if cached:
            site.save(bad)
        else:
            (site.root / "a.rpy").write_text(bad)
        await site.get(status=500)
    assert await counted(site, GAME + COUNTER, answer) == "(2, True, True)"


async def test_a_script_that_fails_after_it_has_used_the_registry(site: Editing) -> None:
    uses = (
        GAME + "notes = registry.setdefault('turns', {Turn.X: Game(Turn.X)})\n"
        "assert notes[Turn.X].turn is Turn.X\n"
    )
    other = "type(registry['turns']['o'][0]).__name__, registry['turns']['o'][0].name"
    site.script(
        "class Owner:\n    name = 1\nregistry.setdefault('turns', {})['o'] = [Owner()]",
        other,
        "b.rpy",
    )
    assert await counted(site, uses, "'fine'") == "fine"
    assert await site.get("/b") == "('Owner', 1)"
    site.script(uses + "1 / 0", "''")
    await site.get(status=500)
    assert await site.get("/b") == "('Owner', 1)"
    assert (
        await counted(site, uses, "notes is registry['turns'], notes[Turn.X] == Game(Turn.X)")
        == "(True, True)"
    )


async def test_a_script_that_another_one_executes_uses_the_same_registry(site: Editing) -> None:
    """While the registry is brought up to date, a file is executed whose code uses it as well."""
    owner = "class Owner:\n    name = {}\nregistry.setdefault('all', {{}})['owner'] = [Owner()]"
    site.script(owner.format(1), "registry['all']['owner'][0].name", "b.rpy")
    assert await site.get("/b") == "1"
    uses = GAME + "notes = registry.setdefault('all', {})\nnotes.setdefault(Turn.X, Game(Turn.X))\n"
    assert await counted(site, uses, "len(notes)") == "2"
    site.script(owner.format(2), "registry['all']['owner'][0].name", "b.rpy")
    assert await counted(site, uses, "len(notes), notes is registry['all']") == "(2, True)"
    assert await site.get("/b") == "2"


async def test_a_component_that_cannot_be_changed_outlives_an_execution_that_fails(
    site: Editing,
) -> None:
    shared = COUNTER.replace("(Counter, Session", "(Counter, Registry")
    assert await counted(site, shared, "visit(registry)") == "1"
    slotted = shared.replace("class Counter:", "class Counter:\n    __slots__ = ('value',)\n")
    site.script(slotted + "ICounter(registry).value\n1 / 0\n", "''")
    await site.get(status=500)
    assert await counted(site, shared, "visit(registry)") == "2"


async def test_top_level_code_uses_a_new_method_of_what_the_registry_holds(site: Editing) -> None:
    notes = "class Notes:\n    def __init__(self):\n        self.all = []\n\n\n"
    make = "notes = registry.setdefault('notes', Notes())\n"
    assert await counted(site, notes + make, "notes.all.append(1), notes.all") == "(None, [1])"
    more = notes.replace(
        "self.all = []", "self.all = []\n\n    def load(self):\n        self.all.append('loaded')"
    )
    assert (
        await counted(site, notes.replace(notes, more) + make + "notes.load()\n", "notes.all")
        == "[1, 'loaded']"
    )


@pytest.mark.parametrize("half", ["", "class", "class Base: pass", "x = 1"])
async def test_a_module_is_saved_half_way(site: Editing, half: str) -> None:
    site.save(SHARED, "helper.py")
    answer = (
        "s.setdefault('cart', Cart()).things.append(1), len(s['cart'].things), type(s['cart']) "
        "is Cart"
    )
    assert await counted(site, "from helper import Cart", answer) == "(None, 1, True)"
    site.save(half, "helper.py")
    await site.get(status=500)
    site.save(SHARED, "helper.py")
    assert await site.get() == "(None, 2, True)"


# A script is its path


async def test_a_script_is_renamed(site: Editing) -> None:
    assert [await counted(site), await site.get()] == ["1", "2"]
    (site.root / "a.rpy").rename(site.root / "b.rpy")
    assert await site.get("/b") == "1"


async def test_cache_is_removed_and_added(site: Editing) -> None:
    assert [await counted(site), await site.get()] == ["1", "2"]
    cached = (site.root / "a.rpy").read_text()
    (site.root / "a.rpy").write_text(cached.replace("cache()\n", "", 1))
    assert [await site.get(), await site.get()] == ["1", "1"]
    (site.root / "a.rpy").write_text(cached)
    assert [await site.get(), await site.get()] == ["1", "2"]


async def test_values_under_names_are_the_session_s_own_whatever_becomes_of_cache(
    site: Editing,
) -> None:
    assert await counted(site, GAME, "s.update(n=1), s.update(game=Game(Turn.X))") == "(None, None)"
    plain = (
        "def resource(request):\n    s = request.getSession()\n    return f\"{s['n']} "
        "{s['game'].turn.value}\"\n"
    )
    (site.root / "a.rpy").write_text(plain)
    assert await site.get() == "1 x"
    assert await counted(site, GAME, "s['n'], s['game'] == Game(Turn.X)") == "(1, True)"


# Code from before an edit that is still running

STREAM = """
async def resource(request):
    s = request.getSession()
    s["kept"] = [Turn.X]
    yield "old "
    await request.site.registry["go"].wait()
    s["late"] = Player("late")
    s["kept"].append(Player("later"))
    s["all"] = {}
    s["all"]["deep"] = [Turn.X]
    yield f"still old, {s['kept'][0].value}, {describe(s['late'])}"
"""


async def test_a_stream_finishes_with_the_functions_it_began_with(
    site: Editing, nursery: trio.Nursery
) -> None:
    site.site.registry["go"] = go = trio.Event()
    site.save(GAME + "def describe(player): return f'old {player.name}'\n" + STREAM)
    visitor, told = Visitor(site.site), []
    await site.get("/", visitor)
    site.script("", "s.update(n=1)", "first.rpy")
    await site.get("/first", visitor)

    async def follow() -> None:
        told.append(await site.get("/a", visitor))

    nursery.start_soon(follow)
    await trio.testing.wait_all_tasks_blocked()
    site.script(GAME + "def describe(player): return 'new'\n", "s['kept'][0] is Turn.X")
    assert await site.get("/a", visitor) == "True", "what is shared is renewed under the stream"
    go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert told == ["old still old, x, old late"]
    answer = (
        "type(s['late']) is Player, type(s['kept'][1]) is Player, s['all']['deep'][0] is Turn.X"
    )
    site.script(GAME, answer, "b.rpy")
    site.script(GAME, answer)
    assert await site.get("/a", visitor) == "(True, True, True)"


async def test_what_old_code_keeps_deep_down_is_renewed_when_it_has_ended(
    site: Editing, nursery: trio.Nursery
) -> None:
    site.site.registry["go"] = go = trio.Event()
    site.save(GAME + "describe = repr\n" + STREAM)
    visitor = Visitor(site.site)
    site.script("", "s.update(n=1)", "first.rpy")
    await site.get("/first", visitor)
    nursery.start_soon(site.get, "/a", visitor)
    await trio.testing.wait_all_tasks_blocked()
    site.script(
        GAME,
        "[k in s and s[k] for k in ('late', 'kept')], 'all' in s and s['all']['deep'][0] is Turn.X",
    )
    await site.get("/a", visitor)
    go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert (await site.get("/a", visitor)).endswith("True)")
    site.script(
        GAME,
        "type(s['late']) is Player, type(s['kept'][1]) is Player, s['all']['deep'][0] is Turn.X",
    )
    assert await site.get("/a", visitor) == "(True, True, True)"


async def test_a_component_that_old_code_makes_is_renewed(
    site: Editing, nursery: trio.Nursery
) -> None:
    site.site.registry["go"] = go = trio.Event()
    stream = "async def resource(request):\n    s = request.getSession()\n    yield 'x'\n"
    stream += "    await registry['go'].wait()\n    yield str(visit(s))\n"
    site.save(COUNTER + stream)
    visitor = Visitor(site.site)
    site.script("", "s.update(n=1)", "first.rpy")
    await site.get("/first", visitor)
    nursery.start_soon(site.get, "/a", visitor)
    await trio.testing.wait_all_tasks_blocked()
    site.script(COUNTER, "'n' in s")
    await site.get("/a", visitor)
    go.set()
    await trio.testing.wait_all_tasks_blocked()
    site.script(COUNTER, "'n' in s, type(ICounter(s)) is Counter, visit(s)")
    assert await site.get("/a", visitor) == "(True, True, 2)"
