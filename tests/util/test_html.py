"""Values in HTML."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from rpyserve import html

PIECES = [
    "<p>",
    "{}",
    "{a}",
    "{b}",
    "{{",
    "}}",
    "{0}",
    "{a:>9}",
    "{a!r}",
    "{b.real}",
    "{a[0]}",
    "{",
]
VALUES = st.one_of(st.text(), st.integers(), st.floats(), st.text().map(Markup), st.none())


def outcome(make: Any) -> object:
    try:
        return make()
    except Exception as exc:
        return type(exc)


@given(st.lists(st.sampled_from(PIECES), max_size=4).map("".join), VALUES, VALUES)
def test_templates_are_filled_in_as_markupsafe_does_it(template: str, a: Any, b: Any) -> None:
    ours = outcome(lambda: html(template, a, a=a, b=b))
    assert ours == outcome(lambda: Markup(template).format(a, a=a, b=b))
    assert isinstance(ours, (Markup, type))


@pytest.mark.parametrize("template", ["<p>{}</p>", "<p>{:.4}</p>"])
def test_no_value_becomes_markup(template: str) -> None:
    assert html(template, "<b>&") == "<p>&lt;b&gt;&amp;</p>"


@dataclass
class Interpolation:
    value: Any
    conversion: str | None = None
    format_spec: str = ""


@dataclass(slots=True)
class TString:
    """As Python 3.14 makes it of ``t"..."``."""

    strings: tuple[str, ...]
    interpolations: tuple[Interpolation, ...]


def test_a_t_string_is_escaped() -> None:
    row = TString(("<li>", "</li>"), (Interpolation("<b>"),))
    page = TString(
        ("<ul>{", "", "|", "</ul>"),
        (Interpolation(row), Interpolation(html("<hr>")), Interpolation("<", "r", ">5")),
    )
    found = html(page)
    assert found == "<ul>{<li>&lt;b&gt;</li><hr>|  &#39;&lt;&#39;</ul>"
    assert isinstance(found, Markup)


def test_a_t_string_is_a_value() -> None:
    row = TString(("<li>", "</li>"), (Interpolation("<b>"),))
    assert html("<ul>{}{row}</ul>", 1, row=row) == "<ul>1<li>&lt;b&gt;</li></ul>"


def test_a_t_string_takes_no_values_beside_it() -> None:
    with pytest.raises(TypeError, match="A t-string has its values in it"):
        html(TString(("<p>",), ()), name="Ada")


@pytest.mark.parametrize("value", [None, 3, ["<li>"], b"<p>"])
def test_what_is_no_template(value: Any) -> None:
    with pytest.raises(TypeError, match=f"html takes a template, not {type(value).__name__}"):
        html(value)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python has no t-strings before 3.14")
def test_a_t_string_of_python() -> None:
    name = "<b>"
    assert eval('html(t"<p>{name}{3:>3}{name!r}</p>")', {"html": html, "name": name}) == (
        "<p>&lt;b&gt;  3&#39;&lt;b&gt;&#39;</p>"
    )
