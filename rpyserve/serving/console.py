"""The console: the banner, messages of the logger ``rpyserve``, errors of listening in words.

The URL goes to stdout, alone; all other output of ours goes to stderr, through the logger
``rpyserve`` or `print_line`, and in the end through `console_writer`. No output fails on a
character that the console cannot show, on a console that has been closed, or on control characters
that came from a client. A script's own output appears line by line, terminal or not. `set_up`
changes the root logger only if nobody else has.
"""

from __future__ import annotations

import errno
import functools
import io
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TextIO

from rpyserve.serving.console_writer import LineCopier, has_log, write
from rpyserve.util.text import format_duration

# What moves the cursor, ends a line, or turns the direction of writing.
_HARMFUL: Final = (
    *(code for code in (*range(32), *range(127, 160)) if code not in (9, 10)),
    *(0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)),
)
_ESCAPES: Final = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _HARMFUL}
# Why a port cannot be had, by the number of the error.
_LISTEN_ERRORS: Final = {
    errno.EADDRINUSE: (
        "Port {port} of {host} is in use. Stop the program that uses it, or choose another port; "
        "0 takes any free one."
    ),
    errno.EACCES: (
        "Port {port} of {host} is not allowed; ports below 1024 often need permission. "
        "Choose another port; 0 takes any free one."
    ),
    errno.EADDRNOTAVAIL: "{host} is not an address of this machine.",
}
_basic_config: Final = logging.basicConfig
_UNSPECIFIED: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_LEVEL_COLOURS: Final = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31"}


def set_up(*, quiet: bool = False, verbose: bool = False) -> None:
    """Make the console ready: streams that never fail, and a handler for messages.

    Args:
        quiet: show only our warnings and errors.
        verbose: show all our messages.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    logger = logging.getLogger("rpyserve")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    if not logger.handlers:
        logger.addHandler(_Console(_message))
        logger.propagate = False
    _show_messages_of_scripts()


@contextmanager
def unfailing_streams(*, for_good: bool = False) -> Iterator[None]:
    """While inside, ``print`` in a script does not fail because nobody can take what it says.

    That may be a pipe whose reader has gone, or a full disk. What cannot be written is lost, but
    for the log file, which has it too.

    Args:
        for_good: whether it stays so to the end of the process.
    """
    before = sys.stdout, sys.stderr
    ours = sys.stdout, sys.stderr = _unfailing(before[0]), _unfailing(before[1])
    try:
        yield
    finally:
        for stream in ours:
            _finish_copy(stream)
        if not for_good and ours == (sys.stdout, sys.stderr):
            sys.stdout, sys.stderr = before


def _unfailing(stream: TextIO) -> TextIO:
    """*stream*, made so; another than a file of the system is left to whoever has put it there."""
    if type(stream) is not io.TextIOWrapper:
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    copy = LineCopier(stream.encoding) if has_log() else None
    return io.TextIOWrapper(
        io.BufferedWriter(_UnfailingFile(raw, copy)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
        write_through=stream.write_through,
    )


def _finish_copy(stream: TextIO) -> None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if isinstance(raw, _UnfailingFile) and raw.copy is not None:
        raw.copy.finish()


class _UnfailingFile(io.RawIOBase):
    """Writes to *raw*, and loses what that cannot take. All of it is given to *copy*, too."""

    def __init__(self, raw: Any, copy: LineCopier | None = None) -> None:
        self.raw = raw  # for `console_writer`, which tries again
        self.copy = copy
        self.name = getattr(raw, "name", "")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        number: int = self.raw.fileno()
        return number

    def isatty(self) -> bool:
        return bool(self.raw.isatty())

    def write(self, data: Any, /) -> int:
        taken = len(data)
        with suppress(OSError):
            taken = self.raw.write(data) or taken
        if self.copy is not None:
            self.copy(bytes(data[:taken]))
        return taken


def _show_messages_of_scripts() -> None:
    """Show a script's ``logging.info``. Its own ``logging.basicConfig``, now or later, still wins.

    Without options, which is how ``logging.info`` itself calls it, it changes nothing: its handler
    would write to stderr past `console_writer`.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    if root.level == logging.WARNING:
        root.setLevel(logging.INFO)
    if logging.lastResort is not None:
        logging.lastResort = _Console(_message_of_script)
        logging.basicConfig = _configure_logging


def _configure_logging(**options: Any) -> None:
    if options:
        _basic_config(**options)


def print_line(text: str) -> None:
    """Write a line of ours to stderr."""
    write(text + "\n")


def print_over_ctrl_c(text: str) -> None:
    """Write a line of ours over the ``^C`` that a terminal shows when it is typed."""
    print_line("\r" + text if is_terminal(sys.stderr) else text)


