"""One response without a socket, for ``--get``.

The body goes to stdout as bytes, status and headers to stderr. The request is one that curl on this
machine would send, with the same options: any media type is accepted, and there is no cookie unless
a file has some. The site runs as it does on the network, sessions and their end included.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import AsyncIterator
from copy import copy
from dataclasses import dataclass
from http.client import HTTPMessage
from http.cookiejar import CookieJar, LoadError, MozillaCookieJar
from pathlib import Path
from typing import Final
from urllib.parse import quote

import trio

from rpyserve.http.headers import reason_phrase
from rpyserve.http.request import Request
from rpyserve.http.response import Response, start_body
from rpyserve.serving import notices
from rpyserve.serving.console_writer import write
from rpyserve.serving.signals import Signals, is_interruption
from rpyserve.site import Site
from rpyserve.util.exceptions import unwrap_group

# The domain of localhost for `http.cookiejar`, and in files of curl's.
_DOMAIN: Final = "localhost.local"
_CURLS_DOMAIN: Final = "localhost"


class BadCookieFile(Exception):
    """The file of cookies cannot be read or written; the text says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked, beside the path.

    Args:
        method: the method; empty for POST if there is a body, else GET.
        data: the body, as it is sent; None for none.
        headers: header lines, such as ``Accept: application/json``.
        cookie_jar: a file in Netscape's format, as curl's: its cookies are sent, and those that
            come are written to it. None for no cookies.
    """

    method: str = ""
    data: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    cookie_jar: Path | None = None


def print_response(
    site: Site, path: str, options: Options = Options(), *, verbose: bool = False
) -> int:
    """Print *site*'s response for *path*; return 1 if its status is 400 or more, else 0.

    Args:
        path: as in a URL, a query included; the first slash may be left out, and what is no ASCII
            need not be encoded.
        options: what is asked beside it.
        verbose: whether to show the status and the headers as well.

    Raises:
        BadCookieFile: the file of cookies cannot be read or written.
    """
    if site.on_source is None:
        site.on_source = notices.FindingAnnouncer()
    jar = _Cookies(options.cookie_jar)
    request = _request(path, options, jar)
    signals = Signals()
    status = 0

    async def main() -> None:
        nonlocal status
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop, signals, nursery.cancel_scope)
            async with site.running():
                status = await _answer(site, request, jar, verbose)
            nursery.cancel_scope.cancel()

    with signals.installed(), notices.reporting_unawaited(site.errors):
        try:
            trio.run(main, restrict_keyboard_interrupt_to_checkpoints=False)
        except BaseException as exc:
            # A script was interrupted, or whoever reads our stdout has had enough.
            if isinstance(unwrap_group(exc), BadCookieFile):
                raise unwrap_group(exc) from None
            if not (is_interruption(exc) or isinstance(unwrap_group(exc), BrokenPipeError)):
                raise
    return int(status >= 400 or status == 0)


def target_of(path: str) -> str:
    """Return the request target that *path*, as typed, means."""
    return "/" + quote(path.removeprefix("/"), safe="/?&=%:@!$'()*+,;~[]")


async def _stop(signals: Signals, scope: trio.CancelScope) -> None:
    await signals.run()
    scope.cancel()


def _request(path: str, options: Options, jar: _Cookies) -> Request:
    fields = {"Host": "localhost", "Accept": "*/*"} | jar.field(target_of(path))
    if options.data is not None:
        fields["Content-Type"] = "application/x-www-form-urlencoded"
    given = {name.lower() for name, _ in options.headers}
    kept = [(name, value) for name, value in fields.items() if name.lower() not in given]
    headers = [
        (name.lower().encode("latin-1"), value.encode("utf-8"))
        for name, value in (*kept, *options.headers)
    ]
    method = options.method or ("GET" if options.data is None else "POST")
    body = None if options.data is None else _chunks(options.data.encode())
    return Request(method, target_of(path), headers, body=body)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


class _Cookies:
    """The cookies in the file *path*; none if that is None.

    One without an expiry time has 0 there, as curl has it.
    """

    def __init__(self, path: Path | None) -> None:
        self._jar = CookieJar()
        self._path = path
        if path is None or not path.exists():
            return
        file = MozillaCookieJar(path)
        try:
            file.load(ignore_discard=True, ignore_expires=True)
        except (OSError, LoadError) as exc:
            raise BadCookieFile(f"The cookies in {path} cannot be read: {exc}") from None
        for cookie in file:
            if cookie.domain == _CURLS_DOMAIN:
                cookie.domain = _DOMAIN
            cookie.expires = cookie.expires or None
            self._jar.set_cookie(cookie)

    def field(self, target: str) -> dict[str, str]:
        """The header field for a request to *target*, if there are cookies for it."""
        asked = urllib.request.Request(f"http://localhost{target}")
        self._jar.add_cookie_header(asked)
        cookie = asked.get_header("Cookie")
        return {} if cookie is None else {"Cookie": cookie}

    def store(self, target: str, response: Response) -> None:
        """Write what *response* sets into the file."""
        if self._path is None:
            return
        message = HTTPMessage()
        for name, value in response.headers:
            message[name.decode("latin-1")] = value.decode("latin-1")
        answer = _Answer(message)
        asked = urllib.request.Request(f"http://localhost{target}")
        self._jar.extract_cookies(answer, asked)  # type: ignore[arg-type]  # all that it uses
        file = MozillaCookieJar(self._path)
        for cookie in map(copy, self._jar):
            if cookie.domain == _DOMAIN:
                cookie.domain = _CURLS_DOMAIN
            cookie.expires = cookie.expires or 0
            file.set_cookie(cookie)
        try:
            file.save(ignore_discard=True, ignore_expires=True)
        except OSError as exc:
            raise BadCookieFile(f"{self._path} cannot be written: {exc.strerror}") from None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the standard library wants of a response."""

    message: HTTPMessage

    def info(self) -> HTTPMessage:
        return self.message


async def _answer(site: Site, request: Request, jar: _Cookies, verbose: bool) -> int:
    try:
        response = await site.respond(request)
        jar.store(request.uri, response)
        async with start_body(response) as body:
            if verbose:
                write(_head(body.response))
            async for chunk in body.chunks:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
    except Exception as exc:
        if isinstance(unwrap_group(exc), (BadCookieFile, BrokenPipeError)):
            raise
        return 0  # a body that fails half-way: the site has told why
    finally:
        request.close()
    return body.response.status


def _head(response: Response) -> str:
    lines = [f"{response.status} {reason_phrase(response.status)}".rstrip()]
    lines += [
        f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in response.headers
    ]
    return "\n".join(lines) + "\n\n"
