"""What queries and bodies hold, within limits: fields of forms, uploaded files, JSON.

Multipart forms are parsed as they come, by the `multipart` package (RFC 7578). Their texts stay in
memory; their files share one temporary file that ends with the request, so that a file of any size
goes to disk and never through memory. Queries, urlencoded forms and JSON are parsed in memory, so a
large one is refused.

What a visitor's browser calls a file is only a name: it can neither lead to another directory nor,
by `Upload.save`, become a script of the site. Temporary files have no name, or lose it when they
are closed, so nothing stays behind.

`json` and `multipart` are imported when they are first used, because many sites never need them.
"""

from __future__ import annotations

import binascii
import errno
import io
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from rpyserve._names import public
from rpyserve.http.errors import HTTPError
from rpyserve.util.text import WINDOWS_DEVICE

# How many bytes a urlencoded form, JSON, or the texts of a multipart form may have; else a 413.
FORM_LIMIT: Final = 10 * 2**20

# How many fields a query or a form may have; with more it is a 400 or a 413.
FIELD_LIMIT: Final = 1000

# How many ``%`` that encode nothing a query or a urlencoded form may have; with more it is a 400.
#
# No browser sends one. Each costs as much as a hundred other bytes, and all visitors wait
# meanwhile.
STRAY_PERCENT_LIMIT: Final = 10_000

# The charsets, besides UTF-8, that a field of a multipart form may name.
#
# Python has others that take a time that grows with the square of the text (``punycode``), or that
# are no charsets at all; so what a client names is never looked up there.
CHARSETS: Final = frozenset(
    (
        *("iso-8859-1", "latin-1", "iso-8859-2", "iso-8859-5", "iso-8859-7", "iso-8859-9"),
        *("iso-8859-15", "koi8-r", "windows-1250", "windows-1251", "windows-1252"),
        *("utf-16", "utf-16be", "utf-16le", "big5", "euc-jp", "euc-kr", "gbk", "gb18030"),
        "shift_jis",
    )
)

# How many bytes of a body stay in memory; a longer one goes to disk.
SPOOL_SIZE: Final = 512 * 1024

# How many bytes the name of an upload may have. File systems take 255; scripts may add to it.
NAME_LENGTH: Final = 100

# Scripts, modules, templates and their copies; native modules of this platform and of others.
_EXECUTED: Final = re.compile(
    r"\.(?:rpy|py[a-z]?|j2|jinja2?)(?:[.~].*)?\Z"
    rf"|(?:{'|'.join(map(re.escape, all_suffixes()))}|\.so|\.dylib|\.dll|\.pth)\Z",
    re.IGNORECASE | re.DOTALL,
)
_UNSAFE_CHARACTERS: Final = re.compile(r'[\x00-\x1f\x7f"*:<>?|\ud800-\udfff]')
_STRAY_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DISK_FULL: Final = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

# The values of each field, by its name.
FormFields = dict[str, list[str]]

# Takes what is to be called when the request is over.
OnClose = Callable[[Callable[[], object]], object]


# Queries, urlencoded forms and JSON


def query_fields(query: str) -> FormFields:
    """Return the fields of a URL's query: for each name the list of its values, also blank ones.

    Raises:
        HTTPError: 400, there are too many.
    """
    return _parse_fields(query.encode("latin-1", "replace"), 400)


def form_fields(content_type: str, content: BinaryIO) -> FormFields:
    """Return the fields of a body, if *content_type* says that it is a urlencoded form; else none.

    Raises:
        HTTPError: 413, it is too long or has too many fields.
    """
    if _media_type(content_type) != "application/x-www-form-urlencoded":
        return {}
    return _parse_fields(_read_whole(content, "form"), 413)


def is_multipart(content_type: str) -> bool:
    """Whether *content_type* says that a body is a multipart form."""
    return _media_type(content_type) == "multipart/form-data"


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip(" \t").lower()


def _parse_fields(raw: bytes, status_if_too_many: int) -> FormFields:
    """Parse ``application/x-www-form-urlencoded`` (URL Standard, section 5.1)."""
    if raw.count(b"&") >= FIELD_LIMIT:
        raise HTTPError(status_if_too_many, f"There are more than {FIELD_LIMIT} fields.")
    fields: FormFields = {}
    for pair in _escape_stray_percents(raw.replace(b"+", b" ")).split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            fields.setdefault(_percent_decode(name), []).append(_percent_decode(value))
    return fields


def _escape_stray_percents(raw: bytes) -> bytes:
    if b"%" not in raw:
        return raw
    escaped, count = _STRAY_PERCENT.subn(b"%25", raw, STRAY_PERCENT_LIMIT + 1)
    if count > STRAY_PERCENT_LIMIT:
        detail = f"There are more than {STRAY_PERCENT_LIMIT} percent signs that encode nothing."
        raise HTTPError(400, detail)
    return escaped


