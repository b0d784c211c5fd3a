"""A site's own page for what it does not have: ``404.rpy``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rpyserve import Directory, HTTPError, Request, Site
from tests.support.in_process import ask


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "404.rpy").write_text(
        "def resource(request):\n    return f'<h1>{request.path} is not here</h1>'\n",
        encoding="utf-8",
    )
    (tmp_path / "raises.rpy").write_text(
        "from rpyserve import HTTPError\n\n"
        "def resource(request):\n    request.setHeader('X-Own', '1')\n"
        "    raise HTTPError(int(request.field('status')))\n",
        encoding="utf-8",
    )
    (tmp_path / "dir").mkdir()
    site = Site(Directory(tmp_path))
    yield site
    site.close()


@pytest.mark.parametrize(
    "target", ["/nothing", "/dir/nothing", "/nothing/below?x=1", "/.env", "/raises?status=404"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
async def test_it_answers_what_is_not_there(site: Site, target: str, method: str) -> None:
    answer = await ask(site, target, method)
    if method == "PUT" and "raises" in target:
        assert answer.status == 405  # there is a page, a function, which does not answer that
        return
    assert answer.status == 404
    if method == "PUT":  # which the page does not answer
        assert "404 Not Found" in answer.text
    else:
        assert f"<h1>{target.partition('?')[0]} is not here</h1>" == answer.text
        assert answer.header("content-type") == "text/html; charset=utf-8"


async def test_other_errors_are_not_its_business(site: Site) -> None:
    assert "is not here" not in (await ask(site, "/raises?status=403")).text
    assert (await ask(site, "/raises?status=403")).status == 403


async def test_the_console_still_says_why(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rpyserve")
    await ask(site, "/nothin")
    assert "There is no 'nothin'" in caplog.text


async def test_when_it_fails_its_author_sees_that(site: Site, tmp_path: Path) -> None:
    (tmp_path / "404.rpy").write_text(
        "def resource(request):\n    return 1 / 0\n", encoding="utf-8"
    )
    answer = await ask(site, "/nothing")
    assert answer.status == 500 and "ZeroDivisionError" in answer.text
    (tmp_path / "404.rpy").write_text(
        "from rpyserve import HTTPError\n\ndef resource(request):\n    raise HTTPError(404)\n",
        encoding="utf-8",
    )
    assert "404 Not Found" in (await ask(site, "/nothing")).text


async def test_it_may_say_what_the_script_said(site: Site, tmp_path: Path) -> None:
    (tmp_path / "404.rpy").write_text(
        "def resource(request):\n    return str(request.error and request.error.detail)\n",
        encoding="utf-8",
    )
    (tmp_path / "a.rpy").write_text(
        "from rpyserve import HTTPError\n\n"
        "def resource(request):\n    raise HTTPError(404, 'No such cat.')\n",
        encoding="utf-8",
    )
    assert (await ask(site, "/a")).text == "No such cat."
    assert (await ask(site, "/404")).text == "None"


async def test_without_a_directory_there_is_none() -> None:
    def resource(request: Request) -> str:
        raise HTTPError(404, "Not here.")

    assert "Not here." in (await ask(Site(resource), "/")).text
