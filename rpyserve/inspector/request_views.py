"""The requests of a site: the list of them, one by itself, and what can be done with one.

All that is shown comes from records, in which there are values only. What is secret by its name,
and the credentials that a request came with, are masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from rpyserve.diagnostics.redaction import MASK, Redactor, is_secret
from rpyserve.inspector import request_pages as pages
from rpyserve.inspector.copies import CannotCopy, Sent, copy, credentials_of, masked
from rpyserve.inspector.recorder import (
    MOST_PINNED,
    MOST_SHOWN,
    NOBODY_LOOKED,
    Forgotten,
    TooManyPinned,
)
from rpyserve.inspector.views import (
    LONGEST_WAIT,
    Action,
    Data,
    Field,
    Problem,
    Question,
    Table,
    View,
    number_of,
    seconds_of,
)

if TYPE_CHECKING:
    from rpyserve.http.request import Body, RequestRecord
    from rpyserve.inspector.recorder import Recorder

PAGE: Final = 50

LEAST_HELD: Final = 0.05
"""Seconds for which a script must hold the event loop for others to be told that they waited."""

QUERY: Final = (
    Field("q", help="Search in method and target"),
    Field("status", help="Status, such as 404 or 5xx"),
    Field("script", help="Script"),
    Field("session", help="Session"),
    Field("slower", "duration", "Slower than, such as 100ms"),
    Field("after", "number", "Only those after number"),
    Field("wait", "duration", "Wait for one, at most 30s"),
    Field("before", "number", "Only those before number"),
    Field("limit", "number", "How many"),
)


def register_requests(table: Table, recorder: Recorder, actions: Iterable[Action] = ()) -> None:
    """Add to *table* what is to be seen of the requests that *recorder* keeps.

    Args:
        actions: what else can be done with one of them.
    """
    requests = _Requests(recorder)
    table.add_view(
        View("requests", "Requests", requests.listed, QUERY, render=pages.requests, place=3)
    )
    for ending in ("curl", "ps1", "httpx"):
        table.add_view(
            View(f"requests/{{number}}.{ending}", f"As {ending}", requests.copied, is_text=True)
        )
    table.add_view(
        View("requests/{number}", "Request {number}", requests.one, render=pages.request)
    )
    requests.actions = [
        *actions,
        table.add_action(
            Action(
                "requests/{number}/pin",
                "Pin",
                requests.pin,
                help=f"It is kept however many come later; up to {MOST_PINNED} are.",
            )
        ),
        table.add_action(
            Action(
                "requests/{number}/unpin",
                "Unpin",
                requests.unpin,
                help="It is kept no longer than others.",
            )
        ),
    ]
    table.add_action(Action("requests/clear", "Forget all requests", requests.clear))


class _Requests:
    actions: list[Action]

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    # Views

    async def listed(self, question: Question) -> Data:
        """The requests that are wanted, the newest first."""
        fields, recorder = question.fields, self._recorder
        wanted = Filter.of(fields)
        after, before = number_of(fields, "after"), number_of(fields, "before")
        limit = number_of(fields, "limit", PAGE, most=MOST_SHOWN)
        if wait := seconds_of(fields, "wait", most=LONGEST_WAIT):
            await recorder.wait_until(lambda: _has_ended_after(recorder, after or 0), wait)
        kept = recorder.shown()
        found = [
            each
            for each in reversed(kept)
            if wanted.takes(each)
            and (after is None or each.number > after)
            and (before is None or each.number < before)
        ]
        shown = found[:limit]
        held = [each for each in kept if each.held >= LEAST_HELD]
        return {
            "asked": {name: text for name, text in fields.items() if text},
            "number": recorder.number,
            "items": [summary_of(each) | {"waited_for": _waited_for(each, held)} for each in shown],
            "next": shown[-1].number if len(found) > limit else None,
            "looked_at": len(kept),
            "of": recorder.number,
            "kept_bytes": recorder.kept_bytes,
        }

    async def one(self, question: Question) -> Data:
        """One request, as far as it is known."""
        record = self._named(question)
        visitor = [each for each in self._recorder.shown() if each.session == record.session]
        return details_of(record) | {
            "previous": _neighbour(record, visitor, -1),
            "next": _neighbour(record, visitor, 1),
            "actions": [
                each.on(number=str(record.number))
                for each in self.actions
                if each.path != f"requests/{{number}}/{'pin' if record.pinned else 'unpin'}"
            ],
        }

    async def copied(self, question: Question) -> Data:
        """One request as text that sends it again."""
        record = self._named(question)
        form = question.path.rpartition(".")[2]
        try:
            text = copy(sent_of(record), form, secrets=question.fields.get("secrets") == "1")
        except CannotCopy as exc:
            raise Problem(409, str(exc)) from None
        return {"text": text}

    def _named(self, question: Question) -> RequestRecord:
        return named(self._recorder, question.names["number"])

    # Actions

    async def pin(self, question: Question) -> Data:
        """Keep a request however many come later."""
        record = self._named(question)
        try:
            self._recorder.pin(record.number)
        except TooManyPinned as exc:
            raise Problem(409, str(exc)) from None
        return {"done": f"Request {record.number} is pinned.", "see": f"requests/{record.number}"}

    async def unpin(self, question: Question) -> Data:
        """Keep a request no longer than others."""
        record = self._named(question)
        self._recorder.unpin(record.number)
        return {"done": f"Request {record.number} is not pinned.", "see": "requests"}

    async def clear(self, question: Question) -> Data:
        """Forget all requests that are over and not pinned."""
        count = self._recorder.clear()
        return {"done": f"{count:,} requests are forgotten.", "see": "requests"}


def named(recorder: Recorder, name: str) -> RequestRecord:
    """Return the record whose number is *name*.

    Raises:
        Problem: it is no number, or there is no such request, or it is forgotten.
    """
    if not (name.isascii() and name.isdecimal()):
        raise Problem(404, f"A request is named by its number, not by {name[:40]!r}.")
    try:
        return recorder.get(int(name[:20]))
    except Forgotten as exc:
        raise Problem(404, f"{str(exc).capitalize()}.") from None
    except KeyError:
        raise Problem(404, f"There was no request {name[:20]} yet.") from None


def _has_ended_after(recorder: Recorder, number: int) -> bool:
    return any(
        each.number > number and each.seconds is not None for each in reversed(recorder.records())
    )


def _neighbour(record: RequestRecord, visitor: list[RequestRecord], step: int) -> int | None:
    """The number of the request before or after that of *record*, of the same session."""
    if record.session is None:
        return None
    numbers = [each.number for each in visitor]
    place = numbers.index(record.number) + step if record.number in numbers else -1
    return numbers[place] if 0 <= place < len(numbers) else None


def _waited_for(record: RequestRecord, held: Iterable[RequestRecord]) -> list[int]:
    """The numbers of the requests whose code held the event loop while *record* was answered."""
    ends = record.started + (record.seconds or 0.0)
    return [
        each.number
        for each in held
        if each is not record
        and (began := each.started + (each.body or 0.0)) < ends
        and began + each.held > record.started
    ]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which requests are wanted.

    Args:
        text: what is in the method and target.
        status: the status, with ``x`` for any digit; empty for all.
        script: the script that served it.
        session: how the id of its session begins.
        slower: how many seconds it took at least.
    """

    text: str = ""
    status: str = ""
    script: str = ""
    session: str = ""
    slower: float = 0.0

    @classmethod
    def of(cls, fields: Any) -> Filter:
        """Return what the fields of a query ask for.

        Raises:
            Problem: one of them cannot be read.
        """
        status = fields.get("status", "").lower()
        if len(status) not in (0, 3) or not set(status) <= set("0123456789x"):
            raise Problem(400, "status is three digits; an x is any of them: 404, 4xx.")
        return cls(
            fields.get("q", ""),
            status,
            fields.get("script", ""),
            fields.get("session", ""),
            seconds_of(fields, "slower"),
        )

    def takes(self, record: RequestRecord) -> bool:
        """Return whether *record* is wanted."""
        return (
            self.text in f"{record.method} {record.target}"
            and (not self.script or record.script == self.script)
            and (not self.session or (record.session or "").startswith(self.session))
            and (record.seconds or 0.0) >= self.slower
            and self._takes_status(record)
        )

    def _takes_status(self, record: RequestRecord) -> bool:
        if not self.status:
            return True
        digits = str(record.status)
        is_known = record.seconds is not None or record.response_head is not None
        return is_known and all(a in (b, "x") for a, b in zip(self.status, digits, strict=True))


