"""Writes what the console shows to stderr, and to a log file, by a thread for each.

A terminal after Ctrl-S, a pipe that nobody reads and a full disk must not hold up the server. So
`write` puts its text into a queue of limited size; what does not fit is dropped and counted, and
the count is written once there is room again. Without the thread, before the server runs and after
it, `write` writes at once.

The log file has the same lines, without colours and with the date. Whoever moves it away, to
rotate it, need not tell: it is opened again by its name before something is written.

Invariants: `write` never waits for the console, and signal handlers may call it. The thread writes
to the raw stream below the buffered one, because the lock of that one is needed by the ``print`` of
a script and by the end of the interpreter. What scripts print goes into the log file by
`LineCopier`, so nothing that `write` writes may pass through the streams of ``print``.
"""

from __future__ import annotations

import atexit
import codecs
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
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

# Characters of a printed line that may wait for its end.
LONGEST_LINE: Final = 1 << 16

# A colour, or whatever else tells a terminal what to do.
_CONTROL_SEQUENCE: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\r")
_CLOCK: Final = re.compile(r"\d\d:\d\d:\d\d ")


def write(text: str, *, has_dates: bool = False) -> None:
    """Write *text*, whole lines, to stderr. Never fails, such as on a closed or full console.

    Args:
        has_dates: whether the lines have dates of their own, so the log file adds none.
    """
    if _log_file is not None:
        _log(text if has_dates else _with_dates(_CONTROL_SEQUENCE.sub("", text), has_clock=True))
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
        stream = sys.stderr  # that of the beginning: a script may redirect it for a while
        _writer = _Writer(partial(_encode, stream), partial(_write_some, stream), "the console")


def stop() -> None:
    """Write what waits, and end the thread; if the console takes nothing, neither happens."""
    global _writer
    writer = _writer
    if writer is not None and writer.flush():
        _writer = None
        writer.end()


def flush() -> bool:
    """Wait until all is written, a moment at most; return whether it is."""
    return all([writer is None or writer.flush() for writer in (_writer, _log_writer)])


def open_log(path: str) -> None:
    """Append what is written from now on to the file at *path*, too.

    Raises:
        OSError: nothing can be written there.
    """
    global _log_file, _log_writer
    file = _LogFile(path)
    file.write_now(_with_dates(f"rpyserve begins, pid {os.getpid()}.\n"))
    _log_file = file
    _log_writer = _Writer(_encode_for_log, file.write, "the log file", _with_dates)
    atexit.register(close_log)


def log_line(text: str) -> None:
    """Write the line *text* to the log file, if there is one: the console has it otherwise."""
    _log(_with_dates(f"{text}\n"))


def close_log() -> None:
    """Write what waits for the log file, as far as it takes that, and write no more to it."""
    global _log_file, _log_writer
    file, writer = _log_file, _log_writer
    _log_file = _log_writer = None
    if writer is not None:
        if writer.flush() and file is not None:
            file.close()
        writer.end()
    atexit.unregister(close_log)


def has_log() -> bool:
    """Whether there is a log file."""
    return _log_file is not None


class LineCopier:
    """Copies to the log file what somebody else writes to the console, line by line.

    Args:
        encoding: that of the console.
    """

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._waiting = ""

    def __call__(self, data: bytes) -> None:
        text = self._waiting + self._decoder.decode(data).replace("\r\n", "\n")
        lines, line_end, self._waiting = text.rpartition("\n")
        if len(self._waiting) > LONGEST_LINE:
            lines, line_end, self._waiting = text, "\n", ""
        if line_end:
            _log(_with_dates(_CONTROL_SEQUENCE.sub("", lines + line_end)))

    def finish(self) -> None:
        """Copy the last line, which has no end."""
        line, self._waiting = self._waiting, ""
        if line:
            _log(_with_dates(_CONTROL_SEQUENCE.sub("", f"{line}\n")))


class _Writer:
    """The thread with its queue.

    Args:
        encode: makes bytes of a text.
        write_some: writes bytes, and returns how many; raises `OSError` if it can write none now.
        name: what is written to.
        layout: makes a line for it of a text.
    """

    def __init__(
        self,
        encode: Callable[[str], bytes],
        write_some: Callable[[bytes], int],
        name: str,
        layout: Callable[[str], str] = str,
    ) -> None:
        self._encode = encode
        self._write_some = write_some
        self._name = name
        self._layout = layout
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._lock = threading.RLock()  # held for a moment; reentrant for the sake of handlers
        self._waiting = 0
        self._dropped = 0
        self._has_failed = False
        self._is_over = False
        threading.Thread(target=self._run, name=f"rpyserve: {name}", daemon=True).start()

    def put(self, text: str) -> None:
        with self._lock:
            if self._waiting > LIMIT:
                self._dropped += text.count("\n")
                return
            if self._dropped:
                text = self._dropped_line() + text
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
        data = self._encode(text)
        while data:
            taken = 0
            try:
                taken = self._write_some(data)
                self._has_failed = False
            except OSError:
                self._has_failed = True
            if not taken:
                time.sleep(RETRY)
            data = data[taken:]

    def _dropped_line(self) -> str:
        what = "1 line was" if self._dropped == 1 else f"{self._dropped} lines were"
        return self._layout(f"{what} dropped: {self._name} did not take them.\n")


class _LogFile:
    """The file at *path*, which others may move away or remove meanwhile.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = self._open()

    def write(self, data: bytes) -> int:
        """Append *data*, and return how much of it there was room for.

        Raises:
            OSError: none of it.
        """
        if not self._is_in_place():
            before, self._descriptor = self._descriptor, self._open()
            os.close(before)
        return os.write(self._descriptor, data)

    def write_now(self, text: str) -> None:
        """Append all of *text*.

        Raises:
            OSError: that cannot be done.
        """
        data = _encode_for_log(text)
        while data:
            data = data[self.write(data) :]

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self) -> int:
        # A pipe that nobody reads is an error, instead of being waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        return os.open(self._path, flags | getattr(os, "O_BINARY", 0), 0o666)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False


def _log(text: str) -> None:
    """Write *text* to the log file, by its thread if that is in this process."""
    if _log_writer is not None:
        _log_writer.put(text)
    elif _log_file is not None:
        with suppress(OSError):
            _log_file.write_now(text)


def _with_dates(text: str, *, has_clock: bool = False) -> str:
    """*text* with the date and time before each line that is not set in.

    Args:
        has_clock: whether lines may begin with the time, which is replaced.
    """
    stamp = _stamp(int(time.time()))
    lines = text.removesuffix("\n").split("\n")
    if has_clock:
        lines = [_CLOCK.sub("", line, 1) if _CLOCK.match(line) else line for line in lines]
    dated = [line if line.startswith(" ") else f"{stamp} {line}" for line in lines]
    return "\n".join(dated) + "\n"


@lru_cache(maxsize=1)
def _stamp(now: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))


def _encode_for_log(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


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
    """In a new process there are no such threads."""
    global _writer, _log_writer
    _writer = _log_writer = None


_writer: _Writer | None = None
_log_file: _LogFile | None = None
_log_writer: _Writer | None = None

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
