"""Where keys come from: a file of secrets, or one that is made beside the database."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rpyserve.stores.keys import key_beside, read_keys
from rpyserve.stores.store import StoreError

OLD, NEW = "0" * 64, "a different secret, and a long one"


def test_each_line_is_a_key_and_the_first_one_signs(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(f"# since June\n\n{NEW}\n  {OLD}  \n")
    keys = read_keys(file)
    file.write_text(OLD)
    assert [len(key) for key in keys] == [32, 32]
    assert read_keys(file) == keys[1:]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty. Write a secret into it: python -c"),
        ("# nothing\n", "is empty"),
        (f"{OLD}\nshort\n", "line 2, has 5 characters; it must have 32 at least"),
    ],
)
def test_what_is_no_secret_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "secrets"
    file.write_text(text)
    with pytest.raises(StoreError) as caught:
        read_keys(file)
    assert why in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        read_keys(tmp_path / "secrets")
    with pytest.raises(StoreError, match="directory"):
        read_keys(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 40)
    with pytest.raises(StoreError, match="binary cannot be read"):
        read_keys(tmp_path / "binary")


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    database = tmp_path / "kept" / "sessions.db"
    keys = key_beside(database)
    assert key_beside(database) == keys
    assert os.listdir(database.parent) == ["key"]
    if os.name == "posix":
        assert (database.parent / "key").stat().st_mode & 0o777 == 0o600
    assert key_beside(tmp_path / "other" / "sessions.db") != keys


def test_those_who_make_it_at_once_get_the_same(tmp_path: Path) -> None:
    barrier, found = threading.Barrier(8), []

    def make() -> None:
        barrier.wait()
        found.append(key_beside(tmp_path / "sessions.db"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 8
    assert os.listdir(tmp_path) == ["key"]


def test_a_key_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"The key file .* cannot be made"):
        key_beside(tmp_path / "file" / "sessions.db")
