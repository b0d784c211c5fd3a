"""Dicts and lists as JSON (RFC 8259), and which value in them JSON cannot hold.

Python's own encoder says neither where such a value is nor what to write instead, and it writes
``NaN``, which is no JSON. Values are described by their classes: no code of theirs is called.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from rpyserve.http.errors import NotJSON

__all__ = ["encode_json", "json_form"]

_HELD: Final = (str, int, float, bool, type(None))
# What to write for a value whose class has that attribute. The first one counts.
_FORMS: Final = {
    "isoformat": "{}.isoformat()",
    "_value2member_map_": "{}.value",
    "model_dump": '{}.model_dump(mode="json")',
    "to_dict": "{}.to_dict()",
    "tolist": "{}.tolist()",
    "__dataclass_fields__": "dataclasses.asdict({})",
    "decode": "{}.decode()",
    "__float__": "float({})",
    "__iter__": "list({})",
}


def encode_json(value: dict[Any, Any] | list[Any]) -> bytes:
    """Return *value* as JSON.

    Raises:
        NotJSON: it holds what JSON cannot, with the place of that, and what to write instead.
    """
    import json  # many sites never need it

    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as exc:
        problem = next(_problems(value), f"{str(exc)[:1].lower()}{str(exc)[1:]}")
        raise NotJSON(problem) from None
    return text.encode()


def json_form(value: object, name: str) -> str:
    """Return an expression that makes what JSON can hold of *value*, which is called *name*."""
    if isinstance(value, float):
        return "None"
    forms = [form for attribute, form in _FORMS.items() if hasattr(type(value), attribute)]
    return [*forms, "str({})"][0].format(name)


def _problems(value: object) -> Iterator[str]:
    todo: list[tuple[object, str]] = [(value, "")]
    seen: set[int] = set()
    for each, place in todo:  # it grows
        if isinstance(each, dict | list | tuple):
            if id(each) not in seen:
                seen.add(id(each))
                todo += [(item, f"{place}[{key!r:.60}]") for key, item in _items(each)]
            odd = [key for key, _ in _items(each) if not isinstance(key, _HELD)]
            if odd:
                kind = type(odd[0]).__name__
                yield f"it has keys of type {kind}: write str(key)"
        elif not isinstance(each, _HELD) or (isinstance(each, float) and not math.isfinite(each)):
            kind = type(each).__name__
            what = f"{each}" if isinstance(each, float) else f"a value x of type {kind}"
            yield f"it has {what} at {place}: write {json_form(each, 'x')}"


def _items(container: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    pairs = container.items() if isinstance(container, dict) else enumerate(container)
    yield from pairs
