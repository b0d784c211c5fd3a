"""What names lead to is remembered while it is true."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rpyserve
from rpyserve import Directory, HTTPError, Request, Response
from rpyserve.files import static_file
from rpyserve.files.directory import MAX_DIRECTORIES, MAX_NAMES, EntryCache
from rpyserve.files.safe_open import LENIENT
from rpyserve.files.static_file import SmallFileCache
from rpyserve.http.response import FileBody
from rpyserve.scripts.file_state import FileSystem

LATER = 10.0
"""Seconds after which what has not changed is trusted."""

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
where_remembered = pytest.mark.skipif(
    LENIENT, reason="nothing is remembered where letters of names may differ"
)


class Watched:
    """Real eyes with a clock of its own; *stamp*, if set, is each directory's time stamp."""

    def __init__(self) -> None:
        self.time = 0.0
        self.stamp: int | None = None
        self.looks = 0
        self.eyes = FileSystem(self.stat, lambda: self.time)

    def stat(self, path: str) -> Any:
        self.looks += 1
        found = os.stat(path)
        if self.stamp is None:
            return found
        return SimpleNamespace(
            st_mode=found.st_mode,
            st_size=0,
            st_ino=found.st_ino,
            st_mtime_ns=self.stamp,
            st_ctime_ns=self.stamp,
        )


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def entries(watched: Watched) -> EntryCache[str]:
    return EntryCache(watched.eyes, lenient=False)


def settled(entries: EntryCache[str], watched: Watched, directory: Path) -> None:
    """Have *directory* be old, and "a" be known of it."""
    entries.of(str(directory))
    watched.time += LATER
    entries.of(str(directory))
    entries.of(str(directory))["a"] = "found"
    assert entries.of(str(directory)) == {"a": "found"}


@pytest.mark.parametrize(
    "edit",
    [
        lambda directory: (directory / "new").write_text(""),
        lambda directory: (directory / "new").mkdir(),
        lambda directory: (directory / "old").unlink(),
        lambda directory: (directory / "old").rename(directory / "other"),
        lambda directory: (directory / "other.tmp").replace(directory / "old"),
    ],
)
def test_any_change_of_names_is_seen(
    tmp_path: Path, watched: Watched, entries: EntryCache[str], edit: Callable[[Path], object]
) -> None:
    (tmp_path / "old").write_text("1")
    (tmp_path / "other.tmp").write_text("2")
    settled(entries, watched, tmp_path)
    edit(tmp_path)
    assert entries.of(str(tmp_path)) == {}


def test_another_directory_in_its_place_is_seen(
    tmp_path: Path, watched: Watched, entries: EntryCache[str]
) -> None:
    (tmp_path / "d").mkdir()
    settled(entries, watched, tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / "e")
    assert entries.of(str(tmp_path / "d")) == {}
    (tmp_path / "d").mkdir()
    assert entries.of(str(tmp_path / "d")) == {}


def test_a_young_time_stamp_is_not_trusted(
    tmp_path: Path, watched: Watched, entries: EntryCache[str]
) -> None:
    watched.stamp = 1  # a clock that steps: what changes now has the same one
    for moment in (0.0, 1.0, 1.9):
        watched.time = moment
        entries.of(str(tmp_path))["a"] = "found"
        assert entries.of(str(tmp_path)) == {}
    watched.time = 2.1
    assert entries.of(str(tmp_path)) == {}, (
        "what was found before the time was over may be out of date"
    )
    entries.of(str(tmp_path))["a"] = "found"
    assert entries.of(str(tmp_path)) == {"a": "found"}
    watched.stamp = 2
    assert entries.of(str(tmp_path)) == {}


def test_one_look_a_request(tmp_path: Path, watched: Watched, entries: EntryCache[str]) -> None:
    settled(entries, watched, tmp_path)
    before = watched.looks
    for _ in range(5):
        entries.of(str(tmp_path))
    assert watched.looks == before + 5


def test_nothing_is_remembered_where_other_letters_find_a_file(
    tmp_path: Path, watched: Watched
) -> None:
    entries: EntryCache[str] = EntryCache(watched.eyes, lenient=True)
    entries.of(str(tmp_path))["a"] = "found"
    assert entries.of(str(tmp_path)) == {}


def test_few_directories_are_remembered(entries: EntryCache[str]) -> None:
    for number in range(3 * MAX_DIRECTORIES):
        entries.of(f"/none/{number}")
    assert len(entries._directories) <= MAX_DIRECTORIES


def test_few_names_are_remembered(
    tmp_path: Path, watched: Watched, entries: EntryCache[str]
) -> None:
    settled(entries, watched, tmp_path)
    most = 0
    for number in range(MAX_NAMES + 5):
        known = entries.of(str(tmp_path))
        entries.remember(known, f"{number}", "missing")
        entries.remember(known, f"{number:0256}", "missing")
        most = max(most, len(known))
    assert most == MAX_NAMES + 1, '"a" was known before'
    assert entries.of(str(tmp_path)) == {}


