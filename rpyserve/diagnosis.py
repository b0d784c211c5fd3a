"""What an exception that came out of a script means to its author: the whole chain, frame by frame, and a hint.

Bounded in all directions: however long a chain or a traceback is, however deep groups are nested, however large a
message. Cancellations are left out of groups: they are a consequence. Nothing here decides who may see it; values
of variables are asked for only where they will be shown.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import trio

from rpyserve.failures import Failure, Fault, Relation
from rpyserve.http.errors import ScriptError, WrongResult
from rpyserve.localvalues import shown
from rpyserve.masks import Veil
from rpyserve.tracebacks import Look, frames_of

__all__ = ["describe", "title_of"]

log = logging.getLogger("rpyserve")

LONGEST: Final = 4000
"""Characters of a message, and
FIRST_LINE of a title."""
FIRST_LINE: Final = 300
LINKS: Final = 10
"""Exceptions of one chain."""
NESTED: Final = 6
"""Groups within groups."""


def describe(exc: BaseException, *, values: bool = False, veil: Veil | None = None) -> Failure:
    """Say what *exc* means to the author of the script that it came out of.

    Args:
        values: whether to tell the values of variables.
        veil: hides what must not be read; see `masks`.
    """
    look = Look(values, veil or Veil())
    try:
        return _describe(exc, look)
    except Exception as failure:  # of some odd object that it holds: the page must come all the same
        log.debug("%s could not be described: %r", type(exc).__name__, failure)
        return Failure(type(exc).__name__, kind=(type(exc).__name__,))


def _describe(exc: BaseException, look: Look) -> Failure:
    from rpyserve import hints

    over = look.veil.over
    if not isinstance(exc, ScriptError):
        chain = _chain(exc, look)
        return Failure(chain[0].title, over(hints.for_exception(exc)), chain, "", _kind(exc))
    cause = exc.__cause__
    chain = () if cause is None or not _tells(cause, exc) else _chain(cause, look)
    hint = exc.hint or (hints.for_exception(cause) if cause is not None else "")
    title = over(exc.message)[:FIRST_LINE].partition("\n")[0]
    kind = _kind(cause) if cause is not None and chain else (exc.message,)
    return Failure(title, over(hint), chain, "" if any(fault.own_frames for fault in chain) else str(exc.path), kind)


def title_of(exc: BaseException) -> str:
    """Return the one line that says what *exc* is, without what Python adds to say where."""
    if isinstance(exc, WrongResult):
        return str(exc)
    name, text = type(exc).__name__, _message(exc).partition("\n")[0].strip()
    if len(text) > FIRST_LINE:
        text = text[:FIRST_LINE] + "…"
    return f"{name}: {text}" if text else name


def _message(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError):
        return str(exc.msg)
    if isinstance(exc, BaseExceptionGroup):
        return exc.message
    try:
        plain = type(exc).__str__ in (BaseException.__str__, KeyError.__str__)
        if plain and any(type(arg) not in (str, int, float, bool, type(None)) for arg in exc.args):
            # Python would call the repr of what is in there, which may be huge, or never end.
            return shown(exc.args[0]) if len(exc.args) == 1 else shown(exc.args)
        return str(exc)
    except Exception as failure:
        return f"its message cannot be shown: {type(failure).__name__}"


def _tells(cause: BaseException, exc: ScriptError) -> bool:
    """Whether *cause* says more than *exc*: a TypeError that rpyserve raised itself says the same."""
    return exc.message != str(cause)


def _kind(exc: BaseException) -> tuple[str, ...]:
    kinds: list[str] = []
    each: BaseException | None = exc
    while each is not None and len(kinds) < LINKS:
        kinds.append(type(each).__name__)
        each = each.__cause__ or each.__context__
    return tuple(kinds)


def _chain(exc: BaseException, look: Look, depth: int = 0) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    seen: set[int] = set()
    each: BaseException | None = exc
    relation = Relation.ITSELF
    while each is not None and id(each) not in seen and len(faults) < LINKS and look.faults > 0:
        seen.add(id(each))
        look.faults -= 1
        faults.append(_fault(each, relation, look, depth))
        relation = Relation.CAUSE if each.__cause__ is not None else Relation.CONTEXT
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        if isinstance(each, trio.Cancelled):
            break
    return tuple(faults)


def _fault(exc: BaseException, relation: Relation, look: Look, depth: int) -> Fault:
    over = look.veil.over
    message = over(_message(exc))
    longer = "\n" in message.strip() or len(message) > FIRST_LINE
    branches: tuple[tuple[Fault, ...], ...] = ()
    left_out = 0
    if isinstance(exc, BaseExceptionGroup):
        branches, left_out = _branches(exc, look, depth)
    return Fault(
        title=over(title_of(exc)),
        text=_cut(message) if longer else "",
        notes=tuple(over(_cut(str(note))) for note in _notes(exc)[:20]),
        frames=frames_of(exc, look),
        relation=relation,
        branches=branches,
        left_out=left_out,
    )


def _branches(group: BaseExceptionGroup[Any], look: Look, depth: int) -> tuple[tuple[tuple[Fault, ...], ...], int]:
    real = [each for each in group.exceptions if not _is_cancelled(each)]
    told: list[tuple[Fault, ...]] = []
    for each in real:
        if depth >= NESTED or look.faults <= 0:
            break
        told.append(_chain(each, look, depth + 1))
    return tuple(told), len(real) - len(told)


def _is_cancelled(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(trio.Cancelled)[1] is None
    return isinstance(exc, trio.Cancelled)


def _notes(exc: BaseException) -> list[Any]:
    notes = getattr(exc, "__notes__", None)
    return notes if isinstance(notes, list) else []


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
