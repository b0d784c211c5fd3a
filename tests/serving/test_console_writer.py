"""What waits for the console: in order, bounded, counted where it is dropped, in nobody's way."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from rpyserve.serving import console_writer


class Console(io.RawIOBase):
    """What takes all, nothing (`held`), or fails (`error`), as it is told."""

    def __init__(self) -> None:
        self.shown = b""
        self.writes = 0
        self.held = threading.Event()
        self.held.set()
        self.error: OSError | None = None
        self.most = 1 << 30
        self.stream = io.TextIOWrapper(io.BufferedWriter(self), "utf-8", line_buffering=True)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        self.held.wait()
        if self.error is not None:
            raise self.error
        self.writes += 1
        taken = bytes(data)[: self.most]
        self.shown += taken
        return len(taken)

    def lines(self) -> list[str]:
        return self.shown.decode().splitlines()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    """The console, with the thread that writes to it."""
    raw = Console()
    monkeypatch.setattr(sys, "stderr", raw.stream)
    console_writer.start()
    yield raw
    raw.error = None
    raw.held.set()
    flush()
    console_writer.stop()
    assert console_writer._writer is None


def flush() -> None:
    """Wait until all is written, also after a failure."""
    for _ in range(1000):
        if console_writer.flush():
            return
        threading.Event().wait(0.01)
    raise AssertionError("something was never written")


def test_lines_come_in_order_and_in_batches(shown: Console) -> None:
    for number in range(1000):
        console_writer.write(f"{number}\n")
    assert console_writer.flush()
    assert shown.lines() == [str(number) for number in range(1000)]
    assert shown.writes < 500


def test_a_console_that_takes_nothing_holds_nobody_up(
    shown: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_writer, "LIMIT", 1000)
    monkeypatch.setattr(console_writer, "LAST", 0.01)
    shown.held.clear()
    for number in range(1000):
        console_writer.write(f"{number:9}\n")
    assert not console_writer.flush()
    console_writer.stop()
    console_writer.write("still nobody waits\n")
    shown.held.set()
    flush()
    kept = len(shown.lines()) - 1
    assert 100 <= kept < 200
    assert shown.lines()[:-1] == [f"{number:9}" for number in range(kept)]
    count = 1000 - kept + 1
    assert shown.lines()[-1] == f"{count} lines were dropped: the console did not take them."
    console_writer.write("after\n")
    flush()
    assert shown.lines()[-1] == "after"


def test_nothing_is_lost_on_a_disk_that_is_full_for_a_while(shown: Console) -> None:
    shown.error = OSError(28, "No space left on device")
    console_writer.write("first\n")
    assert not console_writer.flush()
    console_writer.write("second\n")
    shown.error = None
    flush()
    assert shown.lines() == ["first", "second"]


def test_what_is_written_in_pieces_is_whole(shown: Console) -> None:
    shown.most = 3
    console_writer.write("grüße\n" * 10)
    assert console_writer.flush()
    assert shown.lines() == ["grüße"] * 10


def test_a_script_that_redirects_stderr_gets_none_of_ours(shown: Console) -> None:
    with redirect_stderr(io.StringIO()) as captured:
        console_writer.write("ours\n")
        print("theirs", file=sys.stderr)
        console_writer.flush()
    assert captured.getvalue() == "theirs\n"
    assert shown.lines() == ["ours"]


def test_after_the_end_lines_are_written_at_once(
    shown: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", shown.stream)
    console_writer.write("waits\n")
    console_writer.stop()
    print("a script's, ", end="", file=sys.stderr)
    console_writer.write("at once\n")
    assert shown.shown == b"waits\na script's, at once\n"
    console_writer.start()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers")
def test_a_signal_handler_may_write_at_any_moment(shown: Console) -> None:
    handled = 0

    def handle(number: int, frame: object) -> None:
        nonlocal handled
        handled += 1
        console_writer.write("handler\n")

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(20_000):
            console_writer.write("loop\n")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert console_writer.flush()
    assert handled
    assert shown.lines().count("handler") == handled
    assert shown.lines().count("loop") == 20_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_writes_by_itself(shown: Console) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with redirect_stderr(open(writing, "w")):
            console_writer.write("child\n")
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as pipe:
        assert pipe.read() == "child\n"


@pytest.mark.parametrize("gone", [None, "closed", "no buffer"])
def test_whatever_stderr_is(gone: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = None if gone is None else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    if stream is not None and gone == "closed":
        stream.close()
    console_writer.write("direct\n")
    console_writer.start()
    console_writer.write("ü\n")
    console_writer.stop()
    assert console_writer._writer is None
    if stream is not None and gone != "closed":
        assert stream.getvalue() == "direct\nü\n"


# The log file


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The log file, which begins at noon of the first of May."""
    monkeypatch.setattr(console_writer, "_stamp", lambda now: "2026-05-01 12:00:00")
    path = tmp_path / "server.log"
    console_writer.open_log(str(path))
    assert path.read_text() == f"2026-05-01 12:00:00 rpyserve begins, pid {os.getpid()}.\n"
    yield path
    console_writer.close_log()


