"""Many files that ``cache()`` names are looked at in a thread, and what is served is never old."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rpyserve.scripts import file_state, loader
from rpyserve.scripts.file_state import State
from tests.support.edited_site import Editing

PAGE = """
from pathlib import Path
from rpyserve import cache
cache("data/")
text = ", ".join(sorted(path.read_text() for path in Path(__file__).parent.glob("data/*")))
def resource(request): return text
"""


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Editing]:
    monkeypatch.setattr(loader, "MANY_FILES", 1)
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        (tmp_path / "data" / name).write_text(name)
    (tmp_path / "a.rpy").write_text(PAGE)
    async with Editing.at(tmp_path) as editing:
        yield editing


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each look at several files, whether it was in the thread of the event loop."""
    found: list[bool] = []
    own, look = threading.get_ident(), file_state.any_changed

    def note(states: tuple[State, ...]) -> bool:
        if isinstance(states, tuple) and states:
            found.append(threading.get_ident() == own)
        return look(states)

    monkeypatch.setattr(file_state, "any_changed", note)
    return found


async def test_they_are_looked_at_in_a_thread(site: Editing, threads: list[bool]) -> None:
    for _ in range(3):
        assert await site.get() == "one, two"
    assert threads == [False, False], "the first request executes the script"


async def test_each_edit_shows_at_once(site: Editing) -> None:
    expected = {"one": "one", "two": "two"}
    for name, text in [("one", "ONE"), ("three", "three"), ("two", "TWO"), ("two", "2")]:
        assert await site.get() == ", ".join(sorted(expected.values()))
        (site.root / "data" / name).write_text(text)
        expected[name] = text
    assert await site.get() == ", ".join(sorted(expected.values()))
    (site.root / "data" / "one").unlink()
    assert await site.get() == "2, three"
    (site.root / "a.rpy").write_text(PAGE.replace("return text", "return text + '.'"))
    assert await site.get() == "2, three."


async def test_a_save_after_the_look_is_for_later_requests(
    site: Editing, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await site.get() == "one, two"
    look = loader.ScriptLoader._look_at_many

    async def look_and_save(self: loader.ScriptLoader, *args: object) -> None:
        await look(self, *args)  # type: ignore[arg-type]
        (site.root / "data" / "two").write_text("TWO")

    with monkeypatch.context() as patch:
        patch.setattr(loader.ScriptLoader, "_look_at_many", look_and_save)
        assert await site.get() == "one, two"
    assert await site.get() == "TWO, one"


async def test_few_are_looked_at_without_a_thread(
    site: Editing, threads: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "MANY_FILES", 3)
    for _ in range(3):
        assert await site.get() == "one, two"
    assert threads == []
