"""What can go wrong with a request, as exceptions: values only, no pages (see `pages`) and no I/O.

`HTTPError` and `Redirect` may be raised anywhere in a script, out of a nursery too; `unwrap` finds them
inside the exception groups that nurseries make. `ScriptError` says that a script, not rpyserve, is at fault.
Whoever runs a script's code keeps in what it raises, by `parted` or `contained`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["BadRequest", "ClientDisconnected", "HTTPError", "Redirect", "ScriptError", "WrongResult"]  # fmt: skip


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
        message: what is wrong, in one line; empty where the exception that caused it, its ``__cause__``, says so.
        hint: what to do about it: sentences, and perhaps lines of code to write, separated by newlines.
    """

    def __init__(self, path: Path, message: str = "", hint: str = "") -> None:
        super().__init__(path, message, hint)
        self.path = path
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        if self.message or self.__cause__ is None:
            return self.message
        return f"{type(self.__cause__).__name__}: {self.__cause__}"


class WrongResult(TypeError):
    """A render method returned what cannot be sent.

    Args:
        message: what it returned, and the line to write instead.
        method: the function; no frame of it is left.
    """

    def __init__(self, message: str, method: object) -> None:
        super().__init__(message)
        self.method = method


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


class ClientDisconnected(Exception):
    """The client went away, or broke off, before its whole request had come."""
