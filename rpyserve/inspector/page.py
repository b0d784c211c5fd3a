"""The inspector's pages: the data of a view as HTML.

One renderer for all views: a dict is a list of terms, a list of dicts a table, ``url`` a link of
the row that it is in, and ``actions`` are forms. All text goes through `_shown`, which leaves no
character that could control how the text around it is read, and is escaped by `html`.

The pages run no script, and load one stylesheet. Their policy lets nothing else happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from rpyserve.http.response import Response
from rpyserve.util.html import html
from rpyserve.util.text import escape_unprintable

if TYPE_CHECKING:
    from rpyserve.inspector.views import Action, Data, Problem, Table, View

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types rpyserve"
)
HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
}

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

LONGEST: Final = 2000
"""How many characters of a text are shown."""

_FRAME: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} - rpyserve</title>
<link rel="stylesheet" href="/-/inspect.css">
</head>
<body>
<header><nav aria-label="Inspector"><ul>{nav}</ul></nav></header>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


def of_view(view: View, data: Data, table: Table, token: str) -> Response:
    """Return the page of *view*, which shows *data*."""
    shown = {key: value for key, value in data.items() if key not in ("actions", "views")}
    if view.path == "":
        actions: list[Data] = []  # there they are a list for programs
    else:
        actions = data.get("actions", [])
    body = Markup("\n").join(
        [_search(view), _of_value(shown), *(_form(each, token) for each in actions)]
    )
    return _response(200, view.title, body, table)


def of_action(action: Action, done: Data, table: Table) -> Response:
    """Return the page that says what an action has done."""
    back = html('<p><a href="/-/{}">Go on</a></p>', done.get("see", ""))
    body = html("<p role=status>{}</p>\n{}", _shown(done["done"]), back)
    return _response(200, action.title, body, table)


def of_problem(problem: Problem, table: Table) -> Response:
    """Return the page that says why there is no answer."""
    told = told_of(problem)
    body = html("<p role=alert>{}</p>", _shown(told["detail"]))
    title = f"{problem.status} {told['title']}"
    return _response(problem.status, title, body, table, problem.headers)


def told_of(problem: Problem) -> Data:
    """Return *problem* as programs are told of it."""
    title = HTTPStatus(problem.status).phrase
    return {"status": problem.status, "title": title, "detail": problem.detail}


@cache
def _stylesheet() -> bytes:
    from importlib.resources import files

    return (files("rpyserve.inspector") / "inspect.css").read_bytes()


def stylesheet() -> Response:
    """Return the stylesheet of the pages."""
    return Response(_stylesheet(), 200, HEADERS | {"Content-Type": "text/css; charset=utf-8"})


def _response(
    status: int, title: str, body: Markup, table: Table, more: Mapping[str, str] = NOTHING
) -> Response:
    places = [view for view in table.views if "{" not in view.path]
    nav = Markup("").join(
        html('<li><a href="/-/{}">{}</a></li>', view.path, view.title) for view in places
    )
    text = html(_FRAME, title=title, nav=nav, body=body)
    headers = HEADERS | {"Content-Type": "text/html; charset=utf-8"} | dict(more)
    return Response(text.encode("utf-8", "backslashreplace"), status, headers)


def _search(view: View) -> Markup:
    """The form of a view's query."""
    if not view.fields:
        return Markup("")
    fields = Markup(" ").join(_input(vars_of(each)) for each in view.fields)
    return html("<form method=get>{} <button>Show</button></form>", fields)


def vars_of(field: Any) -> Data:
    """Return a `Field` as the dict that forms are made of."""
    return {"name": field.name, "kind": field.kind, "help": field.help}


def _form(action: Data, token: str) -> Markup:
    fields = Markup(" ").join(_input(each) for each in action["fields"])
    return html(
        '<form method=post action="/-/{}"><input type=hidden name=token value="{}">{} '
        "<button>{}</button></form>",
        action["path"],
        token,
        fields,
        action["title"],
    )


def _input(field: Data) -> Markup:
    label, name, kind = field["help"] or field["name"], field["name"], field["kind"]
    if "|" in kind:
        options = Markup("").join(html("<option>{}</option>", each) for each in kind.split("|"))
        return html('<label>{} <select name="{}">{}</select></label>', label, name, options)
    return html('<label>{} <input name="{}"></label>', label, name)


def _of_value(value: Any) -> Markup:
    if isinstance(value, dict):
        parts = [
            html("<dt>{}</dt><dd>{}</dd>", _shown(key), _of_value(each))
            for key, each in value.items()
        ]
        return html("<dl>{}</dl>", Markup("\n").join(parts))
    if not isinstance(value, list):
        return html("{}", _shown(value))
    if not value:
        return html("none")
    if all(isinstance(each, dict) for each in value):
        return _table(value)
    return html("<ul>{}</ul>", Markup("").join(html("<li>{}</li>", _of_value(v)) for v in value))


def _table(rows: list[Data]) -> Markup:
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "url"]
    head = Markup("").join(html("<th scope=col>{}</th>", _shown(key)) for key in columns)
    body = Markup("\n").join(
        html("<tr>{}</tr>", Markup("").join(_cells(row, columns))) for row in rows
    )
    return html(
        '<div class=wide role=region tabindex=0 aria-label="Table"><table><thead><tr>{}</tr>'
        "</thead><tbody>{}</tbody></table></div>",
        head,
        body,
    )


def _cells(row: Data, columns: list[str]) -> list[Markup]:
    cells = [html("<td>{}</td>", _of_value(row.get(key))) for key in columns]
    if "url" in row:
        cells[0] = html('<td><a href="{}">{}</a></td>', row["url"], _of_value(row[columns[0]]))
    return cells


def _shown(value: Any) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return escape_unprintable(str(value)[:LONGEST])