def _percent_decode(raw: bytes) -> str:
    """Decode *raw*, in which each percent sign begins an escape.

    Quoted-printable has the same escapes with another sign, and its decoder takes a tenth of the
    time that `urllib.parse.unquote_to_bytes` takes.
    """
    if b"%" in raw:
        raw = binascii.a2b_qp(raw.replace(b"=", b"%3D").replace(b"%", b"="))
    return raw.decode("utf-8", "replace")


def parse_json(content: BinaryIO) -> Any:
    """Return the JSON text in *content* (RFC 8259) as Python objects.

    It may be UTF-8, or UTF-16 or UTF-32 with the usual marks.

    Raises:
        HTTPError: 400, it is not JSON, saying where; 413, it is too long.
    """
    import json

    raw = _read_whole(content, "JSON text")
    if not raw.strip():
        raise HTTPError(400, "This page needs a body of JSON, and the body is empty.")
    try:
        return json.loads(raw)
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        what = f"{exc.msg[:1].lower()}{exc.msg[1:]}"
        problem = f"is not JSON: {what} ({where})"
    except UnicodeDecodeError:
        problem = "is not JSON: it is not UTF-8"
    except ValueError:  # a limit of Python's
        problem = "cannot be read as JSON: a number in it is too long"
    except RecursionError:
        problem = "cannot be read as JSON: it is nested too deep"
    raise HTTPError(400, f"The body {problem}.")


def _read_whole(content: BinaryIO, what: str) -> bytes:
    content.seek(0)
    raw = content.read(FORM_LIMIT + 1)
    content.seek(0)
    if len(raw) > FORM_LIMIT:
        raise HTTPError(413, f"A {what} may have {FORM_LIMIT // 2**20} MiB; this one is larger.")
    return raw


# Temporary files


def spooled_file(
    on_close: OnClose, in_memory: int = SPOOL_SIZE, *, length: int | None = None
) -> BinaryIO:
    """Return a new binary file that ends with the request: first in memory, then on disk.

    Args:
        on_close: is given what must be called to release it.
        in_memory: how many bytes it may have before it goes to disk.
        length: how many bytes it will have at most, if that is known.
    """
    if length is not None and length <= in_memory:
        memory = io.BytesIO()
        on_close(memory.close)
        return memory
    # It lives as long as its request.
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=in_memory))  # noqa: SIM115
    on_close(partial(_discard, file))
    return file


def _discard(file: BinaryIO) -> None:
    with suppress(OSError):  # a full disk may refuse what is still to be written
        file.close()


@contextmanager
def disk_full_as_507() -> Iterator[None]:
    """While inside, an error that says that the disk is full becomes an `HTTPError`, 507."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _DISK_FULL:
            raise
        why = (
            f"A body did not fit into {tempfile.gettempdir()}, the directory for temporary files: "
            f"{exc.strerror}. The environment variable TMPDIR names another place."
        )
        raise HTTPError(507, "The server has no room for this.", private=why) from None


# Uploads and multipart forms


@public
@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """A file that came with a form.

    Args:
        name: the form's field.
        filename: what the visitor's machine calls the file: a name alone, without a directory.
        content_type: the media type that the browser gave it, such as ``"image/png"``: a claim, not
            a fact.
        size: how many bytes it has.
        file: its content as a binary file, at its start. It is gone when the response has been
            sent; see `save`.
    """

    name: str
    filename: str
    content_type: str
    size: int
    file: BinaryIO

    def read(self) -> bytes:
        """Return the whole content. For large files, read from `file` in parts instead."""
        self.file.seek(0)
        return self.file.read()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Keep the file beyond this request.

        For a very large one, write ``await trio.to_thread.run_sync(upload.save, path)``.

        Args:
            path: where to, relative to the site's directory; in a directory it gets its own
                `filename`. What is there is replaced.

        Returns:
            The path that it was saved at.

        Raises:
            HTTPError: 400, the visitor's file has a name that rpyserve or Python would execute, and
                a visitor must not be able to bring code.
            ValueError: the script itself gives it such a name.
            OSError: it cannot be written; what was there is still there.
        """
        target = Path(path)
        if target.is_dir():
            target /= self.filename
        real = Path(os.path.realpath(target))  # a link stays, as when a file is opened
        for name in (target.name, real.name):
            if _would_be_executed(name):
                why = (
                    f"{name!r} would be executed, so a visitor could run any code here: "
                    "save it under another name"
                )
                if name == self.filename:  # the visitor's doing, not the script's
                    detail = f"A file called {name!r} is not accepted here."
                    raise HTTPError(400, detail, private=f"{why}.")
                raise ValueError(why)
        self.file.seek(0)
        if real.exists() and not real.is_file():  # a device or a pipe cannot be replaced
            with real.open("wb") as copy:
                shutil.copyfileobj(self.file, copy, 2**20)
        else:
            _replace_file(real, self.file)
        return target


def _would_be_executed(name: str) -> bool:
    # Windows drops blanks and dots at the end, and a colon begins the name of a part.
    return _EXECUTED.search(name.partition(":")[0].rstrip(". ")) is not None


