"""What came with a request besides its head: the body, as fields, files, JSON, or as it is.

Half of a `Request`, whose methods these are. A protocol gives the body as chunks that come in; whoever walks the tree
has it read before a script that wants it runs, so that nothing here waits but `load_body`. Large bodies go to disk.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterable, Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from rpyserve.errors import HTTPError
from rpyserve.forms import form_fields, parse_json, query_fields
from rpyserve.spool import full_is_507, temporary

if TYPE_CHECKING:
    from rpyserve.uploads import MultipartForm, Upload

__all__ = ["Receiving"]

PIECE: Final = 2**20

_MISSING: Any = object()


class Receiving:
    """The body of a request, and the fields of its query.

    Args:
        body: the chunks; None if there are none.

    Attributes:
        content: the whole body as a binary file, at its start. Of a multipart form it is empty as a rule: that is taken
            apart as it comes, into `args` and `files`.
    """

    query: str
    getHeader: Callable[[str], str | None]
    on_close: Callable[[Callable[[], object]], None]

    def __init__(self, body: AsyncIterable[bytes] | None) -> None:
        self.content: BinaryIO = io.BytesIO()
        self._body = body
        self._taken_apart: MultipartForm | None = None

    @cached_property
    def args(self) -> dict[str, list[str]]:
        """The fields of the query and of a form: each name with the list of its values. Files are in `files`.

        A field of the form replaces one of the query that has the same name. Blank values are kept.
        """
        form = self._form
        return query_fields(self.query) | (form_fields(self._kind, self.content) if form is None else form.fields)

    def field(self, name: str, default: Any = _MISSING) -> Any:
        """Return the first value of the query or form field *name*, as text.

        Args:
            name: the field's name.
            default: what to return if there is no such field.

        Raises:
            HTTPError: 400, naming the field, if it is missing and there is no default.
        """
        values = self.args.get(name)
        if values:
            return values[0]
        if default is _MISSING:
            raise HTTPError(400, f"This page needs a field called {name!r}, in the query or in a form.")
        return default

    @property
    def files(self) -> dict[str, list[Upload]]:
        """The files that came with a form: each field's name with the list of its `Upload` values.

        The form must say ``enctype="multipart/form-data"``.
        """
        form = self._form
        return {} if form is None else form.files

    def file(self, name: str, default: Any = _MISSING) -> Any:
        """Return the first file of the form field *name*, an `Upload`.

        Args:
            name: the field's name.
            default: what to return if no file was chosen.

        Raises:
            HTTPError: 400, naming the field, if there is no file and no default.
        """
        uploads = self.files.get(name)
        if uploads:
            return uploads[0]
        if default is _MISSING:
            more = "" if self._form is not None else ' The form must say enctype="multipart/form-data".'
            raise HTTPError(400, f"This page needs a file in the field {name!r}.{more}")
        return default

    def json(self) -> Any:
        """Return what the body says as JSON (RFC 8259).

        Raises:
            HTTPError: 400, it is empty or no JSON, saying where; 413, it is too long.
        """
        return parse_json(self.content)

    # For the layers around the script

    @property
    def has_body(self) -> bool:
        """Whether there is a body that nobody has read."""
        return self._body is not None

    def body_chunks(self) -> AsyncIterable[bytes] | None:
        """Take the body over, as chunks that come in; None if there is none left. It will not be in `content` then."""
        body, self._body = self._body, None
        return body

    async def load_body(self, limit: int | None = None, *, raw: bool = False) -> None:
        """Read the whole body: a multipart form into `args` and `files`, unless *raw*; any other into `content`.

        What is large spills to disk. Once only; then it does nothing.

        Raises:
            HTTPError: 413, the body is longer than the server (or *limit*, in bytes) allows; 400, a malformed form;
                507, the disk is full.
            Disconnected: the body was cut off.
        """
        if self._body is None:
            return
        body, self._body = self._body, None
        form = None
        if self._is_multipart and not raw:
            form = self._taken_apart = self._new_form()
        else:
            self.content = temporary(self.on_close)
        sink = form or self.content
        size = 0
        with full_is_507():
            async for chunk in body:
                size += len(chunk)
                if limit is not None and size > limit:
                    raise HTTPError(413, f"The body may have {limit} bytes; this one is longer.")
                sink.write(chunk)
            if form is not None:
                form.finish()
            else:
                self.content.seek(0)  # writes what waits to be written

    @property
    def _kind(self) -> str:
        return self.getHeader("content-type") or ""

    @property
    def _is_multipart(self) -> bool:
        return self._kind.partition(";")[0].strip().lower() == "multipart/form-data"

    @property
    def _form(self) -> MultipartForm | None:
        """The multipart form; taken apart now if the body was read as it is."""
        if self._taken_apart is None and self._is_multipart and self.content.read(1):
            self.content.seek(0)
            form = self._new_form()
            with full_is_507():
                while chunk := self.content.read(PIECE):
                    form.write(chunk)
                form.finish()
            self.content.seek(0)
            self._taken_apart = form
        return self._taken_apart

    def _new_form(self) -> MultipartForm:
        from rpyserve.uploads import MultipartForm

        return MultipartForm(self._kind, self.on_close)
