"""A file as a resource: opened for each request, and judged once it is open.

What to answer is decided by `conditional`, which media type by `media_types`; `safe_open` opens the
file. A large file is sent in parts, and closed with the request, whatever happens to the response.
A small one is read whole: the bytes that are sent are those that its ETag was made of. It stays in
memory while it is the same file, of the same signature, as when it was judged and read.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Final

from rpyserve.files.conditional import CONDITIONS, Plan, etag_of, evaluate
from rpyserve.files.media_types import SAMPLE, UNKNOWN, media_type
from rpyserve.files.path_rules import private_content, readable
from rpyserve.files.safe_open import open_checked
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request
from rpyserve.http.response import FileBody, Response
from rpyserve.resources.resource import Resource
from rpyserve.scripts.file_state import FILE_SYSTEM, FileSystem, SettlingFile

# Bytes up to which a file is read at once, and known by its contents.
SMALL: Final = 128 * 1024

# Bytes of all small files that one site keeps in memory.
MOST_IN_MEMORY: Final = 16 * 1024 * 1024

# How many these are.
MOST_FILES: Final = 1000

# The names of the headers that `evaluate` looks at, by what they are on the wire.
_CONDITIONS: Final = {name.encode(): name for name in CONDITIONS}

_DETAILS: Final = {
    412: "The file has changed, or is not the one that this request is about.",
    416: "The file does not have that many bytes.",
}


@dataclass(frozen=True, slots=True)
class _SmallFile:
    """A small file, as it was read.

    Args:
        status: its stat.
        media_type: its media type.
        content: its bytes.
        etag: its ETag by these.
        whole: the response to a request without conditions.
    """

    status: os.stat_result
    media_type: str
    content: bytes
    etag: str
    whole: Response


class SmallFileCache:
    """The small files of a site, while they stay as they are.

    Ask only for paths without links: where these lead may change while their files do not.
    """

    def __init__(self, file_system: FileSystem = FILE_SYSTEM) -> None:
        self._file_system = file_system
        # What was read of each file since it changed last: None if that was not small, or failed.
        self._files: dict[str, tuple[SettlingFile, _SmallFile | None]] = {}
        self._size = 0

    def get(self, path: str) -> _SmallFile | None:
        """Return the file at *path*; None if it must be read now, and `add` be told of it."""
        state, file = self._files.get(path, (None, None))
        if state is not None and not state.changed():
            return file
        self._forget(path)
        self._files[path] = state or SettlingFile(path, self._file_system), None
        if len(self._files) > MOST_FILES:
            self._forget(next(iter(self._files)))
        return None

    def add(self, path: str, file: _SmallFile) -> None:
        """Keep *file*, which was read after `get` had returned None for *path*."""
        state, _ = self._files[path]
        self._files[path] = state, file
        self._size += len(file.content)
        while self._size > MOST_IN_MEMORY:
            self._forget(next(iter(self._files)))

    def _forget(self, path: str) -> None:
        _, file = self._files.pop(path, (None, None))
        if file is not None:
            self._size -= len(file.content)


class StaticFile(Resource):
    """One file. It answers GET and HEAD, conditions and ranges (RFC 9110, sections 13 and 14).

    Args:
        path: the file.
        judge: says of the resolved path of the file that was opened why it must not be sent; empty
            if it may be.
        cache: keeps it if it is small; only for a path without links.
    """

    _wants_body = False
    _wants_session = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        judge: Callable[[str], str] = lambda real: "",
        cache: SmallFileCache | None = None,
    ) -> None:
        self._path = os.fspath(path)
        self._judge = judge
        self._cache = cache

    def __repr__(self) -> str:
        return f"<StaticFile {self._path}>"

    @property
    def _name(self) -> str:
        return os.path.basename(self._path)

    def getChild(self, name: str, request: Request) -> Any:
        url = readable(request.prepath[:-1])
        raise HTTPError(404, private=f"{self._name!r} is a file, not a directory: try {url}")

    def render_GET(self, request: Request) -> Response:
        conditions = _conditions(request)
        small = self._cache.get(self._path) if self._cache is not None else None
        if small is None:
            file, status = open_checked(self._path, self._judge)
            request.on_close(file.close)
            small = self._read_small(file, status)
            if small is None:
                if request._hands_over:
                    conditions = {}
                plan = _evaluate(request.method, conditions, status, self._media_type(file))
                return _response(plan, lambda parts: FileBody(file, parts))
            file.close()  # a slow client need not hold it open
        if not conditions:
            return small.whole
        size = len(small.content)
        plan = _evaluate(
            request.method, conditions, small.status, small.media_type, size, small.etag
        )
        return _response(plan, partial(_join, small.content))

    def _read_small(self, file: BinaryIO, status: os.stat_result) -> _SmallFile | None:
        """Return *file* with its contents; None if it is not small, or grows."""
        if status.st_size > SMALL:
            return None
        media_type = self._media_type(file)
        content = file.read(SMALL + 1)
        if len(content) > SMALL:
            file.seek(0)
            return None
        etag = etag_of(content)
        plan = _evaluate("GET", {}, status, media_type, len(content), etag)
        whole = _response(plan, partial(_join, content))
        small = _SmallFile(status, media_type, content, etag, whole)
        if self._cache is not None:
            self._cache.add(self._path, small)
        return small

    def _media_type(self, file: BinaryIO) -> str:
        """Return the media type; of a name that tells nothing by how the file begins.

        Raises:
            HTTPError: 404, that looks private.
        """
        known = media_type(self._name)
        if known != UNKNOWN:
            return known
        start = file.read(SAMPLE)
        file.seek(0)
        if why := private_content(start):
            raise HTTPError(404, private=f"Its content is private. {why}")
        return media_type(self._name, start)


def _conditions(request: Request) -> dict[str, str]:
    headers = request.raw_headers
    found = headers.values.keys() & _CONDITIONS.keys()
    return {_CONDITIONS[name]: headers.text(name) for name in found}


def _evaluate(
    method: str,
    conditions: dict[str, str],
    status: os.stat_result,
    media_type: str,
    size: int | None = None,
    etag: str | None = None,
) -> Plan:
    return evaluate(
        method,
        conditions,
        status,
        media_type,
        now=time.time_ns(),
        boundary=secrets.token_hex(16),
        size=size,
        etag=etag,
    )


def _response(plan: Plan, make_body: Callable[[tuple[bytes | range, ...]], Any]) -> Response:
    """Return the response of *plan*, whose parts *make_body* makes into a body.

    Raises:
        HTTPError: *plan* is an error.
    """
    if plan.status >= 400:
        raise HTTPError(plan.status, _DETAILS[plan.status], dict(plan.headers))
    body = make_body(plan.parts) if plan.parts else b""
    return Response(body, plan.status, (*plan.headers, ("X-Content-Type-Options", "nosniff")))


def _join(content: bytes, parts: tuple[bytes | range, ...]) -> bytes:
    return b"".join(
        part if isinstance(part, bytes) else content[part.start : part.stop] for part in parts
    )
