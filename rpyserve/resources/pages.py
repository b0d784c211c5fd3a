"""The pages that are ours: HTTP errors, the listing of a directory, the welcome of an empty site.

Every page is whole without JavaScript, network or a light screen, comes with a policy that lets nothing in but the
script by which pages follow edits, and has twins for other clients: plain text, and JSON for those that ask for it.
Whatever came from outside goes in through `html`. Who may see details is decided by the caller. The page of a failure
is `errorpage`'s.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from markupsafe import Markup

from rpyserve.http.browser import accepts_html
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.util.html import html

__all__ = ["POLICY", "Entry", "empty_site", "error_page", "listing", "page_response", "path_shown", "reason"]  # fmt: skip

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2329; --dim: #5d6873; --paper: #fff; --box: #f3f5f7; --edge: #d8dee4;
  --link: #0b5cad; --bad: #b3261e; --fault: #fde4e1 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --dim: #9aa5b1; --paper: #15191d; --box: #1f252b; --edge: #333c45; --link: #7ab8ff;
    --bad: #ff9d94; --fault: #4b2422 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 52rem; padding: 3rem 1.25rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0 0 1rem; overflow-wrap: anywhere }
h1 small { display: block; font-size: .9rem; font-weight: 400; color: var(--dim) }
p { overflow-wrap: anywhere }
a { color: var(--link) }
pre, code { font: .9rem/1.5 ui-monospace, Consolas, monospace }
pre { background: var(--box); border: 1px solid var(--edge); border-radius: .4rem; padding: .75rem 1rem;
  overflow-x: auto; white-space: pre-wrap }
h2, h3, h4, h5, h6 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere }
.mend { border-left: .25rem solid var(--link); padding-left: 1rem }
.place { color: var(--dim); margin: 1.2rem 0 .3rem }
.relation { margin: 2rem 0 0; padding-top: 1rem; border-top: 1px solid var(--edge); color: var(--dim) }
.note { white-space: pre-wrap }
.code { white-space: pre; padding: .5rem 0 .5rem .5rem }
.code i { color: var(--dim); font-style: normal; user-select: none }
.code b, .code b i { display: inline-block; min-width: 100%; background: var(--fault); font-weight: 400 }
.code b i { display: inline; color: var(--bad) }
mark { background: none; color: inherit; border-bottom: .15rem solid var(--bad) }
summary { cursor: pointer; color: var(--dim) }
details { margin: .3rem 0 }
details > ol { padding-left: 2rem; overflow-wrap: anywhere; font-size: .9rem }
details > ol > li { margin: .3rem 0 }
.branches > li { border-left: 1px solid var(--edge); padding-left: .75rem; margin: 0 0 1rem }
.branches { padding-left: 1.5rem }
.values { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr; gap: .2rem 1rem; margin: .5rem 0 }
.values dt { color: var(--dim); overflow-wrap: anywhere; max-width: 12rem }
.values dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap }
.values dt, .values dd { font: .85rem/1.5 ui-monospace, Consolas, monospace }
@media (max-width: 30rem) { body { padding: 1.5rem 1rem } .values { display: block }
  .values dd { margin-bottom: .5rem } }
table { border-collapse: collapse; width: 100% }
td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--edge); overflow-wrap: anywhere }
td + td { color: var(--dim); white-space: nowrap; text-align: right; width: 1% }
footer { margin-top: 3rem; color: var(--dim); font-size: .85rem }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; script-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

_FRAME = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
    "<style>{style}</style>\n</head>\n<body>\n{body}\n<footer>rpyserve</footer>\n</body>\n</html>\n"
)

FIRST_SCRIPT: Final = """\
def resource(request):
    session = request.getSession()
    session["visits"] = session.get("visits", 0) + 1
    return f"<h1>Hello!</h1><p>Visit {session['visits']}.</p>"
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a listing: *href* is percent-encoded, *size* in bytes, *modified* in seconds since the epoch."""

    name: str
    href: str
    kind: str
    size: int | None
    modified: float




def reason(status: int) -> str:
    """The standard phrase for *status* (RFC 9110, section 15), or an empty text."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def error_page(request: Request, error: HTTPError, *, trusted: bool) -> Response:
    """The page for an `HTTPError`: what it says to everyone, and to a trusted client why."""
    title = f"{error.status} {reason(error.status)}".strip()
    lines = [error.detail or _DETAILS.get(error.status, "")]
    if trusted and error.private:
        lines.append(error.private)
    lines = [line for line in lines if line]
    body = html(
        "<h1>{}<small>{} {}</small></h1>\n{}",
        title,
        request.method,
        path_shown(request),
        _paragraphs(lines),
    )
    return page_response(
        request, error.status, title, body, "\n".join([title, *lines]), error.headers
    )


