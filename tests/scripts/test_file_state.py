"""Signatures of files and directories, on real file systems and where the clock stands still."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve.scripts import file_state
from rpyserve.scripts.file_state import (
    FileState,
    FileSystem,
    ImportLookups,
    TreeState,
    count_of,
    read,
    snapshot,
)


class SteppingClock:
    """A file system that gives one and the same time stamp while *stamp* stays."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.stamp = 1
        self.looks = 0
        self.file_system = FileSystem(self.stat, lambda: self.time)

    def stat(self, path: str) -> Any:
        self.looks += 1
        found = os.stat(path)
        return SimpleNamespace(
            st_mode=found.st_mode,
            st_size=found.st_size,
            st_ino=1,
            st_mtime_ns=self.stamp,
            st_ctime_ns=self.stamp,
        )


@pytest.fixture
def stepping() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.py"
    path.write_text("one")
    return path


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    reads: list[str] = []
    real = file_state._digest_of_file

    def counted(path: str) -> bytes | None:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(file_state, "_digest_of_file", counted)
    return reads


def test_reading(file: Path) -> None:
    data, state = read(str(file))
    assert data == b"one"
    assert not state.changed()


@pytest.mark.parametrize("field", ["st_mtime_ns", "st_size", "st_ino", "st_ctime_ns"])
def test_each_part_of_the_signature_counts(file: Path, field: str) -> None:
    values = {
        "st_mode": os.stat(file).st_mode,
        "st_mtime_ns": 1,
        "st_size": 3,
        "st_ino": 1,
        "st_ctime_ns": 1,
    }
    time = 0.0
    state = FileState(str(file), FileSystem(lambda path: SimpleNamespace(**values), lambda: time))  # type: ignore[arg-type, return-value]
    time = 100.0
    assert not state.changed()
    values[field] += 1
    assert state.changed()


def test_a_young_file_is_compared_by_its_bytes(file: Path, stepping: SteppingClock) -> None:
    _, state = read(str(file), stepping.file_system)
    for _ in range(3):
        stepping.time += 0.5
        assert not state.changed()
    file.write_text("two")
    assert state.changed()


