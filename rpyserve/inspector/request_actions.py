"""What can be done with requests: send one once more, and make a test of one or of a whole visit.

Both execute scripts of the site, so they are actions. What a replay did is a record like others, in
which the number of the first one stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from rpyserve.http.request import RequestRecord, beginning_of
from rpyserve.inspector import request_pages as pages
from rpyserve.inspector.copies import masked
from rpyserve.inspector.rehearsal import CannotRehearse, Step, rehearse
from rpyserve.inspector.replay import Answer, CannotReplay, Visitor, changed, replay
from rpyserve.inspector.request_views import details_of, named, sent_of
from rpyserve.inspector.views import Action, Data, Field, Problem, Question, Table
from rpyserve.inspector.visit_tests import as_test, prepared
from rpyserve.sessions.session import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from rpyserve.http.request import Request, Responder
    from rpyserve.inspector.copies import Sent
    from rpyserve.inspector.recorder import Recorder
    from rpyserve.site import Site

MOST_STEPS: Final = 100
"""How many requests a test may have."""

_CONFIRM: Final = Field("confirm", "check", "It may change something: do it")
_EXECUTE: Final = Field("confirm", "check", "Execute the scripts")

_OF_TESTS: Final = (
    "A program for pytest. For that, the scripts are executed twice, in copies of the site."
)


def register_request_actions(
    table: Table,
    site: Site,
    recorder: Recorder,
    respond: Responder,
    directories: Callable[[], Iterable[str]],
) -> tuple[list[Action], list[Action]]:
    """Add to *table* what can be done with requests.

    Returns:
        What can be done with one request, and with all of a session.

    Args:
        respond: answers requests that are sent once more.
        directories: returns the directories of the site.
    """
    actions = _Actions(site, recorder, respond, directories)
    visitor = Field("visitor", "|".join(each.value for each in Visitor), "As which visitor")
    own = [
        Action(
            "requests/{number}/replay",
            "Replay",
            actions.replay,
            (
                visitor,
                Field("method", help="Another method"),
                Field("target", help="Another path and query"),
                Field("body", help="Another body"),
                _CONFIRM,
            ),
            help="The site answers it once more. What is left empty stays as it was.",
            render=pages.replayed,
        ),
        Action(
            "requests/{number}/test",
            "Make a test",
            actions.test_request,
            (_EXECUTE,),
            help=_OF_TESTS,
            render=pages.as_text,
        ),
    ]
    visits = [
        Action(
            "sessions/{id}/test",
            "Make a test of this visit",
            actions.test_visit,
            (_EXECUTE,),
            help=_OF_TESTS,
            render=pages.as_text,
        )
    ]
    for each in (*own, *visits):
        table.add_action(each)
    return own, visits


@dataclass(frozen=True, slots=True)
class _Head:
    headers: tuple[tuple[bytes, bytes], ...]
    second: int


class _Actions:
    def __init__(
        self,
        site: Site,
        recorder: Recorder,
        respond: Responder,
        directories: Callable[[], Iterable[str]],
    ) -> None:
        self._site = site
        self._recorder = recorder
        self._respond = respond
        self._directories = directories
        # A rehearsal takes two processes, so there is one at a time.
        self._rehearsing = trio.Lock()

    # Once more

    async def replay(self, question: Question) -> Data:
        """Send a request once more, changed if that is wanted."""
        fields = question.fields
        before = named(self._recorder, question.names["number"])
        try:
            visitor = Visitor(fields.get("visitor") or "same")
        except ValueError:
            raise Problem(400, "visitor is same, new or nobody.") from None
        body = fields["body"].encode() if fields.get("body") else None
        records: list[RequestRecord] = []
        try:
            sent = changed(
                sent_of(before),
                method=fields.get("method", ""),
                target=fields.get("target", ""),
                body=body,
            )
            answer = await replay(
                self._respond,
                sent,
                visitor,
                self._cookie(before, visitor, question.request),
                client=question.request.client,
                server=question.request.server,
                confirmed=fields.get("confirm") == "yes",
                on_request=partial(self._begin, before, sent, records),
            )
        except CannotReplay as exc:
            raise Problem(409, str(exc)) from None
        finally:
            for record in records:
                self._end(record)
        (record,) = records
        self._note(record, answer)
        return {
            "done": _told(before, record, answer),
            "see": f"requests/{record.number}",
            "number": record.number,
            "cancelled": answer.cancelled,
            "before": details_of(before),
            "after": details_of(record),
        }

    def _cookie(
        self, record: RequestRecord, visitor: Visitor, question: Request
    ) -> tuple[str, str]:
        """The name of the session's cookie, and what it is for the visitor of *record*."""
        name = self._site._cookie_name(question)
        uid = record.session_id
        if visitor is not Visitor.SAME or uid is None:
            return name, ""
        if uid not in self._site.sessions:
            raise Problem(409, "The session of this visitor has ended: replay as a new one.")
        return name, uid

    def _begin(
        self, before: RequestRecord, sent: Sent, records: list[RequestRecord], request: Request
    ) -> None:
        record = RequestRecord(
            request,
            sent.method,
            sent.target,
            _head_of(sent, request.raw_headers),
            request.client,
            trio.current_time(),
        )
        record.replay_of, record.scheme = before.number, request.scheme
        record.request_start, record.request_size = sent.body, len(sent.body)
        request._record = record
        records.append(record)
        self._recorder.begin(record)

    def _end(self, record: RequestRecord) -> None:
        record.seconds = trio.current_time() - record.started
        self._recorder.keep(record)
        record.request = None

    def _note(self, record: RequestRecord, answer: Answer) -> None:
        if answer.status:
            headers = tuple((name.lower(), value) for name, value in answer.headers)
            record.status, record.response_head = answer.status, _Head(headers, int(time.time()))
        record.sent, record.complete = len(answer.body), answer.whole
        record.response_start = beginning_of(answer.body, len(answer.body))
        self._recorder.weigh(record)

    # Tests

    async def test_request(self, question: Question) -> Data:
        """Make a test of one request."""
        record = named(self._recorder, question.names["number"])
        return await self._test([record], question)

    async def test_visit(self, question: Question) -> Data:
        """Make a test of all requests of a session that are kept."""
        name = question.names["id"]
        records = [
            each
            for each in self._recorder.records()
            if each.session is not None
            and each.session.startswith(name)
            and each.replay_of is None
            and each.seconds is not None
        ]
        if not records:
            raise Problem(404, "No request of this session is kept.")
        if len(records) > MOST_STEPS:
            raise Problem(409, f"A test has {MOST_STEPS} requests at most; these are more.")
        return await self._test(records, question)

    async def _test(self, records: list[RequestRecord], question: Question) -> Data:
        if question.fields.get("confirm") != "yes":
            raise Problem(
                409, "This executes the scripts twice, in copies of the site: confirm it."
            )
        directories = [*self._directories()]
        if len(directories) != 1:
            raise Problem(409, "Tests are made for sites that are one directory.")
        steps = _steps_of(records)
        timeout = self._site.sessions.timeout
        if timeout == DEFAULT_TIMEOUT:
            timeout = None  # as usual
        async with self._rehearsing:
            try:
                one, two = await rehearse(directories[0], steps, timeout)
            except CannotRehearse as exc:
                raise Problem(409, str(exc)) from None
        count = "one request" if len(steps) == 1 else f"{len(steps)} requests"
        return {
            "done": f"A test of {count}. What two runs agree on is in it.",
            "text": as_test(steps, one, two, timeout=timeout),
            "see": f"requests/{records[-1].number}",
        }


def _head_of(sent: Sent, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = [f"{sent.method} {sent.target} HTTP/1.1".encode()]
    lines += [name + b": " + value for name, value in fields]
    return b"\r\n".join([*lines, b"", b""])


def _steps_of(records: list[RequestRecord]) -> list[Step]:
    steps, ended = [], records[0].started
    for record in records:
        steps.append(Step(prepared(masked(sent_of(record))), max(0.0, record.started - ended)))
        ended = record.started + (record.seconds or 0.0)
    return steps


def _told(before: RequestRecord, record: RequestRecord, answer: Answer) -> str:
    what = f"Request {before.number} was replayed as request {record.number}: "
    if answer.cancelled:
        return f"{what}cancelled after 30 seconds."
    if answer.error:
        return f"{what}{answer.error}."
    return f"{what}{record.status}, it was {before.status}."