def test_names_that_are_forgotten_make_room(
    tmp_path: Path, watched: Watched, entries: EntryCache[str]
) -> None:
    young = tmp_path / "young"
    young.mkdir()
    settled(entries, watched, tmp_path)
    for _ in range(2 * MAX_NAMES):  # each time it is looked up anew
        entries.remember(entries.of(str(young)), "b", "found")
    known = entries.of(str(tmp_path))
    assert known == {"a": "found"}
    for _ in range(2 * MAX_NAMES):
        entries.remember(known, "c", "found")
    assert entries.of(str(tmp_path)) == {"a": "found", "c": "found"}


# In a directory of the site


class Site:
    def __init__(self, root: Path, watched: Watched) -> None:
        self.root = root
        self.watched = watched
        self.directory = Directory(root)
        self.directory._tree.entries = EntryCache(watched.eyes)
        self.directory._tree.small_files = SmallFileCache(watched.eyes)
        self.write("a.rpy", "resource = lambda request: 'script'")
        self.found = 0

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    async def get(self, name: str, *headers: tuple[bytes, bytes], method: str = "GET") -> Response:
        request = Request(method, f"/{name}", [(b"host", b"localhost"), *headers])
        response = await rpyserve.Site(self.directory).respond(request)
        request.close()
        return response

    def ask(self, name: str = "a") -> str:
        """What the name leads to; several times, so that it is remembered if ever."""
        kind = ""
        for _ in range(3):
            request = Request("GET", f"/{name}")
            request.site = rpyserve.Site(self.directory)
            request.prepath, request.postpath = [name], []
            self.watched.time += LATER
            try:
                kind = type(self.directory.getChild(name, request)).__name__
            except HTTPError as exc:
                kind = str(exc.status)
            finally:
                request.close()
        return kind


@pytest.fixture
def site(tmp_path: Path, watched: Watched) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", watched)
    yield site
    site.directory.scripts.close()


def test_what_comes_before_a_script_wins_at_once(site: Site) -> None:
    assert site.ask() == "FunctionResource"
    site.write("a", "a file")
    assert site.ask() == "StaticFile"
    (site.root / "a").unlink()
    assert site.ask() == "FunctionResource"
    (site.root / "a").mkdir()
    assert site.ask() == "_Subdirectory"
    (site.root / "a").rmdir()
    (site.root / "a.rpy").unlink()
    assert site.ask() == "404"
    site.write("a.rpy", "resource = lambda request: 'again'")
    assert site.ask() == "FunctionResource"


def test_an_index_is_remembered_and_forgotten(site: Site) -> None:
    assert site.ask("") == "_Listing"
    site.write("index.html", "")
    assert site.ask("") == "StaticFile"
    site.write("index.rpy", "resource = lambda request: 'index'")
    assert site.ask("") == "FunctionResource"
    (site.root / "index.rpy").unlink()
    assert site.ask("") == "StaticFile"


def test_an_index_has_the_very_name_whatever_is_asked_first(site: Site) -> None:
    site.write("index.html.rpy", "resource = lambda request: 'index.html'")
    assert site.ask("") == "_Listing"
    assert site.ask("index.html") == "FunctionResource"
    assert site.ask("") == "_Listing"


@needs_links
def test_where_a_link_leads_is_looked_up_each_time(site: Site, tmp_path: Path) -> None:
    (tmp_path / "out.rpy").write_text("resource = lambda request: 'out'")
    (site.root / "real").mkdir()
    (site.root / "real" / "b.txt").write_text("")
    (site.root / "b.txt").symlink_to(site.root / "real" / "b.txt")
    assert site.ask("b.txt") == "StaticFile"
    (site.root / "real").rename(tmp_path / "real")
    (site.root / "real").symlink_to(tmp_path / "real")
    assert site.ask("b.txt") == "404", (
        "the directory of the link is the same, but it leads out of the site now"
    )


@needs_links
def test_a_script_that_becomes_a_link_is_judged(site: Site, tmp_path: Path) -> None:
    assert site.ask() == "FunctionResource"
    (tmp_path / "out.rpy").write_text("resource = lambda request: 'out'")
    (site.root / "a.rpy").unlink()
    (site.root / "a.rpy").symlink_to(tmp_path / "out.rpy")
    assert site.ask() == "404"