# A record as data


def summary_of(record: RequestRecord) -> Data:
    """Return what a list says of *record*."""
    has_status = record.seconds is not None or record.response_head is not None
    sent = masked(Sent("", record.method, record.target))
    return {
        "number": record.number,
        "url": f"/-/requests/{record.number}",
        "at": round(record.at, 3),
        "ago": round(trio.current_time() - record.started, 3),
        "method": record.method,
        "target": sent.target,
        "status": record.status if has_status else None,
        "sent": record.sent,
        "complete": record.complete if record.seconds is not None else None,
        "seconds": _rounded(record.seconds),
        "phases": phases_of(record),
        "held": _rounded(record.held),
        "script": record.script,
        "executed": record.executed,
        "session": record.session,
        "error": record.error,
        "replay_of": record.replay_of,
        "pinned": record.pinned,
    }


def phases_of(record: RequestRecord) -> Data:
    """Return how many seconds each phase took; None for one that there was not."""
    phases = {
        "body": record.body,
        "execute": record.execute,
        "render": record.render,
        "wait": record.waited or None,
        "send": record.send,
    }
    other = None
    if record.seconds is not None:
        other = max(0.0, record.seconds - sum(each or 0.0 for each in phases.values()))
    return {name: _rounded(each) for name, each in {**phases, "other": other}.items()}


