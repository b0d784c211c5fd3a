"""A file as a resource: opened for each request, and judged once it is open.

What to answer is decided by `conditional`, which media type by `media_types`; `safe_open` opens the
file. A large file is sent in parts. A small one is read once: the bytes that are sent are those
that its ETag was made of. The file is closed with the request, whatever happens to the response.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from rpyserve.files.conditional import CONDITIONS, Plan, evaluate
from rpyserve.files.media_types import SAMPLE, UNKNOWN, media_type
from rpyserve.files.path_rules import private_content, readable
from rpyserve.files.safe_open import open_checked
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import FileBody, Response
from rpyserve.resources.resource import Resource

SMALL: Final = 128 * 1024
"""Bytes up to which a file is read at once, and known by its contents."""

_DETAILS: Final = {
    412: "The file has changed, or is not the one that this request is about.",
    416: "The file does not have that many bytes.",
}


class StaticFile(Resource):
    """One file. It answers GET and HEAD, conditions and ranges (RFC 9110, sections 13 and 14).

    Args:
        path: the file.
        judge: says of the resolved path of the file that was opened why it must not be sent; empty
            if it may be.
    """

    _wants_body = False

    def __init__(
        self, path: str | os.PathLike[str], judge: Callable[[str], str] = lambda real: ""
    ) -> None:
        self.path = Path(path)
        self.judge = judge

    def __repr__(self) -> str:
        return f"<StaticFile {self.path}>"

    def getChild(self, name: str, request: Request) -> Any:
        url = readable(request.prepath[:-1])
        raise HTTPError(404, private=f"{self.path.name!r} is a file, not a directory: try {url}")

    def render_GET(self, request: Request) -> Response:
        file, status = open_checked(self.path, self.judge)
        request.on_close(file.close)
        content_type = self._media_type(file)
        content = _read_small(file) if status.st_size <= SMALL else None
        plan = evaluate(
            request.method,
            _conditions(request),
            status,
            content_type,
            now=time.time_ns(),
            boundary=secrets.token_hex(16),
            content=content,
        )
        headers = (*plan.headers, ("X-Content-Type-Options", "nosniff"))
        if content is None and plan.parts:
            return Response(FileBody(file, plan.parts), plan.status, headers)
        file.close()  # a slow client need not hold it open
        if plan.status >= 400:
            raise HTTPError(plan.status, _DETAILS[plan.status], dict(plan.headers))
        return Response(_body(plan, content or b""), plan.status, headers)

    def _media_type(self, file: BinaryIO) -> str:
        """Return the media type; of a name that tells nothing by how the file begins.

        Raises:
            HTTPError: 404, that looks private.
        """
        known = media_type(self.path.name)
        if known != UNKNOWN:
            return known
        start = file.read(SAMPLE)
        file.seek(0)
        if why := private_content(start):
            raise HTTPError(404, private=f"Its content is private. {why}")
        return media_type(self.path.name, start)


def _conditions(request: Request) -> dict[str, str]:
    values = ((name, request.getHeader(name)) for name in CONDITIONS)
    return {name: value for name, value in values if value is not None}


def _read_small(file: BinaryIO) -> bytes | None:
    """Return the bytes of *file*, unless it is no longer small."""
    content = file.read(SMALL + 1)
    return content if len(content) <= SMALL else None


def _body(plan: Plan, content: bytes) -> bytes:
    parts = (
        part if isinstance(part, bytes) else content[part.start : part.stop] for part in plan.parts
    )
    return b"".join(parts)
