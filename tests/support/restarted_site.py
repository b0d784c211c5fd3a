"""A site that is started again after each edit: what its sessions and registry hold goes through
records.

Nothing of a site is left when the next one starts: its modules and scripts are executed anew, as in
another process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from rpyserve import Directory, Session, Site
from rpyserve.sessions.session import schedule, unschedule
from rpyserve.stores.codec import Codec, Dumped, key_of
from tests.support.edited_site import Editing
from tests.support.in_process import Visitor

KEYS = [b"a secret of 32 bytes for the test"]


def keep(site: Any, session: Session) -> Dumped:
    """The record of *session*."""
    return Codec(site, KEYS).dump(session, key_of(session.uid))


def come_back(site: Site, uid: str, dumped: Dumped, like: Session | None = None) -> Session:
    """Have the session of a record live in *site*; its time is that of the session *like*."""
    store = site.sessions
    session = Codec(site, KEYS).load(uid, key_of(uid), dumped.blob)
    session._store = store
    session._last_access = store.now() if like is None else like._last_access
    session._timeout = store.timeout_of(session) if like is None else like._timeout
    store._live.put(uid, session)
    schedule(session, store._timer)
    return session


class Restarting(Editing):
    """Starts the site again before the first request after an edit."""

    def __init__(self, root: Path, nursery: trio.Nursery) -> None:
        super().__init__(root)
        self._nursery = nursery
        self._present = self.site
        self._stop, self._stopped = trio.Event(), trio.Event()
        self._is_edited = False
        self._was_visited = False
        self.left_out: list[str] = []
        self.site: Any = _Front(self)
        self.visitor = Visitor(self.site)

    @classmethod
    @asynccontextmanager
    async def at(cls, root: Path) -> AsyncIterator[Restarting]:
        async with trio.open_nursery() as nursery:
            self = cls(root, nursery)
            await nursery.start(self._run, self._present)
            yield self
            await self._end()

    def save(self, text: str, name: str = "a.rpy") -> None:
        super().save(text, name)
        self._is_edited = True

    async def get(
        self, target: str = "/a", visitor: Visitor | None = None, status: int = 200
    ) -> str:
        if self._is_edited and self._was_visited:
            await self.restart()
        self._is_edited, self._was_visited = False, True
        return await super().get(target, visitor, status)

    async def restart(self) -> None:
        """Start the site again, with all that it keeps."""
        before = self._present
        kept = [(session, keep(before, session)) for session in before.sessions]
        registry = Codec(before, KEYS).dump_registry()
        for dumped in (*(dumped for _, dumped in kept), registry):
            self.left_out += map(str, dumped.left_out)
        await self._end()

        site = self._present = Site(Directory(self.root))
        self._stop, self._stopped = trio.Event(), trio.Event()
        await self._nursery.start(self._run, site)
        Codec(site, KEYS).load_registry(registry.blob)
        for session, dumped in kept:
            come_back(site, session.uid, dumped, session)

    async def _end(self) -> None:
        """Stop the site; no session ends by that, as they are kept."""
        for session in self._present.sessions:
            self._present.sessions._live.pop(session.uid)
            unschedule(session)
        self._stop.set()
        await self._stopped.wait()

    async def _run(
        self, site: Site, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        stop, stopped = self._stop, self._stopped
        async with site.running():
            task_status.started()
            await stop.wait()
        stopped.set()


class _Front:
    """The site that runs at present."""

    def __init__(self, editing: Restarting) -> None:
        self.__dict__["_editing"] = editing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._editing._present, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._editing._present, name, value)
