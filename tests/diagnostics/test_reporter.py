"""Errors on the console: each one once, until something has changed, as a short block of text."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rpyserve import Request, Site
from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line, Relation
from rpyserve.diagnostics.reporter import COUNT_INTERVAL, MAX_REMEMBERED, ConsoleReporter, as_text
from rpyserve.files.directory import Directory
from tests.support.in_process import Visitor


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def error(line: int = 1, title: str = "ValueError: x", source_hash: int = 1) -> ErrorReport:
    frame = Frame("/a.rpy", line, source_hash=source_hash)
    return ErrorReport(title, "", (ExceptionReport(title, frames=(frame,)),))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(clock: Clock) -> ConsoleReporter:
    return ConsoleReporter(clock)


def test_the_same_error_is_reported_once(
    reporter: ConsoleReporter, caplog: pytest.LogCaptureFixture
) -> None:
    assert reporter.report("GET /a", error())
    assert not any(reporter.report("GET /b", error(title=f"ValueError: {n}")) for n in range(100))
    assert caplog.messages == ["GET /a: ValueError: x\n  /a.rpy:1"]


@pytest.mark.parametrize("other", [error(line=2), error(source_hash=2), error(title="KeyError: x")])
def test_another_one_is_reported(
    reporter: ConsoleReporter, other: ErrorReport, caplog: pytest.LogCaptureFixture
) -> None:
    assert reporter.report("GET /", error())
    assert reporter.report("GET /", other)


def test_how_often_is_reported_once_a_minute(
    reporter: ConsoleReporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    reporter.report("GET /", error())
    for _ in range(180):
        clock.now += 1
        reporter.report("GET /", error())
    assert caplog.messages[1:] == [f"GET /: again, {COUNT_INTERVAL:.0f} times: ValueError: x"] * 3


def test_what_was_resolved_in_between_is_reported_again(
    reporter: ConsoleReporter, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        reporter.report("GET /", error(), page="/")
    reporter.resolve("/other")
    reporter.resolve("/")
    assert reporter.report("GET /", error(), page="/")


def test_a_change_of_the_site_makes_all_of_them_new(reporter: ConsoleReporter) -> None:
    reporter.report("GET /", error())
    reporter.reset()
    assert reporter.report("GET /", error())


def test_an_exception_is_described(
    reporter: ConsoleReporter, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        reporter.report_exception("A task", ExceptionGroup("", [ValueError("x")]))
    assert caplog.messages == ["A task: ValueError: x"]


def test_memory_is_bounded(reporter: ConsoleReporter, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    for number in range(10_000):
        reporter.report("GET /", error(number), page=f"/{number}")
        reporter.once_for(str(number))
    assert len(reporter._reported) <= MAX_REMEMBERED
    assert len(reporter.failed_pages) <= MAX_REMEMBERED
    assert len(reporter._clients) <= MAX_REMEMBERED


async def test_a_site_reports_each_version_of_an_error_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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


async def test_a_client_that_sees_only_a_bare_500_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(lambda request: 1 / 0)
    visitor = Visitor(site, "192.0.2.7")
    for _ in range(5):
        assert (await visitor.get("/")).status == 500
    assert len([message for message in caplog.messages if "--trust 192.0.2.7" in message]) == 1


async def test_a_page_of_another_origin_is_reported_as_such(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def page(request: Request) -> float:
        return 1 / 0

    answer = await Visitor(Site(page)).get("/", headers=[("Origin", "http://evil.example")])
    assert "ZeroDivisionError" not in answer.text
    assert "A page of another origin asked for /" in caplog.text
    assert "--trust" not in caplog.text


def frame(
    line: int,
    text: str = "    x = f(1) + 2",
    marked: tuple[int, int] | None = (8, 12),
    skipped: int = 0,
) -> Frame:
    return Frame(
        "/elsewhere/a.rpy", line, 1, "f", True, (Line(line, text, True, marked),), skipped=skipped
    )


def test_an_error_is_a_short_block() -> None:
    first = ExceptionReport(
        "ValueError: x", notes=("a note",), frames=(frame(1), frame(2, "\traise", None, skipped=3))
    )
    cause = ExceptionReport("KeyError: 'k'", frames=(frame(3),), relation=Relation.CAUSE)
    assert as_text(ErrorReport("ValueError: x", "Write:\nreturn x", (first, cause))) == (
        "ValueError: x\n"
        "  a note\n"
        "  /elsewhere/a.rpy:1 in f\n"
        "    x = f(1) + 2\n"
        "        ^^^^\n"
        "  … 3 more calls like these\n"
        "  /elsewhere/a.rpy:2 in f\n"
        "    raise\n"
        "  caused by KeyError: 'k'\n"
        "  /elsewhere/a.rpy:3 in f\n"
        "    x = f(1) + 2\n"
        "        ^^^^\n"
        "  Write:\n"
        "  return x"
    )


def test_groups_are_set_in() -> None:
    inner = ExceptionReport(
        "ExceptionGroup: in",
        branches=((ExceptionReport("ValueError: a"),), (ExceptionReport("ValueError: b"),)),
        left_out=1,
    )
    assert as_text(
        ErrorReport(
            "ExceptionGroup: out",
            "",
            (ExceptionReport("ExceptionGroup: out", branches=((inner,),)),),
        )
    ) == (
        "ExceptionGroup: out\n"
        "  1 of 1: ExceptionGroup: in\n"
        "    1 of 3: ValueError: a\n"
        "    2 of 3: ValueError: b\n"
        "    … 1 more"
    )


def test_only_the_innermost_places_are_shown() -> None:
    text = as_text(
        ErrorReport("x", "", (ExceptionReport("x", frames=tuple(frame(n) for n in range(1, 30))),))
    )
    assert text.count("/elsewhere/a.rpy:") == 5
    assert "a.rpy:29" in text


def test_nothing_in_it_reaches_the_terminal_as_a_command() -> None:
    evil = "a\x1b[31m\u202e\r\x07\udc80"
    exception = ExceptionReport(evil, f"{evil}\n{evil}", (evil,), (frame(1, evil, (1, 3)),))
    text = as_text(ErrorReport(evil, evil, (exception,), evil))
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_script_that_is_at_fault_as_a_whole() -> None:
    assert (
        as_text(ErrorReport("No resource.", "", (), "/site/a.rpy")) == "No resource.\n  /site/a.rpy"
    )
