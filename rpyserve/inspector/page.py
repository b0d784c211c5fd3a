"""What all of the inspector's pages have: the frame, the links to each other, policy and headers.

What is in a page is the business of the views' renderers. The pages are complete without a script;
their policy lets them load one of the inspector's own and one stylesheet, and nothing else happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from rpyserve.http.response import Response
from rpyserve.inspector import blocks
from rpyserve.inspector.blocks import NOTHING
from rpyserve.resources.pages import PALETTE
from rpyserve.util.html import html

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
    # With "no-referrer", browsers send "Origin: null" with the forms of our own pages.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
}

STYLESHEET: Final = "inspect.css"
SCRIPT: Final = "inspect.js"

NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})

_FRAME: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - rpyserve</title>
<link rel="stylesheet" href="/-/inspect.css">
<script src="/-/inspect.js" data-boot="{boot}"{live} defer></script>
</head>
<body>
<header>
<nav aria-label="Inspector"><ul>
{places}
</ul></nav>
<p id="live" hidden><span></span> <button type="button" aria-pressed="false">Pause</button></p>
</header>
<main>
<h1>{title}</h1>
<p id="done" class="state" role="status"></p>
{body}
</main>
<footer>{footer}
<p id="keys" hidden>In a list: <kbd>j</kbd> and <kbd>k</kbd> go to the next and the previous row,
<kbd>Enter</kbd> opens it, <kbd>/</kbd> searches, <kbd>p</kbd> pauses, <kbd>?</kbd> shows this.</p>
<p id="said" class="unseen" role="status"></p>
</footer>
</body>
</html>
"""


def of_view(view: View, names: Mapping[str, str], data: Data, table: Table, twin: str) -> Response:
    """Return the page of *view*, which follows what happens.

    Args:
        names: what stands for the names in its path.
        data: what it shows, with the token.
        table: all views.
        twin: the URL of the same data for programs.
    """
    footer = html('<a href="{}">This page as JSON</a>', twin)
    title = view.title_for(names)
    assert view.render is not None, "plain text has no page"
    body = view.render(data)
    live = Markup(" data-live")
    return _response(200, title, body, table, footer, place=view.path, live=live)


def of_action(action: Action, names: Mapping[str, str], done: Data, table: Table) -> Response:
    """Return the page that says what an action has done, and where to go on."""
    said = html("<p role=status class=state>{}</p>", blocks.text(done["done"]))
    more = NOTHING if action.render is None else action.render(done)
    back = html('<p><a href="/-/{}">Go on</a></p>', done.get("see", ""))
    return _response(200, action.title, blocks.LINE.join([said, more, back]), table)


def of_problem(problem: Problem, table: Table) -> Response:
    """Return the page that says why there is no answer."""
    told = told_of(problem)
    body = html("<p role=alert class=state>{}</p>", blocks.text(told["detail"]))
    title = f"{problem.status} {told['title']}"
    return _response(problem.status, title, body, table, headers=problem.headers)


def told_of(problem: Problem) -> Data:
    """Return *problem* as programs are told of it."""
    title = HTTPStatus(problem.status).phrase
    return {"status": problem.status, "title": title, "detail": problem.detail}


def _file(name: str) -> str:
    return (files("rpyserve.inspector") / name).read_text(encoding="utf-8")


@cache
def _stylesheet() -> bytes:
    return (PALETTE + _file(STYLESHEET)).encode()


def stylesheet() -> Response:
    """Return the stylesheet of the pages."""
    return Response(_stylesheet(), 200, HEADERS | {"Content-Type": "text/css; charset=utf-8"})


def script(with_morphing: Callable[[str], str]) -> Response:
    """Return the script of the pages.

    Args:
        with_morphing: puts before it what makes a page show another.
    """
    headers = HEADERS | {"Content-Type": "text/javascript; charset=utf-8"}
    return Response(with_morphing(_file(SCRIPT)), 200, headers)


def _response(
    status: int,
    title: str,
    body: Markup,
    table: Table,
    footer: Markup = NOTHING,
    *,
    place: str | None = None,
    live: Markup = NOTHING,
    headers: Mapping[str, str] = NO_FIELDS,
) -> Response:
    listed = sorted((view for view in table.views if view.place), key=attrgetter("place"))
    places = blocks.LINE.join(_place(view, view.path == place) for view in listed)
    page = html(
        _FRAME,
        title=blocks.text(title),
        boot=table.boot,
        live=live,
        places=places,
        body=body,
        footer=footer,
    )
    fields = HEADERS | {"Content-Type": "text/html; charset=utf-8"} | dict(headers)
    return Response(page.encode("utf-8", "backslashreplace"), status, fields)


def _place(view: View, is_current: bool) -> Markup:
    current = Markup(" aria-current=page") if is_current else NOTHING
    number = NOTHING if view.count is None else html(" <small>{}</small>", f"{view.count():,}")
    return html('<li><a href="/-/{}"{}>{}{}</a></li>', view.path, current, view.title, number)
