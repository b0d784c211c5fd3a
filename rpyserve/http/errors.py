"""What can go wrong with a request, as exceptions.

`HTTPError` and `Redirect` may be raised anywhere in a script, also inside a nursery:
`util.exceptions.unwrap_group` finds them in the exception groups that nurseries make. `ScriptError`
and `WrongResult` are the fault of a script; `BadRequest` and `ClientDisconnected` are the client's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rpyserve._names import public


@public
class HTTPError(Exception):
    """Raise it anywhere in a script to answer with an error page of that status.

    Args:
        status: the HTTP status code, 400 to 599 (RFC 9110, section 15.5 and 15.6).
        detail: one or two sentences for the visitor, shown on the page.
        headers: further response headers, such as ``{"Retry-After": "30"}``.
        private: a sentence for the site's author only: it is shown on this machine and in trusted
            networks.

    Raises:
        ValueError: *status* is not an error.
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
                f"HTTPError takes a status from 400 to 599, not {status}; "
                "to redirect, use Redirect(url)"
            )
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.private = private


class PageNotFound(HTTPError):
    """There is no page at a URL of a directory, and its author may make one.

    Args:
        private: why not.
        links: the names of the pages beside it, as they stand in relative URLs.
        new_file: the path of the script that would be the page; empty if none would.
    """

    def __init__(self, private: str, links: Sequence[str], new_file: str) -> None:
        super().__init__(404, private=private)
        self.links = links
        self.new_file = new_file


@public
class Redirect(Exception):
    """Raise or return it to send the visitor to another page.

    Args:
        url: where to, absolute or relative to the page that was asked for (RFC 9110, section
            10.2.2). A path that begins with a slash is one of the site, wherever that is.
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
        message: what is wrong, in one line; empty where the exception that caused it, its
            ``__cause__``, says so.
        hint: what to do about it: sentences, and perhaps lines of code to write, separated by
            newlines.
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
    """A render method returned something that cannot be sent.

    Args:
        message: what it returned, and the line to write instead.
        method: the function, which has returned, so that no traceback shows it.
        is_nothing: it returned None.
    """

    def __init__(self, message: str, method: object, *, is_nothing: bool = False) -> None:
        super().__init__(message)
        self.method = method
        self.is_nothing = is_nothing


class NotJSON(TypeError):
    """A dict or list holds what JSON cannot; the text says where, and what to write instead."""


class BadRequest(Exception):
    """The client sent something that cannot be answered.

    A short text goes back, and the connection ends.

    Args:
        status: the HTTP status code.
        text: a sentence for whoever made the request.
        tls: whether it was the beginning of TLS, on a port that does not speak it.

    Attributes:
        method: the method in the request line; empty if that could not be read.
        target: the target in the request line; empty if that could not be read.
    """

    def __init__(self, status: int, text: str, *, tls: bool = False) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.tls = tls
        self.method = b""
        self.target = b""

    def note_request_line(self, head: bytes | bytearray) -> None:
        """Note which request this is about, if the first line of *head* is a request line."""
        words = bytes(head.partition(b"\r\n")[0]).split(b" ")
        if len(words) == 3 and words[0].isalpha() and words[2].startswith(b"HTTP/"):
            self.method, self.target = words[:2]


class ClientDisconnected(Exception):
    """The client left before its whole request had come, or before there was a whole response.

    If the server gave it up, the text says why.
    """
