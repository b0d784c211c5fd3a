"""A file as a resource: opened for each request, judged once it is open; a large one is sent in parts.

What to answer is decided by `conditions`, which media type by `mediatypes`; `disk` opens the file. A small file is
read once: the bytes that are sent are those that its ETag was made of. It is closed with the request, whatever happens
to the response.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from rpyserve.files.conditional import CONDITIONS, evaluate
from rpyserve.files.media_types import SAMPLE, media_type
from rpyserve.files.path_rules import readable
from rpyserve.files.safe_open import open_checked
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import FileBody, Response
from rpyserve.resources.resource import Resource

__all__ = ["SMALL", "StaticFile"]

SMALL: Final = 128 * 1024
"""Bytes up to which a file is read at once, and known by its contents."""


class StaticFile(Resource):
    """One file. It answers GET and HEAD, conditions and ranges (RFC 9110, sections 13 and 14).

    Args:
        path: the file.
        judge: says of the resolved path of the file that was opened why it must not be sent; empty if it may be.
    """

    wants_body = False

    def __init__(
        self, path: str | os.PathLike[str], judge: Callable[[str], str] = lambda real: ""
    ) -> None:
        self.path = Path(path)
        self.judge = judge

    def __repr__(self) -> str:
        return f"<StaticFile {self.path}>"

    def getChild(self, name: str, request: Request) -> Any:
        url = readable(request.prepath[:-1])
        raise HTTPError(
            404, private=f"{self.path.name!r} is a file, so nothing comes after it: try {url}"
        )

    def render_GET(self, request: Request) -> Response:
        file, status = open_checked(self.path, self.judge)
        request.on_close(file.close)
        extended = "." in self.path.name
        kind = media_type(self.path.name, None if extended else file.read(SAMPLE))
        headers = {
            name: value for name in CONDITIONS if (value := request.getHeader(name)) is not None
        }
        content = _whole(file) if status.st_size <= SMALL else None
        answer = evaluate(
            request.method, headers, status, kind,
            now=time.time_ns(), boundary=secrets.token_hex(16), content=content,
        )  # fmt: skip
        if answer.status >= 400:
            file.close()
            raise HTTPError(answer.status, _DETAILS[answer.status], dict(answer.headers))
        fields = (*answer.headers, ("X-Content-Type-Options", "nosniff"))
        if answer.status == 304:
            file.close()
            return Response(b"", 304, fields)
        if content is None:
            return Response(FileBody(file, answer.parts), answer.status, fields)
        file.close()
        return Response(
            b"".join(_cut(content, part) for part in answer.parts), answer.status, fields
        )


def _whole(file: BinaryIO) -> bytes | None:
    """The bytes of *file*, unless it is no longer small."""
    file.seek(0)
    content = file.read(SMALL + 1)
    return content if len(content) <= SMALL else None


def _cut(content: bytes, part: bytes | range) -> bytes:
    return part if isinstance(part, bytes) else content[part.start : part.stop]


_DETAILS: Final = {
    412: "The file is not, or no longer, the one that this request is about.",
    416: "The file does not have that many bytes.",
}
