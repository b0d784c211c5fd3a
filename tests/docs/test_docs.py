"""The documents are played: every block of every page, by a real server and a real curl; and
they leave nothing out.
"""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

import rpyserve
from tests.support.doc_pages import Player, blocks_of, commands_of, pattern_of

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(ROOT.glob("docs/*.md"))
ALL = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.process
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_page_shows_is_so(page: Path, tmp_path: Path) -> None:
    where = tmp_path / "here"
    where.mkdir()
    text = page.read_text(encoding="utf-8")
    with ExitStack() as closing:
        played = Player(where, closing).play(text)
    assert played == len(re.findall(r"^ *```", text, re.MULTILINE)) / 2, (
        "a block is not closed, or was not seen"
    )


@pytest.mark.parametrize("name", rpyserve.__all__)
def test_every_public_name_is_in_the_documents(name: str) -> None:
    assert re.search(rf"`[^`\n]*\b{name}\b", ALL), name


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("sample_site/*.rpy")))
def test_every_page_of_the_tour_is_in_the_documents(script: str) -> None:
    assert f"`{script}`" in ALL


def test_every_page_has_its_place_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        assert re.search(rf"^ +- .*\b{re.escape(page.name)}$", contents, re.MULTILINE), page.name


# The player itself


def test_blocks_are_found_with_titles_and_excuses() -> None:
    page = 'a\n```python title="a.rpy"\nx\n```\n<!-- not run: needs an editor -->\n```vim\ny\n```\n'
    page += "- b\n  ```sh\n  z\n  ```\n"
    first, second, third = blocks_of(page)
    assert (first.language, first.title, first.text, first.line, first.excused) == (
        "python",
        "a.rpy",
        "x\n",
        2,
        False,
    )
    assert second.excused and not third.excused
    assert third.text == "z\n"


def test_a_command_may_go_over_two_lines() -> None:
    assert list(commands_of("$ curl a \\\n    b\nc\n$ curl d\n")) == [
        ("curl a b", "c\n"),
        ("curl d", ""),
    ]


def test_dots_stand_for_anything_and_nothing_else_does() -> None:
    assert re.fullmatch(pattern_of("a...b.\n"), "a1\n2b.\n", re.DOTALL)
    assert not re.fullmatch(pattern_of("a...b.\n"), "a12b?\n", re.DOTALL)
    for between in ("", "x\n", "x\ny\n"):
        assert re.fullmatch(pattern_of("a\n...\nb\n"), f"a\n{between}b\n", re.DOTALL)
    assert not re.fullmatch(pattern_of("a\n...\nb\n"), "a1\nb\n", re.DOTALL)


@pytest.mark.parametrize(
    "block", ["```sh\nls\n```\n", "```console\n$ rm -r site\n```\n", "```json\n{]\n```\n"]
)
def test_a_block_that_nobody_can_run_is_no_silent_pass(block: str, tmp_path: Path) -> None:
    with ExitStack() as closing, pytest.raises((AssertionError, ValueError)):
        Player(tmp_path, closing).play(block)


@pytest.mark.process
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl")
def test_what_is_not_so_is_told(tmp_path: Path) -> None:
    page = '```python title="a.rpy"\ndef resource(request):\n    return "1"\n```\n'
    page += "```console\n$ curl localhost:8080/a\n2\n```\n"
    where = tmp_path / "here"
    where.mkdir()
    with ExitStack() as closing, pytest.raises(AssertionError, match="line 5"):
        Player(where, closing).play(page)