def details_of(record: RequestRecord) -> Data:
    """Return all that is known of *record*."""
    whole = sent_of(record, whole=False)
    sent, redactor = masked(whole), Redactor(credentials_of(whole))
    printed = record.printed
    return summary_of(record) | {
        "client": record.client[0],
        "request": {
            "headers": [[name.decode(), _text_of(value)] for name, value in sent.fields],
            "body": _body(record.request_body, sent.body),
        },
        "response": {
            "headers": [[*pair] for pair in _response_fields(record, redactor)],
            "body": _body(record.response_body, record.response_body.kept or b"", redactor),
        },
        "changed": changes_of(record),
        "printed": None if printed is None else redactor.redact_value(printed),
        "note": NOBODY_LOOKED if printed is None else None,
    }


def sent_of(record: RequestRecord, *, whole: bool = True) -> Sent:
    """Return what the client has sent, as far as it was kept.

    Args:
        whole: whether that must be all.

    Raises:
        Problem: it must be, and is not.
    """
    body = record.request_body
    if whole and (body.kept is None or not body.whole):
        raise Problem(409, "The body of this request was not kept whole.")
    fields = tuple(record.request_headers)
    host = next((value for name, value in fields if name == b"host"), b"localhost")
    origin = f"{record.scheme}://{host.decode('latin-1')}"
    return Sent(origin, record.method, record.target, fields, body.kept or b"")


def _body(body: Body, kept: bytes, redactor: Redactor | None = None) -> Data:
    text = None
    if body.kept is not None:
        text = _printable(kept)
        if text is not None and redactor is not None:
            text = redactor.redact_value(text)
    size = None if body.kept is None else len(body.kept)
    return {"bytes": body.size, "kept": size, "whole": body.whole, "text": text}


def _printable(data: bytes) -> str | None:
    """*data* as text; None if that is not what it is. Its end may be cut off anywhere."""
    text = data.decode("utf-8", "replace")
    return None if "\ufffd" in text.rstrip("\ufffd") or "\0" in text else text


def _text_of(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _response_fields(record: RequestRecord, redactor: Redactor) -> Iterator[tuple[str, str]]:
    for name, value in record.response_headers:
        text = _text_of(value)
        if name.lower() == b"set-cookie":
            key, mark, rest = text.partition("=")
            _, semicolon, attributes = rest.partition(";")
            text = f"{key}{mark}{MASK}{semicolon}{attributes}"
        elif is_secret(name):
            text = MASK
        yield name.decode(), redactor.redact_value(text)


def changes_of(record: RequestRecord) -> Data | None:
    """Return what the request of *record* changed in its session; None if nobody looked."""
    changes = record.changed
    if changes is None:
        return None
    items = [
        {"path": each.path, "was": each.was, "now": each.now, "note": each.note}
        for each in changes.items
    ]
    return {"alone": changes.alone, "whole": changes.is_whole, "items": items}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
