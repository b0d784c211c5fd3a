"""Writes what the console shows to stderr, by a thread of its own while a server runs.

A terminal after Ctrl-S, a pipe that nobody reads and a full disk must not hold up the server. So
`write` puts its text into a queue of limited size; what does not fit is dropped and counted, and
the count is written once there is room again. Without the thread, `write` writes at once.

Invariants: `write` never waits for the console, and signal handlers may call it. The thread writes
to the raw stream below the buffered one, because the lock of that one is needed by the ``print`` of
a script and by the end of the interpreter.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final

# Characters that may wait for the console.
LIMIT: Final = 1 << 20

# Seconds that a line waits for others, because writing each by itself costs more than a small
# request.
BATCH: Final = 0.02

# Seconds until the thread tries again to write what could not be written.
RETRY: Final = 0.1

# Seconds that the last lines have to be written.
LAST: Final = 0.8


def write(text: str) -> None:
    """Write *text*, whole lines, to stderr. Never fails, such as on a closed or full console."""
    if _writer is not None:
        _writer.put(text)
        return
    stream: Any = sys.stderr
    with suppress(Exception):  # such as a reentrant call, from a signal handler
        stream.flush()
    with suppress(OSError):
        data = _encode(stream, text)
        while data and (taken := _write_some(stream, data)):
            data = data[taken:]


def start() -> None:
    """Leave the writing to a thread from now on."""
    global _writer
    if _writer is None:
        _writer = _Writer(sys.stderr)


def stop() -> None:
    """Write what waits, and end the thread; if the console takes nothing, neither happens."""
    global _writer
    writer = _writer
    if writer is not None and writer.flush():
        _writer = None
        writer.end()


def flush() -> bool:
    """Wait until all is written, a moment at most; return whether it is."""
    return _writer is None or _writer.flush()


class _Writer:
    """The thread with its queue.

    The stream is that of the beginning: a script may redirect `sys.stderr` for a while.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._lock = threading.RLock()  # held for a moment; reentrant for the sake of handlers
        self._waiting = 0
        self._dropped = 0
        self._has_failed = False
        self._is_over = False
        threading.Thread(target=self._run, name="rpyserve console", daemon=True).start()

    def put(self, text: str) -> None:
        with self._lock:
            if self._waiting > LIMIT:
                self._dropped += text.count("\n")
                return
            if self._dropped:
                text = _dropped_line(self._dropped) + text
                self._dropped = 0
            self._waiting += len(text)
            self._queue.put(text)

    def flush(self) -> bool:
        deadline = time.monotonic() + LAST
        while self._waiting:
            if self._has_failed or time.monotonic() > deadline:
                return False
            time.sleep(BATCH / 4)
        return True

    def end(self) -> None:
        self._is_over = True
        self._queue.put("")

    def _run(self) -> None:
        while not self._is_over:
            batch = [self._queue.get()]
            time.sleep(BATCH)
            while not self._queue.empty():
                batch.append(self._queue.get())
            text = "".join(batch)
            self._write(text)
            with self._lock:
                self._waiting -= len(text)
                if self._dropped:
                    self.put("")

    def _write(self, text: str) -> None:
        data = _encode(self._stream, text)
        while data:
            taken = 0
            try:
                taken = _write_some(self._stream, data)
                self._has_failed = False
            except OSError:
                self._has_failed = True
            if not taken:
                time.sleep(RETRY)
            data = data[taken:]


def _dropped_line(count: int) -> str:
    what = "1 line was" if count == 1 else f"{count} lines were"
    return f"{what} dropped: the console did not take them.\n"


def _encode(stream: Any, text: str) -> bytes:
    return text.replace("\n", os.linesep).encode(_encoding(stream), "backslashreplace")


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _write_some(stream: Any, data: bytes) -> int:
    """Write to *stream*; return how many bytes it took, all of them if nobody can ever see them.

    Raises:
        OSError: it can take nothing now.
    """
    buffer = getattr(stream, "buffer", None)
    try:
        if buffer is not None:
            raw = getattr(buffer, "raw", buffer)
            # Below what never fails, see `console.unfailing_streams`.
            return getattr(raw, "raw", raw).write(data) or 0
        stream.write(data.decode(_encoding(stream)).replace(os.linesep, "\n"))
        stream.flush()
    except OSError:
        raise
    except Exception:
        pass  # there is no stream, or it is closed
    return len(data)


def _forget() -> None:
    """In a new process there is no such thread."""
    global _writer
    _writer = None


_writer: _Writer | None = None

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
