"""A failure as a short block of text."""

from __future__ import annotations

from rpyserve.diagnostics.model import Failure, Fault, Frame, Line, Relation
from rpyserve.diagnostics.reporter import as_text


def frame(
    line: int, text: str = "    x = f(1) + 2", marked: tuple[int, int] | None = (8, 12), skipped: int = 0
) -> Frame:
    return Frame("/elsewhere/a.rpy", line, 1, "f", True, (Line(line, text, True, marked),), skipped=skipped)


def test_a_failure_is_a_short_block() -> None:
    first = Fault("ValueError: x", notes=("a note",), frames=(frame(1), frame(2, "\traise", None, skipped=3)))
    cause = Fault("KeyError: 'k'", frames=(frame(3),), relation=Relation.CAUSE)
    assert as_text(Failure("ValueError: x", "Write:\nreturn x", (first, cause))) == (
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
    inner = Fault("ExceptionGroup: in", branches=((Fault("ValueError: a"),), (Fault("ValueError: b"),)), left_out=1)
    assert as_text(Failure("ExceptionGroup: out", "", (Fault("ExceptionGroup: out", branches=((inner,),)),))) == (
        "ExceptionGroup: out\n  1 of 1: ExceptionGroup: in\n    1 of 3: ValueError: a\n    2 of 3: ValueError: b"
    )


def test_only_the_innermost_places_are_told() -> None:
    text = as_text(Failure("x", "", (Fault("x", frames=tuple(frame(n) for n in range(1, 30))),)))
    assert text.count("/elsewhere/a.rpy:") == 5
    assert "a.rpy:29" in text


def test_nothing_in_it_reaches_the_terminal_as_a_command() -> None:
    evil = "a\x1b[31m\u202e\r\x07\udc80"
    fault = Fault(evil, f"{evil}\n{evil}", (evil,), (frame(1, evil, (1, 3)),))
    text = as_text(Failure(evil, evil, (fault,), evil))
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_script_that_is_at_fault_as_a_whole() -> None:
    assert as_text(Failure("No resource.", "", (), "/site/a.rpy")) == "No resource.\n  /site/a.rpy"
