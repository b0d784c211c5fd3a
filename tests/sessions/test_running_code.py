"""What a request, a stream or a thread from before an edit finds while objects are renewed."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.support.edited_site import Editing
from tests.support.in_process import Visitor


@pytest.fixture
async def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Editing]:
    caplog.set_level(logging.INFO, logger="rpyserve")
    async with Editing.at(tmp_path) as editing:
        editing.site.registry["go"] = trio.Event()
        yield editing


GAME = """
class Phase(Enum):
    PLAY = 1
    DONE = 2
class Base:
    def save(self): return "saved"
class Game(Base):
    def __init__(self): self.phase = Phase.PLAY
    def word(self): return "hello"
    def old_word(self): return "old"
{methods}
def resource(request):
    s = request.getSession()
    {answer}
"""

PAY = """
    async def pay(self):
        await registry["go"].wait()
        return super().save() + self.word()
"""
STREAM = """
    async def stream(self):
        yield "began "
        await registry["go"].wait()
        {after}
"""


async def through(site: Editing, begin: str, during: str, methods: str) -> tuple[str, str, str]:
    """What an answer says that waits during an edit, and what the page says then and afterwards."""
    make = "s.setdefault('game', Game())"
    site.save(GAME.format(methods=methods, answer=f"{make}; return 'made'"))
    await site.get()
    site.save(GAME.format(methods=methods, answer=begin))
    told: list[str] = []

    async def follow() -> None:
        told.append(await site.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        edited = GAME.replace("hello", "goodbye").replace("old_word", "new_word")
        site.save(edited.format(methods=methods, answer=f"return str({during})"))
        meanwhile = await Visitor.get(site.visitor, "/a")
        site.site.registry["go"].set()
    return told[0], meanwhile.text, await site.get()


@pytest.mark.parametrize(
    ("begin", "methods", "told"),
    [
        ("return s['game'].pay()", PAY, "savedhello"),
        ("return s['game'].stream()", STREAM.format(after="yield super().save()"), "began saved"),
        (
            "return s['game'].stream()",
            STREAM.format(after="yield self.old_word()"),
            "began old",
        ),
    ],
)
async def test_an_object_is_not_changed_under_a_method_that_needs_its_class(
    site: Editing, begin: str, methods: str, told: str
) -> None:
    is_new = "isinstance(s['game'], Game)"
    assert await through(site, begin, is_new, methods) == (told, "False", "True")


async def test_any_other_object_is_renewed_at_once(site: Editing) -> None:
    after = "yield f'{self.word()} {isinstance(self, Game)} {self.phase is Phase.PLAY}'"
    methods = STREAM.format(after=after)
    answers = await through(site, "return s['game'].stream()", "s['game'].word()", methods)
    assert answers == ("began goodbye True True", "goodbye", "goodbye")


async def test_a_stream_that_waits_for_a_member_sees_it(site: Editing) -> None:
    watch = """
async def watch(game):
    while not (isinstance(game, Game) and game.phase is Phase.DONE):
        await registry["go"].wait()
        yield game.phase.name
"""
    done = "setattr(s['game'], 'phase', Phase.DONE)"
    game = GAME.replace("def resource", watch + "def resource")
    site.save(game.format(methods="", answer="s['game'] = Game(); return 'made'"))
    await site.get()
    site.save(game.format(methods="", answer="return watch(s['game'])"))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.get)
            await trio.testing.wait_all_tasks_blocked()
            site.save(GAME.format(methods="", answer=f"return str({done})"))
            await Visitor.get(site.visitor, "/a")
            site.site.registry["go"].set()


async def test_a_thread_that_waits_for_a_member_sees_it(site: Editing) -> None:
    site.site.registry["seen"], site.site.registry["turn"] = threading.Event(), threading.Event()
    watch = """
def watch(game, turn, seen):
    turn.wait(5)
    if isinstance(game, Game) and game.phase is Phase.DONE:
        seen.set()
def begin(s):
    import threading
    game = s.setdefault("game", Game())
    threading.Thread(target=watch, args=(game, registry["turn"], registry["seen"])).start()
"""
    game = GAME.replace("def resource", watch + "def resource")
    site.save(game.format(methods="", answer="begin(s); return 'began'"))
    await site.get()
    site.save(GAME.format(methods="", answer="return str(setattr(s['game'], 'phase', Phase.DONE))"))
    await site.get()
    site.site.registry["turn"].set()
    assert await trio.to_thread.run_sync(site.site.registry["seen"].wait, 5)
