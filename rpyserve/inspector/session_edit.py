"""Changing a plain value of a session: what is there, where it is, and to what.

Only text, numbers and truths change, and only to others of their kind; None may become any of them.
What the author saw is sent along, and nothing changes if something else is there now. Values are
put into the dict, list or slot that holds them: no property, no ``__setattr__``, and nothing else
of the author's is called.
"""

from __future__ import annotations

import math
from typing import Any, Final

from rpyserve.diagnostics.redaction import MASK, Redactor
from rpyserve.inspector.session_view import KINDS, LONGEST_CHANGED, Leaf, place_of
from rpyserve.inspector.views import Problem
from rpyserve.sessions.session import Session

_TRUTHS: Final = {"true": True, "false": False}


def change(
    session: Session, path: str, seen: str, text: str, kind: str, redactor: Redactor
) -> tuple[str, str]:
    """Put another value at *path*.

    Args:
        path: where, as the view of the session writes it.
        seen: what was shown there.
        text: the new value.
        kind: what kind it is, if there is None now; else empty, or the kind that is there.
        redactor: hides what the view of the session hides.

    Returns:
        What was shown there, and what is there now.

    Raises:
        Problem: 404, there is nothing; 409, that cannot be changed, or has changed meanwhile;
            400, the text is no such value.
    """
    found = place_of(session, path, redactor)
    if found is None:
        raise Problem(404, "There is no value that can be changed at this path.")
    leaf, put = found
    if leaf.shown != seen:
        raise Problem(409, f"It has changed meanwhile, to {leaf.shown}. Nothing was done.")
    value = _read(text, _kind_of(leaf, kind))
    put(value)
    return leaf.shown, repr(value)


def _kind_of(leaf: Leaf, kind: str) -> str:
    if MASK in leaf.shown:
        raise Problem(409, "It is masked, and what is not shown cannot be changed here.")
    if not leaf.kind:
        raise Problem(
            409,
            "Only text, numbers, truths and None can be changed here, in dicts, lists and "
            f"attributes, of at most {LONGEST_CHANGED:,} characters.",
        )
    is_open = leaf.kind == KINDS[type(None)]
    if kind and kind not in KINDS.values():
        raise Problem(400, f"kind is {', '.join(KINDS.values())}.")
    if kind and kind != leaf.kind and not is_open:
        raise Problem(409, f"It is a {leaf.kind}, and stays one.")
    return kind if is_open and kind else leaf.kind


def _read(text: str, kind: str) -> Any:
    """The value that *text* means."""
    try:
        if kind == "whole number":
            return int(text)
        if kind == "number":
            return _finite(float(text))
        if kind == "truth":
            return _TRUTHS[text.strip().lower()]
    except (ValueError, KeyError):
        raise Problem(400, f"{text[:80]!r} is no {kind}.") from None
    if kind == "None":
        raise Problem(400, "Say which kind of value it is to be.")
    return text


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("it is not finite")
    return number
