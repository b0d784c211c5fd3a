"""Who changed a file: an author, a form, or an open page that asks for itself again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rpyserve.http.request import Request
from rpyserve.livereload.snapshot import FileChanges
from rpyserve.livereload.write_loops import (
    AFTERMATH,
    CODE_THRESHOLD,
    LONGEST_REQUEST,
    MAX_FILES,
    POINTS_LAPSE,
    WriteLoopDetector,
)

SITE = os.path.abspath("/srv/site")
FILE = os.path.join(SITE, "visits.txt")


class World:
    """A detector, its clock, and requests to a site."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0
        self.found: list[str] = []
        self.detector = WriteLoopDetector(self.found.append, lambda: self.time)

    @contextmanager
    def request(
        self, *, refetch: bool = False, method: str = "GET", seconds: float = 0.005
    ) -> Iterator[None]:
        """A request that runs for *seconds* after what is done inside."""
        request = Request(method, "/page")
        self.detector.note(request, is_refetch=refetch)
        yield
        self.time += seconds
        request.close()

    def rest(self, seconds: float = 60) -> None:
        self.time += seconds

    def saved(
        self, path: str = FILE, *, new: bool = False, ago: float = 0, stamp: float | None = None
    ) -> bool:
        """Whether a save of *path* just now is the pages' own doing."""
        when = self.time - ago if stamp is None else stamp
        batch = FileChanges({path: when}, frozenset({path} if new else ()))
        return path in self.detector.self_inflicted(batch, [path])


@pytest.fixture
def world() -> World:
    return World()


def written_by_refetching(world: World) -> bool:
    """Whether the last of two rounds in a row is taken for the page's own doing."""
    for _ in range(2):
        with world.request(refetch=True):
            written = world.time
        world.rest(0.02)
        own_doing = world.saved(stamp=written)
    return own_doing


def test_an_author_saves(world: World) -> None:
    assert not world.saved()
    with world.request():
        pass
    with world.request(refetch=True):
        pass
    world.rest()
    assert not world.saved()
    assert not world.found


def test_a_form_changes_a_file_again_and_again(world: World) -> None:
    for _ in range(5):
        with world.request(method="POST"):
            pass
        assert not world.saved(ago=0.003)
        world.rest(0.03)
        with world.request(refetch=True):  # the other tabs look
            pass
        world.rest(1)
    assert not world.found


def test_an_open_page_changes_it(world: World) -> None:
    assert written_by_refetching(world)
    world.rest()
    assert written_by_refetching(world)
    assert world.found == [FILE]


def test_once_may_be_an_author_who_saves_several_files(world: World) -> None:
    for _ in range(3):
        with world.request(refetch=True):
            written = world.time
        assert not world.saved(stamp=written)
        world.rest(POINTS_LAPSE + 1)
    with world.request(refetch=True):
        written = world.time
    assert not world.saved(stamp=written)
    world.rest(1)
    assert not world.saved(), "an author saves again"
    with world.request(refetch=True):
        written = world.time
    assert not world.saved(stamp=written)
    assert not world.found


def test_code_that_is_saved_in_haste_is_not_overlooked(world: World) -> None:
    rounds = 0
    while rounds < 100:
        with world.request(refetch=True):
            written = world.time
        if world.detector.self_inflicted(FileChanges({FILE: written}), [FILE], CODE_THRESHOLD):
            break
        rounds += 1
        world.rest(0.03)
    assert rounds == CODE_THRESHOLD / 2 - 1
    assert world.found == [FILE]


def test_then_other_requests_do_not_count_either(world: World) -> None:
    written_by_refetching(world)
    world.rest()
    with world.request():
        pass
    assert world.saved(ago=0.003)
    world.rest(AFTERMATH / 2)
    assert world.saved(), "a script may still be writing a little later"


def test_until_its_author_saves_it(world: World) -> None:
    written_by_refetching(world)
    world.rest()
    assert not world.saved()
    with world.request(method="POST"):
        pass
    assert not world.saved(ago=0.003), "it begins afresh"
    assert world.found == [FILE]


def test_named_once(world: World) -> None:
    written_by_refetching(world)
    world.rest()
    assert not world.saved()
    assert written_by_refetching(world)
    assert world.found == [FILE]


def test_who_posts_while_others_look_is_not_taken_for_a_loop(world: World) -> None:
    with world.request(method="POST"), world.request(refetch=True):
        written = world.time
    assert not world.saved(stamp=written)
    assert not world.found


def test_a_tool_that_writes_shortly_after_a_page_looked(world: World) -> None:
    with world.request(refetch=True):
        pass
    world.rest(0.1)
    assert not world.saved()
    world.rest()
    assert not world.saved()
    assert not world.found


def test_a_script_that_writes_a_little_later_each_time(world: World) -> None:
    rounds = 0
    while rounds < 10:
        with world.request(refetch=True):
            pass
        world.rest(0.1)
        if world.saved():
            break
        rounds += 1
    assert rounds == 2
    assert world.found == [FILE]


def test_new_names_each_time(world: World) -> None:
    found = []
    for number in range(3):
        with world.request(refetch=True):
            pass
        found.append(world.saved(os.path.join(SITE, "sub", f"{number}.txt"), new=True, ago=0.003))
        world.rest(0.03)
    assert found == [False, True, True]
    assert world.found == [os.path.join(SITE, "sub")]


def test_many_at_once_are_one_round(world: World) -> None:
    with world.request(refetch=True):
        pass
    world.rest(0.1)
    paths = [os.path.join(SITE, f"{n}.txt") for n in range(10)]
    batch = FileChanges(dict.fromkeys(paths, world.time), frozenset(paths))
    assert not world.detector.self_inflicted(batch, paths)


def test_a_stream_that_never_ends_says_nothing_about_who_wrote(world: World) -> None:
    with world.request():
        world.rest(LONGEST_REQUEST + 1)
        assert written_by_refetching(world)
    assert world.found == [FILE]


@pytest.mark.parametrize(
    ("stamp", "new"), [(-3600, False), (None, True)], ids=["another clock", "gone"]
)
def test_a_file_whose_time_is_not_known(world: World, stamp: float | None, new: bool) -> None:
    found = []
    for _ in range(2):
        with world.request(refetch=True):
            found.append(world.saved(stamp=0 if stamp is None else world.time + stamp, new=new))
        world.rest(0.03)
    assert found == [False, True]


def test_a_branch_switch_while_pages_ask(world: World) -> None:
    paths = [os.path.join(SITE, f"{n}.txt") for n in range(MAX_FILES + 1)]
    for _ in range(3):
        with world.request(refetch=True):
            assert not world.detector.self_inflicted(
                FileChanges(dict.fromkeys(paths, world.time)), paths
            )
        world.rest(0.03)
    assert not world.found
