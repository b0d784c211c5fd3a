"""The inspector of a site: who may see it, and how views and actions become responses.

It answers below ``/-/`` what it has a view or an action for, and only who may see it: clients on
this machine or in trusted networks, in no page of another origin. Whatever else is asked for there
is not its business, so everybody else gets what a site without an inspector answers.

The order of the checks of an action matters: audience, place, method, media type, size, token.
Nothing has been done when one of them refuses. Names in URLs are looked up in what there is in
memory, never on the disk.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from rpyserve.http.browser import is_cross_origin
from rpyserve.http.response import Response
from rpyserve.inspector import page
from rpyserve.inspector.request_actions import register_request_actions
from rpyserve.inspector.request_views import register_requests
from rpyserve.inspector.script_views import Loaders, register_scripts
from rpyserve.inspector.session_views import SessionViews
from rpyserve.inspector.site_views import register_site
from rpyserve.inspector.stream import Looks, Places
from rpyserve.inspector.views import TOKEN_FIELD, Data, Problem, Question, Table, View
from rpyserve.resources.auth import Gate
from rpyserve.resources.resource import Resource
from rpyserve.site import Site
from rpyserve.util.text import escape_for_log, escape_unprintable

if TYPE_CHECKING:
    from rpyserve.http.request import Request, Responder
    from rpyserve.inspector.ended_sessions import EndedSessions
    from rpyserve.inspector.recorder import Recorder

PREFIX: Final = "/-/"

EVENTS: Final = "events"
"""Where the stream is, if ``?inspect`` is asked for; else it is live reload's."""

MOST_BYTES: Final = 64 * 1024
"""How long the body of an action may be."""

_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"

log = logging.getLogger("rpyserve")


@dataclass(frozen=True, slots=True)
class Server:
    """What the server around an inspector provides.

    Args:
        respond: answers requests that are sent once more.
        loaders: returns what executes the scripts of the site.
        token: what each action must bring; another one in each run.
        facts: returns what only the server knows: its connections and options.
        places: has a place for each stream of a browser.
        with_morphing: puts before a script what makes a page show another.
    """

    respond: Responder
    loaders: Loaders
    token: str
    facts: Callable[[], Data]
    places: Places
    with_morphing: Callable[[str], str]


class Inspector:
    """What is to be seen of *site*, and done to it, below ``/-/``.

    Args:
        site: the site.
        recorder: keeps what its requests did.
        ended: keeps the sessions that have ended.
        server: what the server around it provides.

    Attributes:
        table: the views and the actions.
        token: what each action must bring; another one in each run.
        boot: tells this run of the server from others.
        on_done: called with the path of each action that was done, and what is said of it.
    """

    def __init__(
        self,
        site: Site,
        recorder: Recorder,
        ended: EndedSessions,
        server: Server,
    ) -> None:
        self.boot = secrets.token_hex(4)
        self.on_done: Callable[[str, str], object] = lambda path, done: None
        self.table = Table(self.boot)
        self.token = server.token
        self._site = site
        self._server = server
        self._recorder = recorder
        self._looks = Looks(recorder, site.sessions, server.places, self.boot)
        self._answers = Site(Gate(_Answers(self), site))
        self._answers.trusts = lambda request: site.trusts(request)
        actions, visit_actions = register_request_actions(
            self.table,
            site,
            recorder,
            server.respond,
            lambda: [each.modules.root for each in server.loaders()],
        )
        sessions = SessionViews(site, ended, recorder, visit_actions)
        register_site(self.table, site, recorder, sessions.summary, server.loaders, server.facts)
        sessions.register(self.table)
        register_requests(self.table, recorder, actions)
        register_scripts(self.table, site, recorder, server.loaders)

    def response_to(self, request: Request) -> Awaitable[Response] | None:
        """Return what answers *request*; None if it is none of the inspector's, or not for it."""
        if not self._is_known(request) or not self._may_see(request):
            return None
        request._logged = False
        return self._answers.respond(request)

    def _is_known(self, request: Request) -> bool:
        path = path_of(request)
        if path in (page.STYLESHEET, page.SCRIPT):
            return True
        if path == EVENTS and "inspect" in _query_of(request):
            return True
        return bool(self._view_of(path) or self.table.action_at(path))

    def _may_see(self, request: Request) -> bool:
        return self._site.trusts(request) and not is_cross_origin(request)

    def _view_of(self, path: str) -> tuple[View, dict[str, str], bool] | None:
        """The view at *path*, what its names stand for, and whether its JSON is asked for."""
        bare = path.removesuffix(".json")
        if bare != path and (found := self.table.view_at(bare)) and not found[0].is_text:
            return *found, True
        return (*found, False) if (found := self.table.view_at(path)) else None

    async def show(self, request: Request) -> Response:
        """Answer a GET."""
        path = path_of(request)
        if path == page.STYLESHEET:
            return page.stylesheet()
        if path == page.SCRIPT:
            return page.script(self._server.with_morphing)
        if path == EVENTS:
            return self._looks.response_to(request)
        found = self._view_of(path)
        if found is None or self.table.action_at(path):
            raise Problem(405, "This is an action: POST it.", {"Allow": "POST"})
        view, names, is_json = found
        fields = _query_of(request)
        if "secrets" in fields and not self._is_token(_token_field(request)):
            raise Problem(403, f"Secrets are shown to who sends the token in {TOKEN_FIELD}.")
        if view.is_look:
            self._recorder.watch()
        answer = await view.answer(Question(request, names, fields, path))
        data = self._head() | answer
        if view.is_text:
            return _text_response(data["text"])
        if is_json:
            return _json_response(data)
        shown = data | {"token": self.token}
        return page.of_view(view, names, shown, self.table, _twin_of(request))

    async def act(self, request: Request) -> Response:
        """Answer a POST."""
        path = path_of(request)
        if (found := self.table.action_at(path)) is None:
            raise Problem(405, "This is a view: GET it.", {"Allow": "GET, HEAD"})
        action, names = found
        fields = await _fields_of(request)
        if not self._is_token(fields.pop("token", "") or _token_field(request)):
            raise Problem(403, "The token of this run of the server is missing, or is another's.")
        self._recorder.watch()
        done = await action.perform(Question(request, names, fields, path))
        self._recorder.tell()
        log.info("Inspector, %s: %s", escape_for_log(path), escape_unprintable(done["done"]))
        self.on_done(path, done["done"])
        if wants_json(request):
            return _json_response(self._head() | done)
        return page.of_action(action, names, done, self.table)

    def _is_token(self, given: str) -> bool:
        return compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _head(self) -> Data:
        return {"at": round(time.time(), 3), "boot": self.boot}


