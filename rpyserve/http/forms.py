"""Multipart forms: taken apart as they come, so that a file of any size goes to disk and never through memory.

The parser is the `multipart` package's (RFC 7578); here is where its pieces go, and how much of them is taken: texts
stay in memory and are few; the files of a form, however many, share one temporary file that ends with the request. What
a visitor's browser calls a file is a mere name here: it can neither lead to another directory nor, by `Upload.save`,
become a script of the site.

Fields of queries and of urlencoded forms, and JSON: text in, values out, within limits.

Pure. All of it is taken apart in memory, so a large one is refused; multipart forms are the business of `uploads`.

Temporary files for what a request brings: in memory while it is small, then on disk, gone with the request.

The file on disk has no name, or loses it when it is closed, so nothing stays behind whatever happens. A full disk is
an answer of its own. Knows nothing of requests.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from urllib.parse import parse_qs

from rpyserve.http.errors import HTTPError

__all__ = [
    "FIELD_LIMIT",
    "FORM_LIMIT",
    "SPOOL_SIZE",
    "Fields",
    "MultipartForm",
    "Upload",
    "disk_full_as_507",
    "form_fields",
    "parse_json",
    "query_fields",
    "spooled_file",
]


FORM_LIMIT: Final = 10 * 2**20
"""How many bytes a urlencoded form, a JSON text, or the texts of a multipart form may have; more is a 413."""
FIELD_LIMIT: Final = 1000
"""How many fields a query or a form may have; with more it is a 400 or a 413."""

Fields = dict[str, list[str]]


def query_fields(query: str) -> Fields:
    """Return the fields of a URL's query: each name with the list of its values, blank ones kept.

    Raises:
        HTTPError: 400, there are too many.
    """
    return _fields(query, 400)


def form_fields(content_type: str, content: BinaryIO) -> Fields:
    """Return the fields of a body, if *content_type* says that it is a urlencoded form; else none.

    Raises:
        HTTPError: 413, it is too long or has too many fields.
    """
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return {}
    return _fields(_whole(content, "form").decode("latin-1"), 413)


def parse_json(content: BinaryIO) -> Any:
    """Return what *content* says as JSON (RFC 8259): UTF-8, or UTF-16 or 32 with the usual marks.

    Raises:
        HTTPError: 400, it is none, saying where; 413, it is too long.
    """
    import json

    raw = _whole(content, "JSON text")
    if not raw.strip():
        raise HTTPError(400, "This page needs a body of JSON, and the body is empty.")
    try:
        return json.loads(raw)
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise HTTPError(
            400, f"The body is no JSON: {exc.msg[:1].lower()}{exc.msg[1:]} ({where})."
        ) from None
    except UnicodeDecodeError:
        raise HTTPError(400, "The body is no JSON: it is not UTF-8.") from None
    except ValueError:  # Python's own limit
        raise HTTPError(
            400, "The body is no JSON that can be read: a number in it is too long."
        ) from None
    except RecursionError:
        raise HTTPError(
            400, "The body is no JSON that can be read: it is nested too deep."
        ) from None


def _whole(content: BinaryIO, what: str) -> bytes:
    content.seek(0)
    raw = content.read(FORM_LIMIT + 1)
    content.seek(0)
    if len(raw) > FORM_LIMIT:
        raise HTTPError(413, f"A {what} may have {FORM_LIMIT // 2**20} MiB; this one is larger.")
    return raw


def _fields(text: str, too_many: int) -> Fields:
    with suppress(ValueError):
        return parse_qs(text, keep_blank_values=True, max_num_fields=FIELD_LIMIT, errors="replace")
    raise HTTPError(too_many, f"There are more than {FIELD_LIMIT} fields.")


SPOOL_SIZE: Final = 2**19
"""How many bytes of a body stay in memory."""

_FULL: Final = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def spooled_file(
    on_close: Callable[[Callable[[], object]], object], in_memory: int = SPOOL_SIZE
) -> BinaryIO:
    """Return a new binary file.

    Args:
        on_close: is given what must be called to let go of it.
        in_memory: how many bytes it may have before it goes to disk.
    """
    # It lives as long as its request.
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=in_memory))  # noqa: SIM115
    on_close(partial(_discard, file))
    return file


@contextmanager
def disk_full_as_507() -> Iterator[None]:
    """While inside, an error that says that the disk is full is an `HTTPError`, 507."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        why = (
            f"A body did not fit into {tempfile.gettempdir()}, where large ones are kept meanwhile: {exc.strerror}. "
            "The environment variable TMPDIR names another place."
        )
        raise HTTPError(507, "The server has no room for this.", private=why) from None


def _discard(file: BinaryIO) -> None:
    with suppress(OSError):  # a full disk may refuse what is still to be written
        file.close()


NAME_LENGTH: Final = 100
"""How many bytes a file's name may have: file systems take 255, and authors put something before or behind it."""

