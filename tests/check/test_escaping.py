"""Templates that have their values in them before `html` could escape these."""

from __future__ import annotations

import ast

import pytest

from rpyserve import html
from rpyserve.check import escaping
from rpyserve.check.bindings import ModuleBindings
from rpyserve.check.escaping import find_unescaped
from rpyserve.check.findings import Rule

PAGE = """from rpyserve import html, registry
import layout
from layout import opening
STYLE = "<style></style>"
title = "Shop"
def resource(request):
    name = request.field("name", "")
    return CALL
"""


@pytest.fixture(autouse=True)
def has_t_strings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line to write is that of Python before 3.14, unless a test says so."""
    monkeypatch.setattr(escaping, "HAS_T_STRINGS", getattr(request, "param", False))


def hints(call: str, page: str = PAGE) -> list[str]:
    found = list(find_unescaped(ModuleBindings(ast.parse(page.replace("CALL", call)))))
    assert all(finding.rule is Rule.UNESCAPED for finding in found)
    assert [finding.line for finding in found] in ([], [8])
    return [finding.hint for finding in found]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ('html(f"<p>{name}</p>")', 'html("<p>{name}</p>", name=name)'),
        (
            "html(f\"<p>{request.field('a')}</p>\")",
            "html(\"<p>{}</p>\", request.field('a'))",
        ),
        ('html("<p>" + name + "</p>")', 'html("<p>{name}</p>", name=name)'),
        ('html("<p>" + request.path)', 'html("<p>{}", request.path)'),
        ('html("<p>%s</p>" % name)', 'html("<p>{name}</p>", name=name)'),
        ('html("<p>%s, 100 %%" % (name,))', 'html("<p>{name}, 100 %", name=name)'),
        ('html(f"<p>{name!r:>10} {request.path}")', 'html("<p>{name!r:>10} {}", request.path, name=name)'),
        ('html(f"<p>{name} {name}")', 'html("<p>{name} {name}", name=name)'),
        ('html(f"<style>p{{color:red}}</style>{name}")', 'html("<style>p{{color:red}}</style>{name}", name=name)'),
        ("html(f'<a href=\"/\">{name}</a>')", "html('<a href=\"/\">{name}</a>', name=name)"),
        ('html("<p>{}</p>".format(name))', "html('<p>{}</p>', name)"),
        ('html("<p>{a}</p>".format(a=name))', "html('<p>{a}</p>', a=name)"),
        ('html("<p>" + f"{name}" + STYLE)', 'html("<p>{name}{STYLE}", name=name, STYLE=STYLE)'),
    ],
)  # fmt: skip
def test_the_line_to_write(call: str, line: str) -> None:
    assert hints(call) == [f"Write:\n{line}"]


@pytest.mark.parametrize("has_t_strings", [True], indirect=True)
@pytest.mark.parametrize(
    ("call", "line"),
    [
        ('html(f"<p>{name}</p>")', "html(t'<p>{name}</p>')"),
        ('html(f"<p>{name!r:>10} {{}} {request.path}")', "html(t'<p>{name!r:>10} {{}} {request.path}')"),
        ("f'<a href=\"/\">{name}</a>'", "html(t'<a href=\"/\">{name}</a>')"),
        ('html("<p>" + name + "</p>")', 'html("<p>{name}</p>", name=name)'),
        ('html("<p>%s</p>" % name)', 'html("<p>{name}</p>", name=name)'),
    ],
)  # fmt: skip
def test_the_line_to_write_where_there_are_t_strings(call: str, line: str) -> None:
    assert hints(call) == [f"Write:\n{line}"]


def test_the_line_to_write_is_right() -> None:
    name = "<b>"
    for call in ('html(f"<p>{name!r:>9}|{name}")', 'html("<p>%s" % name)'):
        (hint,) = hints(call)
        line = hint.removeprefix("Write:\n")
        assert "&lt;b&gt;" in eval(line, {"html": html, "name": name})


@pytest.mark.parametrize(
    "call",
    [
        'html("<p>" + name + "{}", 1)',
        'html(f"""<p>\n{name}""")',
        'html(f"<p>{name}' + "x" * 200 + '")',
    ],
)
def test_where_no_line_can_be_shown_there_is_an_example(call: str) -> None:
    (hint,) = hints(call)
    assert hint.startswith("Give html the values beside the text:")


@pytest.mark.parametrize(
    "call",
    [
        'html("<p>{}</p>", name)',
        "html(name)",
        "html(STYLE + '<p>{}', name)",
        "html(layout.STYLE + '<p>{}', name)",
        "html(opening + '<p>{}', name)",
        'html(f"<p>{title} {STYLE} {1}")',
        "html(name + name)",
        'html("<p>{}</p>" * 3, 1, 2, 3)',
        'print(f"<p>{name}</p>")',
        'logging.info(f"<p>{name}</p>")',
    ],
)
def test_what_is_no_fault(call: str) -> None:
    assert hints(call) == []


def test_another_html_is_none_of_ours() -> None:
    call = 'html(f"<p>{title_of(name)}</p>")'
    assert len(hints(call)) == 1
    assert len(hints(call, PAGE.replace("html, registry", "*"))) == 1
    assert (
        hints(call, PAGE.replace("from rpyserve import html, registry", "from html import html"))
        == []
    )
    assert (
        hints(call, PAGE.replace("from rpyserve import html, registry", "def html(text): ..."))
        == []
    )


# Markup that html never sees


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ('f"<h1>Hello {name}</h1>"', 'html("<h1>Hello {name}</h1>", name=name)'),
        ('f"<p>{request.path}</p>"', 'html("<p>{}</p>", request.path)'),
        ("f\"<p>{request.args['a'][0]}\"", "html(\"<p>{}\", request.args['a'][0])"),
        ('"<p>" + request.field("a") + "</p>"', "html(\"<p>{}</p>\", request.field('a'))"),
        ('"<p>%s</p>" % name', 'html("<p>{name}</p>", name=name)'),
        ('"<p>{}</p>".format(name)', "html('<p>{}</p>', name)"),
        ('request.write(f"<p>{name}")', 'html("<p>{name}", name=name)'),
    ],
)
def test_a_visitors_text_as_markup(call: str, line: str) -> None:
    assert hints(call) == [f"Write:\n{line}"]


@pytest.mark.parametrize(
    "call",
    [
        'f"Hello {name}"',
        'f"<p>{len(name)}"',
        'f"<p>{escape(name)}"',
        "f\"<p>{request.field('n', type=int)}\"",
        'f"<p>{title} {other}"',
        'f"1 < 2 {name}"',
        'html("<p>{}", name)',
        'html(TEMPLATE, f"{name}")',
        '"<p>" * 2',
        "name + name",
        'html("<hr>") + f"<p>{name}"',  # which markupsafe escapes
    ],
)
def test_what_is_no_markup_of_a_visitors(call: str) -> None:
    assert hints(call) == []


def test_a_name_that_is_escaped_later() -> None:
    page = PAGE.replace("    return", "    name = escape(name)\n    return")
    assert (
        list(find_unescaped(ModuleBindings(ast.parse(page.replace("CALL", 'f"<p>{name}"'))))) == []
    )
