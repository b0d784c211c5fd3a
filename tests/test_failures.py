"""What is said of an exception: the author's own lines, the causes, a hint."""

from __future__ import annotations

import json
from pathlib import Path

from rpyserve.errors import HTTPError, ScriptError, unwrap
from rpyserve.failures import describe, is_authors


def caught(function: object) -> BaseException:
    try:
        function()  # type: ignore[operator]
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def test_only_the_authors_own_lines_are_places() -> None:
    def page() -> None:
        json.loads("{")

    failure = describe(caught(page))
    assert failure.title.startswith("JSONDecodeError: ")
    assert [Path(place.file).name for place in failure.places] == ["test_failures.py", "test_failures.py"]
    assert failure.places[-1].source == 'json.loads("{")'
    assert failure.places[-1].function == "page"


def test_a_syntax_error_has_its_place() -> None:
    failure = describe(caught(lambda: compile("x = (1,\ny = 2\n", "/site/page.rpy", "exec")))
    [place] = failure.places
    assert (place.file, place.line) == ("/site/page.rpy", 1)


def test_causes_are_told_once_each() -> None:
    def page() -> None:
        try:
            int("x")
        except ValueError as exc:
            raise LookupError("no") from exc

    assert describe(caught(page)).chain == ("ValueError: invalid literal for int() with base 10: 'x'",)


def test_a_script_error_tells_its_own_message_and_its_cause() -> None:
    def load() -> None:
        try:
            raise NameError("x")
        except NameError as exc:
            raise ScriptError(Path("a.rpy"), "a.rpy failed", "do this") from exc

    failure = describe(caught(load))
    assert (failure.title, failure.hint, failure.chain) == ("a.rpy failed", "do this", ("NameError: x",))


def test_code_of_python_and_of_packages_is_not_the_authors() -> None:
    import h11

    assert not is_authors(json.__file__)
    assert not is_authors(h11.__file__)
    assert not is_authors("<frozen importlib._bootstrap>")
    assert is_authors(__file__)


def test_unwrap() -> None:
    inner = HTTPError(404)
    assert unwrap(ExceptionGroup("", [ExceptionGroup("", [inner])])) is inner
    two = ExceptionGroup("", [inner, ValueError()])
    assert unwrap(two) is two
    assert unwrap(inner) is inner


def test_endless_recursion_is_told_in_few_lines() -> None:
    def page() -> None:
        page()

    failure = describe(caught(page))
    assert failure.title.startswith("RecursionError")
    assert len(failure.places) == 1


def test_a_script_error_does_not_tell_the_same_twice() -> None:
    def load() -> None:
        try:
            compile("x = = 1", "page.rpy", "exec")
        except SyntaxError as exc:
            raise ScriptError(Path("page.rpy"), "SyntaxError: invalid syntax") from exc

    assert describe(caught(load)).chain == ()
