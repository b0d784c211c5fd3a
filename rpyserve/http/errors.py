"""What can go wrong with a request, as exceptions: values only, no pages (see `pages`) and no I/O.

`HTTPError` and `Redirect` may be raised anywhere in a script, out of a nursery too; `unwrap` finds them
inside the exception groups that nurseries make. `ScriptError` says that a script, not rpyserve, is at fault.
Whoever runs a script's code keeps in what it raises, by `parted` or `contained`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

__all__ = [
    "BadRequest",
    "ClientDisconnected",
    "HTTPError",
    "Interrupted",
    "Redirect",
    "ScriptError",
    "WrongResult",
    "reporting_errors",
    "split_control_flow",
    "unwrap_group",
]  # fmt: skip


class HTTPError(Exception):
    """Raise it anywhere in a script to answer with an error page of that status.

    Args:
        status: the HTTP status code, 400 to 599 (RFC 9110, section 15.5 and 15.6).
        detail: one or two sentences for the visitor, shown on the page.
        headers: further response headers, such as ``{"Retry-After": "30"}``.
        private: a sentence for the site's author only: it is shown to this machine and trusted networks.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        private: str = "",
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(
                f"HTTPError takes a status from 400 to 599, not {status}; to redirect, use Redirect(url)"
            )
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.private = private


class Redirect(Exception):
    """Raise or return it to send the visitor to another page.

    Args:
        url: where to, absolute or relative to the page that was asked for (RFC 9110, section 10.2.2).
        status: the status code; by default 303 after a POST and 302 otherwise.
    """

    def __init__(self, url: str, status: int | None = None) -> None:
        super().__init__(url)
        self.url = url
        self.status = status


class ScriptError(Exception):
    """A script could not be executed or did not say what it serves.

    Args:
        path: the script's file.
        message: what is wrong, in one line.
        hint: what to do about it: sentences, and perhaps lines of code to write, separated by newlines.

    The exception that caused it, if any, is its ``__cause__``.
    """

    def __init__(self, path: Path, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.hint = hint


class WrongResult(TypeError):
    """A render method returned what cannot be sent.

    Args:
        message: what it returned, and the line to write instead.
        method: the function; no frame of it is left.
    """

    def __init__(self, message: str, method: object) -> None:
        super().__init__(message)
        self.method = method


def unwrap_group(exc: BaseException) -> BaseException:
    """Return the one exception that counts inside *exc*.

    A nursery wraps what its tasks raise in an `ExceptionGroup`. If, cancellations apart, there is only one
    exception in the group, that one counts; otherwise the group itself does.
    """
    while isinstance(exc, BaseExceptionGroup):
        _, real = exc.split(trio.Cancelled)
        if real is None or len(real.exceptions) != 1:
            return exc
        exc = real.exceptions[0]
    return exc


class BadRequest(Exception):
    """What came is no request that can be answered: a short text goes back, and the connection ends.

    Args:
        status: the HTTP status code.
        text: a sentence for whoever made the request.
        tls: whether it was the beginning of TLS, on a port that speaks none.

    Attributes:
        method: and
        target: of its request line, if that much could be read.
    """

    def __init__(self, status: int, text: str, *, tls: bool = False) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.tls = tls
        self.method = b""
        self.target = b""

    def name(self, head: bytes | bytearray) -> None:
        """Note which request this is about, if the first line of *head* tells."""
        words = bytes(head.partition(b"\r\n")[0]).split(b" ")
        if len(words) == 3 and words[0].isalpha() and words[2].startswith(b"HTTP/"):
            self.method, self.target = words[:2]


class Interrupted(BaseException):
    """Raised in the middle of a script's sync code because the server is to stop."""


_PASSING: Final = (trio.Cancelled, KeyboardInterrupt, Interrupted)


def split_control_flow(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Part *exc* into what is a failure of the code that raised it, and what must go on up: cancellation, interrupts.

    A script can raise anything, `SystemExit` and `GeneratorExit` too, and none of it may end more than the script.
    """
    if isinstance(exc, BaseExceptionGroup):
        passing, own = exc.split(_PASSING)
        return own, passing
    return (None, exc) if isinstance(exc, _PASSING) else (exc, None)


@contextmanager
def reporting_errors(tell: Callable[[BaseException], object]) -> Iterator[None]:
    """While inside, what fails is told by *tell* and goes no further; cancellation and interrupts pass."""
    try:
        yield
    except BaseException as exc:
        contain(exc, tell)


def contain(exc: BaseException, tell: Callable[[BaseException], object]) -> None:
    """Where *exc* has been caught, do what `contained` does with it."""
    own, passing = split_control_flow(exc)
    if own is not None:
        tell(own)
    if passing is exc:
        raise exc
    if passing is not None:
        raise passing from None


class ClientDisconnected(Exception):
    """The client went away, or broke off, before its whole request had come."""
