"""Whose code a file or a frame is."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

from rpyserve.diagnostics.model import ExceptionReport, Frame
from rpyserve.http.request import Request
from rpyserve.resources.resource import FunctionResource
from rpyserve.util.author_code import (
    display_path,
    display_position,
    innermost_author_frame,
    is_author_code,
    outermost_author_frame,
    working_directory,
)


def test_code_of_python_and_of_packages_is_not_the_authors() -> None:
    import h11

    assert not is_author_code(json.__file__)
    assert not is_author_code(h11.__file__)
    assert not is_author_code("<frozen importlib._bootstrap>")
    assert not is_author_code(os.path.join(os.sep, "site", "venv", "lib", "site-packages", "x.py"))
    assert is_author_code(__file__)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not remove a current directory")
def test_a_current_directory_that_has_been_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert working_directory() == ""
    assert display_path("/site/a.rpy") == "/site/a.rpy"


def test_files_of_the_site_are_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    assert display_path(os.path.join(here, "sub", "a.rpy")) == os.path.join("sub", "a.rpy")
    assert display_path(__file__) == __file__


def test_own_frames_go_first_and_ours_are_never_the_place() -> None:
    own, foreign = Frame("/site/a.rpy", 1), Frame(json.__file__, 2, own=False)
    ours = Frame(display_path.__code__.co_filename, 3, own=False)
    assert ExceptionReport("", frames=(own, foreign, ours)).own_frames == (own,)
    assert ExceptionReport("", frames=(ours, foreign)).own_frames == (foreign,)
    assert ExceptionReport("", frames=(foreign, ours)).own_frames == ()


# Frames


def here() -> FrameType:
    return sys._getframe(1)


def rendered(function: Callable[[Request], Any]) -> None:
    """Have *function* called as a script's is: below frames of rpyserve and trio."""

    async def main() -> None:
        FunctionResource(function).render(Request("GET", "/"))

    trio.run(main)


def test_the_authors_frame_is_found() -> None:
    seen: list[tuple[FrameType | None, FrameType]] = []

    def page(request: Request) -> str:
        seen.append((innermost_author_frame(here()), here()))
        return ""

    rendered(page)
    assert seen[0][0] is seen[0][1]


def test_pythons_own_frames_are_skipped() -> None:
    """The author's code calls json, which is at work."""
    seen: list[FrameType | None] = []
    code: list[object] = []

    def page(request: Request) -> str:
        code.append(here().f_code)
        frame = None

        def note(frame: FrameType, event: str, arg: object) -> None:
            if frame.f_code.co_filename == json.__file__:
                seen.append(innermost_author_frame(frame))

        sys.setprofile(note)
        json.dumps({})
        sys.setprofile(None)
        return str(frame)

    rendered(page)
    assert seen
    assert all(frame is not None and frame.f_code is code[0] for frame in seen)


def test_our_own_work_is_not_the_authors() -> None:
    seen: list[FrameType | None] = []

    def page(request: Request) -> str:
        def note(frame: FrameType, event: str, arg: object) -> None:
            if frame.f_code.co_name == "setHeader":
                seen.append(innermost_author_frame(frame))

        sys.setprofile(note)
        request.setHeader("X-A", "b")
        sys.setprofile(None)
        return ""

    rendered(page)
    assert seen
    assert set(seen) == {None}


def test_a_program_below_the_loop_is_not_meant() -> None:
    """The author's own program calls `run`, and the loop waits: no code of the author runs."""
    seen: list[FrameType | None] = []

    async def main() -> None:
        def look() -> None:
            seen.append(innermost_author_frame(sys._current_frames()[thread]))

        await trio.to_thread.run_sync(look)

    thread = threading.get_ident()
    trio.run(main)
    assert seen == [None]


def test_no_frame() -> None:
    assert innermost_author_frame(None) is None


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frame = here()
    monkeypatch.chdir(tmp_path)
    assert display_position(frame) == f"{__file__}, line {frame.f_lineno}"
    monkeypatch.chdir(Path(__file__).parent)
    assert display_position(frame) == f"{Path(__file__).name}, line {frame.f_lineno}"


def test_the_outermost_frame_is_that_of_the_task() -> None:
    """This file runs the loop as well, which counts for nothing."""
    found: list[FrameType | None] = []

    def inner() -> None:
        found.append(outermost_author_frame(here()))

    async def outer() -> None:
        inner()

    trio.run(outer)
    assert [frame and frame.f_code.co_name for frame in found] == ["outer"]
    assert outermost_author_frame(here()) is None
    assert outermost_author_frame(None) is None
