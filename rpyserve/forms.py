"""Fields of queries and of urlencoded forms, and JSON: text in, values out, within limits.

Pure. All of it is taken apart in memory, so a large one is refused; multipart forms are the business of `uploads`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, BinaryIO, Final
from urllib.parse import parse_qs

from rpyserve.errors import HTTPError

__all__ = ["FIELD_LIMIT", "FORM_LIMIT", "Fields", "form_fields", "parse_json", "query_fields"]

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
        raise HTTPError(400, f"The body is no JSON: {exc.msg[:1].lower()}{exc.msg[1:]} ({where}).") from None
    except UnicodeDecodeError:
        raise HTTPError(400, "The body is no JSON: it is not UTF-8.") from None
    except ValueError:  # Python's own limit
        raise HTTPError(400, "The body is no JSON that can be read: a number in it is too long.") from None
    except RecursionError:
        raise HTTPError(400, "The body is no JSON that can be read: it is nested too deep.") from None


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
