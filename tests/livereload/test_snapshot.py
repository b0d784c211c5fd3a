"""What a site's directories hold, and what has changed since the last scan."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rpyserve.livereload import snapshot as snapshots
from rpyserve.livereload.snapshot import (
    MAX_READ,
    MAX_SIZE,
    MIN_COST,
    READ_FOR,
    FileChanges,
    Snapshot,
)
from rpyserve.scripts.file_state import SETTLE_TIME, FileSystem


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("a.rpy", "style.css", "sub/b.rpy", "sub/deep/c.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture
def snapshot(site: Path) -> Snapshot:
    snapshot = Snapshot([str(site)])
    snapshot.scan()
    return snapshot


def names(site: Path, paths: object) -> set[str]:
    assert isinstance(paths, (frozenset, set, dict))
    return {Path(os.path.relpath(path, site)).as_posix() for path in paths}


def heard(snapshot: Snapshot, site: Path, *files: str) -> FileChanges | None:
    return snapshot.check(str(site / file) for file in files)


def stat_of_old(path: str) -> os.stat_result:
    """Says that the file was saved in 2001."""
    found = os.stat(path)
    return os.stat_result(found, {"st_mtime_ns": 10**18, "st_ctime_ns": 10**18})


def test_the_first_scan_finds_everything_new(site: Path) -> None:
    batch = Snapshot([str(site)]).scan()
    assert names(site, batch.files) == {"a.rpy", "style.css", "sub/b.rpy", "sub/deep/c.txt"}
    assert names(site, batch.directories) == {".", "sub", "sub/deep"}


def test_nothing_has_changed(snapshot: Snapshot) -> None:
    assert not snapshot.scan()


@pytest.mark.parametrize("everything", [True, False], ids=["all", "heard of"])
class TestSaves:
    """However an editor saves, it is one changed file, in a directory with the same names."""

    def after(self, snapshot: Snapshot, site: Path, everything: bool, *others: str) -> FileChanges:
        batch = snapshot.scan() if everything else heard(snapshot, site, "a.rpy", *others)
        assert batch is not None
        return batch

    def test_in_place(self, snapshot: Snapshot, site: Path, everything: bool) -> None:
        (site / "a.rpy").write_text("edited")
        batch = self.after(snapshot, site, everything)
        assert (names(site, batch.files), batch.added_or_removed, batch.incomplete) == (
            {"a.rpy"},
            set(),
            set(),
        )
        assert batch.files[str(site / "a.rpy")] == pytest.approx(os.stat(site / "a.rpy").st_mtime)

    def test_temporary_file_and_rename(
        self, snapshot: Snapshot, site: Path, everything: bool
    ) -> None:
        (site / "4913").write_text("edited")
        os.replace(site / "4913", site / "a.rpy")
        batch = self.after(snapshot, site, everything, "4913")
        assert (names(site, batch.files), batch.added_or_removed) == ({"a.rpy"}, set())

    def test_delete_and_create(self, snapshot: Snapshot, site: Path, everything: bool) -> None:
        (site / "a.rpy").unlink()
        (site / "a.rpy").write_text("edited")
        batch = self.after(snapshot, site, everything)
        assert (names(site, batch.files), batch.added_or_removed) == ({"a.rpy"}, set())

    def test_touch_only(self, snapshot: Snapshot, site: Path, everything: bool) -> None:
        os.utime(site / "a.rpy", ns=(1, 1))
        assert names(site, self.after(snapshot, site, everything).files) == {"a.rpy"}

    def test_removed(self, snapshot: Snapshot, site: Path, everything: bool) -> None:
        (site / "a.rpy").unlink()
        batch = self.after(snapshot, site, everything)
        assert (
            names(site, batch.files)
            == names(site, batch.added_or_removed)
            == names(site, batch.incomplete)
            == {"a.rpy"}
        )

    def test_emptied_for_a_moment(self, snapshot: Snapshot, site: Path, everything: bool) -> None:
        (site / "a.rpy").write_text("")
        batch = self.after(snapshot, site, everything)
        assert names(site, batch.incomplete) == {"a.rpy"} and not batch.added_or_removed


@pytest.mark.parametrize("everything", [True, False], ids=["all", "heard of"])
class TestStates:
    """A file has changed if it is another one than was told last, however often it is looked at."""

    def test_an_event_of_what_a_scan_has_found_is_nothing_new(
        self, snapshot: Snapshot, site: Path, everything: bool
    ) -> None:
        for n in range(3):
            (site / "a.rpy").write_text(f"edit {n}")
            first = snapshot.scan() if everything else heard(snapshot, site, "a.rpy")
            assert first is not None and names(site, first.files) == {"a.rpy"}
            assert heard(snapshot, site, "a.rpy") == snapshot.scan() == FileChanges()

    def test_a_save_counts_where_the_clock_of_the_files_stands_still(
        self, site: Path, everything: bool
    ) -> None:
        now = 0.0
        snapshot = Snapshot([str(site)], FileSystem(stat_of_old, lambda: now))
        snapshot.scan()
        (site / "a.rpy").write_text("another size")
        snapshot.scan()
        for text in ("and size again", "and once more."):
            (site / "a.rpy").write_text(text)
            batch = snapshot.scan() if everything else heard(snapshot, site, "a.rpy")
            assert batch is not None and batch.contents == {str(site / "a.rpy"): text.encode()}
            now += SETTLE_TIME

    def test_what_was_in_a_file_is_told_with_the_change(
        self, snapshot: Snapshot, site: Path, everything: bool
    ) -> None:
        (site / "a.rpy").write_text("edited")
        (site / "style.css").unlink()
        (site / "large.txt").write_text("x" * (MAX_SIZE + 1))
        paths = "a.rpy", "style.css", "large.txt"
        batch = snapshot.scan() if everything else heard(snapshot, site, *paths)
        (site / "a.rpy").write_text("and later again")
        assert batch is not None and names(site, batch.files) == set(paths)
        assert batch.contents == {str(site / "a.rpy"): b"edited"}


def test_a_file_that_is_written_while_it_is_read_is_told_as_it_is_then(site: Path) -> None:
    later = iter(["second", "third"])

    def stat(path: str) -> os.stat_result:
        found = os.stat(path)
        if path.endswith("a.rpy") and (text := next(later, "")):
            Path(path).write_text(text)
        return found

    snapshot = Snapshot([str(site)])
    snapshot.scan()
    snapshot._file_system = FileSystem(stat)
    (site / "a.rpy").write_text("first")
    batch = heard(snapshot, site, "a.rpy")
    assert batch is not None and batch.contents == {str(site / "a.rpy"): b"third"}
    assert snapshot.scan() == FileChanges()


def test_few_files_are_read_however_many_are_new(site: Path) -> None:
    for n in range(MAX_READ // MIN_COST + 10):
        (site / f"{n}.txt").write_text("x")
    snapshot = Snapshot([str(site)])
    batch = snapshot.scan()
    assert len(batch.files) > len(batch.contents) == MAX_READ // MIN_COST
    assert snapshot.scan() == FileChanges()


def test_old_files_are_not_read_at_the_beginning(site: Path) -> None:
    batch = Snapshot([str(site)], FileSystem(stat_of_old)).scan()
    assert batch.files and not batch.contents


def test_what_is_known_of_a_save_is_forgotten(site: Path) -> None:
    now = 0.0
    snapshot = Snapshot([str(site)], FileSystem(now=lambda: now))
    snapshot.scan()
    (site / "a.rpy").write_text("edited")
    heard(snapshot, site, "a.rpy")
    now += READ_FOR + 1
    heard(snapshot, site, "style.css")
    assert not snapshot._saved


def test_a_directory_has_another_time_stamp_when_something_in_it_changes(
    snapshot: Snapshot, site: Path
) -> None:
    assert heard(snapshot, site, "sub") == FileChanges()


@pytest.mark.parametrize("event", ["sub2", "sub"])
def test_a_directory_is_renamed(snapshot: Snapshot, site: Path, event: str) -> None:
    (site / "a.rpy").write_text("edited just before")
    (site / "sub").rename(site / "sub2")
    assert heard(snapshot, site, "a.rpy", event) is None
    batch = snapshot.scan()
    assert names(site, batch.files) == {
        "a.rpy",
        "sub/b.rpy",
        "sub/deep/c.txt",
        "sub2/b.rpy",
        "sub2/deep/c.txt",
    }
    assert names(site, batch.directories) == {"sub", "sub/deep", "sub2", "sub2/deep"}
    assert batch.files[str(site / "sub2" / "b.rpy")] == 0, (
        "when it was written says nothing about the rename"
    )


def test_a_file_in_a_directory_that_nobody_knew(snapshot: Snapshot, site: Path) -> None:
    (site / "new" / "er").mkdir(parents=True)
    (site / "new" / "er" / "x.txt").write_text("x")
    assert heard(snapshot, site, "new/er/x.txt") is None
    assert names(site, snapshot.scan().files) == {"new/er/x.txt"}


@pytest.mark.parametrize("ignored", ["node_modules", ".git", "site-packages", "__pycache__", "env"])
def test_ignored_directories_are_not_opened(snapshot: Snapshot, site: Path, ignored: str) -> None:
    (site / ignored / "lib").mkdir(parents=True)
    if ignored == "env":
        (site / ignored / "pyvenv.cfg").write_text("")
    (site / ignored / "lib" / "x.py").write_text("x")
    assert not snapshot.scan()
    assert heard(snapshot, site, ignored, f"{ignored}/lib", f"{ignored}/lib/x.py") == FileChanges()
    assert not any(ignored in directory for directory in snapshot.directories)


def test_a_directory_becomes_ignored(snapshot: Snapshot, site: Path) -> None:
    (site / "sub" / "pyvenv.cfg").write_text("")
    assert heard(snapshot, site, "sub/pyvenv.cfg") is None
    assert not snapshot.scan().files, "nothing in it has gone: it is only not the site's any more"
    assert names(site, snapshot.directories) == {"."}
    (site / "sub" / "b.rpy").write_text("edited")
    assert not snapshot.scan()


def test_the_root_goes_and_comes_back(snapshot: Snapshot, site: Path) -> None:
    away = site.with_name("away")
    site.rename(away)
    assert heard(snapshot, site, ".") is None
    assert len(snapshot.scan().files) == 4 and not snapshot.directories
    away.rename(site)
    batch = snapshot.scan()
    assert len(batch.files) == 4 and not batch.incomplete


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_to_directories_are_not_followed_in_circles(site: Path) -> None:
    (site / "round").symlink_to(site, target_is_directory=True)
    (site / "away.txt").symlink_to(site / "nowhere")
    snapshot = Snapshot([str(site)])
    assert names(site, snapshot.scan().files) == {
        "a.rpy",
        "style.css",
        "sub/b.rpy",
        "sub/deep/c.txt",
    }
    assert names(site, snapshot.directories) == {".", "sub", "sub/deep"}


class TestTwoHalves:
    """Batches put together are what one scan at the end would have found."""

    def scans(self, snapshot: Snapshot, site: Path, first: object, second: object) -> FileChanges:
        assert callable(first) and callable(second)
        first()
        one = snapshot.scan()
        second()
        return one | snapshot.scan()

    def test_gone_and_come(self, snapshot: Snapshot, site: Path) -> None:
        path = site / "a.rpy"
        batch = self.scans(snapshot, site, path.unlink, lambda: path.write_text("x"))
        assert (names(site, batch.files), batch.added_or_removed, batch.incomplete) == (
            {"a.rpy"},
            set(),
            set(),
        )

    def test_come_and_gone(self, snapshot: Snapshot, site: Path) -> None:
        path = site / "sed123"
        assert not self.scans(snapshot, site, lambda: path.write_text("x"), path.unlink)

    def test_emptied_and_filled(self, snapshot: Snapshot, site: Path) -> None:
        path = site / "a.rpy"
        batch = self.scans(
            snapshot, site, lambda: path.write_text(""), lambda: path.write_text("x")
        )
        assert names(site, batch.files) == {"a.rpy"} and not batch.incomplete

    def test_a_directory_is_replaced(self, snapshot: Snapshot, site: Path) -> None:
        sub = site / "sub"

        def make() -> None:
            sub.mkdir()
            (sub / "b.rpy").write_text("other")

        batch = self.scans(snapshot, site, lambda: shutil.rmtree(sub), make)
        assert names(site, batch.files) == {"sub/b.rpy", "sub/deep/c.txt"}
        assert names(site, batch.added_or_removed) == {"sub/deep", "sub/deep/c.txt"}


def test_a_virtual_environment_that_is_made_during_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").mkdir()
    before = Snapshot([str(tmp_path)])
    before.scan()
    look = snapshots.is_ignored_directory

    def look_too_early(directory: str) -> bool:
        ignored = look(directory)
        (tmp_path / "env" / "pyvenv.cfg").touch()
        (tmp_path / "env" / "x.py").touch()
        return ignored

    monkeypatch.setattr(snapshots, "is_ignored_directory", look_too_early)
    assert not before.scan().files
