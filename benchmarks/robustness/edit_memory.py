"""Edits of one script, each followed by a visit: does memory stay flat, and is every visit counted?

``python -m benchmarks.robustness.edit_memory --edits 1000``; the tests run the same with fewer
edits. The script keeps a component, values of many kinds, and a callback, and sets a `Session`
subclass. Objects are counted after a full collection. An execution counts as old if it is alive and
not the present one.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from benchmarks.common.options import option_parser
from rpyserve import Directory, Request, Site
from rpyserve.scripts import definitions
from rpyserve.scripts.execution import Execution

WARM_UP = 100
MOST_GROWTH = 100
"""How many objects there may be more at the end."""

GAME = """
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from rpyserve import Attribute, Interface, Resource, Session
from rpyserve import cache, implementer, registerAdapter, registry
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
        assert game.turn is Turn.X and isinstance(game, Game), game
        assert isinstance(game.board, Board), game
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
    """What was seen.

    Attributes:
        visits: what the script said of each visit.
        objects: how many objects were alive at each count.
        old_executions: how many were alive at the end.
        milliseconds: for each edit, with its visit.
    """

    visits: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    old_executions: int = 0
    milliseconds: float = 0


async def visit(site: Site, cookie: bytes = b"") -> tuple[str, bytes]:
    """One request. Returns the text, and the cookie to send next time."""
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
    """How many objects are alive, after full collections."""
    for _ in range(3):
        gc.collect()
    return len(gc.get_objects())


def count_old_executions(root: Path) -> int:
    """How many executions of files in *root* are alive that are not the present ones."""
    executions = [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, Execution) and thing.path.parent == root
    ]
    return sum(
        definitions.latest_execution(execution.name.home) is not execution
        for execution in executions
    )


async def edit_and_visit(
    root: Path, *, edits: int, warm_up: int, step: int, second_visitor: bool = False
) -> Result:
    """Edit the script in *root*, and each third time its helper, and visit it after each edit.

    Args:
        root: an empty directory.
        edits: how many edits are counted.
        warm_up: edits before the first count of objects.
        step: edits between two counts.
        second_visitor: whether there is another visitor, who never comes back.
    """
    result = Result()
    site = Site(Directory(root))
    cookie = b""
    began = 0.0
    async with site.running():
        for version in range(1, warm_up + edits + 1):
            if version % 3 == 1:
                (root / "helper.py").write_text(HELPER.format(version=version))
            (root / "game.rpy").write_text(GAME.format(version=version, previous=version - 1))
            if version == warm_up:
                began = time.perf_counter()
            text, cookie = await visit(site, cookie)
            result.visits.append(int(text))
            if second_visitor and version == 1:
                await visit(site)
            if version >= warm_up and (version - warm_up) % step == 0:
                result.objects.append(count_objects())
        result.milliseconds = (time.perf_counter() - began) * 1000 / edits
        count_objects()
        result.old_executions = count_old_executions(root)
    return result


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--edits", type=int, default=1000)
    edits = max(100, parser.parse_args().edits)
    with tempfile.TemporaryDirectory() as directory:
        result = trio.run(
            lambda: edit_and_visit(Path(directory), edits=edits, warm_up=WARM_UP, step=edits // 10)
        )
    growth = result.objects[-1] - result.objects[0]
    lost = result.visits != list(range(1, edits + WARM_UP + 1))
    print(
        f"{edits} edits after {WARM_UP}, {result.milliseconds:.1f} ms each with its visit; "
        f"objects: {result.objects}\n{growth:+d} objects, {result.old_executions} old executions "
        f"alive, {'some visits' if lost else 'no visit'} lost"
    )
    sys.exit(lost or growth > MOST_GROWTH or result.old_executions > 0)


if __name__ == "__main__":
    main()