class _Answers(Resource):
    isLeaf = True
    _wants_body = False
    _wants_session = False

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector

    async def render_GET(self, request: Request) -> Response:
        return await self._answer(request, self._inspector.show(request))

    async def render_POST(self, request: Request) -> Response:
        return await self._answer(request, self._inspector.act(request))

    async def _answer(self, request: Request, answer: Awaitable[Response]) -> Response:
        try:
            return await answer
        except Problem as problem:
            if wants_json(request):
                return _json_response(page.told_of(problem), problem.status, problem.headers)
            return page.of_problem(problem, self._inspector.table)


def path_of(request: Request) -> str:
    """Return the path of *request* below ``/-/``, decoded."""
    return unquote(request.raw_path.removeprefix(PREFIX))


def _query_of(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.uri.partition("?")[2], keep_blank_values=True))


def _twin_of(request: Request) -> str:
    _, mark, query = request.uri.partition("?")
    return f"{request.raw_path}.json{mark}{query}"


def wants_json(request: Request) -> bool:
    """Return whether the answer to *request* is for a program."""
    if path_of(request).endswith(".json") or _media_type(request) == _JSON:
        return True
    return _JSON in request.raw_headers.text(b"accept")


def _token_field(request: Request) -> str:
    return request.raw_headers.text(TOKEN_FIELD.lower().encode())


def _media_type(request: Request) -> str:
    return request.raw_headers.text(b"content-type").partition(";")[0].strip().lower()


async def _fields_of(request: Request) -> dict[str, str]:
    kind = _media_type(request)
    if kind not in (_FORM, _JSON):
        raise Problem(415, f"An action takes {_FORM} or {_JSON}.")
    body = await _body_of(request)
    try:
        text = body.decode()
        fields = json.loads(text) if kind == _JSON else dict(parse_qsl(text, True))
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise Problem(400, "The body cannot be read as an object with the fields of the action.")
    return {name: _as_text(name, value) for name, value in fields.items()}


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        raise Problem(400, f"The field {name[:80]} is a plain value.")
    return json.dumps(value)


async def _body_of(request: Request) -> bytes:
    parts, size = [], 0
    told = request._body_length
    if told is None or told <= MOST_BYTES:
        async for chunk in request.body_chunks() or _nothing():
            size += len(chunk)
            if size > MOST_BYTES:
                break
            parts.append(chunk)
        else:
            return b"".join(parts)
    raise Problem(413, f"The body of an action has at most {MOST_BYTES // 1024} KiB.")


async def _nothing() -> AsyncIterator[bytes]:
    chunks: tuple[bytes, ...] = ()
    for chunk in chunks:
        yield chunk


def _json_response(
    data: Data, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    fields = page.HEADERS | {"Content-Type": _JSON} | dict(headers or {})
    return Response(json.dumps(finite(data), allow_nan=False), status, fields)


def _text_response(text: str) -> Response:
    fields = page.HEADERS | {"Content-Type": "text/plain; charset=utf-8"}
    return Response(text.encode("utf-8", "backslashreplace"), 200, fields)


def finite(data: Any) -> Any:
    """Return *data* with texts in place of what JSON cannot say: infinity, and what is no number.

    Never is None: so is said how long is left of what does not end.
    """
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [finite(value) for value in data]
    return str(data) if isinstance(data, float) and not math.isfinite(data) else data