def test_and_once_more_when_it_has_settled(
    file: Path, stepping: SteppingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, state = read(str(file), stepping.file_system)
    stepping.time += 1.9
    file.write_text("two")  # still under the same stamp, and nobody looks for a long time
    stepping.time += 1000
    assert state.changed()


def test_then_its_signature_is_enough(
    file: Path, stepping: SteppingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(monkeypatch)
    _, state = read(str(file), stepping.file_system)
    for _ in range(5):
        assert not state.changed()
    assert len(reads) == 5
    stepping.time += file_state.SETTLE_TIME
    assert not state.changed()
    assert len(reads) == 6
    for _ in range(5):
        assert not state.changed()
    assert len(reads) == 6
    file.write_text("two")
    stepping.stamp += 1
    assert state.changed()


def test_an_old_time_stamp_proves_nothing(file: Path, stepping: SteppingClock) -> None:
    stepping.stamp = -(10**18)  # the file system's clock may be wrong, or the time set back
    _, state = read(str(file), stepping.file_system)
    file.write_text("two")
    assert state.changed()


@given(st.lists(st.tuples(st.floats(0.01, 3), st.booleans()), max_size=20))
def test_no_edit_is_missed_where_stamps_step_by_two_seconds(
    tmp_path_factory: Any, steps: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("x") / "a.py"
    path.write_text("0000")
    stepping = SteppingClock()
    written = stepping.time
    data, state = read(str(path), stepping.file_system)
    for number, (pause, edit) in enumerate(steps, 1):
        stepping.time += pause
        if edit:
            path.write_text(f"{number:04}")
            written = stepping.time
            stepping.stamp = int(written // 2)
        if state.changed():
            data, state = read(str(path), stepping.file_system)
        assert data == path.read_bytes()


def test_edits_while_it_is_read(file: Path, stepping: SteppingClock) -> None:
    def stat(path: str) -> Any:
        if stepping.looks == 1:
            file.write_text("two, after it was read")
            stepping.stamp += 1
        return stepping.stat(path)

    data, state = read(str(file), FileSystem(stat, lambda: stepping.time))
    assert data == b"two, after it was read"
    assert not state.changed()


def test_a_file_that_never_rests_is_found_changed(file: Path, stepping: SteppingClock) -> None:
    def stat(path: str) -> Any:
        stepping.stamp += 1
        return stepping.stat(path)

    _, state = read(str(file), FileSystem(stat, lambda: stepping.time))
    assert state.changed()


def test_500_edits_of_one_size_with_the_time_set_back(file: Path) -> None:
    stamp = 1_600_000_000_000_000_000
    state = FileState(str(file))
    for number in range(500):
        file.write_text(f"{number:03}")
        os.utime(file, ns=(stamp, stamp))
        assert state.changed(), number
        state = FileState(str(file))
        assert not state.changed()


def test_a_touch_counts(file: Path) -> None:
    state = FileState(str(file))
    os.utime(file, ns=(1, 1))
    assert state.changed()


def test_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "later.txt"
    state = snapshot(str(path))
    assert not state.changed()
    path.write_text("")
    assert state.changed()
    state = snapshot(str(path))
    path.unlink()
    assert state.changed()
    with pytest.raises(FileNotFoundError):
        read(str(path))
    with pytest.raises(OSError, match="is a directory"):
        read(str(tmp_path))
    assert not FileState("nul\0byte").changed()


def test_a_file_becomes_a_directory(file: Path) -> None:
    state = snapshot(str(file))
    file.unlink()
    file.mkdir()
    assert state.changed()
    tree = snapshot(str(file))
    assert not tree.changed()
    (file / "x").write_text("")
    assert tree.changed()


def test_trees(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("one")
    for name in (".git", "node_modules", "__pycache__", "env"):
        (tmp_path / name).mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    state = TreeState(str(tmp_path))
    for path in (".git/x", "node_modules/x.js", "__pycache__/x.pyc", "env/x.py", ".x.swp"):
        (tmp_path / path).write_text("")
    assert not state.changed()
    (tmp_path / "empty").mkdir()
    assert state.changed()
    state = TreeState(str(tmp_path))
    (tmp_path / "sub" / "a.txt").write_text("two")
    assert state.changed()
    state = TreeState(str(tmp_path))
    (tmp_path / "sub" / "a.txt").rename(tmp_path / "sub" / "b.txt")
    assert state.changed()


@pytest.mark.parametrize("becomes", ["file", "directory", "empty directory"])
def test_what_was_not_there(tmp_path: Path, becomes: str) -> None:
    path = tmp_path / "later"
    state = snapshot(str(path))
    assert not state.changed()
    if becomes == "file":
        path.write_text("")
    else:
        path.mkdir()
    if becomes == "directory":
        (path / "a.txt").write_text("")
    assert state.changed()


@pytest.mark.parametrize("becomes", ["nothing", "file"])
def test_an_empty_directory_that_is_no_longer_one(tmp_path: Path, becomes: str) -> None:
    path = tmp_path / "dir"
    path.mkdir()
    state = snapshot(str(path))
    assert not state.changed()
    path.rmdir()
    if becomes == "file":
        path.write_text("")
    assert state.changed()


def test_trees_go_through_links(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    tree = tmp_path / "tree"
    tree.mkdir()
    try:
        (tree / "link").symlink_to(tmp_path / "one", target_is_directory=True)
        (tmp_path / "one" / "up").symlink_to(tree, target_is_directory=True)  # round and round
    except OSError:
        pytest.skip("no symbolic links here")
    state = TreeState(str(tree))
    assert not state.changed()
    (tmp_path / "one" / "a.txt").write_text("new")
    assert state.changed()
    state = TreeState(str(tree))
    (tree / "link").unlink()
    (tree / "link").symlink_to(tmp_path / "two", target_is_directory=True)
    assert state.changed()


def test_a_link_that_leads_to_a_directory_later(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    try:
        (tree / "link").symlink_to(tmp_path / "later")
    except OSError:
        pytest.skip("no symbolic links here")
    clock = SteppingClock()
    state = TreeState(str(tree), FileSystem(os.stat, lambda: clock.time))
    clock.time += 3
    assert [state.changed() for _ in range(3)] == [False] * 3
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a.txt").write_text("")
    assert state.changed()


@pytest.mark.parametrize("change", ["write", "add", "remove", "rename", "add below", "remove all"])
def test_the_names_in_a_tree_are_read_when_its_directories_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt"):
        (tree / name).write_text("one")
    clock = SteppingClock()
    state = TreeState(str(tree), FileSystem(os.stat, lambda: clock.time))
    reads: list[str] = []
    below = file_state._below
    monkeypatch.setattr(file_state, "_below", lambda path: reads.append(path) or below(path))
    assert not state.changed()
    assert reads, "a change may not show yet in what a directory says of itself"
    clock.time += 3
    for _ in range(5):
        assert not state.changed()
    reads.clear()
    assert not state.changed()
    assert not reads
    match change:
        case "write":
            (tree / "sub/b.txt").write_text("two!")
        case "add":
            (tree / "c.txt").write_text("")
        case "remove":
            (tree / "sub/b.txt").unlink()
        case "rename":
            (tree / "a.txt").rename(tree / "c.txt")
        case "add below":
            (tree / "sub" / "more").mkdir()
        case "remove all":
            shutil.rmtree(tree)
    assert state.changed()


def test_how_many_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "b.txt", "sub/c.txt"):
        (tmp_path / name).write_text("")
    states = [snapshot(str(tmp_path / name)) for name in ("a.txt", "", "*.txt", "s*", "none")]
    assert [*map(count_of, states)] == [1, 3, 2, 1, 1]


def test_a_listing_knows_what_it_was_asked_for(tmp_path: Path) -> None:
    listing = ImportLookups(str(tmp_path))
    listing.add("words")
    (tmp_path / "other.py").write_text("")
    assert not listing.changed()
    (tmp_path / "words.py").write_text("")
    assert listing.changed()
    listing.add("words")
    assert not listing.changed()
    (tmp_path / "words").mkdir()
    assert listing.changed()


def test_a_listing_of_a_young_directory(tmp_path: Path, stepping: SteppingClock) -> None:
    listing = ImportLookups(str(tmp_path), stepping.file_system)
    listing.add("words")
    stepping.time += 1.9
    assert not listing.changed()
    (tmp_path / "words.py").write_text("")  # under the same stamp, and looked at much later
    stepping.time += 1000
    assert listing.changed()


def test_a_listing_looks_closely_only_while_it_must(
    tmp_path: Path, stepping: SteppingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = ImportLookups(str(tmp_path), stepping.file_system)
    listing.add("words")
    stepping.time += file_state.SETTLE_TIME
    assert not listing.changed()
    monkeypatch.setattr(ImportLookups, "_answer", lambda self, name: pytest.fail("looked"))
    assert not listing.changed()


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "words.py").write_text("")
    listing = ImportLookups(str(tmp_path / "sub"))
    listing.add("words")
    (tmp_path / "sub" / "words.py").unlink()
    (tmp_path / "sub").rmdir()
    assert listing.changed()
