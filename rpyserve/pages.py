"""The pages that are ours: errors, the listing of a directory, the welcome of an empty site.

Every page is whole without JavaScript, network or a light screen, comes with a policy that lets nothing in but the
script by which pages follow edits, and has a plain-text twin for clients that do not ask for HTML. Whatever came from
outside goes in through `html`. Who may see details is decided by the caller.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from markupsafe import Markup

from rpyserve.errors import HTTPError
from rpyserve.failures import Failure
from rpyserve.markup import html
from rpyserve.request import Request
from rpyserve.response import Response

__all__ = ["Entry", "empty_site", "http_error", "listing", "reason", "script_failure", "wants_html"]

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2329; --dim: #5d6873; --paper: #fff; --box: #f3f5f7; --edge: #d8dee4;
  --link: #0b5cad }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --dim: #9aa5b1; --paper: #15191d; --box: #1f252b; --edge: #333c45; --link: #7ab8ff } }
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
.mend { border-left: .25rem solid var(--link); padding-left: 1rem }
.place { color: var(--dim); margin: 1.2rem 0 .3rem }
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


def wants_html(request: Request) -> bool:
    """Whether the client asks for HTML by name (a browser does; curl and API clients do not)."""
    return "text/html" in (request.getHeader("accept") or "")


def reason(status: int) -> str:
    """The standard phrase for *status* (RFC 9110, section 15), or an empty text."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def http_error(request: Request, error: HTTPError, *, trusted: bool) -> Response:
    """The page for an `HTTPError`: what it says to everyone, and to a trusted client why."""
    title = f"{error.status} {reason(error.status)}".strip()
    lines = [error.detail or _DETAILS.get(error.status, "")]
    if trusted and error.private:
        lines.append(error.private)
    lines = [line for line in lines if line]
    body = html("<h1>{}<small>{} {}</small></h1>\n{}", title, request.method, _shown(request), _paragraphs(lines))
    return _page(request, error.status, title, body, "\n".join([title, *lines]), error.headers)


def script_failure(request: Request, failure: Failure, *, trusted: bool) -> Response:
    """The page for a script that fails: all of it for a trusted client, a bare 500 for others."""
    if not trusted:
        return http_error(
            request, HTTPError(500, "This page has an error. Its author sees more on the console."), trusted=False
        )
    parts = [html("<h1>{}<small>{} {}</small></h1>", failure.title, request.method, _shown(request))]
    if failure.hint:
        first, _, rest = failure.hint.partition("\n")
        parts.append(html('<div class="mend"><p>{}</p>{}</div>', first, html("<pre>{}</pre>", rest) if rest else ""))
    for place in reversed(failure.places):
        where = f"{place.file}, line {place.line}" + (f", in {place.function}" if place.function else "")
        parts.append(html('<p class="place">{}</p>\n<pre>{}</pre>', where, place.source))
    parts += [html("<p>Because of: {}</p>", title) for title in failure.chain]
    return _page(request, 500, failure.title, Markup("\n").join(parts), as_text(failure), {})


def as_text(failure: Failure) -> str:
    """The same as plain text, for a console and for other clients."""
    lines = [failure.title]
    for place in failure.places:
        where = f"  {place.file}:{place.line}" + (f" in {place.function}" if place.function else "")
        lines += [where, f"    {place.source}"]
    lines += [f"  because of: {title}" for title in failure.chain]
    lines += [f"  {line}" for line in failure.hint.splitlines()]
    return "\n".join(lines)


def listing(request: Request, path: str, entries: Iterable[Entry]) -> Response:
    """The content of the directory at *path*, a decoded URL path that ends in a slash."""
    entries = list(entries)
    rows = Markup("\n").join(
        html('<tr><td><a href="{}">{}</a></td><td>{}</td><td>{}</td></tr>', e.href, e.name, _size(e), _when(e))
        for e in entries
    )
    up = html('<p><a href="../">Up</a></p>\n') if path.strip("/") else ""
    body = html("<h1>{}</h1>\n{}<table>\n{}\n</table>", path, up, rows)
    return _page(request, 200, path, body, "\n".join(entry.name for entry in entries), {})


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
    return _page(request, 200, title, body, text, {})


def _page(request: Request, status: int, title: str, body: Markup, text: str, headers: Mapping[str, str]) -> Response:
    fields = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if not wants_html(request):
        content = _encode(text + "\n")
        return Response(content, status, {**fields, "Content-Type": "text/plain; charset=utf-8", **headers})
    page = html(_FRAME, title=title, style=Markup(STYLE), body=body)
    return Response(_encode(page), status, {**fields, "Content-Security-Policy": POLICY, **headers})


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # names of files may hold surrogates


def _shown(request: Request) -> str:
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
