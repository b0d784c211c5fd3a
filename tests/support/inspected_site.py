"""A directory of scripts with its inspector, served over connections in memory."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import trio

from rpyserve import Directory, Site
from rpyserve.check.findings import Finding, Rule
from rpyserve.inspector.edits import Edits
from rpyserve.inspector.recorder import Recorder
from rpyserve.livereload.change_feed import ChangeFeed, Showing
from rpyserve.livereload.live_reload import SavedFile
from rpyserve.protocol.server_state import Shutdown
from rpyserve.serving.run import _inspect, _with_own_pages
from tests.support.http_client import Reply, connect_to, head


class InspectedSite:
    """What is served.

    Args:
        root: its directory.
        nursery: where its connections are served.
    """

    def __init__(self, root: Path, nursery: trio.Nursery) -> None:
        self.root = root
        self.site = Site(Directory(root))
        self.shutdown = Shutdown()
        self.recorder = self.site.recorder = Recorder(self.shutdown.running)
        self.edits = Edits([str(root)], lambda path: str(Path(path).relative_to(root)), _found)
        inspect = _inspect(
            self.site, self.recorder, ChangeFeed(), "a-token", dict, self, lambda: self.edits
        )
        self._respond = _with_own_pages(self.site.respond, None, inspect)
        self.askers = 0
        self._nursery = nursery

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    async def edit(self, name: str, text: str) -> None:
        """Save a script, and have its edit settle without a page that is open."""
        self.write(name, text)
        path, now = str(self.root / name), time.time()
        file = SavedFile(path, str(self.root), name, "changed", "script", "a script", now)
        edit = self.edits.begin([file], now, now, {path: text.encode()})
        await self.edits.examine(edit)
        edit.settle(Showing(0, {}), now)

    async def wait_look(self, seconds: float) -> bool:
        return True

    def browser(self) -> Browser:
        return Browser(self)

    def connect(self) -> Any:
        return connect_to(
            self._respond,
            self._nursery,
            on_record=self._keep,
            recorder=self.recorder,
            shutdown=self.shutdown,
        )

    def _keep(self, record: Any) -> None:
        if record.request is None or record.request._logged:
            self.recorder.keep(record)


def _found(root: str, sources: Mapping[str, bytes]) -> Mapping[str, Sequence[Finding]]:
    return {
        name: [Finding(1, Rule.UNDEFINED_NAME, data.decode(), "")] for name, data in sources.items()
    }


class Browser:
    """A visitor who keeps cookies, and looks at the inspector."""

    def __init__(self, served: InspectedSite) -> None:
        self._client = served.connect()
        self.cookies: dict[str, str] = {}

    async def ask(self, method: str, target: str, body: bytes = b"", *fields: str) -> Reply:
        if self.cookies:
            pairs = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            fields = (*fields, f"Cookie: {pairs}")
        if body or method == "POST":
            fields = (*fields, f"Content-Length: {len(body)}")
        await self._client.send(head(method, target, *fields) + body)
        reply: Reply = await self._client.reply(method)
        if cookie := reply.headers.get("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return reply

    async def get(self, target: str, *fields: str) -> Reply:
        return await self.ask("GET", target, b"", *fields)

    async def look(self, view: str, **query: object) -> Any:
        """The data of a view; of an error, its fields."""
        reply = await self.get(f"/-/{view}.json?{urlencode(query)}")
        return json.loads(reply.body)

    async def act(self, action: str, **fields: Any) -> Any:
        """Do an action, with the token that the pages have."""
        page = (await self.get("/-/clock")).text
        token = page.partition('name=token value="')[2].partition('"')[0]
        body = json.dumps({"token": token} | fields).encode()
        reply = await self.ask("POST", f"/-/{action}", body, "Content-Type: application/json")
        return json.loads(reply.body)


@asynccontextmanager
async def inspected(root: Path) -> AsyncIterator[InspectedSite]:
    async with trio.open_nursery() as nursery:
        served = InspectedSite(root, nursery)
        async with served.site.running():
            served.edits.observe(served.site)
            yield served
        served.recorder.close()
        nursery.cancel_scope.cancel()