def listing(request: Request, path: str, entries: Iterable[Entry]) -> Response:
    """The content of the directory at *path*, a decoded URL path that ends in a slash."""
    entries = list(entries)
    rows = Markup("\n").join(
        html(
            '<tr><td><a href="{}">{}</a></td><td>{}</td><td>{}</td></tr>',
            e.href,
            e.name,
            _size(e),
            _when(e),
        )
        for e in entries
    )
    up = html('<p><a href="../">Up</a></p>\n') if path.strip("/") else ""
    body = html("<h1>{}</h1>\n{}<table>\n{}\n</table>", path, up, rows)
    return page_response(request, 200, path, body, "\n".join(entry.name for entry in entries), {})


def empty_site(request: Request, directory: Path) -> Response:
    """The welcome of a site without a page: a first script, and where to save it."""
    target = directory / "index.rpy"
    title = "It works. Now the first page"
    body = html(
        "<h1>{}</h1>\n<p>There is nothing to show in {} yet. "
        "Save this as <code>{}</code> and load this page again:</p>\n"
        "<pre>{}</pre>",
        title, html("<code>{}</code>", directory), target, FIRST_SCRIPT,
    )  # fmt: skip
    text = f"{title}: save this as {target}\n\n{FIRST_SCRIPT}"
    return page_response(request, 200, title, body, text, {})


def page_response(
    request: Request, status: int, title: str, body: Markup, text: str, headers: Mapping[str, str]
) -> Response:
    """Return a page of ours in the form that the client asks for.

    Args:
        body: HTML, for browsers.
        text: the same as plain text, for other clients. One that asks for JSON gets it as ``detail``.
    """
    fields = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Accept"}
    if accepts_html(request):
        page = html(_FRAME, title=title, style=Markup(STYLE), body=body)
        return Response(
            _encode(page), status, {**fields, "Content-Security-Policy": POLICY, **headers}
        )
    if "application/json" in (request.getHeader("accept") or ""):
        content = json.dumps(
            {"status": status, "title": title, "detail": text}
        )  # surrogates as escapes
        return Response(
            content.encode(), status, {**fields, "Content-Type": "application/json", **headers}
        )
    return Response(
        _encode(text + "\n"),
        status,
        {**fields, "Content-Type": "text/plain; charset=utf-8", **headers},
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # names of files may hold surrogates


def path_shown(request: Request) -> str:
    """Return the path that was asked for, at most 300 characters of it."""
    path = request.path
    return path if len(path) <= 300 else path[:300] + "…"


def _paragraphs(lines: Iterable[str]) -> Markup:
    return Markup("\n").join(html("<p>{}</p>", line) for line in lines)


def _size(entry: Entry) -> str:
    if entry.size is None:
        return ""
    size, unit = float(entry.size), "bytes"
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _when(entry: Entry) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.modified))


_DETAILS: Final = {
    400: "The request does not fit this page.",
    403: "This is not for you.",
    404: "There is no page here.",
    405: "This page does not answer that method.",
    413: "That is more than this server takes.",
    500: "This page has an error.",
}
