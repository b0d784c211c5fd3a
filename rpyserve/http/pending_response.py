"""What a script says about the response on its request: status, headers, and what it writes.

Everything is checked here at once, while the script that says it is on the stack. It takes effect
in two places: `complete_headers` puts the headers into a `Response`, and a `WriteStream` carries
the chunks to the client.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rpyserve.http.errors import Redirect
from rpyserve.http.headers import encode_header
from rpyserve.http.response import Headers, Response, Stream, WriteStream, say_utf8


@dataclass(slots=True, eq=False)
class PendingResponse:
    """The response to one request, as far as it has been said.

    What its methods take and raise is said at those of `Request` that call them.

    Attributes:
        status: the status code for what the method returns or writes.
        reason: the words beside it; the usual ones if empty.
        headers: the headers that replace others of their names.
        added_headers: the headers that stand beside others of their names.
        session_cookie: the ``Set-Cookie`` value of a session that this request made.
        redirect: where the script sends the visitor instead.
        headers_sent: whether the headers are complete. What is said about them from then on comes
            too late.
        finished: whether the body is complete. It has nothing to do with the headers: a body may be
            finished before them.
        failure: why the body will never be complete: a task of the request has failed.
        chunks: what was written before there was a stream.
        stream: carries what is written, once the method has returned.
        is_text: whether the body is made of `str`, at least in part.
    """

    status: int = 200
    reason: bytes = b""
    headers: Headers = ()
    added_headers: Headers = ()
    session_cookie: bytes | None = None
    redirect: Redirect | None = None
    headers_sent: bool = False
    finished: bool = False
    failure: BaseException | None = None
    chunks: list[bytes] = field(default_factory=list)
    stream: WriteStream | None = None
    is_text: bool = False

    def set_status(self, status: int, reason: str | bytes | None = None) -> None:
        if not (isinstance(status, int) and 200 <= status <= 599):
            raise ValueError(f"a status code is a number from 200 to 599, not {status!r}")
        self.status = status
        self.reason = b"" if reason is None else encode_header("status", reason)[1]

    def set_header(self, name: str | bytes, value: str | bytes | int) -> None:
        encoded = encode_header(name, value)
        self.remove_headers({encoded[0].lower()})
        self.headers += (encoded,)

    def add_header(self, name: str | bytes, value: str | bytes | int) -> None:
        self.added_headers += (encode_header(name, value),)

    def remove_headers(self, names: set[bytes]) -> None:
        """Forget the headers that were set, not added, under *names* in lower case."""
        self.headers = tuple(pair for pair in self.headers if pair[0].lower() not in names)

    def complete_headers(self, response: Response) -> Response:
        """Return *response* with all headers from here. From now on it is too late for more."""
        self.headers_sent = True
        if self.headers:
            headers = say_utf8(self.headers) if self.is_text else self.headers
            response = response.with_headers(*headers)
        if self.added_headers:
            headers = response.headers + self.added_headers
            response = Response.trusted(response.body, response.status, headers)
        if self.session_cookie is not None:
            response = response.with_headers((b"Set-Cookie", self.session_cookie))
        return response

    def complete_head(self, response: Response) -> Response:
        """Return *response*, a stream of what the script writes, with all that it has said by now.

        Unlike `complete_headers`, that is the status, too.
        """
        response = self.complete_headers(response)
        if response.status == self.status:
            return response
        if isinstance(response.body, Stream):
            response.body.reason = self.reason
        return Response.trusted(response.body, self.status, response.headers)

    def write(self, data: str | bytes) -> None:
        if not isinstance(data, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"request.write() takes str or bytes, not {type(data).__name__}")
        if isinstance(data, str):
            self.is_text = True
        chunk = data.encode() if isinstance(data, str) else bytes(data)
        if self.finished or not chunk:
            return
        if self.stream is None:
            self.chunks.append(chunk)
        else:
            self.stream.write(chunk)

    def finish(self) -> None:
        self.finished = True
        if self.stream is not None:
            self.stream.close()

    def fail(self, exc: BaseException) -> bool:
        """Say that the body will never be complete, because of *exc*.

        Returns:
            Whether somebody waits for the body, and will be told.
        """
        if self.finished:
            return False
        self.failure = exc
        if self.stream is None:
            return False
        self.stream.fail(exc)
        return True

    def start_stream(self) -> WriteStream:
        """Return the stream of all that has been written, and will be.

        Raises:
            BaseException: the body has failed already.
        """
        if self.failure is not None:
            raise self.failure
        self.stream = WriteStream()
        for chunk in self.chunks:
            self.stream.write(chunk)
        return self.stream
