"""Who changed a file: an author, a form, or an open page that asks for itself again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from rpyserve.http.request import Request
from rpyserve.livereload.snapshot import FileChanges
from rpyserve.livereload.write_loops import (
    AFTERMATH,
    CODE_THRESHOLD,
    FILE_CLOCK_LAG,
    LONGEST_REQUEST,
    MAX_CHAIN,
    MAX_FILES,
    MAX_RELOADS,
    OWN_CLOCK_LAG,
    POINTS_LAPSE,
    RELOAD_PERIOD,
    WriteLoopDetector,
)

SITE = os.path.abspath("/srv/site")
FILE = os.path.join(SITE, "visits.txt")
BROWSER = ("127.0.0.1", None)


class World:
    """A detector, its clock, and requests to a site."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0
        self.found: list[str] = []
        self.detector = WriteLoopDetector(self.found.append, lambda: self.time)

    @contextmanager
    def request(
        self,
        *,
        refetch: bool = False,
        method: str = "GET",
        seconds: float = 0.005,
        sources: Iterable[str] = (),
    ) -> Iterator[None]:
        """A request that runs for *seconds* after what is done inside."""
        request = Request(method, "/page")
        request._sources += sources
        self.detector.note(request, is_refetch=refetch)
        yield
        self.time += seconds
        request.close()

    def rest(self, seconds: float = 60) -> None:
        self.time += seconds

    def tried(self, path: str = FILE) -> bool:
        """Whether a change of *path* that was held back is announced after a while on trial."""
        self.time += AFTERMATH + 0.05
        assert self.detector.is_quiet()
        return path in self.detector.take_held(FileChanges({path: self.time}), [path])

    def saved(
        self,
        path: str = FILE,
        *,
        new: bool = False,
        ago: float = 0,
        stamp: float | None = None,
        is_code: bool = False,
    ) -> bool:
        """Whether a save of *path* just now is the pages' own doing."""
        when = self.time - ago if stamp is None else stamp
        batch = FileChanges({path: when}, frozenset({path} if new else ()))
        return path in self.detector.self_inflicted(batch, [path], is_code=is_code)


@pytest.fixture
def world() -> World:
    return World()


def refetched(world: World) -> bool:
    """Whether what a page's request for itself writes is taken for the page's own doing."""
    with world.request(refetch=True):
        written = world.time
    world.rest(0.02)
    return world.saved(stamp=written)


def written_by_refetching(world: World) -> bool:
    """Whether the file is held back, tried, and then taken for the page's own doing."""
    held = [refetched(world), refetched(world)]
    return held == [False, True] and world.tried() and refetched(world)


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
    assert world.found == [FILE]
    world.rest()
    assert refetched(world)
    assert not world.tried(), "it is known"
    assert world.found == [FILE]


def test_a_tool_that_saves_fast_is_not_taken_for_a_script(world: World) -> None:
    """Pages look after each save, and the next one comes while they do, or shortly after that."""
    held = []
    for _ in range(9):
        held.append(world.saved())
        if not held[-1]:
            world.rest(0.02)
            with world.request(refetch=True):
                pass
        world.rest(0.1)
    assert True in held and held.count(False) >= 5
    assert not held[-1] or world.tried(), "the last one is announced in any case"
    with world.request(refetch=True):
        pass
    world.rest()
    assert not world.saved()
    assert not world.found


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
        if world.saved(stamp=written, is_code=True):
            break
        rounds += 1
        world.rest(0.03)
    assert rounds == CODE_THRESHOLD / 2 - 1
    assert world.tried() and refetched(world)
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
    world.rest()
    assert written_by_refetching(world)
    assert world.found == [FILE]


def test_who_posts_while_others_look_is_not_taken_for_a_loop(world: World) -> None:
    for _ in range(5):
        with world.request(method="POST"), world.request(refetch=True):
            written = world.time
        assert not world.saved(stamp=written)
        world.rest(0.03)
    assert not world.found


def test_a_slow_page_that_writes_at_its_end(world: World) -> None:
    held = []
    for _ in range(2):
        with world.request(refetch=True):
            world.rest(LONGEST_REQUEST + 5)
            held.append(world.saved())
    assert held == [False, True]


@pytest.mark.parametrize("off", [-FILE_CLOCK_LAG, OWN_CLOCK_LAG], ids=["file", "own"])
def test_clocks_that_lag_behind(world: World, off: float) -> None:
    held = []
    for _ in range(2):
        with world.request(refetch=True):
            start = world.time
        held.append(world.saved(stamp=(start if off < 0 else world.time) + off / 2))
        world.rest(0.03)
    assert held == [False, True]


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
    for _ in range(2):
        assert not world.found
        assert world.tried()
        with world.request(refetch=True):
            pass
        world.rest(0.1)
        assert world.saved()
    assert world.found == [FILE]