def use_colour(stream: TextIO | Any) -> bool:
    """Whether *stream* is a terminal that shows colours, and nobody has turned them off.

    See no-color.org.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    terminal = is_terminal(stream)
    if terminal and os.name == "nt":
        _enable_windows_colours()
    return terminal


def is_terminal(stream: TextIO | Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


@functools.cache
def _enable_windows_colours() -> None:
    """Make the classic console of Windows understand escape sequences."""
    os.system("")  # starting any command does so


def banner(
    title: str,
    bound: tuple[str, int],
    *,
    timeout: float | None = None,
    scheme: str = "http",
    quiet: bool = False,
    notes: Iterable[str] = (),
    warn: bool = True,
    codes: Iterable[str] = (),
    store: str = "",
    inspector: bool = False,
) -> str:
    """Print what is served, where, and how to stop it; return the URL.

    The URL goes to stdout, the rest to stderr.

    Args:
        title: what is served.
        bound: the address and port of the listener.
        timeout: seconds after which an idle session expires; None if that is not known.
        scheme: ``http`` or ``https``.
        quiet: print only the URL, and the warning if the network can reach it.
        notes: lines to print above the URL.
        warn: whether to say that the network can reach it.
        codes: QR codes of the addresses by which the network reaches it.
        store: where sessions are kept when the server stops; empty if nowhere.
        inspector: whether there is one.
    """
    host, port = bound
    url = url_of(_UNSPECIFIED.get(host, host), port, scheme)
    if not quiet:
        print_line("\n".join([title, *notes]))
    with suppress(OSError, ValueError):
        print(url, flush=True)
    if port and warn and (addresses := network_addresses(host)):
        where = " ".join(url_of(address, port, scheme) for address in addresses)
        print_line(
            _emphasize(
                f"{where}\nAnyone on the network can open this address, and run the scripts of "
                "the site."
            )
        )
    if not quiet:
        for code in codes:
            print_line(code)
    if not quiet:
        if inspector and port:
            print_line(f"What the server is doing: {url}-/")
        expiry = "" if timeout is None else f"{_expiry(timeout)} "
        fate = f"keeps the sessions in {store}" if store else "ends all sessions"
        print_line(f"{expiry}Ctrl-C stops the server and {fate}.")
    return url


def network_addresses(host: str) -> list[str]:
    """Return the addresses by which others on the network reach what listens on *host*.

    There are none if it is loopback.
    """
    from rpyserve.http.hosts import is_loopback

    if is_loopback(host):
        return []
    if host not in ("", "0.0.0.0", "::"):
        return [host]
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # This sends nothing: it only asks which of our addresses would be used.
            probe.connect(("192.0.2.1", 9))
            return [probe.getsockname()[0]]
    except OSError:
        return [socket.gethostname()]


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """Return the URL of the site's root."""
    if not port:
        return host  # a Unix socket
    # RFC 3986, section 3.2.2: an IPv6 address goes into brackets.
    shown = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{shown}/" if port == usual else f"{scheme}://{shown}:{port}/"


def listen_error(exc: OSError, host: str, wanted: int) -> str:
    """Say in one line why the server cannot listen on port *wanted* of *host*, and what to do."""
    if isinstance(exc, socket.gaierror):
        return f"There is no host {host!r}: {exc.strerror}."
    text = _LISTEN_ERRORS.get(exc.errno or 0)
    if text is None:
        return f"Cannot listen on port {wanted} of {host}: {exc.strerror or exc}."
    return text.format(port=wanted, host=host)


def _expiry(timeout: float) -> str:
    if timeout == math.inf:
        return "Sessions never expire."
    return f"Sessions expire after {format_duration(timeout)} without a visit."


def _emphasize(text: str) -> str:
    return f"\x1b[1;33m{text}\x1b[0m" if use_colour(sys.stderr) else text


class _Console(logging.Handler):
    """Writes records to the console, as lines that *layout* makes of one."""

    def __init__(self, layout: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._layout = layout

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write(self._layout(record) + "\n")
        except Exception:
            self.handleError(record)


def _message(record: logging.LogRecord) -> str:
    """A message of ours: the time in front, and a colour if it is an error."""
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    if record.name == "rpyserve.access":
        return _harmless(text).partition("\n")[0]
    first, line_end, rest = _harmless(text).partition("\n")
    colour = _LEVEL_COLOURS.get(record.levelname, "")
    if colour and use_colour(sys.stderr):
        first = f"\x1b[{colour}m{first}\x1b[0m"
    clock = time.strftime("%H:%M:%S", time.localtime(record.created))
    return f"{clock} {first}{line_end}{rest}"


def _message_of_script(record: logging.LogRecord) -> str:
    return _harmless(logging.Formatter(logging.BASIC_FORMAT).format(record))


def _harmless(text: str) -> str:
    """*text* for a terminal, with further lines set in, so that no client can forge a line."""
    first, *rest = text.translate(_ESCAPES).split("\n")
    if not all(line.startswith("  ") for line in rest):
        rest = ["  " + line for line in rest]
    return "\n".join([first, *rest])
