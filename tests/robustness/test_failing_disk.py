"""A disk that fails, or a network drive that is away: it does not say that files are gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rpyserve import Directory, Site
from rpyserve.scripts import file_state
from rpyserve.scripts.file_state import FileState, FileSystem, snapshot
from tests.support.in_process import ask

SCRIPT = """cache("words.txt", "data")
import helper
registry["runs"] = registry.get("runs", 0) + 1

def resource(request):
    return f"run {registry['runs']}"
"""
UNCACHED = "import helper\ndef resource(request):\n    return 'new'\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "data").mkdir(parents=True)
    for name, text in {
        "kept.rpy": SCRIPT,
        "new.rpy": UNCACHED,
        "helper.py": "",
        "words.txt": "words",
        "data/a.txt": "a",
        "style.css": "p {}",
    }.items():
        (root / name).write_text(text)
    return root


@pytest.fixture
def site(root: Path) -> Iterator[Site]:
    site = Site(Directory(root))
    yield site
    site.close()


@contextmanager
def failing(number: int, below: Path, *names: str) -> Iterator[None]:
    """While inside, looks at what is below a directory fail, by these functions of `os`."""

    def broken(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and str(path).startswith(str(below)):
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *args, **options)

        return call

    real_stat = file_state.FILE_SYSTEM.stat
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(os, name, broken(getattr(os, name)))
        object.__setattr__(file_state.FILE_SYSTEM, "stat", broken(real_stat))
        try:
            yield
        finally:
            object.__setattr__(file_state.FILE_SYSTEM, "stat", real_stat)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM])
async def test_a_disk_that_fails_is_a_503_that_says_so(site: Site, root: Path, number: int) -> None:
    with failing(number, root, "stat", "lstat", "listdir", "scandir"):
        for path in ("/", "/kept", "/new", "/style.css", "/nowhere", "/data/"):
            answer = await ask(site, path)
            assert answer.status == 503, path
            assert os.strerror(number) in answer.text, path
    assert (await ask(site, "/style.css")).text == "p {}"


async def test_a_cached_script_is_still_there_when_the_disk_is_back(site: Site, root: Path) -> None:
    assert (await ask(site, "/kept")).text == "run 1"
    for _ in range(3):
        with failing(errno.EIO, root, "stat", "lstat", "listdir", "scandir"):
            assert (await ask(site, "/kept")).status == 503
        assert (await ask(site, "/kept")).text == "run 1"
    (root / "words.txt").write_text("other words")
    assert (await ask(site, "/kept")).text == "run 2"


@pytest.mark.parametrize("part", ["kept.rpy", "helper.py", "words.txt", "data"])
async def test_a_single_file_that_cannot_be_looked_at(site: Site, root: Path, part: str) -> None:
    assert (await ask(site, "/kept")).text == "run 1"
    with failing(errno.EIO, root / part, "stat", "lstat", "scandir"):
        answer = await ask(site, "/kept")
        assert answer.status == 503 and part in answer.text
        assert (await ask(site, "/style.css")).status == 200
    assert (await ask(site, "/kept")).text == "run 1"


async def test_a_stranger_does_not_learn_which_file_it_is(site: Site, root: Path) -> None:
    site.trusts = lambda request: False
    with failing(errno.EIO, root, "stat", "lstat"):
        answer = await ask(site, "/kept")
    assert answer.status == 503 and str(root) not in answer.text


def test_a_file_that_is_not_there_is_no_failure(tmp_path: Path) -> None:
    def gone(path: str) -> os.stat_result:
        raise PermissionError(errno.EACCES, "no", path)

    state = FileState(str(tmp_path / "none"))
    assert not state.changed()
    assert not FileState("a\0b").changed()
    assert not FileState("x" * 5000).changed()
    assert not FileState(str(tmp_path), FileSystem(gone)).changed()
    assert not snapshot(str(tmp_path / "none")).changed()


def test_too_many_open_files_are_another_failure(root: Path, monkeypatch: Any) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    state = FileState(str(root / "words.txt"))
    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match="Too many open files"):
        state.changed()
