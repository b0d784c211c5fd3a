"""A registry that holds very much is brought up to date while others have their turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from rpyserve.sessions import components, migration
from rpyserve.sessions.components import holds_much
from rpyserve.sessions.session import Registry
from tests.support.edited_site import Editing
from tests.support.in_process import Visitor

MODELS = """
from enum import Enum
class Turn(Enum):
    X = 1
    O = 2
class Player:
    def __init__(self, n): self.n = n
    def greet(self): return "{word}"
"""
FILL = """
import models
if "all" not in registry:
    registry["all"] = [models.Player(n) for n in range(20_000)] + [models.Turn.O]
    registry["names"] = {n: models.Player(n) for n in range(20_000)}
"""
ASK = (
    "registry['all'][5].greet(), registry['all'][-1] is models.Turn.O, registry['names'][9].greet()"
)
HELLO, GOODBYE = "('hello', True, 'hello')", "('goodbye', True, 'goodbye')"


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Editing]:
    monkeypatch.setattr(components, "SLICE", 0.0)  # one chunk of objects
    async with Editing.at(tmp_path) as editing:
        editing.save(MODELS.format(word="hello"), "models.py")
        yield editing


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[migration.Migration]:
    """The migrations of the registry."""
    found: list[migration.Migration] = []
    make = migration.Migration

    def note(holder: migration.Holder) -> migration.Migration:
        made = make(holder)
        if isinstance(holder.instance, Registry):
            found.append(made)
        return made

    monkeypatch.setattr(migration, "Migration", note)
    return found


class Turns:
    """Counts the turns of the loop, in which others could do something."""

    def __init__(self, then: dict[int, Callable[[], Any]] | None = None) -> None:
        self.count = 0
        self._then = then or {}

    async def run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1
            self._then.get(self.count, int)()

    async def of(self, site: Editing, *visitors: Visitor) -> list[str]:
        """What /a answers to *visitors*, who ask at the same time."""
        answers: list[str] = []

        async def ask(visitor: Visitor) -> None:
            answers.append(await site.get(visitor=visitor))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            async with trio.open_nursery() as asking:
                for visitor in visitors:
                    asking.start_soon(ask, visitor)
            nursery.cancel_scope.cancel()
        return answers


async def test_others_have_their_turn(site: Editing) -> None:
    site.script(FILL, ASK)
    assert await site.get() == HELLO
    turns = Turns()
    site.save(MODELS.format(word="goodbye"), "models.py")
    assert await turns.of(site, site.visitor) == [GOODBYE]
    assert turns.count > 40, "there are 40 chunks of 1,000 objects"


async def test_the_script_itself_is_edited(site: Editing) -> None:
    definitions = MODELS + FILL.replace("import models", "").replace("models.", "")
    answer = ASK.replace("models.", "")
    site.script(definitions.replace("{word}", "hello"), answer)
    assert await site.get() == HELLO
    turns = Turns()
    site.script(definitions.replace("{word}", "goodbye"), answer)
    assert await turns.of(site, site.visitor) == [GOODBYE]
    assert turns.count > 40


async def test_a_script_that_uses_the_registry_at_its_top_level(
    site: Editing, begun: list[migration.Migration]
) -> None:
    site.script(FILL + "everyone = registry['all']", ASK.replace("registry['all']", "everyone"))
    assert await site.get() == HELLO
    turns = Turns()
    site.save(MODELS.format(word="goodbye"), "models.py")
    assert await turns.of(site, site.visitor) == [GOODBYE]
    assert turns.count > 40
    assert [each for each in begun if each.is_collected] == begun, "none did all at once"


@pytest.mark.parametrize("module", ["math", "models"])
async def test_a_page_without_the_registry_does_not_wait(site: Editing, module: str) -> None:
    site.script(FILL, ASK)
    page = f"import {module}\ndef resource(request):\n    return 'hi'\n"
    (site.root / "b.rpy").write_text(page)
    assert await site.get() == HELLO
    site.save(MODELS.format(word="goodbye"), "models.py")
    answers: list[str] = []

    async def ask(target: str) -> None:
        answers.append(await site.get(target, Visitor(site.site)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "/a")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        nursery.start_soon(ask, "/b")
    assert answers == ["hi", GOODBYE]


async def test_how_much_it_holds_is_asked_once_after_an_edit(
    site: Editing, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Registry] = []

    def note(registry: Registry) -> bool:
        asked.append(registry)
        return holds_much(registry)

    monkeypatch.setattr("rpyserve.site.holds_much", note)
    site.script(FILL, ASK)
    (site.root / "b.rpy").write_text("def resource(request):\n    return 'hi'\n")
    assert await site.get() == HELLO
    for word in ("goodbye", "good night"):
        asked.clear()
        site.save(MODELS.format(word=word), "models.py")
        assert [await site.get("/b") for _ in range(3)] == ["hi"] * 3
        assert await site.get() == GOODBYE.replace("goodbye", word)
        assert len(asked) == 1


async def test_visitors_share_the_work(site: Editing, begun: list[migration.Migration]) -> None:
    site.script(FILL, ASK)
    assert await site.get() == HELLO
    begun.clear()
    site.save(MODELS.format(word="goodbye"), "models.py")
    others = [Visitor(site.site) for _ in range(5)]
    assert await Turns().of(site, *others) == [GOODBYE] * 5
    assert len(begun) == 1


async def test_who_cannot_wait_does_the_rest(site: Editing) -> None:
    site.script(FILL, ASK)
    assert await site.get() == HELLO
    seen: list[str] = []

    def use() -> None:
        seen.append(site.site.registry["all"][5].greet())
        seen.append(site.site.registry["names"][19_999].greet())

    turns = Turns({10: use})
    site.save(MODELS.format(word="goodbye"), "models.py")
    assert await turns.of(site, site.visitor) == [GOODBYE]
    assert seen == ["goodbye", "goodbye"]
    assert turns.count < 30, "nothing was left to do"


async def test_an_edit_meanwhile(site: Editing) -> None:
    site.script(FILL, ASK)
    assert await site.get() == HELLO

    def edit() -> None:
        site.save(MODELS.format(word="good night"), "models.py")
        site.site.root.scripts.refresh()

    site.save(MODELS.format(word="goodbye"), "models.py")
    answers = await Turns({10: edit}).of(site, site.visitor)
    assert answers == [GOODBYE.replace("goodbye", "good night")]


async def test_a_visitor_who_leaves(site: Editing, begun: list[migration.Migration]) -> None:
    site.script(FILL, ASK)
    assert await site.get() == HELLO
    begun.clear()
    site.save(MODELS.format(word="goodbye"), "models.py")
    with trio.CancelScope() as scope:
        turns = Turns({10: scope.cancel})
        await turns.of(site, site.visitor)
    assert scope.cancelled_caught
    assert await site.get() == GOODBYE
    assert len(begun) == 1, "another one goes on with it"


async def test_a_module_that_is_broken(site: Editing) -> None:
    site.script(FILL, "registry['all'][5].greet()")
    site.script("", "registry['all'][5].greet()", "b.rpy")
    assert await site.get() == "hello"
    site.save("class Player(:", "models.py")
    assert await site.get("/b") == "hello"
    site.save(MODELS.format(word="goodbye"), "models.py")
    assert await site.get("/b") == "goodbye"


async def test_a_script_that_writes_what_its_cache_names(
    site: Editing, begun: list[migration.Migration]
) -> None:
    """Nothing is looked through after each POST: what it defines nobody can have."""
    site.script(FILL, ASK)
    assert await site.get() == HELLO
    (site.root / "book.txt").write_text("")
    (site.root / "book.rpy").write_text(
        "from pathlib import Path\nfrom rpyserve import Redirect, cache\n"
        'cache("book.txt")\nPATH = Path(__file__).with_name("book.txt")\n'
        "entries = PATH.read_text().split()\n\n\n"
        "async def resource(request):\n    registry['all'][5].greet()\n"
        '    if request.method == "POST":\n'
        '        PATH.write_text(" ".join([*entries, request.field("who")]))\n'
        '        return Redirect("/book")\n    return entries\n'
    )
    begun.clear()
    for who in ("ada", "bob", "eve"):
        answer = await site.visitor.post(f"/book?who={who}")
        assert answer.status == 303
        assert who in await site.get("/book")
    assert await site.get("/book") == '["ada", "bob", "eve"]'
    assert begun == []


async def test_what_is_not_much_waits_until_it_is_used(
    site: Editing, begun: list[migration.Migration]
) -> None:
    site.script("import models\nregistry.setdefault('it', models.Player(1))", "1")
    site.script("", "2", "b.rpy")
    assert await site.get() == "1"
    begun.clear()
    site.save(MODELS.format(word="goodbye"), "models.py")
    assert await site.get("/b") == "2"
    assert begun == []


class Node:
    def __init__(self, child: Any) -> None:
        self.child = child


def chain(length: int) -> Any:
    node: Any = None
    for _ in range(length):
        node = Node(node)
    return node


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], False),
        (1, False),
        ("x" * 10_000, False),
        (chain(100), False),
        ([[0] * 100 for _ in range(10)], False),
        (test_what_is_not_much_waits_until_it_is_used, False),
        (trio, False),
        (chain(10_000), True),
        ([0] * 10_000, True),
        ({n: n for n in range(10_000)}, True),
        ([[Node(n) for n in range(100)] for _ in range(100)], True),
    ],
)
def test_what_is_much(value: object, expected: bool) -> None:
    registry = Registry()
    registry["value"] = value
    assert holds_much(registry) is expected