_EXECUTED: Final = re.compile(r"\.(?:rpy|py[a-z]?|j2|jinja2?)(?:[.~].*)?\Z", re.IGNORECASE)
_UNFIT: Final = re.compile(r'[\x00-\x1f\x7f"*:<>?|\ud800-\udfff]')
_DEVICE: Final = re.compile(r"(?:CON|PRN|AUX|NUL|COM\d|LPT\d)(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """A file that came with a form.

    Args:
        name: the form's field.
        filename: what the visitor's machine calls the file: a name alone, without a directory.
        type: the media type that the browser gave it, such as ``"image/png"``: a claim, not a fact.
        size: how many bytes it has.
        file: its content as a binary file, at its start. It is gone when the response has been sent; see `save`.
    """

    name: str
    filename: str
    type: str
    size: int
    file: BinaryIO

    def read(self) -> bytes:
        """Return the whole content. For large files, read from `file` in parts instead."""
        self.file.seek(0)
        return self.file.read()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Keep the file beyond this request. A very large one: ``await trio.to_thread.run_sync(upload.save, path)``.

        Args:
            path: where to, relative to the site's directory; in a directory it gets its own `filename`. What is there
                is replaced.

        Returns:
            The path that it was saved at.

        Raises:
            ValueError: rpyserve would execute a file of that name, and a visitor must not be able to bring code.
            OSError: it cannot be written.
        """
        target = Path(path)
        if target.is_dir():
            target /= self.filename
        if _EXECUTED.search(target.name):
            raise ValueError(
                f"{target.name!r} would be executed, so a visitor could run any code here: save it under another name"
            )
        self.file.seek(0)
        with target.open("wb") as copy:
            shutil.copyfileobj(self.file, copy, 2**20)
        return target


class MultipartForm:
    """A form on its way in. Give it the body's chunks by `write`, and `finish` it.

    Args:
        content_type: the request's, with its boundary.
        on_close: takes what is to be called when the request is over.

    Attributes:
        fields: the texts, by name.
        files: the files, by name. A field of a form where no file was chosen is not among them.

    Raises:
        HTTPError: 400, it is malformed; 413, more fields or more text than is taken.
    """

    def __init__(
        self, content_type: str, on_close: Callable[[Callable[[], object]], object]
    ) -> None:
        import multipart  # only who has such a form pays for it

        self.fields: Fields = {}
        self.files: dict[str, list[Upload]] = {}
        self._on_close = on_close
        self._spool: _Spool | None = None
        self._segment: Any = None
        self._file: _Text | _File = _Text()
        self._text_left = FORM_LIMIT
        boundary = multipart.parse_options_header(content_type)[1].get("boundary", "")
        try:
            self._parser = multipart.PushMultipartParser(boundary, max_segment_count=FIELD_LIMIT)
        except multipart.MultipartError:
            raise HTTPError(
                400, "The form is malformed: its Content-Type names no boundary."
            ) from None

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        import multipart  # only who has such a form pays for it

        try:
            for event in self._parser.parse(chunk):
                if event is None:
                    self._end()
                elif isinstance(event, (bytes, bytearray, memoryview)):
                    self._store(event)
                else:
                    self._begin(event)
        except multipart.ParserLimitReached as exc:
            raise HTTPError(
                413, f"A form may have {FIELD_LIMIT} fields; this one is refused: {exc}."
            ) from None
        except multipart.MultipartError as exc:
            raise HTTPError(400, f"The form is malformed: {exc}.") from None

    def finish(self) -> None:
        """Say that the body is complete."""
        import multipart  # only who has such a form pays for it

        try:
            self._parser.close()
        except multipart.MultipartError as exc:
            raise HTTPError(400, f"The form is malformed: {exc}.") from None

    def _begin(self, segment: Any) -> None:
        self._segment = segment
        if segment.filename is None:
            self._file = _Text()
            return
        if self._spool is None:
            self._spool = _Spool(spooled_file(self._on_close))
        self._file = _File(self._spool)

    def _store(self, data: bytes | bytearray | memoryview) -> None:
        if isinstance(self._file, _Text):
            self._text_left -= len(data)
            if self._text_left < 0:
                raise HTTPError(
                    413,
                    f"The texts of a form may have {FORM_LIMIT // 2**20} MiB; these are longer.",
                )
        self._file.write(data)

    def _end(self) -> None:
        segment, file = self._segment, self._file
        name = segment.name or ""
        if isinstance(file, _Text):
            self.fields.setdefault(name, []).append(file.decoded(segment.charset))
        elif segment.filename or segment.size:
            kind = segment.content_type or "application/octet-stream"
            content = cast(BinaryIO, io.BufferedReader(file))
            upload = Upload(name, _plain(segment.filename), kind, segment.size, content)
            self.files.setdefault(name, []).append(upload)


class _Spool:
    """The temporary file of a form. Its parts may be read in threads."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = 0
        self._lock = threading.Lock()

    def append(self, data: bytes | bytearray | memoryview) -> None:
        self.file.write(data)
        self.size += len(data)

    def read(self, start: int, size: int) -> bytes:
        with self._lock:
            self.file.seek(start)
            return self.file.read(size)


class _File(io.RawIOBase):
    """A part of a spool, as a file of its own: that which is written next."""

    def __init__(self, spool: _Spool) -> None:
        self._spool = spool
        self._start = spool.size
        self._size = 0
        self._at = 0

    def write(self, data: Any) -> int:
        self._spool.append(data)
        self._size += len(data)
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), max(self._size - self._at, 0))
        data = self._spool.read(self._start + self._at, size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(begin + offset, 0)
        return self._at

    @property
    def closed(self) -> bool:
        return self._spool.file.closed or super().closed


class _Text(bytearray):
    """A field that is no file."""

    write = bytearray.extend

    def decoded(self, charset: str | None) -> str:
        try:
            return self.decode(charset or "utf-8", "replace")
        except LookupError:
            return self.decode("utf-8", "replace")


def _plain(filename: str) -> str:
    """*filename* without the directories that some browsers send, and as any file system can have it."""
    name = _UNFIT.sub("_", re.split(r"[/\\]", filename)[-1]).strip(" .")
    if _DEVICE.fullmatch(name):
        name = f"_{name}"
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > 20:
        stem, dot, extension = name, "", ""
    room = NAME_LENGTH - len((dot + extension).encode())
    return (stem.encode()[:room].decode(errors="ignore") + dot + extension) or "unnamed"