def _replace_file(path: Path, content: BinaryIO) -> None:
    """Have *path* be a file of *content*: at every moment the old one, or the whole new one."""
    # Names that begin with a dot are never served.
    beside = path.with_name(f".rpyserve-{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as copy:
            shutil.copyfileobj(content, copy, 2**20)
        with suppress(FileNotFoundError):
            shutil.copymode(path, beside)
        beside.replace(path)
    except BaseException as exc:
        with suppress(OSError):
            beside.unlink()
        if isinstance(exc, OSError) and exc.filename is not None:
            exc.filename = str(path)  # which its caller knows
        raise


class MultipartForm:
    """A multipart form while it comes in. Give it the body's chunks by `write`, and `finish` it.

    Args:
        content_type: the request's, with its boundary.
        on_close: takes what is to be called when the request is over.

    Attributes:
        fields: the texts, by name.
        files: the files, by name. A field of a form where no file was chosen is not among them.

    Raises:
        HTTPError: 400, it is malformed; 413, more fields or more text than the limits allow.
    """

    def __init__(self, content_type: str, on_close: OnClose) -> None:
        import multipart

        self.fields: FormFields = {}
        self.files: dict[str, list[Upload]] = {}
        self._on_close = on_close
        self._spool: _Spool | None = None
        self._segment: Any = None
        self._content: _Text | _SpoolPart = _Text()
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
        with _malformed_as_400():
            for event in self._parser.parse(chunk):
                if event is None:
                    self._end_segment()
                elif isinstance(event, (bytes, bytearray, memoryview)):
                    self._add(event)
                else:
                    self._begin_segment(event)

    def finish(self) -> None:
        """Say that the body is complete."""
        with _malformed_as_400():
            self._parser.close()

    def _begin_segment(self, segment: Any) -> None:
        self._segment = segment
        if segment.filename is None:
            self._content = _Text()
            return
        if self._spool is None:
            self._spool = _Spool(spooled_file(self._on_close))
        self._content = _SpoolPart(self._spool)

    def _add(self, data: bytes | bytearray | memoryview) -> None:
        if isinstance(self._content, _Text):
            self._text_left -= len(data)
            if self._text_left < 0:
                limit = f"{FORM_LIMIT // 2**20} MiB"
                raise HTTPError(413, f"The texts of a form may have {limit}; these are longer.")
        self._content.write(data)

    def _end_segment(self) -> None:
        segment, content = self._segment, self._content
        name = segment.name or ""
        if isinstance(content, _Text):
            self.fields.setdefault(name, []).append(content.decoded(segment.charset))
        elif segment.filename or segment.size:
            upload = Upload(
                name,
                _safe_filename(segment.filename),
                segment.content_type or "application/octet-stream",
                segment.size,
                cast(BinaryIO, io.BufferedReader(content)),
            )
            self.files.setdefault(name, []).append(upload)


@contextmanager
def _malformed_as_400() -> Iterator[None]:
    """While inside, an error of the parser becomes an `HTTPError`."""
    import multipart

    try:
        yield
    except multipart.ParserLimitReached as exc:
        detail = f"A form may have {FIELD_LIMIT} fields; this one is refused: {exc}."
        raise HTTPError(413, detail) from None
    except multipart.MultipartError as exc:
        raise HTTPError(400, f"The form is malformed: {exc}.") from None


class _Spool:
    """The temporary file of a form. Its parts may be read in several threads."""

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


class _SpoolPart(io.RawIOBase):
    """A part of a spool as a file of its own: what is written next."""

    def __init__(self, spool: _Spool) -> None:
        self._spool = spool
        self._start = spool.size
        self._size = 0
        self._position = 0

    def write(self, data: Any) -> int:
        self._spool.append(data)
        self._size += len(data)
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = max(self._size - self._position, 0)
        data = self._spool.read(self._start + self._position, min(len(buffer), left))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(origin + offset, 0)
        return self._position

    @property
    def closed(self) -> bool:
        return self._spool.file.closed or super().closed


class _Text(bytearray):
    """The content of a field that is not a file."""

    write = bytearray.extend

    def decoded(self, charset: str | None) -> str:
        """Return the text, as the client's *charset* says if that is one of `CHARSETS`."""
        name = (charset or "").lower()
        if name in CHARSETS:
            with suppress(UnicodeDecodeError):
                # Not "replace": with many a charset each replacement is a slow call.
                return self.decode(name)
        return self.decode("utf-8", "replace")


def _safe_filename(filename: str) -> str:
    """Return *filename* as any file system takes it, without the directories of some browsers."""
    last_part = re.split(r"[/\\]", filename)[-1]
    name = _UNSAFE_CHARACTERS.sub("_", last_part).strip(" .")
    if WINDOWS_DEVICE.fullmatch(name):
        name = f"_{name}"
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > 20:
        stem, dot, extension = name, "", ""
    room = NAME_LENGTH - len((dot + extension).encode())
    shortened = stem.encode()[:room].decode(errors="ignore") + dot + extension
    return shortened.rstrip(" .") or "unnamed"
