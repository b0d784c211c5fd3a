"""A site that is edited between requests, asked without a socket: what tests of edits share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rpyserve import Directory, Site
from tests.support.in_process import Visitor

HEAD = """
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum, auto
from typing import NamedTuple
from rpyserve import Attribute, Interface, Registry, Resource, Session, cache, implementer, registerAdapter, registry
cache()
"""


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the console was told of objects from before an edit.

    A busy machine may have more to say.
    """
    modules = "migration", "missing_attributes"
    return [record.getMessage() for record in caplog.records if record.module in modules]


class Editing:
    """Saves scripts and asks for them, as one visitor."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.site = Site(Directory(root))
        self.visitor = Visitor(self.site)

    @classmethod
    @asynccontextmanager
    async def at(cls, root: Path) -> AsyncIterator[Editing]:
        self = cls(root)
        async with self.site.running():
            yield self

    def save(self, text: str, name: str = "a.rpy") -> None:
        """Save *text*; a script gets `HEAD`, which calls ``cache()``."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text((HEAD if name.endswith(".rpy") else "") + text, encoding="utf-8")

    def script(self, definitions: str, answer: str, name: str = "a.rpy") -> None:
        """Save a script that answers with the expression *answer*.

        In it, ``s`` is the visitor's session.
        """
        page = (
            f"def resource(request):\n    s = request.getSession()\n    answer = {answer}\n   "
            " return str(answer)\n"
        )
        self.save(definitions + "\n\n" + page, name)

    async def get(
        self, target: str = "/a", visitor: Visitor | None = None, status: int = 200
    ) -> str:
        answer = await (visitor or self.visitor).get(target)
        assert answer.status == status, answer.text[-3000:]
        return answer.text
