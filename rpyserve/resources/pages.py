"""rpyserve's own pages: HTTP errors, the listing of a directory, the welcome of an empty site.

Every page works without JavaScript, network or a light screen, comes with a policy that allows
nothing but the script of live reload, and has twins for other clients: plain text, and JSON for
those that ask for it. Whatever came from outside goes in through `html`. Who may see details is
decided by the caller. The page of a script's exception is made in `diagnostics`, by means of this
module.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from markupsafe import Markup, escape

from rpyserve.http.browser import accepts_html
from rpyserve.http.errors import HTTPError, PageNotFound
from rpyserve.http.headers import reason_phrase
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.util.html import html
from rpyserve.util.text import format_size

# Characters of a path that a page shows.
MAX_PATH_SHOWN: Final = 300

PALETTE: Final = """
:root { color-scheme: light dark; --ink: #1d2329; --dim: #5d6873; --paper: #fff; --box: #f3f5f7;
  --edge: #d8dee4; --link: #0b5cad; --bad: #b3261e; --fault: #fde4e1;
  --keyword: #7c2fa8; --name: #0b5cad; --string: #1c6b2f; --number: #8a4b00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --dim: #9aa5b1; --paper: #15191d; --box: #1f252b;
    --edge: #333c45; --link: #7ab8ff; --bad: #ff9d94; --fault: #4b2422;
    --keyword: #d9a5f2; --name: #8cc4ff; --string: #9be29b; --number: #ffc07a } }
"""
"""The colours of all pages of rpyserve's own, by their names."""

STYLE: Final = (
    PALETTE
    + """\
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 52rem; padding: 3rem 1.25rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0 0 1rem; overflow-wrap: anywhere }
h1 small { display: block; font-size: .9rem; font-weight: 400; color: var(--dim) }
p, figcaption { overflow-wrap: anywhere }
figure { margin: 1rem 0 }
a { color: var(--link) }
pre, code { font: .9rem/1.5 ui-monospace, Consolas, monospace }
pre { background: var(--box); border: 1px solid var(--edge); border-radius: .4rem;
  padding: .75rem 1rem; overflow-x: auto; white-space: pre-wrap }
h2, h3, h4, h5, h6 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere }
.mend { border-left: .25rem solid var(--link); padding-left: 1rem }
.place { color: var(--dim); margin: 1.2rem 0 .3rem }
.relation { margin: 2rem 0 0; padding-top: 1rem; border-top: 1px solid var(--edge);
  color: var(--dim) }
.note { white-space: pre-wrap }
.code { white-space: pre; padding: .5rem 0 .5rem .5rem }
.code i { color: var(--dim); font-style: normal; user-select: none }
.code b, .code b i { display: inline-block; min-width: 100%; background: var(--fault);
  font-weight: 400 }
.code b i { display: inline; color: var(--bad) }
.keyword { color: var(--keyword) }
.name { color: var(--name) }
.string { color: var(--string) }
.number { color: var(--number) }
.comment { color: var(--dim) }
mark { background: none; color: inherit; border-bottom: .15rem solid var(--bad) }
summary { cursor: pointer; color: var(--dim) }
details { margin: .3rem 0 }
details > ol { padding-left: 2rem; overflow-wrap: anywhere; font-size: .9rem }
details > ol > li { margin: .3rem 0 }
.branches > li { border-left: 1px solid var(--edge); padding-left: .75rem; margin: 0 0 1rem }
.branches { padding-left: 1.5rem }
.values { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr;
  gap: .2rem 1rem; margin: .5rem 0 }
.values dt { color: var(--dim); overflow-wrap: anywhere; max-width: 12rem }
.values dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap }
.values dt, .values dd { font: .85rem/1.5 ui-monospace, Consolas, monospace }
@media (max-width: 30rem) { body { padding: 1.5rem 1rem } .values { display: block }
  .values dd { margin-bottom: .5rem } td:nth-child(3) { display: none } }
button { font: inherit; color: var(--ink); background: var(--box); border: 1px solid var(--edge);
  border-radius: .4rem; padding: .3rem .9rem; cursor: pointer }
table { border-collapse: collapse; width: 100% }
td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--edge); overflow-wrap: anywhere }
td + td { color: var(--dim); white-space: nowrap; text-align: right; width: 1% }
footer { margin-top: 3rem; color: var(--dim); font-size: .85rem }
"""
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# What is around the title and the body of a page.
_BEFORE_TITLE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>"""
_BEFORE_BODY: Final = f"""</title>
<style>{STYLE}</style>
</head>
<body>
<main>
"""
_AFTER_BODY: Final = """
</main>
<footer>rpyserve</footer>
</body>
</html>
"""

_SHOWS_ITSELF: Final = Markup("<span data-rpyserve-loads>, and it appears here by itself:</span>")

FIRST_SCRIPT: Final = """\
def resource(request):
    session = request.getSession()
    session["visits"] = session.get("visits", 0) + 1
    return f"<h1>Hello!</h1><p>Visit {session['visits']}.</p>"
"""

NEW_PAGE: Final = """\
def resource(request):
    return "<h1>Hello!</h1>"
"""

# What an error page says whose `HTTPError` has no detail.
_DETAILS: Final = {
    400: "The request is not valid for this page.",
    403: "You may not open this page.",
    404: "Page not found.",
    405: "This page does not support that method.",
    413: "The request is too large.",
    500: "An error occurred on this page.",
}


@dataclass(frozen=True, slots=True)
class ListingEntry:
    """A row of a directory listing.

    Args:
        name: its name.
        is_directory: whether it is one; else a file, or a script.
        size: bytes; not shown of a directory.
        modified: seconds since the epoch.
    """

    name: str
    is_directory: bool
    size: int
    modified: float


def error_page(request: Request, error: HTTPError, *, trusted: bool) -> Response:
    """Return the page for an `HTTPError`: what it says to everyone, and to a trusted client why."""
    if trusted and isinstance(error, PageNotFound) and accepts_html(request):
        return _page_not_found(request, error)
    title = f"{error.status} {reason_phrase(error.status)}".strip()
    told = (error.detail or _DETAILS.get(error.status, ""), error.private if trusted else "")
    lines = [line for line in told if line]
    template = "\n".join(["<h1>{}<small>{} {}</small></h1>", *["<p>{}</p>"] * len(lines)])
    body = html(template, title, request.method, path_shown(request), *lines)
    text = "\n".join([title, *lines])
    return page_response(request, error.status, title, body, text, error.headers)


def _page_not_found(request: Request, error: PageNotFound) -> Response:
    """Return the page for its author: why it is not there, how to make it, and what is there."""
    title = f"404 {reason_phrase(404)}"
    body = html(
        "<h1>{}<small>{} {}</small></h1>\n<p>{}</p>\n",
        title,
        request.method,
        path_shown(request),
        error.private,
    )
    if error.new_file:
        body += html(
            "<p>To create it, save this as <code>{}</code>{}</p>\n<pre>{}</pre>\n",
            error.new_file,
            _SHOWS_ITSELF if request._follows else ":",
            NEW_PAGE,
        )
    if error.links:
        items = Markup("\n").join(
            html('<li><a href="{}">{}</a></li>', quote(link, errors="replace"), link)
            for link in error.links
        )
        body += html("<h2>Pages here</h2>\n<ul>\n{}\n</ul>", items)
    return page_response(request, 404, title, body, error.private)


def listing(request: Request, path: str, entries: Iterable[ListingEntry]) -> Response:
    """Return the page for the directory at *path*, a decoded URL path that ends in a slash."""
    entries = list(entries)
    parent = html('<p><a href="../">Up</a></p>\n') if path.strip("/") else ""
    rows = Markup("\n").join(map(_listing_row, entries))
    body = html("<h1>{}</h1>\n{}<table>\n{}\n</table>", path, parent, rows)
    return page_response(request, 200, path, body, "\n".join(map(_shown_name, entries)))


def empty_site(request: Request, directory: Path) -> Response:
    """Return the welcome of a site without a page: a first script, and where to save it.

    A page that follows edits says so. It loads the first page at once: to fetch that and have a
    look would count as a visit.
    """
    target = directory / "index.rpy"
    title = "It works! Create your first page"
    body = html(
        "<h1>{}</h1>\n"
        "<p>There are no pages in <code>{}</code> yet. "
        "Save this as <code>{}</code>{}</p>\n"
        "<pre>{}</pre>",
        title,
        directory,
        target,
        _SHOWS_ITSELF if request._follows else " and reload this page:",
        FIRST_SCRIPT,
    )
    text = f"{title}: save this as {target}\n\n{FIRST_SCRIPT}"
    return page_response(request, 200, title, body, text)


def page_response(
    request: Request,
    status: int,
    title: str,
    body: Markup,
    text: str,
    headers: Mapping[str, str] | None = None,
    error: Mapping[str, object] | None = None,
) -> Response:
    """Return one of rpyserve's pages in the form that the client asks for.

    Args:
        body: HTML, for browsers.
        text: the same as plain text, for other clients. One that asks for JSON gets it as
            ``detail``.
        headers: further response headers.
        error: what JSON has besides, under this name.
    """
    fields = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Accept"}
    if accepts_html(request):
        content = f"{_BEFORE_TITLE}{escape(title)}{_BEFORE_BODY}{body}{_AFTER_BODY}"
        fields["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    elif "application/json" in request.raw_headers.text(b"accept"):
        told = {"status": status, "title": title, "detail": text}
        content = json.dumps({**told, "error": error} if error else told)
        fields["Content-Type"] = "application/json"
    else:
        content = text + "\n"
        fields["Content-Type"] = "text/plain; charset=utf-8"
    # The names of files may hold surrogates, which UTF-8 cannot encode.
    encoded = content.encode("utf-8", "backslashreplace")
    return Response(encoded, status, {**fields, **(headers or {})})


def path_shown(request: Request) -> str:
    """Return the path that was asked for, shortened if it is very long."""
    path = request.path
    return path if len(path) <= MAX_PATH_SHOWN else path[:MAX_PATH_SHOWN] + "…"


def _shown_name(entry: ListingEntry) -> str:
    return f"{entry.name}/" if entry.is_directory else entry.name


def _listing_row(entry: ListingEntry) -> Markup:
    return html(
        '<tr><td><a href="{}">{}</a></td><td>{}</td><td>{}</td></tr>',
        quote(_shown_name(entry), errors="replace"),
        _shown_name(entry),
        "" if entry.is_directory else format_size(entry.size),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.modified)),
    )
