"""What a script says about its answer besides the body that it returns: status, headers, cookies, `write`, `finish`.

Half of a `Request`, whose methods these are in Twisted. All of it is only noted here, and checked while the script
that said it is on the stack; `rendering` turns it into a `Response`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpyserve.cookies import set_cookie
from rpyserve.errors import HTTPError, Redirect
from rpyserve.response import encode_header

if TYPE_CHECKING:
    from rpyserve.streaming import Pipe

__all__ = ["Answering"]


class Answering:
    """What will be answered, as far as it has been said.

    Attributes:
        code: the status code for what the method returns or writes.
        reason: the words beside it; the usual ones if empty.
        response_headers: the headers so far that replace others of their names.
        added_headers: those that stand beside others of their names.
        redirection: where `redirect` sends the visitor.
        pipe: what takes the chunks of `write` once the head is made, and
        written: those from before.
        finished: whether the body is complete.
        error: in a site's own ``404.rpy``: the `HTTPError` that it answers, with its ``detail``; else None.
        failure: what one of the request's tasks has raised.
        session_cookie: the ``Set-Cookie`` of a session that this request made.
        settled: whether the head is made: what is said about it from then on comes too late.
    """

    def __init__(self) -> None:
        self.code = 200
        self.reason = b""
        self.response_headers: list[tuple[bytes, bytes]] = []
        self.added_headers: list[tuple[bytes, bytes]] = []
        self.redirection: Redirect | None = None
        self.pipe: Pipe | None = None
        self.written: list[bytes] = []
        self.finished = False
        self.error: HTTPError | None = None
        self.failure: BaseException | None = None
        self.session_cookie: bytes | None = None
        self.settled = False

    def setResponseCode(self, code: int, message: str | bytes | None = None) -> None:
        """Set the status code, and perhaps the words beside it, for what the method returns or writes.

        Raises:
            ValueError: not a number from 200 to 599, or words with a line break in them.
        """
        if not (isinstance(code, int) and 200 <= code <= 599):
            raise ValueError(f"a status code is a number from 200 to 599, not {code!r}")
        self.code = code
        self.reason = encode_header("status", message)[1] if message is not None else b""

    def setHeader(self, name: str | bytes, value: str | bytes | int) -> None:
        """Set a response header; it replaces one of the same name.

        Raises:
            ValueError: the name or value cannot be sent: a line break, a control character, or not Latin-1.
        """
        field = encode_header(name, value)
        lower = field[0].lower()
        self.response_headers = [pair for pair in self.response_headers if pair[0].lower() != lower]
        self.response_headers.append(field)

    def addHeader(self, name: str | bytes, value: str | bytes | int) -> None:
        """Add a response header beside those of the same name, such as a second ``Link`` or ``Vary``.

        Raises:
            ValueError: the name or value cannot be sent; see `setHeader`.
        """
        self.added_headers.append(encode_header(name, value))

    def addCookie(
        self,
        k: str | bytes,
        v: str | bytes,
        expires: str | bytes | None = None,
        domain: str | bytes | None = None,
        path: str | bytes | None = None,
        max_age: str | bytes | int | None = None,
        comment: str | bytes | None = None,
        secure: bool | None = None,
        httpOnly: bool = False,
        sameSite: str | bytes | None = None,
    ) -> None:
        """Have the visitor's browser keep a cookie (RFC 6265, section 4.1). Read it later with `getCookie`.

        Args:
            k, v: its name and value: no blanks, quotes, commas, semicolons or backslashes; use `urllib.parse.quote`.
            expires: an HTTP date at which it ends. Without it, and without *max_age*, it ends with the browser.
            domain, path: where the browser sends it; by default only to this host, and to this page's directory.
            max_age: seconds that it lives.
            comment: accepted for Twisted's sake, and sent.
            secure: send it over https only.
            httpOnly: keep it from scripts in the page.
            sameSite: ``"lax"``, ``"strict"`` or ``"none"``.

        Raises:
            ValueError: a part cannot be sent.
        """
        attributes = {
            "Expires": expires, "Domain": domain, "Path": path, "Max-Age": max_age, "Comment": comment,
            "Secure": secure or None, "HttpOnly": httpOnly or None, "SameSite": sameSite,
        }  # fmt: skip
        self.addHeader("Set-Cookie", set_cookie(k, v, attributes))

    def redirect(self, url: str | bytes, status: int | None = None) -> None:
        """Answer with a redirect to *url* (303 after a POST, 302 otherwise); the method need return nothing then."""
        self.redirection = Redirect(url.decode() if isinstance(url, bytes) else url, status)

    def write(self, data: str | bytes) -> None:
        """Send *data* as the next part of the body. For methods that return `NOT_DONE_YET`.

        Never blocks. After `finish`, or when the client has gone, it does nothing.
        """
        if not isinstance(data, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"request.write() takes str or bytes, not {type(data).__name__}")
        chunk = data.encode() if isinstance(data, str) else bytes(data)
        if self.finished or not chunk:
            return
        if self.pipe is not None:
            self.pipe.write(chunk)
        else:
            self.written.append(chunk)

    def finish(self) -> None:
        """Say that the body is complete. Doing so twice does nothing."""
        self.finished = True
        if self.pipe is not None:
            self.pipe.close()

    def fail(self, exc: BaseException) -> bool:
        """Have the answer fail with *exc* if it waits for `finish`. Returns whether it does."""
        self.failure = exc
        if self.pipe is None or self.finished:
            return False
        self.pipe.fail(exc)
        return True
