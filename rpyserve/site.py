"""A site: a root resource, its visitors' sessions, and what is shared by all. Policy only, no I/O.

`Site.respond` is the one way from a `Request` to a `Response`; protocols, the command line and
tests all call it. It turns whatever a script does wrong into a page, and lets pass only what is not
a script's business: cancellation, an interrupt from the console, and a client that left.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from rpyserve._names import public
from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.http.browser import is_browser_probe, is_cross_origin
from rpyserve.http.cookies import cookie_pairs, format_set_cookie
from rpyserve.http.errors import ClientDisconnected, HTTPError, Redirect, ScriptError
from rpyserve.http.hosts import TrustedClients
from rpyserve.http.request import Request, cookie_path, current_request
from rpyserve.http.response import HTML, ErrorHandler, FileBody, Response, Stream, Upgrade
from rpyserve.resources.rendering import (
    apply_request_headers,
    cancel_on_disconnect,
    redirect_response,
    render,
)
from rpyserve.resources.resource import HTTP_METHODS, as_resource, options_response, traverse
from rpyserve.scripts import definitions
from rpyserve.scripts.background import BackgroundTasks, Job, RequestTasks, SiteNursery
from rpyserve.scripts.threads import SessionLocks, ThreadCall, current_call, in_loop_async
from rpyserve.sessions.components import (
    bring_up_to_date_in_slices,
    holds_much,
    is_outdated,
)
from rpyserve.sessions.session import Registry, Session, SessionEnd
from rpyserve.sessions.store import SessionStore
from rpyserve.util.author_code import ServerObject
from rpyserve.util.exceptions import (
    Interruption,
    ScriptInterrupted,
    is_on_console,
    split_control_flow,
    unwrap_group,
)
from rpyserve.util.file_limits import ADVICE, is_too_many_files
from rpyserve.util.text import escape_for_log
from rpyserve.util.throttle import ThrottledLogger

if TYPE_CHECKING:
    from rpyserve.diagnostics.editor import EditorLink
    from rpyserve.diagnostics.model import ErrorReport
    from rpyserve.scripts.execution import Execution
    from rpyserve.scripts.importer import SourceObserver
    from rpyserve.stores.persistence import Persistence

__all__ = ["Site"]

log = logging.getLogger("rpyserve")

MOST_SESSIONS: Final = 100_000
"""How many sessions live at once unless a site says otherwise."""

REASON_INTERVAL: Final = 1.0
"""Seconds until the console says once more why one thing cannot be had."""


@public
class Site(ServerObject):
    """What a server serves.

    Args:
        root: the `Resource` (or function of the request) at ``/``.
        sessionTimeout: seconds a session lives after its last access; None leaves it to the
            session's class (900, unless it says otherwise).
        maxSessions: how many sessions may live at once: for one more, the one idle longest ends,
            `SessionEnd.EVICTED`. None is any number.
        store: what keeps sessions and the registry when the server stops, as ``--session-store``
            has it: ``"sqlite"``, ``"sqlite:/var/lib/site.db"``, ``"redis://localhost"``. Paths are
            relative to the current directory. None: they are kept in memory.

    Raises:
        ValueError: *store* names no store.
        StoreError: it cannot be used; most that may be wrong is found when the server starts.

    Attributes:
        sessionFactory: any callable ``(site, uid) -> Session``, such as a `Session` subclass.
        registry: the `Registry`: what all visitors share.
        sessions: the living sessions.
        session_locks: which of them functions in threads have to themselves.
        tasks: what runs beside the site; see `background`.
        cookieName: the name of the session cookie; empty for one that carries the port.
        production: whether only visitors see the site, so that the console need not say what an
            author could do.
        ready_checks: async functions that raise if the site cannot serve at present, such as one
            that asks its session store; ``/-/ready`` awaits them.
        trusts: says of a request whether its client may see details of errors. By default: clients
            on this machine.
        editor: the `EditorLink` that error pages link to; None for the one that this machine seems
            to have.
        errors: writes failures on the console, each once.
        on_source: called with each source of a script or module; see `SiteModules.on_source`.
        persistence: keeps sessions and the registry in a store; None if they are in memory only.
        recorder: the `inspector.recorder.Recorder` of what requests did; None if nobody may look.

    "Twisted Web in 60 seconds": session basics, session endings.
    """

    sessionFactory: Callable[[Any, str], Session] = Session
    cookieName: str = ""
    production: bool = False

    def __init__(
        self,
        root: Any,
        *,
        sessionTimeout: float | None = None,
        maxSessions: int | None = MOST_SESSIONS,
        store: str | None = None,
    ) -> None:
        self.root = as_resource(root)
        self.registry = Registry(self)
        self.errors = ConsoleReporter()
        self.sessions = SessionStore(self, sessionTimeout, maxSessions, self.errors)
        self.sessions.on_new_id = self._on_new_id
        self.ready_checks: list[Callable[[], Awaitable[object]]] = []
        self.session_locks = SessionLocks()
        self.trusts: Callable[[Request], bool] = TrustedClients()
        self.editor: EditorLink | None = None
        self.on_source: SourceObserver | None = None
        self._nursery = SiteNursery(self.errors)
        self.tasks = BackgroundTasks(self._nursery)
        self._request_tasks = RequestTasks(self._nursery)
        self._out_of_files = ThrottledLogger(log)
        self._reasons = ThrottledLogger(log, REASON_INTERVAL)
        self._closers: list[Callable[[], object]] = []
        # In which generation the registry was found to hold much.
        self._much_in = 0
        self.persistence: Persistence | None = None
        self.recorder: Any = None
        if store is not None:
            from rpyserve.stores.opening import parse_store, persistence_of  # many never need it

            self.persistence = persistence_of(self, parse_store(store), Path.cwd())

    def respond(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Answer *request*; to be awaited.

        Raises:
            ClientDisconnected: the client left before there was an answer.
            BaseException: `trio.Cancelled`, `KeyboardInterrupt`, and what else `split_control_flow`
                calls control flow.
        """
        request.site = self
        request._id_changes = self.sessions.id_changes
        if self.persistence is not None:
            return self.persistence.answer(request, self._answer)
        return self._answer(request)

    async def _answer(self, request: Request) -> Response:
        if request.uri == "*":
            return options_response(HTTP_METHODS)  # of the server as a whole (RFC 9110, 9.3.7)
        error_handler = partial(self._stream_error_response, request)
        try:
            resource = await traverse(self.root, request)
            if self.session_locks.held and resource._wants_session:
                await self._wait_for_thread(request)
            if request._use is not None:
                await request._use.hold_for(resource)
            response = await render(resource, request, error_handler)
            if request._watch is not None:
                _refuse_kept(request, response)
        except BaseException as raised:
            if _was_saved_meanwhile(raised) and request.may_begin_again:
                request.begin_again()
                return await self._answer(request)
            exc = _refusal_after_redirect(request, raised) or raised
            page = await self._custom_404(request, exc, error_handler)
            return page or self.page_for(request, exc)
        if not isinstance(response.body, Stream):
            self.errors.resolve(request.path)
        return response

    def page_for(self, request: Request, raised: BaseException) -> Response:
        """Return the page for what answering *request* has *raised*.

        Raises:
            BaseException: *raised*, if it is not the script's business.
        """
        return apply_request_headers(request, self._error_page(request, raised))

    async def _wait_for_thread(self, request: Request) -> None:
        """Wait while a function in a thread has the session of *request* to itself."""
        for uid in self.session_ids(request):
            while uid in self.sessions and self.sessions[uid] in self.session_locks.held:
                work = self.session_locks.wait_free(self.sessions[uid])
                await cancel_on_disconnect(work, request)

    async def _custom_404(
        self, request: Request, raised: BaseException, error_handler: ErrorHandler
    ) -> Response | None:
        """Return the site's own page for a 404, by its root's `error_page`; None if it has none."""
        exc = unwrap_group(raised)
        if not (isinstance(exc, HTTPError) and exc.status == 404):
            return None
        try:
            resource = self.root.error_page(404, request)
            if resource is None:
                return None
            self._log_reason(request, exc)
            request.error = exc
            request.setResponseCode(404)
            if request._use is not None:
                await request._use.hold_for(resource)
            return await render(resource, request, error_handler)
        except BaseException as own:
            if isinstance(unwrap_group(own), HTTPError):
                return None
            return self.page_for(request, own)

    def session_for(self, request: Request) -> Session:
        """Return the session that the request's cookie names, or a new one.

        The response sets the cookie of a new one.

        An id that this site did not issue is never adopted. If several cookies have the name, the
        first that names a living session counts: a page may have set one with a longer path.

        If `regenerate` has taken the id away since the request began, its session is not for this
        request: whoever planted the old id may have sent it. But the visitor may as well, and has
        the cookie of the new id by now. So the new session is for this request only, and brings no
        cookie that would take the place of that one.
        """
        if (call := current_call()) is not None:
            return in_loop_async(self._session_for_thread, request, call)
        ids = self.session_ids(request)
        for uid in ids:
            if self.persistence is None:
                session = self.sessions.find(uid)
            else:
                session = self.persistence.find(uid, request)
            if session is not None:
                return session
        session = self.sessions.make()
        if any(self.sessions.has_changed(uid, request._id_changes) for uid in ids):
            request.on_close(partial(_expire_without_cookie, session, request))
        else:
            self._set_session_cookie(request, session, "getSession() made a session")
        return session

    async def _session_for_thread(self, request: Request, call: ThreadCall) -> Session:
        """Return the session for *request*, and let *call* have it to itself."""
        while True:
            session = self.session_for(request)
            await call.hold(session)
            if session.ended is None:
                return session

    def adopt_session(self, request: Request, session: Session) -> None:
        """Have the visitor who makes *request* go on with *session*, which was another one's."""
        request._session = session
        if request._observer is not None:
            request._observer.note_session(session)
        self._set_session_cookie(request, session, "the session of another browser was taken over")

    def session_ids(self, request: Request) -> list[str]:
        """Return the ids in the request's cookies, of sessions or not, the first one first."""
        wanted = self._cookie_name(request)
        pairs = cookie_pairs(request.raw_headers.text(b"cookie"))
        return [uid for name, uid in pairs if name == wanted]

    @asynccontextmanager
    async def session_held(self, request: Request) -> AsyncIterator[Session]:
        """Have the session of *request* inside of a block; see `Request.session`."""
        if self.persistence is None:
            yield request.getSession()
            return
        async with self.persistence.session_held(request) as session:
            yield session

    @asynccontextmanager
    async def registry_lease(self) -> AsyncIterator[Registry]:
        """Have the registry inside of a block: ``async with site.registry_lease() as registry:``.

        What is changed in it is stored when the block is left. Background tasks need it where other
        processes share the registry (``--session-store redis:``), as they have no answer before
        which it would be stored. Elsewhere it is of no harm.

        Raises:
            HTTPError: 503, the registry cannot be had, or not be stored.
        """
        if self.persistence is None:
            yield self.registry
            return
        async with self.persistence.registry_lease() as registry:
            yield registry

    def watch_execution(self, execution: Execution, request: Request) -> None:
        """Look, before the answer to *request*, at what it keeps of what *execution* defines."""
        if request._watch is None:
            from rpyserve.sessions.transient import Watch  # many sites never need it

            request._watch = Watch(self, request)
            request.on_close(request._watch.close)
        request._watch.add(execution)

    def registry_renewal(self) -> Callable[[], Awaitable[None]] | None:
        """Return what brings the registry up to date after an edit while others have their turn.

        None, if that need not be done, or takes no time when the registry is used.
        """
        if not is_outdated(self.registry):
            return None
        if self._much_in != definitions.generation:  # it is asked with each request
            if not holds_much(self.registry):
                return None
            self._much_in = definitions.generation
        return partial(bring_up_to_date_in_slices, self.registry)

    def background(self, function: Callable[..., object], *args: Any) -> Job:
        """Run ``function(*args)`` beside the site; a plain function in a thread.

        With arguments, each call starts it once more. It goes on with the code that it began with
        when the script is edited, and is cancelled if the script is deleted.

        Without arguments it runs once for each version of the script that defines it. Calling it
        again does nothing while the script is the same, so it may stand in a render method. When
        the script has changed, which is noticed at once where pages follow edits, the old version
        is cancelled, and the next call starts the new one.

        What it raises is told on the console, and is the end of it.

        Returns:
            The `Job`: its state, progress and result. Without arguments, that of the one that runs
            or has run already.

        Raises:
            TypeError: *function* cannot be called.
        """
        return self.tasks.start(function, args)

    def _set_session_cookie(self, request: Request, session: Session, what: str) -> None:
        """Have the response to *request* set the cookie of *session*.

        Args:
            what: what made it necessary, for the warning that it is too late.
        """
        cookie = _session_cookie(self._cookie_name(request), session, request)
        request._response.session_cookie = cookie.encode("latin-1")
        if request._response.headers_sent:
            log.warning(
                "%s: %s after the head of the response was sent, so the visitor has no cookie "
                "for it. Call it before the first yield or write.",
                request.path,
                what,
            )

    def _on_new_id(self, session: Session) -> None:
        request = current_request()
        if request is not None and request._session is session:
            self._set_session_cookie(request, session, "regenerate() changed the session's id")
        else:
            log.warning(
                "session %s: regenerate() was called outside of a request of its visitor, who has "
                "no cookie for the new id. Write request.getSession().regenerate() in a render "
                "method.",
                session.short_id,
            )

    def start_task(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work*, of rpyserve's own, until it returns or the site stops."""
        self._nursery.start(work)

    def start_request_task(
        self, request: Request, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]
    ) -> None:
        """Run ``function(*args)`` until it returns or the response to *request* has ended."""
        self._request_tasks.start(request, function, args)

    def on_close(self, closer: Callable[[], object]) -> None:
        """Have *closer* called once, when the site stops."""
        if closer not in self._closers:
            self._closers.append(closer)

    def close(self) -> None:
        """Let go of what belongs to the site, such as the modules that its scripts imported."""
        closers, self._closers = self._closers, []
        for closer in reversed(closers):
            closer()

    @asynccontextmanager
    async def running(self, *, grace: float = 5) -> AsyncIterator[Site]:
        """While inside, sessions expire when their time has come.

        On the way out all of them end, callbacks included, unless a store keeps them.

        Args:
            grace: seconds that async callbacks have at the end.

        Raises:
            StoreError: in a group, the store cannot be used.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.sessions.run)
            if self.persistence is not None:
                await nursery.start(self.persistence.run)
            try:
                async with self._nursery.open():
                    yield self
            finally:
                with trio.CancelScope(shield=True):
                    await self.end_sessions(grace)
                self.close()
                nursery.cancel_scope.cancel()

    async def end_sessions(self, grace: float) -> None:
        """End all sessions, as the site stops; where they are kept, store them instead.

        Args:
            grace: seconds that async callbacks have.
        """
        if self.persistence is None:
            await self.sessions.end_all(SessionEnd.STOPPED, grace)
        else:
            await self.persistence.close(grace)

    def _cookie_name(self, request: Request) -> str:
        """Browsers share cookies between the ports of a host, so the name carries the port.

        Behind a proxy that is the public port, so all workers have one name.
        """
        given = self.cookieName or getattr(self.sessionFactory, "cookieName", None)
        return given or f"rpyserve_{request.server[1]}"

    def _stream_error_response(
        self, request: Request, exc: BaseException, begun: bool
    ) -> Response | None:
        """Make a page of what a stream raised, or the end of what was sent: an `ErrorHandler`."""
        try:
            if begun:
                return self._truncation_notice(request, exc)
            return apply_request_headers(request, self._error_page(request, exc))
        except BaseException:
            return None

    def _log_reason(self, request: Request, exc: HTTPError) -> None:
        is_expected = exc.status == 404 and self.production
        if exc.private and not is_expected and not is_browser_probe(request.uri):
            uri = escape_for_log(request.uri)
            self._reasons.log(logging.INFO, "%s: %s", uri, exc.private, key=exc.private)

    def _error_page(self, request: Request, raised: BaseException) -> Response:
        from rpyserve.resources import pages

        exc = unwrap_group(raised)
        if isinstance(exc, Redirect):
            return redirect_response(exc, request)
        if is_on_console(exc):
            exc = HTTPError(503, f"The script was interrupted: {exc}.", {"Retry-After": "1"})
        if isinstance(exc, HTTPError):
            self._log_reason(request, exc)
            return pages.error_page(request, exc, trusted=self.trusts(request))
        if is_too_many_files(lack := exc.__cause__ if isinstance(exc, ScriptError) else exc):
            return self._too_busy_page(request, lack)
        from rpyserve.diagnostics import error_page
        from rpyserve.diagnostics.editor import detected

        trusted = self.trusts(request)
        report = self._report(request, raised, trusted, values=trusted)
        return error_page.script_error_page(
            request, report, trusted=trusted, editor=self.editor or detected()
        )

    def _truncation_notice(self, request: Request, raised: BaseException) -> Response | None:
        from rpyserve.diagnostics import error_page
        from rpyserve.http import browser

        exc = unwrap_group(raised)
        if is_on_console(exc):
            return None
        if isinstance(exc, HTTPError) and exc.private:  # no script's fault
            log.warning("%s is broken off. %s", escape_for_log(request.uri), exc.private)
            return None
        trusted = self.trusts(request)
        report = self._report(request, raised, trusted, values=False)
        if not trusted or not browser.accepts_html(request):
            return None
        return Response.trusted(
            error_page.truncation_notice(report).encode("utf-8", "backslashreplace"), 500, (HTML,)
        )

    def _report(
        self, request: Request, raised: BaseException, trusted: bool, *, values: bool
    ) -> ErrorReport:
        """Tell the console what was *raised*, and return it.

        Raises:
            BaseException: *raised*, if it is not the script's business.
        """
        from rpyserve.diagnostics.describe import describe
        from rpyserve.diagnostics.redaction import secrets_of

        exc = unwrap_group(raised)
        if isinstance(exc, ClientDisconnected) or split_control_flow(exc)[1] is not None:
            raise raised
        if request._on_failure is not None:
            request._on_failure(exc)
        report = describe(exc, values=values, redactor=secrets_of(request))
        what = f"{request.method} {escape_for_log(request.uri)}"
        if request.id:
            what += f" [{request.id}]"
        self.errors.report(what, report, page=request.path)
        if self.recorder is not None and request._record is not None:
            self.recorder.note_failure(request._record, what, request.path, report)
        if not trusted:
            self._warn_that_details_are_hidden(request)
        return report

    def _warn_that_details_are_hidden(self, request: Request) -> None:
        client = request.client[0]
        # The address is empty if the client had gone before it could be asked.
        if not client or self.production or not self.errors.once_for(client):
            return
        if request._proxy is not None:
            log.warning("%s sees only a bare 500, like all who come through a proxy", client)
        elif is_cross_origin(request, allow_links=True):
            log.warning(
                "A page of another origin asked for %s: it gets a bare 500.",
                escape_for_log(request.uri),
            )
        else:
            log.warning("%s sees only a bare 500; --trust %s shows it the details", client, client)

    def _too_busy_page(self, request: Request, exc: BaseException | None) -> Response:
        """Return the page for a request that found no file descriptor left."""
        from rpyserve.resources import pages

        why = f"{exc}: this process has as many files and connections open as it may. {ADVICE}"
        self._out_of_files.warn("%s %s: %s", request.method, escape_for_log(request.uri), why)
        busy = HTTPError(
            503,
            "This server is too busy. Try again in a moment.",
            {"Retry-After": "1"},
            private=why,
        )
        return pages.error_page(request, busy, trusted=self.trusts(request))


def _refuse_kept(request: Request, response: Response) -> None:
    """Raise what the page is to say if a session keeps what the next request will not know.

    What is still to be sent is looked at when it has been.
    """
    body = response.body
    error = None if isinstance(body, (Stream, Upgrade)) else request._watch.check()
    if error is None:
        return
    if isinstance(body, FileBody):
        body.close()
    raise error


def _was_saved_meanwhile(raised: BaseException) -> bool:
    exc = unwrap_group(raised)
    return isinstance(exc, ScriptInterrupted) and exc.reason is Interruption.SAVED


def _refusal_after_redirect(request: Request, exc: BaseException) -> BaseException | None:
    is_watched = request._watch is not None and isinstance(unwrap_group(exc), Redirect)
    return request._watch.check() if is_watched else None


def _expire_without_cookie(session: Session, request: Request) -> None:
    if request._response.session_cookie is None:
        session.expire()


def _session_cookie(name: str, session: Session, request: Request) -> str:
    https = request.scheme == "https"
    secure = https if session.cookieSecure is None else session.cookieSecure
    attributes = {
        "Path": cookie_path(request, session.cookiePath),
        "HttpOnly": True if session.cookieHttpOnly else None,
        "SameSite": session.cookieSameSite or None,
        "Secure": True if secure else None,
    }
    return format_set_cookie(name, session.uid, attributes)
