"""``/-/phone``: a page with a QR code that takes the visitor's session along to a phone.

The code holds a random word that stands for the session: it can be used once, and for a minute.
Whoever opens its URL in that time has the session, as if they had its cookie.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import trio
from markupsafe import Markup

from rpyserve.http.errors import HTTPError, Redirect
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.resources import pages
from rpyserve.resources.resource import Resource
from rpyserve.util.html import html

if TYPE_CHECKING:
    from rpyserve.sessions.session import Session
    from rpyserve.site import Site

PATH: Final = "/-/phone"

LIFETIME: Final = 60.0
"""Seconds for which a code can be used."""

MOST: Final = 100
"""How many codes are known at once: for one more, the oldest is forgotten."""


class Codes:
    """Words that stand for sessions, each once and for a minute."""

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[Session, float]] = {}

    def make(self, session: Session) -> str:
        """Return a new word for *session*."""
        if len(self._sessions) >= MOST:
            del self._sessions[next(iter(self._sessions))]
        word = secrets.token_urlsafe(16)
        self._sessions[word] = session, trio.current_time() + LIFETIME
        return word

    def take(self, word: str) -> Session | None:
        """Return the session that *word* stands for, if it is not too late; it is used up."""
        session, end = self._sessions.pop(word, (None, 0.0))
        is_good = session is not None and session.ended is None and trio.current_time() < end
        return session if is_good else None


class PhonePage(Resource):
    """The page, and below it what the codes lead to.

    Args:
        site: the site whose sessions they are.
        urls: the addresses by which the network reaches it, each with a slash at its end.
    """

    _wants_body = False

    def __init__(self, site: Site, urls: Sequence[str]) -> None:
        self._site = site
        self._urls = urls
        self._codes = Codes()

    def getChild(self, name: str, request: Request) -> Any:
        if request.postpath:
            raise HTTPError(404)
        return _Handover(self._site, self._codes, name)

    def render_GET(self, request: Request) -> Response:
        title = "Open this site on your phone"
        if why := self._obstacle():
            return pages.page_response(
                request, 200, title, html("<h1>{}</h1>\n<p>{}</p>", title, why), why
            )
        word = self._codes.make(self._site.session_for(request))
        urls = [f"{url}{PATH.lstrip('/')}/{word}" for url in self._urls]
        note = (
            "Scan the code with a phone in the same network. It can be used once, and for a "
            "minute; then load this page again. The phone has your session then, and what is in it."
        )
        codes = [html("<figure>{}<figcaption>{}</figcaption></figure>", _svg(u), u) for u in urls]
        body = html("<h1>{}</h1>\n<p>{}</p>\n{}", title, note, Markup("\n").join(codes))
        return pages.page_response(request, 200, title, body, "\n".join([title, note, *urls]))

    def _obstacle(self) -> str:
        """Why there is no code; empty if there is one."""
        persistence = self._site.persistence
        if persistence is not None and persistence.store.is_shared:
            return "The sessions of this site are shared with other processes, and stay there."
        if not self._urls:
            return "No other device can reach this server. Start it with --phone."
        return ""


class _Handover(Resource):
    isLeaf = True
    _wants_body = False

    def __init__(self, site: Site, codes: Codes, word: str) -> None:
        self._site = site
        self._codes = codes
        self._word = word

    def render_GET(self, request: Request) -> Redirect:
        session = self._codes.take(self._word)
        if session is None:
            raise HTTPError(404, f"This code was used, or is too old. Load {PATH} again.")
        self._site.adopt_session(request, session)
        return Redirect("/")


def qr_text(url: str) -> str:
    """Return a QR code of *url* for a terminal."""
    text = StringIO()
    _code(url).terminal(text, compact=True, border=2)
    return text.getvalue().rstrip("\n")


def _svg(url: str) -> Markup:
    return Markup(_code(url).svg_inline(scale=6, border=3, dark="#000", light="#fff"))


def _code(url: str) -> Any:
    import segno

    return segno.make_qr(url, error="l")
