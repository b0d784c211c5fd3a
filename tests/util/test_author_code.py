"""Whose code a file is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rpyserve.diagnostics.model import ExceptionReport, Frame
from rpyserve.http.errors import HTTPError
from rpyserve.util.author_code import display_path, is_author_code
from rpyserve.util.exceptions import unwrap_group


def test_code_of_python_and_of_packages_is_not_the_authors() -> None:
    import h11

    assert not is_author_code(json.__file__)
    assert not is_author_code(h11.__file__)
    assert not is_author_code("<frozen importlib._bootstrap>")
    assert not is_author_code(os.path.join(os.sep, "site", "venv", "lib", "site-packages", "x.py"))
    assert is_author_code(__file__)


def test_files_of_the_site_are_named_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_unwrap() -> None:
    inner = HTTPError(404)
    assert unwrap_group(ExceptionGroup("", [ExceptionGroup("", [inner])])) is inner
    two = ExceptionGroup("", [inner, ValueError()])
    assert unwrap_group(two) is two
    assert unwrap_group(inner) is inner