@where_remembered
def test_a_known_name_takes_one_look(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ask()
    monkeypatch.setattr(Directory, "_look_up", None)
    assert site.ask() == "FunctionResource"


@where_remembered
def test_a_name_that_leads_nowhere_takes_one_look(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.ask("b") == "404"
    with monkeypatch.context() as patch:
        patch.setattr(Directory, "_look_up", None)
        patch.setattr(Directory, "_names", None)
        assert site.ask("b") == "404"
    site.write("b", "")
    assert site.ask("b") == "StaticFile"


@needs_links
def test_a_link_that_leads_nowhere_is_looked_up_each_time(site: Site) -> None:
    (site.root / "real").mkdir()
    (site.root / "b.txt").symlink_to(site.root / "real" / "b.txt")
    assert site.ask("b.txt") == "404"
    (site.root / "real" / "b.txt").write_text("")
    assert site.ask("b.txt") == "StaticFile"


# Small files in memory


async def settle(site: Site, name: str) -> None:
    """Ask for *name* until it is served from memory."""
    for _ in range(3):
        assert (await site.get(name)).status == 200
        site.watched.time += LATER


async def test_a_small_file_is_read_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write("a.txt", "one")
    await settle(site, "a.txt")
    with monkeypatch.context() as patch:
        patch.setattr(static_file, "open_checked", None)
        patch.setattr(static_file, "etag_of", None)
        whole = await site.get("a.txt")
        assert (whole.status, whole.body) == (200, b"one")
        tag = dict(whole.headers)[b"ETag"]
        assert (await site.get("a.txt", (b"if-none-match", tag))).status == 304
        assert (await site.get("a.txt", (b"if-match", b'"x"'))).status == 412
        part = await site.get("a.txt", (b"range", b"bytes=1-"))
        assert (part.status, part.body) == (206, b"ne")
        assert (await site.get("a.txt", method="HEAD")).status == 200
        assert (await site.get("a.txt", method="POST")).status == 405


async def test_an_edit_of_a_file_in_memory_is_served_at_once(site: Site) -> None:
    site.write("a.txt", "one")
    await settle(site, "a.txt")
    for text in ("two", "six", "longer"):
        site.write("a.txt", text)
        assert (await site.get("a.txt")).body == text.encode()
    (site.root / "new").write_text("renamed")
    (site.root / "new").replace(site.root / "a.txt")
    assert (await site.get("a.txt")).body == b"renamed"
    (site.root / "a.txt").unlink()
    assert (await site.get("a.txt")).status == 404


async def test_a_file_that_is_no_longer_small_is_not_served_as_it_was(
    site: Site, watched: Watched
) -> None:
    site.write("a.txt", "small")
    await settle(site, "a.txt")
    site.write("a.txt", "x" * (static_file.SMALL + 1))
    for _ in range(3):
        assert isinstance((await site.get("a.txt")).body, FileBody)
        watched.time += LATER


async def test_a_file_that_may_no_longer_be_read_is_not_served_as_it_was(
    site: Site, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("a.txt", "one")
    await settle(site, "a.txt")

    def refuse(path: str, judge: object) -> None:
        raise HTTPError(403)

    monkeypatch.setattr(static_file, "open_checked", refuse)
    site.write("a.txt", "secret")
    for _ in range(3):
        assert (await site.get("a.txt")).status == 403
        watched.time += LATER


async def test_an_edit_that_leaves_the_signature_shows_while_the_file_is_young(site: Site) -> None:
    site.watched.stamp = 1
    for text in ("one", "two"):
        site.write("a.txt", text)
        assert (await site.get("a.txt")).body == text.encode()


@needs_links
async def test_a_file_in_memory_is_not_served_once_its_directory_leads_out(
    site: Site, tmp_path: Path
) -> None:
    (site.root / "sub").mkdir()
    site.write("sub/a.txt", "one")
    await settle(site, "sub/a.txt")
    (site.root / "sub").rename(tmp_path / "sub")
    (site.root / "sub").symlink_to(tmp_path / "sub")
    assert (await site.get("sub/a.txt")).status == 404


@needs_links
async def test_what_a_link_leads_to_is_not_kept(site: Site, tmp_path: Path) -> None:
    site.write("a.txt", "one")
    (site.root / "link.txt").symlink_to(site.root / "a.txt")
    await settle(site, "link.txt")
    (tmp_path / "secret.txt").write_text("secret")
    (site.root / "link.txt").unlink()
    (site.root / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert (await site.get("link.txt")).status == 404


@where_remembered
async def test_memory_for_small_files_is_bounded(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_file, "MOST_IN_MEMORY", 10)
    monkeypatch.setattr(static_file, "MOST_FILES", 3)
    cache = site.directory._tree.small_files
    assert cache is not None
    for number in range(6):
        site.write(f"{number}.txt", "four")
        assert (await site.get(f"{number}.txt")).body == b"four"
        assert len(cache._files) <= 2
    for number in range(6):
        site.write(f"{number}.txt", "")
        assert (await site.get(f"{number}.txt")).body == b""
        assert len(cache._files) <= 3
    assert cache._size == 0
