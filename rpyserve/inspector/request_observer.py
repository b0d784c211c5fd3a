"""What one request does while somebody looks: to its session, to the console, and into a stream.

A `RequestObserver` lives as long as its request. It looks at the session when the script first asks
for it, and once more when the request is over, before what an uncached script has made is gone. It
is known by a context variable, so what is printed in tasks and threads of the request is found as
well; what subprocesses print is not.

`sys.stdout` and `sys.stderr` are wrapped only while somebody looks, and set back only if nobody has
replaced them since.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from rpyserve.diagnostics.redaction import secrets_of
from rpyserve.http.request import BODY_START
from rpyserve.inspector.session_view import Changes, Contents, contents_of, differences

if TYPE_CHECKING:
    from rpyserve.http.request import RequestRecord

MOST_PRINTED: Final = 8 * 1024
"""How many characters of what a request prints and logs are kept."""

_current: ContextVar[RequestObserver | None] = ContextVar("observer of the request", default=None)


class RequestObserver:
    """Looks at what one request does.

    Args:
        record: its record, in which it is noted.
        others: returns the records of all requests that are being answered.
    """

    def __init__(
        self, record: RequestRecord, others: Callable[[], Iterable[RequestRecord]]
    ) -> None:
        self.record = record
        self.session: Any = None
        self.alone = True
        self._others = others
        self._before = Contents()
        self._printed: list[str] = []
        self._room = MOST_PRINTED
        record.printed = ""
        record.changed = Changes()
        _current.set(self)
        request = record.request
        if request is not None:
            request._observer = self
            request.on_close(self.close)

    def note_session(self, session: Any) -> None:
        """Look at *session*, which the request uses from now on."""
        if session is self.session:
            return
        self.session = session
        self._before = self._contents()
        self._note_others()
        # What an uncached script has made goes when the request is closed: look before that.
        if self.record.request is not None:
            self.record.request.on_close(self._look_again)

    def note_chunk(self, chunk: bytes) -> None:
        """Keep the beginning of a stream."""
        record = self.record
        if len(record.response_start) < BODY_START:
            record.response_start = (record.response_start + chunk)[:BODY_START]

    def note_text(self, text: str) -> None:
        """Keep what was printed."""
        if self._room > 0:
            self._printed.append(text[: self._room])
            self._room -= len(text)

    def close(self) -> None:
        """The request is over."""
        _current.set(None)
        more = "…" if self._room < 0 else ""
        self.record.printed = "".join(self._printed) + more
        self.session = None
        if self.record.request is not None:
            self.record.request._observer = None

    def _note_others(self) -> None:
        """Mark those who use the same session at the same time: what changes may be theirs."""
        for other in self._others():
            if other is self.record or other.request is None:
                continue
            if other.request._session is self.session:
                self.alone = False
                if other.request._observer is not None:
                    other.request._observer.alone = False

    def _look_again(self) -> None:
        items = differences(self._before, after := self._contents())
        is_whole = self._before.is_whole and after.is_whole
        self.record.changed = Changes(items, self.alone, is_whole)

    def _contents(self) -> Contents:
        request = self.record.request
        if request is None or self.session is None:
            return Contents()
        watch = request._watch
        executions = () if watch is None else tuple(watch._executions)
        return contents_of(self.session, executions, secrets_of(request))


# What is printed and logged


class Tee:
    """A text stream that also tells the observer of the running request what is written.

    Args:
        stream: the stream that it stands for.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> Any:
        observer = _current.get()
        if observer is not None and type(text) is str:
            observer.note_text(text)
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


class _LogTee(logging.Handler):
    """Tells the observer of the running request what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        observer = _current.get()
        if observer is None or record.name == "rpyserve.access":
            return
        try:
            observer.note_text(f"{record.levelname} {record.name}: {record.getMessage()}\n")
        except Exception:  # as with other handlers, a bad message must not cost the page
            observer.note_text(f"{record.levelname} {record.name}: cannot be formatted\n")


class Listening:
    """Has observers told of what is printed and logged, from `start` to `stop`."""

    def __init__(self) -> None:
        self._tees: dict[str, Tee] = {}
        self._handler = _LogTee()
        self._loggers: list[logging.Logger] = []

    def start(self) -> None:
        """Wrap the streams, and listen to the loggers. Doing so twice does nothing."""
        if self._tees:
            return
        for name in ("stdout", "stderr"):
            tee = self._tees[name] = Tee(getattr(sys, name))
            setattr(sys, name, tee)
        own = logging.getLogger("rpyserve")
        self._loggers = [logging.getLogger(), *([] if own.propagate else [own])]
        for logger in self._loggers:
            logger.addHandler(self._handler)

    def stop(self) -> None:
        """Let go of them, but not of what somebody else has put in their place."""
        for name, tee in self._tees.items():
            if getattr(sys, name) is tee:
                setattr(sys, name, tee._stream)
        self._tees.clear()
        for logger in self._loggers:
            logger.removeHandler(self._handler)
