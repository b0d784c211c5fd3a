"""Edits of one script, each followed by a visit: does memory stay flat, and is every visit counted?

Run it by itself for the whole measure: ``python benchmarks/many_edits.py --edits 1000``. The tests run the same with
fewer edits. The script keeps a component, values of many kinds, and a callback, and sets a `Session` subclass. Objects
are counted after a full collection; an execution counts as old if it is alive and not the present one.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from rpyserve import Directory, Request, Site
from rpyserve.scripts import definitions
from rpyserve.scripts.execution import Execution

GAME = """
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from rpyserve import Attribute, Interface, Resource, Session, cache, implementer, registerAdapter, registry
from helper import Board

cache()


class ICounter(Interface):
    value = Attribute("How many visits.")


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0
        self.field_{version} = 0


registerAdapter(Counter, Session, ICounter)


class Turn(Enum):
    X = "x"
    O = "o"


class Move(NamedTuple):
    turn: Turn
    at: int = 0


@dataclass
class Game:
    turn: Turn
    moves: list = field(default_factory=list)
    board: Board = field(default_factory=Board)


class Mine(Session):
    sessionTimeout = 1000 + {version}


class Page(Resource):
    def render_GET(self, request):
        request.site.sessionFactory = Mine
        session = request.getSession()
        session.notifyOnExpire(self.bye)
        game = session.setdefault("game", Game(Turn.X))
        assert game.turn is Turn.X and isinstance(game, Game) and isinstance(game.board, Board), game
        game.moves = [*game.moves, Move(Turn.O)][-3:]
        assert all(type(move) is Move and move.turn is Turn.O for move in game.moves)
        notes = registry.setdefault("notes", {{Turn.X: self.bye}})
        assert notes[Turn.X].__func__ is Page.bye
        counter = ICounter(session)
        counter.value += 1
        vars(counter).pop("field_{previous}", None)
        assert counter.field_{version} == 0 and session.sessionTimeout == 1000 + {version}
        return str(counter.value)

    def bye(self):
        pass


resource = Page()
"""
HELPER = """
class Board:
    def __init__(self):
        self.size = 3
# {version}
"""


@dataclass
class Result:
    """What was seen: the count of each visit, the number of objects at each look, old executions at the end."""

    visits: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    old_executions: int = 0
    milliseconds: float = 0


async def visit(site: Site, cookie: bytes = b"") -> tuple[str, bytes]:
    """One request; returns the text and the cookie to show next time."""
    request = Request("GET", "/game", [(b"cookie", cookie)] if cookie else [])
    response = await site.respond(request)
    request.close()
    assert isinstance(response.body, bytes)
    text = response.body.decode()
    assert response.status == 200, text
    for name, value in response.headers:
        if name.lower() == b"set-cookie":
            cookie = value.partition(b";")[0]
    return text, cookie


def count_objects() -> int:
    """The objects that are alive, after all garbage has gone."""
    for _ in range(3):
        gc.collect()
    return len(gc.get_objects())


def old_executions(root: Path) -> int:
    """How many executions of files in *root* are alive that are not the present ones of their names."""
    executions = [each for each in gc.get_objects() if isinstance(each, Execution) and each.path.parent == root]
    return sum(definitions.latest_execution(each.name.home) is not each for each in executions)


async def edit_and_visit(root: Path, *, edits: int, warm: int, step: int, forgotten: bool = False) -> Result:
    """Edit the script in *root*, and each third time its helper, and visit it after each edit.

    Args:
        warm: edits before the first look.
        step: edits between two looks.
        forgotten: whether there is a second visitor, who never comes back.
    """
    result = Result()
    site = Site(Directory(root))
    cookie = b""
    began = 0.0
    async with site.running():
        for version in range(1, warm + edits + 1):
            if version % 3 == 1:
                (root / "helper.py").write_text(HELPER.format(version=version))
            (root / "game.rpy").write_text(GAME.format(version=version, previous=version - 1))
            if version == warm:
                began = time.perf_counter()
            text, cookie = await visit(site, cookie)
            result.visits.append(int(text))
            if forgotten and version == 1:
                await visit(site)
            if version >= warm and (version - warm) % step == 0:
                result.objects.append(count_objects())
        result.milliseconds = (time.perf_counter() - began) * 1000 / edits
        count_objects()
        result.old_executions = old_executions(root)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=1000)
    options = parser.parse_args()
    edits = max(100, options.edits)
    with tempfile.TemporaryDirectory() as directory:
        result = trio.run(lambda: edit_and_visit(Path(directory), edits=edits, warm=100, step=edits // 10))
    grown = result.objects[-1] - result.objects[0]
    lost = result.visits != list(range(1, edits + 101))
    print(f"{edits} edits after 100, {result.milliseconds:.1f} ms each with its visit; objects: {result.objects}")
    print(f"{grown:+d} objects, {result.old_executions} old executions alive, {'some' if lost else 'no'} visit lost")
    sys.exit(lost or grown > 100 or result.old_executions > 0)


if __name__ == "__main__":
    main()
