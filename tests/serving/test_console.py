"""What stands on the console: streams that never fail, lines that nobody can forge, a banner."""

from __future__ import annotations

import io
import logging
import math
import sys

import pytest

from rpyserve.serving import console
from rpyserve.serving.console import banner, network_addresses, url_of, use_colour


@pytest.fixture
def loggers() -> logging.Logger:
    """The logger of rpyserve and the root as they are in a fresh process."""
    ours, root = logging.getLogger("rpyserve"), logging.getLogger()
    for logger in (ours, root):
        logger.handlers.clear()
    ours.setLevel(logging.NOTSET)
    root.setLevel(logging.WARNING)
    return ours


def ascii_console(monkeypatch: pytest.MonkeyPatch) -> tuple[io.BytesIO, io.BytesIO]:
    """Make stdout and stderr a console that shows ASCII only; take pytest's handlers away."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, "ascii"))
    return out, err


def test_no_character_is_too_much(loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = ascii_console(monkeypatch)
    console.set_up()
    print("grüße \udcff")
    console.print_line("naïve")
    loggers.warning("☃")
    assert streams[0].getvalue() == rb"gr\xfc\xdfe \udcff" + b"\n"
    assert streams[1].getvalue().startswith(rb"na\xefve" + b"\n")
    assert rb"\u2603" in streams[1].getvalue()


def test_output_is_seen_line_by_line(
    loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = ascii_console(monkeypatch)
    console.set_up()
    print("at once")
    assert streams[0].getvalue() == b"at once\n"


def test_messages_of_scripts_are_seen(
    loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = ascii_console(monkeypatch)
    console.set_up()
    logging.getLogger("my.script").info("hello")
    logging.info("%s", "\x1b")
    assert streams[1].getvalue() == b"INFO:my.script:hello\nINFO:root:\\x1b\n"


def test_a_configured_root_logger_is_left_alone(
    loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = ascii_console(monkeypatch)
    logging.getLogger().addHandler(logging.NullHandler())
    console.set_up()
    logging.getLogger("my.script").info("hello")
    assert streams[1].getvalue() == b""
    assert logging.getLogger().level == logging.WARNING


def test_a_script_may_still_call_basic_config(
    loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = ascii_console(monkeypatch)
    console.set_up()
    logging.basicConfig(format="mine: %(message)s", level=logging.DEBUG)
    logging.getLogger("my.script").debug("hello")
    assert streams[1].getvalue() == b"mine: hello\n"


@pytest.mark.parametrize(
    ("quiet", "verbose", "seen"),
    [(False, False, b"iw"), (True, False, b"w"), (False, True, b"diw")],
)
def test_how_much_is_said(
    loggers: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    quiet: bool,
    verbose: bool,
    seen: bytes,
) -> None:
    streams = ascii_console(monkeypatch)
    console.set_up(quiet=quiet, verbose=verbose)
    loggers.debug("d")
    loggers.info("i")
    loggers.warning("w")
    assert b"".join(line[-1:] for line in streams[1].getvalue().splitlines()) == seen


def test_messages_are_not_doubled(loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = ascii_console(monkeypatch)
    console.set_up()
    console.set_up()
    loggers.warning("once")
    assert streams[1].getvalue().count(b"once") == 1


def test_no_line_can_be_forged(loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = ascii_console(monkeypatch)
    console.set_up()
    loggers.error("GET %s failed", "/x\n12:00:00 forged\r\x1b[2J\x9b")
    lines = streams[1].getvalue().decode().splitlines()
    assert len(lines) == 2
    assert lines[1] == r"  12:00:00 forged\x0d\x1b[2J\x9b failed"


HARMFUL = "\x1b[2J\x85\x9b\u061c\u200f\u2028\u2029\u202e\u2066\u2069"


def test_nothing_turns_the_direction_or_ends_a_line(
    loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = ascii_console(monkeypatch)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(streams[1], "utf-8"))
    console.set_up()
    loggers.warning("%s", HARMFUL)
    logging.getLogger("my.script").info("%s\n12:00:00 forged", HARMFUL)
    lines = streams[1].getvalue().decode().splitlines()
    escaped = HARMFUL.encode("ascii", "backslashreplace").decode().replace("\x1b", r"\x1b")
    assert lines[0].endswith(f" {escaped}")
    assert lines[1:] == [f"INFO:my.script:{escaped}", "  12:00:00 forged"]


def test_letters_of_all_kinds_are_shown(
    loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = ascii_console(monkeypatch)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(streams[1], "utf-8"))
    console.set_up()
    loggers.warning("grüße\t☃ 👩‍🚀 می‌خواهم")
    assert streams[1].getvalue().decode().endswith(" grüße\t☃ 👩‍🚀 می‌خواهم\n")


def test_a_traceback_is_set_in(loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = ascii_console(monkeypatch)
    console.set_up(verbose=True)
    try:
        raise LookupError("gone")
    except LookupError:
        loggers.exception("failed")
    first, *rest = streams[1].getvalue().decode().splitlines()
    assert first.endswith(" failed")
    assert all(line.startswith("  ") for line in rest)
    assert rest[-1] == "  LookupError: gone"


def test_a_console_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    for gone in (None, io.StringIO()):
        if gone is not None:
            gone.close()
        monkeypatch.setattr(sys, "stderr", gone)
        monkeypatch.setattr(sys, "stdout", gone)
        console.print_line("nobody hears it")
        banner("x", ("127.0.0.1", 1))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert use_colour(Terminal())
    assert not use_colour(io.StringIO())
    assert not use_colour(None)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not use_colour(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    assert use_colour(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not use_colour(Terminal())


def test_errors_are_coloured_on_a_terminal(
    loggers: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    console.set_up()
    loggers.error("failed")
    loggers.info("fine")
    failed, fine = terminal.getvalue().splitlines()
    assert failed.endswith("\x1b[31mfailed\x1b[0m")
    assert "\x1b" not in fine


def test_the_banner(capsys: pytest.CaptureFixture[str]) -> None:
    url = banner(
        "rpyserve 1 serves /home/me/site",
        ("127.0.0.1", 8081),
        timeout=900,
        notes=["Port 8080 is taken."],
        inspector=True,
    )
    out, err = capsys.readouterr()
    assert out == "http://127.0.0.1:8081/\n"
    assert url == "http://127.0.0.1:8081/"
    assert err.splitlines() == [
        "rpyserve 1 serves /home/me/site",
        "Port 8080 is taken.",
        "What the server is doing: http://127.0.0.1:8081/-/",
        "Sessions expire after 15 minutes without a visit. Ctrl-C stops the server and ends all "
        "sessions.",
    ]


def test_a_quiet_banner_is_the_url(capsys: pytest.CaptureFixture[str]) -> None:
    banner("x", ("::1", 80), timeout=math.inf, quiet=True, notes=["note"], inspector=True)
    assert capsys.readouterr() == ("http://[::1]/\n", "")


def test_sessions_that_never_end(capsys: pytest.CaptureFixture[str]) -> None:
    banner("x", ("127.0.0.1", 1), timeout=math.inf, store=".rpyserve/sessions.db")
    kept = "Ctrl-C stops the server and keeps the sessions in .rpyserve/sessions.db."
    assert kept in capsys.readouterr().err
    banner("x", ("127.0.0.1", 1), timeout=math.inf)
    assert "Sessions never expire." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080/"),
        ("::", "http://[::1]:8080/"),
        ("192.0.2.7", "http://192.0.2.7:8080/"),
    ],
)
def test_a_loud_line_when_the_network_can_reach_it(
    host: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    banner("x", (host, 8080), quiet=True)
    out, err = capsys.readouterr()
    assert out == url + "\n"
    assert "Anyone on the network" in err
    assert "run the scripts" in err


def test_addresses_of_the_network() -> None:
    for loopback in ("127.0.0.1", "localhost", "::1"):
        assert network_addresses(loopback) == []
    assert network_addresses("192.0.2.7") == ["192.0.2.7"]
    assert network_addresses("0.0.0.0") != []


def test_urls() -> None:
    assert url_of("127.0.0.1", 80) == "http://127.0.0.1/"
    assert url_of("::1", 8080) == "http://[::1]:8080/"
    assert url_of("a.example", 443, "https") == "https://a.example/"
    assert url_of("a.example", 80, "https") == "https://a.example:80/"
