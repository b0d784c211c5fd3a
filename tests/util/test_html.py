"""Values in HTML."""

from __future__ import annotations

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
