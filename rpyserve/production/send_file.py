"""Files that the proxy sends itself when the site has said which: X-Accel-Redirect, X-Sendfile.

The site has judged the file as ever and has opened it. What goes out then is the head, with the
name of the file for the proxy, which reads it from the same disk. It must be the very file that was
opened, all of it; anything else is sent from here. Only a known proxy gets such a head, as nobody
else understands it.

Conditions and ranges of a request are left to the proxy, which has ETags of its own: see
`Request._hands_over`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from rpyserve.http.headers import encode_header
from rpyserve.http.request import Request, Responder
from rpyserve.http.response import FileBody, Response

# What the proxy says itself of the file that it sends.
_OF_THE_PROXY: Final = frozenset({b"etag", b"last-modified", b"accept-ranges"})


@dataclass(frozen=True, slots=True)
class SendFile:
    """How the proxy is told which file to send.

    Args:
        header: the name of the header.
        prefix: what stands for the site's directory in its value; empty for the path of the file.
    """

    header: str
    prefix: str = ""


def parse_send_file(text: str) -> SendFile:
    """Return what ``nginx:/internal/`` or ``x-sendfile`` means.

    Raises:
        ValueError: it is neither.
    """
    if text.lower() == "x-sendfile":
        return SendFile("X-Sendfile")
    kind, _, prefix = text.partition(":")
    is_path = prefix.startswith("/") and not prefix.startswith("//")
    if kind.lower() != "nginx" or not is_path or quote(prefix) != prefix:
        raise ValueError(f"{text[:60]!r}: use nginx:/internal/, a location of nginx, or x-sendfile")
    return SendFile("X-Accel-Redirect", prefix.rstrip("/") + "/")


def with_send_file(respond: Responder, how: SendFile, root: str) -> Responder:
    """Wrap *respond*, a site's, so that a known proxy sends its files.

    Args:
        respond: who answers.
        how: how the proxy is told.
        root: the site's directory, links resolved.
    """
    name_of = _path if not how.prefix else functools.partial(_location, root, how.prefix)

    async def respond_with_send_file(request: Request) -> Response:
        request._hands_over = request._proxy is not None
        response = await respond(request)
        if not request._hands_over or response.status != 200:
            return response
        return _handed_over(response, how, name_of)

    return respond_with_send_file


def _handed_over(response: Response, how: SendFile, name_of: Callable[[str], str]) -> Response:
    """Return *response* without its body, if that is a whole file, with the file's name."""
    body = response.body
    if not isinstance(body, FileBody):
        return response
    path = _path_of(body)
    name = path and name_of(path)
    if not name:
        return response
    body.close()
    kept = tuple(pair for pair in response.headers if pair[0].lower() not in _OF_THE_PROXY)
    return Response.trusted(b"", 200, (*kept, encode_header(how.header, name)))


def _path_of(body: FileBody) -> str:
    """Return where the file of *body* is; empty if that is not known, or not all of it is sent."""
    try:
        status = os.fstat(body.file.fileno())
        # Linux knows the name of an open file, whatever has been renamed or linked meanwhile.
        path = os.readlink(f"/proc/self/fd/{body.file.fileno()}")
        is_there = os.path.samestat(os.lstat(path), status)
    except OSError:
        return ""
    return path if is_there and body.parts == (range(status.st_size),) else ""


def _location(root: str, prefix: str, path: str) -> str:
    """Return the location below *prefix* of a file of the site; empty for one from elsewhere."""
    directory = root.rstrip(os.sep) + os.sep
    if not path.startswith(directory):
        return ""
    return prefix + quote(os.fsencode(path[len(directory) :]))


def _path(path: str) -> str:
    return quote(os.fsencode(path))
