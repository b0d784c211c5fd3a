"""A save is executed once, whether a request or the watcher's event sees it first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from rpyserve.livereload.live_reload import LiveReload
from rpyserve.livereload.snapshot import FileChanges
from tests.support.edited_site import Editing

pytestmark = pytest.mark.usefixtures("autojump_clock")

RUNS = "registry['runs'] = registry.get('runs', 0) + 1\n"
SHOW = "def resource(request): return str(registry['runs'])\n"
TASK = (
    "async def work():\n    registry['started'] = registry.get('started', 0) + 1\n"
    "    import trio\n    await trio.sleep_forever()\n"
    "background(work)\n"
)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Editing]:
    async with Editing.at(tmp_path) as editing:
        yield editing


def save(site: Editing, name: str, text: str) -> FileChanges:
    """Save a file; returns what the watcher will tell of it."""
    (site.root / name).write_text(text, encoding="utf-8")
    return FileChanges(files={str(site.root / name): 0.0})


@pytest.mark.parametrize("request_first", [True, False])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.rpy", f"cache()\nfrom rpyserve import background\n{RUNS}{TASK}{SHOW}"),
        ("helper.py", f"from rpyserve import background, registry\n{RUNS}{TASK}"),
    ],
)
async def test_a_save_is_executed_once(
    site: Editing, request_first: bool, name: str, text: str
) -> None:
    live_reload = LiveReload(site.site)
    save(site, "a.rpy", f"cache()\nimport helper\n{SHOW}")
    save(site, name, text)
    assert await site.get() == "1"
    await trio.testing.wait_all_tasks_blocked()
    assert site.site.registry["started"] == 1
    for number in (2, 3):
        changes = save(site, name, f"{text}# {number}\n")
        if request_first:
            assert await site.get() == f"{number}"
        live_reload._on_batch(changes)
        live_reload._on_batch(changes)  # polling may see it again
        assert await site.get() == f"{number}"
        await trio.testing.wait_all_tasks_blocked()
        assert site.site.registry["started"] == number
