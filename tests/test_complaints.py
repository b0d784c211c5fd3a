"""Failures on the console: each once, until something has changed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from inprocess import Visitor

from rpyserve import Request, Site
from rpyserve.diagnostics.model import Failure, Fault, Frame
from rpyserve.diagnostics.reporter import AGAIN, Complaints
from rpyserve.files.directory import Directory


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def failure(line: int = 1, title: str = "ValueError: x", edition: int = 1, kind: str = "ValueError") -> Failure:
    return Failure(title, "", (Fault(title, frames=(Frame("/a.rpy", line, edition=edition),)),), "", (kind,))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def complaints(clock: Clock) -> Complaints:
    return Complaints(clock)


def test_the_same_failure_is_told_once(complaints: Complaints, caplog: pytest.LogCaptureFixture) -> None:
    assert complaints.tell("GET /a", failure())
    assert not any(complaints.tell("GET /b", failure(title=f"ValueError: {n}")) for n in range(100))
    assert caplog.messages == ["GET /a: ValueError: x\n  /a.rpy:1"]


@pytest.mark.parametrize("other", [failure(line=2), failure(edition=2), failure(kind="KeyError")])
def test_another_one_is_told(complaints: Complaints, other: Failure, caplog: pytest.LogCaptureFixture) -> None:
    assert complaints.tell("GET /", failure())
    assert complaints.tell("GET /", other)


def test_how_often_is_told_once_a_minute(
    complaints: Complaints, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    complaints.tell("GET /", failure())
    for _ in range(180):
        clock.now += 1
        complaints.tell("GET /", failure())
    assert caplog.messages[1:] == [f"GET /: again, {AGAIN:.0f} times: ValueError: x"] * 3


def test_what_was_good_in_between_is_told_again(complaints: Complaints, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        complaints.tell("GET /", failure(), page="/")
    complaints.good("/other")
    complaints.good("/")
    assert caplog.messages[1:] == ["GET /: again, 2 times: ValueError: x"]
    assert complaints.tell("GET /", failure(), page="/")


def test_a_change_of_the_site_makes_all_of_them_new(complaints: Complaints) -> None:
    complaints.tell("GET /", failure())
    complaints.forget()
    assert complaints.tell("GET /", failure())


def test_memory_is_bounded(complaints: Complaints, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    for number in range(10_000):
        complaints.tell("GET /", failure(number), page=f"/{number}")
        complaints.once_for(str(number))
    assert len(complaints._told) <= 200
    assert len(complaints._by_page) <= 2000
    assert len(complaints._clients) <= 200


async def test_a_site_tells_each_version_of_a_failure_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = tmp_path / "a.rpy"
    script.write_text("def resource(request):\n    return 1 / 0\n")
    site = Site(Directory(tmp_path))
    visitor = Visitor(site)

    async def visit(times: int) -> int:
        before = len(caplog.messages)
        for number in range(times):
            assert (await visitor.get(f"/a?{number}")).status == 500
        return len(caplog.messages) - before

    assert await visit(20) == 1
    script.write_text("def resource(request):\n    return 1 / 0  # edited\n")
    assert await visit(20) == 1
    script.write_text("def resource(request:\n")
    assert await visit(20) == 1
    script.write_text("def resource(request):\n    return 'good'\n")
    assert (await visitor.get("/a")).status == 200
    script.write_text("def resource(request:\n")
    assert await visit(20) == 1
    site.close()


async def test_a_client_that_sees_only_a_bare_500_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(lambda request: 1 / 0)
    visitor = Visitor(site, "192.0.2.7")
    for _ in range(5):
        assert (await visitor.get("/")).status == 500
    assert len([message for message in caplog.messages if "--trust 192.0.2.7" in message]) == 1


async def test_a_page_of_another_origin_is_told_as_such(caplog: pytest.LogCaptureFixture) -> None:
    def page(request: Request) -> float:
        return 1 / 0

    answer = await Visitor(Site(page)).get("/", headers=[("Origin", "http://evil.example")])
    assert "ZeroDivisionError" not in answer.text
    assert "A page of another origin asked for /" in caplog.text
    assert "--trust" not in caplog.text