def test_new_names_each_time(world: World) -> None:
    found = []
    for number in range(3):
        with world.request(refetch=True):
            pass
        found.append(world.saved(os.path.join(SITE, "sub", f"{number}.txt"), new=True, ago=0.003))
        world.rest(0.03)
    assert found == [False, True, True]
    world.rest(AFTERMATH)
    last = os.path.join(SITE, "sub", "2.txt")
    batch = FileChanges({last: world.time}, frozenset({last}))
    assert world.detector.take_held(batch, [last]) == {last}
    with world.request(refetch=True):
        pass
    assert world.saved(os.path.join(SITE, "sub", "3.txt"), new=True, ago=0.003)
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


# Changes that ordinary requests make


def test_which_requests_have_caused_a_change(world: World) -> None:
    with world.request(), world.request(method="POST"):
        written = world.time
    batch = FileChanges({FILE: written})
    spans = world.detector.causes(batch, [FILE])
    assert len(spans) == 2 and {span.client for span in spans} == {BROWSER}
    world.rest()
    assert not world.detector.causes(FileChanges({FILE: world.time}), [FILE])
    other = os.path.join(SITE, "other.txt")
    both = FileChanges({FILE: written, other: world.time})
    assert not world.detector.causes(both, [FILE, other]), "one of them was saved"
    folder = FileChanges({FILE: written}, frozenset({SITE}))
    assert not world.detector.causes(folder, [FILE])
    assert not world.detector.causes(batch, [])


@pytest.mark.parametrize(
    ("refetch", "sources", "may_write"),
    [
        (False, ["/site/api.rpy"], True),
        (False, [], True),  # a resource that was made by hand
        (False, ["/site/a.css"], False),
        (False, ["/site/"], False),  # there is nothing of that name
        (True, ["/site/page.rpy"], False),
    ],
)
def test_what_is_saved_while_a_page_is_brought_up_to_date_is_news_to_it(
    world: World, refetch: bool, sources: list[str], may_write: bool
) -> None:
    with world.request(refetch=refetch, sources=sources):
        batch = FileChanges({FILE: world.time})
    assert bool(world.detector.causes(batch, [FILE])) is may_write


def test_a_page_that_reloads_too_often(world: World) -> None:
    for number in range(MAX_RELOADS + 1):
        assert not world.found
        with world.request(method="POST"):
            pass
        assert not world.saved(ago=0.003), number
        for _tab in range(5):
            world.detector.note_reload(BROWSER, "/page", str(number))
        world.rest(0.3)
    assert world.found == [FILE]
    with world.request(method="POST"):
        pass
    assert world.saved(ago=0.003)
    world.rest()
    assert not world.saved(), "its author saves it"


@pytest.mark.parametrize("is_code", [False, True])
def test_it_is_one_page_that_reloads_because_of_data(world: World, is_code: bool) -> None:
    for number in range(MAX_RELOADS + 1):
        with world.request(method="POST"):
            pass
        assert not world.saved(ago=0.003, is_code=is_code)
        page = "/page" if is_code else f"/{number}"
        world.detector.note_reload(BROWSER, page, str(number))
    assert not world.found


def test_pages_that_reload_for_a_reason(world: World) -> None:
    for number in range(10):  # an author who saves, while other requests run
        with world.request(method="POST"):
            pass
        assert not world.saved(ago=0.003)
        world.rest(AFTERMATH + 0.01)
        assert not world.saved(os.path.join(SITE, "a.css"))
        world.detector.note_reload(BROWSER, "/page", str(number))
        world.detector.note_reload(BROWSER, f"/{number}", str(number))
        world.rest(0.1)
    world.rest()
    for number in range(10):  # visitors who post now and then
        with world.request(method="POST"):
            pass
        assert not world.saved(ago=0.003)
        world.detector.note_reload(BROWSER, "/page", str(number))
        world.rest(RELOAD_PERIOD / MAX_RELOADS + 0.1)
    assert not world.found


def test_two_pages_that_have_each_other_reload(world: World) -> None:
    """Each writes half a second after it has been loaded: not three times in two seconds."""
    rounds = 0
    while rounds < 20:
        world.detector.note_reload(BROWSER, f"/{rounds % 2}", str(rounds))
        world.rest(0.8)
        with world.request(method="POST"):
            pass
        if world.saved(ago=0.003):
            break
        for _ in range(2):  # both say so
            world.detector.note_caused()
        rounds += 1
    assert rounds == MAX_CHAIN + 1
    assert world.found == [FILE]


def test_pages_that_write_now_and_then(world: World) -> None:
    for _ in range(MAX_CHAIN + 2):
        with world.request(method="POST"):
            pass
        assert not world.saved(ago=0.003)
        world.detector.note_caused()
        world.rest(POINTS_LAPSE + 1)
    assert not world.found


@pytest.mark.parametrize("is_code", [False, True])
def test_pages_that_write_when_they_are_loaded_after_a_save(world: World, is_code: bool) -> None:
    for number in range(20):
        world.rest(0.5)
        assert not world.saved(os.path.join(SITE, "a.css"), is_code=is_code)
        world.detector.note_reload(BROWSER, "/page", str(number))
        with world.request(method="POST"):
            pass
        assert not world.saved(ago=0.003)
        world.detector.note_caused()
    assert not world.found