def logged(path: Path) -> list[str]:
    flush()
    return [line for line in path.read_text("utf-8").splitlines() if "rpyserve begins" not in line]


def test_the_log_file_has_dates_and_no_colours(shown: Console, log: Path) -> None:
    console_writer.write("rpyserve serves\n")
    console_writer.write(
        "11:59:59 \x1b[31mGET /: grüße \udcff\x1b[0m\n  index.rpy:1\n    \x1b[1mx\n"
    )
    console_writer.write("\rStopped.\nsecond line\n")
    console_writer.write('{"time": "..."}\n', has_dates=True)
    assert logged(log) == [
        "2026-05-01 12:00:00 rpyserve serves",
        "2026-05-01 12:00:00 GET /: grüße \\udcff",
        "  index.rpy:1",
        "    x",
        "2026-05-01 12:00:00 Stopped.",
        "2026-05-01 12:00:00 second line",
        '{"time": "..."}',
    ]
    assert shown.lines()[1].startswith("11:59:59 \x1b[31m")


def test_what_is_printed_in_pieces_is_logged_in_lines(log: Path) -> None:
    copy = console_writer.LineCopier("utf-8")
    for byte in "größer\r\n12:30:00 is no clock of ours\n  set in\nhalf".encode():
        copy(bytes([byte]))
    assert logged(log) == [
        "2026-05-01 12:00:00 größer",
        "2026-05-01 12:00:00 12:30:00 is no clock of ours",
        "  set in",
    ]
    copy(b" and half\nthe end")
    assert logged(log)[-1] == "2026-05-01 12:00:00 half and half"
    copy.finish()
    copy.finish()
    assert logged(log)[-2:] == ["2026-05-01 12:00:00 half and half", "2026-05-01 12:00:00 the end"]


def test_a_line_without_end_does_not_grow_for_ever(log: Path) -> None:
    copy = console_writer.LineCopier("utf-8")
    for _ in range(3):
        copy(b"x" * console_writer.LONGEST_LINE)
    assert len(logged(log)) == 1
    assert len(copy._waiting) <= console_writer.LONGEST_LINE


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_the_log_file_may_be_rotated(shown: Console, log: Path, how: str) -> None:
    console_writer.write("before\n")
    flush()
    if how == "removed":
        log.unlink()
    else:
        log.rename(log.with_name("server.log.1"))
    if how == "replaced":
        log.write_text("made by logrotate\n")
    console_writer.write("after\n")
    assert logged(log)[-1] == "2026-05-01 12:00:00 after"
    if how != "removed":
        assert logged(log.with_name("server.log.1")) == ["2026-05-01 12:00:00 before"]
    if how == "replaced":
        assert logged(log)[0] == "made by logrotate"


def test_a_log_file_that_is_emptied_goes_on_at_its_beginning(shown: Console, log: Path) -> None:
    console_writer.write("before\n")
    flush()
    os.truncate(log, 0)
    console_writer.write("after\n")
    flush()
    assert log.read_text() == "2026-05-01 12:00:00 after\n"


def test_a_log_file_that_takes_nothing_holds_nobody_up(
    shown: Console, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_writer, "LIMIT", 1000)
    monkeypatch.setattr(console_writer, "LAST", 0.01)
    log.parent.rename(log.parent.with_name("away"))
    for number in range(1000):
        console_writer.write(f"{number}\n")
        shown.held.wait()
    assert not console_writer.flush()
    log.parent.with_name("away").rename(log.parent)
    flush()
    console_writer.write("after\n")
    flush()
    lines = log.read_text().splitlines()[1:]
    kept = [line for line in lines if line.removeprefix("2026-05-01 12:00:00 ").isdecimal()]
    assert kept == [f"2026-05-01 12:00:00 {number}" for number in range(len(kept))]
    (dropped,) = [line for line in lines if "dropped" in line]
    assert dropped == (
        f"2026-05-01 12:00:00 {1000 - len(kept)} lines were dropped: the log file did not take "
        "them."
    )
    assert lines[-1] == "2026-05-01 12:00:00 after"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error_at_the_beginning() -> None:
    with pytest.raises(OSError, match="No space left"):
        console_writer.open_log("/dev/full")
    assert not console_writer.has_log()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_that_nobody_reads_is_an_error_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError):
        console_writer.open_log(str(tmp_path / "pipe"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_logs_by_itself(log: Path) -> None:
    child = os.fork()
    if child == 0:
        console_writer.LineCopier("utf-8")(b"printed by the child\n")
        os._exit(0)
    os.waitpid(child, 0)
    assert logged(log) == ["2026-05-01 12:00:00 printed by the child"]


def test_after_the_end_nothing_is_logged(shown: Console, log: Path) -> None:
    console_writer.write("before\n")
    console_writer.close_log()
    console_writer.write("after\n")
    assert logged(log) == ["2026-05-01 12:00:00 before"]
    assert shown.lines() == ["before", "after"]
