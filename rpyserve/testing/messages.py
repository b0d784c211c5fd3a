"""What a test's client sends, and what it gets: requests made of Python values, answers, and a visitor's cookies.

Values only: nothing here waits, and nothing knows of a site. See `testing`, whose clients these are.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, TypedDict
from urllib.parse import quote, urlencode, urljoin, urlsplit

import trio

from rpyserve.http.request import Request
from rpyserve.http.response import Response

__all__ = ["Answer", "Chunks", "Headers", "Sent", "Writer"]

CHUNK: Final = 64 * 1024
"""Bytes of a body that come at a time."""

File = bytes | str | Path | tuple[str, bytes | str] | tuple[str, bytes | str, str]
Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]


class Sent(TypedDict, total=False):
    """What a request may have besides its method and its target.

    Args:
        headers: request headers.
        data: the body: a mapping (or pairs) is sent as a form, text and bytes as they are.
        json: what is sent as JSON.
        files: files of a form, by field: bytes, a path, or a tuple of a file name, the content, and perhaps a type.
        follow: whether to follow redirects.
    """

    headers: Mapping[str, str] | Iterable[tuple[str, str]]
    data: Pairs | str | bytes
    json: Any
    files: Mapping[str, File] | Iterable[tuple[str, File]]
    follow: bool


class Headers(Mapping[str, str]):
    """The headers of an answer. Letter case does not matter; one that came more than once is joined by commas."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._pairs))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Headers({self._pairs!r})"

    def all(self, name: str) -> list[str]:
        """Return each value of the header *name*."""
        return [value for key, value in self._pairs if key.lower() == name.lower()]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a visitor gets.

    Args:
        status: the status code.
        headers: the headers.
        body: the whole body, as bytes.
        complete: whether the body came to its end; a page that fails half-way does not.
    """

    status: int
    headers: Headers
    body: bytes = b""
    complete: bool = True

    @classmethod
    def of(cls, response: Response, body: bytes = b"", complete: bool = True) -> Answer:
        """The answer that *response* is, with *body* read."""
        return cls(response.status, Headers(response.headers), body, complete)

    @property
    def text(self) -> str:
        """The body as text."""
        kind = Message()
        kind["Content-Type"] = self.headers.get("Content-Type", "")
        return self.body.decode(str(kind.get_param("charset", "utf-8")), "replace")

    def json(self) -> Any:
        """What the body says as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.body)


@dataclass(slots=True)
class Writer:
    """Makes the requests of one visitor, and keeps their cookies.

    Args:
        base: what targets are relative to.
        address: the visitor's IP address.

    Attributes:
        cookies: by name. Paths and domains are not looked at.
    """

    base: str = "/"
    address: str = "127.0.0.1"
    cookies: dict[str, str] = field(default_factory=dict)

    def request(self, method: str, target: str, sent: Sent, left: trio.Event) -> Request:
        """Return the request for *target*, a path or a URL; *left* is set when the visitor goes."""
        url = urlsplit(urljoin(f"http://localhost:8080{self.base}", target))
        uri = quote(url.path or "/", safe="/%!$&'()*+,;=:@~") + (
            f"?{quote(url.query, safe=_QUERY)}" if url.query else ""
        )
        kind, body = _body(sent)
        headers = {"host": url.netloc, "accept": "*/*"}
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if body is not None:
            headers |= {"content-length": str(len(body))} | ({"content-type": kind} if kind else {})
        headers |= {name.lower(): value for name, value in _pairs(sent.get("headers", ()))}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        server = (url.hostname or "localhost", url.port or (443 if url.scheme == "https" else 80))
        return Request(
            method, uri, raw, client=(self.address, 50000), server=server, scheme=url.scheme,
            body=None if body is None else Chunks(body), wait_client_left=left.wait,
        )  # fmt: skip

    def take(self, headers: Headers) -> None:
        """Keep the cookies that came with *headers*, and forget those that they end."""
        for line in headers.all("Set-Cookie"):
            pair, *attributes = line.split(";")
            name, _, value = pair.strip().partition("=")
            if _is_over(attributes):
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    def after(self, method: str, target: str, answer: Answer) -> tuple[str, str] | None:
        """The method and target that a redirect leads to; None if *answer* is none (RFC 9110, section 15.4)."""
        if answer.status not in (301, 302, 303, 307, 308) or "Location" not in answer.headers:
            return None
        keeps = answer.status in (307, 308) or method in ("GET", "HEAD")
        here = urljoin(self.base, target)
        return method if keeps else "GET", urljoin(here, answer.headers["Location"])


_PATH: Final = "/%!$&'()*+,;=:@~"
_QUERY: Final = _PATH + "?[]"


class Chunks:
    """A body as it comes over a network, *size* bytes at a time. No generator, so it may be left half-way."""

    def __init__(self, body: bytes, size: int = CHUNK) -> None:
        self._left = memoryview(body)
        self._size = size

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._left:
            raise StopAsyncIteration
        chunk, self._left = self._left[: self._size], self._left[self._size :]
        return bytes(chunk)


def _pairs(given: Any) -> list[tuple[str, Any]]:
    return list(given.items()) if isinstance(given, Mapping) else list(given)


def _body(sent: Sent) -> tuple[str, bytes | None]:
    """The content type and the body of a request."""
    data = sent.get("data", ())
    if "json" in sent:
        return "application/json", json.dumps(sent["json"]).encode()
    if "files" in sent:
        return _multipart(_pairs(data), _pairs(sent["files"]))
    if isinstance(data, (str, bytes)):
        return "", data.encode() if isinstance(data, str) else data
    if "data" in sent:
        return "application/x-www-form-urlencoded", urlencode(_pairs(data), doseq=True).encode()
    return "", None


def _multipart(texts: list[tuple[str, Any]], files: list[tuple[str, File]]) -> tuple[str, bytes]:
    """A form with files in it (RFC 7578)."""
    boundary = secrets.token_hex(16)
    parts = [(f'name="{_quoted(name)}"', str(value).encode()) for name, value in texts]
    for name, given in files:
        filename, content, kind = _file(given)
        parts.append((f'name="{_quoted(name)}"; filename="{_quoted(filename)}"\r\nContent-Type: {kind}', content))
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def _quoted(name: str) -> str:
    """As browsers have it."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _file(given: File) -> tuple[str, bytes, str]:
    if isinstance(given, Path):
        given = (given.name, given.read_bytes())
    if not isinstance(given, tuple):
        given = ("file", given)
    content = given[1].encode() if isinstance(given[1], str) else given[1]
    return given[0], content, given[2] if len(given) == 3 else "application/octet-stream"


def _is_over(attributes: list[str]) -> bool:
    """Whether the cookie with these *attributes* is to be forgotten (RFC 6265, section 5.3)."""
    said = {name.strip().lower(): value.strip() for name, _, value in (each.partition("=") for each in attributes)}
    if "max-age" in said:
        return said["max-age"].startswith("-") or said["max-age"] == "0"
    try:
        return "expires" in said and parsedate_to_datetime(said["expires"]).year < 1980
    except ValueError:
        return False
