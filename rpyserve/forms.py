"""Fields of queries and of urlencoded forms: text in, names with their values out, within limits.

Pure. A form is taken apart in memory, so a large one is refused; a large body of another kind is not this module's
business.
"""

from __future__ import annotations

from contextlib import suppress
from typing import BinaryIO, Final
from urllib.parse import parse_qs

from rpyserve.errors import HTTPError

__all__ = ["FIELD_LIMIT", "FORM_LIMIT", "form_fields", "query_fields"]

FORM_LIMIT: Final = 10 * 2**20
"""How many bytes a urlencoded form may have; a larger one is a 413."""
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
    content.seek(0)
    raw = content.read(FORM_LIMIT + 1)
    content.seek(0)
    if len(raw) > FORM_LIMIT:
        raise HTTPError(413, f"A form may have {FORM_LIMIT // 2**20} MiB; this one is larger.")
    return _fields(raw.decode("latin-1"), 413)


def _fields(text: str, too_many: int) -> Fields:
    with suppress(ValueError):
        return parse_qs(text, keep_blank_values=True, max_num_fields=FIELD_LIMIT, errors="replace")
    raise HTTPError(too_many, f"There are more than {FIELD_LIMIT} fields.")
