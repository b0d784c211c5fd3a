"""What a report of an exception holds: its whole chain, the author's lines and values, bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import Request, Site
from rpyserve.diagnostics.describe import MAX_EXCEPTIONS, WIDEST, context_lines, describe, summary
from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Relation
from rpyserve.diagnostics.redaction import MASK, Redactor
from rpyserve.diagnostics.reporter import as_text
from rpyserve.http.errors import ScriptError, WrongResult
from rpyserve.scripts.source import Range
from tests.support.in_process import ask
from tests.support.script_site import ScriptSite


def caught(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def one(report: ErrorReport) -> ExceptionReport:
    [exception] = report.chain
    return exception


# Frames


def test_the_authors_frames_are_marked() -> None:
    def page() -> None:
        json.loads("{")

    report = describe(caught(page))
    assert report.title.startswith("JSONDecodeError: ")
    exception = one(report)
    assert [Path(frame.file).name for frame in exception.own_frames] == [
        "test_describe.py",
        "test_describe.py",
    ]
    assert [frame.own for frame in exception.frames] == [True, True, False, False, False]
    inner = exception.own_frames[-1]
    assert inner.failing_line is not None and inner.failing_line.text.strip() == 'json.loads("{")'
    assert inner.function.endswith("page")
    assert report.place == inner


def test_several_lines_around_and_the_piece_at_fault() -> None:
    def page() -> int:
        a = 1
        return a + len(3)  # type: ignore[arg-type]

    frame = one(describe(caught(page))).frames[-1]
    line = frame.failing_line
    assert line is not None and line.marked is not None
    assert line.text[slice(*line.marked)] == "len(3)"
    assert frame.column == line.marked[0] + 1
    assert len(frame.lines) == 10


def test_values_are_included_on_request() -> None:
    def page() -> None:
        password = "hunter2"
        name = "Ada"
        raise ValueError(len(name + password))

    exc = caught(page)
    assert one(describe(exc)).frames[-1].variables == ()
    values = {
        each.name: each.value for each in one(describe(exc, values=True)).frames[-1].variables
    }
    assert values == {"password": MASK, "name": "'Ada'"}


def test_only_the_authors_frames_have_values() -> None:
    frames = one(describe(caught(lambda: json.loads("{")), values=True)).frames
    assert not any(frame.variables for frame in frames if not frame.own)


def test_what_is_secret_is_nowhere() -> None:
    secret = "0123456789abcdef"

    def page() -> None:
        other_name = secret
        exc = ValueError(f"{secret} is wrong")
        exc.add_note(f"note of {secret}")
        raise exc from KeyError(other_name)

    report = describe(caught(page), values=True, redactor=Redactor([secret]))
    text = repr(report).replace(f'secret = "{secret}"', "")
    assert secret not in text
    assert text.count(MASK) >= 4


def test_deep_recursion_has_few_frames() -> None:
    def down(n: int) -> int:
        return down(n + 1)

    report = describe(caught(lambda: down(0)), values=True)
    assert report.title.startswith("RecursionError")
    frames = one(report).own_frames
    assert len(frames) == 4
    assert frames[-1].skipped > 500


def test_recursion_in_turns() -> None:
    def ping(n: int) -> int:
        return pong(n)

    def pong(n: int) -> int:
        return ping(n + 1)

    frames = one(describe(caught(lambda: ping(0)))).own_frames
    assert len(frames) <= 6
    assert sum(frame.skipped for frame in frames) > 500


def test_a_traceback_of_ten_thousand_frames() -> None:
    import sys

    def down(n: int) -> int:
        return 1 // n if n == 0 else down(n - 1) or down(n - 2)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        report = describe(caught(lambda: down(10_000)), values=True)
    finally:
        sys.setrecursionlimit(limit)
    assert len(one(report).frames) <= 6
    assert sum(frame.skipped for frame in one(report).frames) > 9_900


def test_many_different_frames_keep_the_two_ends() -> None:
    names: dict[str, Any] = {}
    source = "def f0(): return 1 / 0\n" + "".join(
        f"def f{n}(): return f{n - 1}()\n" for n in range(1, 300)
    )
    exec(source, names)
    frames = one(describe(caught(names["f299"]))).frames
    assert len(frames) == 30
    assert (frames[0].function, frames[-1].function) == ("caught", "f0")
    assert sum(frame.skipped for frame in frames) == 271


# Chains


def test_causes_and_contexts_come_with_their_own_frames() -> None:
    def page() -> None:
        try:
            try:
                int("x")
            except ValueError as exc:
                raise LookupError("no") from exc
        except LookupError:
            {}["key"]

    chain = describe(caught(page)).chain
    assert [(exception.title, exception.relation) for exception in chain] == [
        ("KeyError: 'key'", Relation.ITSELF),
        ("LookupError: no", Relation.CONTEXT),
        ("ValueError: invalid literal for int() with base 10: 'x'", Relation.CAUSE),
    ]
    assert all(exception.own_frames for exception in chain)
    assert "directly caused" in Relation.CAUSE.value and "being handled" in Relation.CONTEXT.value


def test_from_none_ends_the_chain() -> None:
    def page() -> None:
        try:
            int("x")
        except ValueError:
            raise LookupError("no") from None

    assert len(describe(caught(page)).chain) == 1


def test_a_chain_that_is_a_ring_or_without_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert len(describe(first).chain) == 2
    for number in range(1000):
        second, second.__cause__ = ValueError(number), second  # type: ignore[misc]
    assert len(describe(second).chain) <= MAX_EXCEPTIONS


def test_notes() -> None:
    exc = ValueError("x")
    exc.add_note("one\ntwo")
    exc.__notes__.append(3)  # type: ignore[arg-type]
    assert one(describe(exc)).notes == ("one\ntwo", "3")
    exc.__notes__ = "no list"  # type: ignore[assignment]
    assert one(describe(exc)).notes == ()


# Groups


def test_groups_are_trees() -> None:
    def fail(exc: Exception) -> Exception:
        return caught(lambda: (_ for _ in ()).throw(exc))  # type: ignore[return-value]

    def page() -> None:
        inner = ExceptionGroup("inner", [fail(ValueError("a")), fail(KeyError("b"))])
        try:
            raise ExceptionGroup("outer", [inner, fail(TypeError("c"))])
        except ExceptionGroup as exc:
            raise RuntimeError("late") from exc

    runtime, outer = describe(caught(page)).chain
    assert (runtime.title, outer.title) == ("RuntimeError: late", "ExceptionGroup: outer")
    (inner,), (last,) = outer.branches
    assert [branch[0].title for branch in inner.branches] == ["ValueError: a", "KeyError: 'b'"]
    assert last.title == "TypeError: c" and last.own_frames
    assert all(branch[0].own_frames for branch in inner.branches)


async def test_what_was_cancelled_is_left_out() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as exc:
            cancelled = exc
        group = BaseExceptionGroup(
            "", [ValueError("a"), cancelled, BaseExceptionGroup("", [cancelled]), ValueError("b")]
        )
        exception = one(describe(group))
        assert [branch[0].title for branch in exception.branches] == [
            "ValueError: a",
            "ValueError: b",
        ]
        assert exception.left_out == 0
        raise cancelled


def test_large_and_deep_groups_are_bounded() -> None:
    wide = ExceptionGroup("wide", [ValueError(n) for n in range(10_000)])
    exception = one(describe(wide))
    assert len(exception.branches) + exception.left_out == 10_000
    assert len(exception.branches) < 60
    deep: Exception = ValueError("core")
    for _ in range(500):
        deep = ExceptionGroup("deep", [deep])
    assert as_text(describe(deep)).count("deep") <= MAX_EXCEPTIONS


# Messages


def test_a_long_message_is_bounded_and_has_a_title() -> None:
    report = describe(ValueError("first line\n" + "x" * 1_000_000))
    assert report.title == "ValueError: first line"
    assert len(one(report).text) < 5000
    assert one(report).text.endswith("… (1000011 characters)")
    assert len(describe(ValueError("y" * 1_000_000)).title) < 400


def test_messages_that_cannot_be_had() -> None:
    class Bad(Exception):
        def __str__(self) -> str:
            raise LookupError

    class Endless:
        def __repr__(self) -> str:
            raise SystemExit("it was called")

    assert summary(Bad()) == "Bad: its message cannot be shown: LookupError"
    assert summary(ValueError(Endless())) == "ValueError: <Endless>"
    assert summary(KeyError(Endless())) == "KeyError: <Endless>"
    assert summary(ValueError("a", [1])) == "ValueError: ('a', [1])"
    assert summary(KeyError("a")) == "KeyError: 'a'"
    assert (
        summary(OSError(2, "No such file", "x")) == "FileNotFoundError: [Errno 2] No such file: 'x'"
    )
    assert summary(ValueError()) == "ValueError"
    assert summary(ValueError("\udc80")) == "ValueError: \udc80"


def test_an_odd_exception_has_a_page_all_the_same() -> None:
    class Odd(Exception):
        @property
        def __notes__(self) -> list[str]:
            raise LookupError

    report = describe(Odd("x"))
    assert (report.title, report.chain) == ("Odd", ())


def test_odd_names_of_a_class_body() -> None:
    class Names(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise SystemExit

    class Meta(type):
        @classmethod
        def __prepare__(cls, name: str, bases: Any) -> Any:  # type: ignore[override]
            return Names()

    def page() -> None:
        class Odd(metaclass=Meta):
            n = 1
            m = n / 0

    frame = one(describe(caught(page), values=True)).frames[-1]
    assert ("n", "1") in [(each.name, each.value) for each in frame.variables]


# Syntax errors


def test_a_syntax_error_has_its_place() -> None:
    report = describe(caught(lambda: compile("x = (1,\ny = 2\n", "/site/page.rpy", "exec")))
    frame = one(report).frames[-1]
    assert (frame.file, frame.line, frame.column) == ("/site/page.rpy", 1, 5)
    assert frame.failing_line is not None and frame.failing_line.text == "x = (1,"
    assert frame.failing_line.marked == (4, 5)


@pytest.mark.parametrize(
    ("text", "line", "piece"),
    [
        ("def f(:\n    pass\n", 1, ":"),
        ("x = 1 +\n", 1, ""),
        ("if True\n    pass\n", 1, ""),
        ("a = 1\nb = [1, 2\nc = 3\n", 2, "["),
        ("print 'é', x\n", 1, None),
        ("x = 'é' é 1\n", 1, "é"),
    ],
)
def test_the_place_is_marked(tmp_path: Path, text: str, line: int, piece: str | None) -> None:
    site = ScriptSite(tmp_path)
    report = describe(site.error(text))
    site.scripts.close()
    frame = report.place
    assert frame is not None and frame.line == line
    source = frame.failing_line
    assert source is not None and len(frame.lines) == text.count("\n")
    if piece is None:
        assert source.marked is None
    else:
        assert source.marked is not None and source.text[slice(*source.marked)] == piece


def test_a_syntax_error_of_a_file_that_was_saved_again(tmp_path: Path) -> None:
    site = ScriptSite(tmp_path)
    error = site.error("x = (1\n")
    site.write("a.rpy", "quite\nanother\n")
    frame = describe(error).place
    site.scripts.close()
    assert frame is not None
    assert [line.text for line in frame.lines] == ["x = (1"]


def test_a_syntax_error_in_a_helper_is_shown_with_the_import(tmp_path: Path) -> None:
    site = ScriptSite(tmp_path)
    site.write("helper.py", "x = (1\n")
    frames = describe(site.error("import helper\n")).chain[0].own_frames
    site.scripts.close()
    assert [Path(frame.file).name for frame in frames] == ["a.rpy", "helper.py"]


# Script errors


def test_a_script_error_has_its_own_message_and_its_cause() -> None:
    def load() -> None:
        try:
            raise NameError("x")
        except NameError as exc:
            raise ScriptError(Path("a.rpy"), "a.rpy failed", "do this") from exc

    report = describe(caught(load))
    assert (report.title, report.hint) == ("a.rpy failed", "do this")
    assert one(report).title == "NameError: x"


def test_a_script_error_without_a_place_names_the_script() -> None:
    report = describe(ScriptError(Path("/site/a.rpy"), "There is no resource.", "do this"))
    assert (report.chain, report.script) == ((), str(Path("/site/a.rpy")))


async def test_a_result_that_cannot_be_sent_is_shown_at_its_function() -> None:
    def forgetful(request: Request) -> None:
        return None

    answer = await ask(Site(forgetful), "/")
    assert answer.text.startswith("forgetful() returned nothing (None).")
    assert "def forgetful(request: Request) -> None:" in answer.text
    assert WrongResult("x", print).method is print


# Lines of source


def test_the_lines_around_one() -> None:
    lines = [f"line {n}" for n in range(1, 21)] + [""]
    assert [line.number for line in context_lines(lines, 10, None)] == list(range(5, 15))
    assert [line.number for line in context_lines(lines, 10, None) if line.failing] == [10]
    assert [line.number for line in context_lines(lines, 1, None)] == [1, 2, 3, 4, 5]
    assert context_lines(lines, 20, None)[-1].number == 20
    assert context_lines(["", ""], 2, None)[-1].number == 2


def test_a_mark_over_several_lines() -> None:
    lines = ["f(a,", "  b,", "  c) + 1"]
    spans = [line.marked for line in context_lines(lines, 1, Range(1, 0, 3, 4))]
    assert spans == [None, None, (2, 4)], "a line that is at fault as a whole needs no mark"


def test_long_lines_are_cut_around_the_mark() -> None:
    text = "x" * 1_000_000 + "HERE" + "y" * 1_000_000
    [line] = context_lines([text], 1, Range(1, 1_000_000, 1, 1_000_004))
    assert line.marked is not None
    assert line.text[slice(*line.marked)] == "HERE"
    assert len(line.text) <= WIDEST + 2
