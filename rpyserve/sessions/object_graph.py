"""One walk over all that a session or the registry holds, after which it is of the present classes.

Objects are changed in place and keep their identity. What cannot be (a tuple, an `Enum` member, a class that is kept
as a value) is exchanged wherever it is held. Nothing is dropped: what cannot be changed is kept as it was, and is news.

First the walk notes what there is, the nearest first, up to `LIMIT`; then classes are changed, then things exchanged.
It never recurses, so that nothing is too deep for it. It calls nothing of the author's but ``__hash__`` and ``__eq__``.
"""

from __future__ import annotations

import functools
from collections import deque
from enum import Enum, Flag
from types import FunctionType
from typing import Any, Final

from zope.interface.interface import InterfaceClass

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import ExecutionName
from rpyserve.sessions.containers import ATOMS, ContainerType, rebuilt, shape_of

__all__ = ["LIMIT", "ObjectGraph", "change_class"]

LIMIT: Final = 100_000
"""How many things of one session (or of the registry) are looked at after an edit; numbers and texts do not count."""

_LEAVES: Final = (type, FunctionType, InterfaceClass, type(functools.lru_cache(int)), Enum)
_LEAF: Final = ContainerType(lambda thing: (), lambda thing, swap: None, attributed=False)


def change_class(thing: Any, kind: type) -> None:
    """Make *thing* an instance of *kind*, in place, also if it is frozen.

    Raises:
        TypeError: Python cannot do that.
    """
    try:
        object.__setattr__(thing, "__class__", kind)
    except TypeError as exc:
        if "layout differs" not in str(exc):
            raise
        raise TypeError("its __slots__ or its base classes differ") from None


class ObjectGraph:
    """One walk over what one holder holds.

    Attributes:
        changed: what is of another class now, with the old class.
        stuck: what could not be changed, by id, with the reason.
        news: what the author should know: the module that it concerns (empty: none in particular), and a sentence.
    """

    def __init__(self) -> None:
        self.changed: list[tuple[Any, type]] = []
        self.stuck: dict[int, str] = {}
        self.news: list[tuple[str, str]] = []
        self._queue: deque[tuple[Any, str]] = deque()
        self._seen: dict[int, tuple[Any, str]] = {}
        self._new: dict[int, Any] = {}
        self._shapes: dict[type, ContainerType | None] = {}
        self._successors: dict[type, type] = {}
        self._made_by: dict[int, Any] = {}
        self._done: set[int] = set()

    # What is to be looked at

    def enter(self, thing: Any, label: str, factory: Any = None) -> None:
        """Have *thing* and all that hangs below it looked at.

        Args:
            label: what the console calls it.
            factory: what makes another one, if *thing* is a component. If it is a class, and that of *thing* is no
                longer there, then *thing* becomes one of this class: it was renamed.
        """
        if type(thing) not in ATOMS:
            self._queue.append((thing, label))
            if factory is not None:
                self._made_by[id(thing)] = factory

    def now(self, thing: Any) -> Any:
        """Return what *thing* is exchanged for; the thing itself where it stays."""
        return self._new.get(id(thing), thing)

    def run(self) -> None:
        """Look at all that was entered."""
        self._note_all()
        fixed = [thing for thing, label in self._seen.values() if self._change(thing, label)]
        for thing in fixed:
            self._rebuild(thing)
        if self._new or self.changed:
            for thing, label in list(self._seen.values()):
                self._refit(thing, label)

    def _note_all(self) -> None:
        while self._queue:
            thing, label = self._queue.popleft()
            if id(thing) in self._seen:
                continue
            shape = self._shape(type(thing))
            if shape is None:
                continue
            if len(self._seen) >= LIMIT:
                self._queue.clear()
                self.news.append(("", _TOO_MUCH.format(label, LIMIT)))
                return
            self._seen[id(thing)] = thing, label
            if shape is not _LEAF:
                self._queue.extend([(each, label) for each in shape.held(thing)])

    def _shape(self, kind: type) -> ContainerType | None:
        """How values of the class *kind* are entered; `_LEAF` for those that are only exchanged as a whole."""
        if kind not in self._shapes:
            self._shapes[kind] = _LEAF if issubclass(kind, _LEAVES) else shape_of(kind)
        return self._shapes[kind]

    # Changing

    def _change(self, thing: Any, label: str) -> bool:
        """Change *thing* in place, or note what it is exchanged for. Returns whether it must be rebuilt instead."""
        shape = self._shape(type(thing))
        if shape is _LEAF:
            self._exchange(thing, label)
            return False
        if shape is not None and shape.exchange is None:
            return True
        old = type(thing)
        kind = self._kind_of(thing, label)
        if kind is not old:
            try:
                change_class(thing, kind)
            except TypeError as exc:
                self._stay(thing, label, kind, exc)
            else:
                self.changed.append((thing, old))
        return False

    def _exchange(self, thing: Any, label: str) -> None:
        if isinstance(thing, Enum):
            kind = self._kind_of(thing, label)
            new = thing if kind is type(thing) else _member(thing, kind)
            if new is None:
                self._miss(type(thing), label, f"{type(thing).__name__}.{thing.name}")
        else:
            new = definitions.current_definition(thing)
            if new is None:
                self._miss(thing, label, getattr(thing, "__qualname__", thing.__name__))
        if new is None:
            return
        if new is not thing:
            self._new[id(thing)] = new

    def _kind_of(self, thing: Any, label: str) -> type:
        """The class that *thing* should be of."""
        old = type(thing)
        if type(old.__module__) is not ExecutionName:
            return old
        factory = self._made_by.get(id(thing))
        renamed = factory if isinstance(factory, type) else None
        if renamed is not None and definitions.place_of(renamed) == definitions.place_of(old):
            return renamed  # the one of several of that name that is meant
        if old not in self._successors:
            found: type | None = definitions.current_definition(old)
            if found is None and renamed is None:
                self._miss(old, label, f"an object of the class {old.__qualname__}")
            self._successors[old] = found or renamed or old
        return self._successors[old]

    def _rebuild(self, start: Any) -> None:
        """Rebuild *start* if it, or what it holds, is exchanged; first what it holds and must be rebuilt itself."""
        todo = [start]
        while todo:
            thing = todo[-1]
            shape = self._shape(type(thing))
            assert shape is not None
            waiting = [
                each
                for each in shape.contents(thing)
                if self._is_fixed(each) and id(each) not in self._done
            ]
            if waiting:
                todo += waiting
                continue
            todo.pop()
            if id(thing) not in self._done:
                self._done.add(id(thing))
                self._rebuild_one(thing, shape)

    def _is_fixed(self, thing: Any) -> bool:
        shape = self._shape(type(thing)) if id(thing) in self._seen else None
        return shape is not None and shape.exchange is None

    def _rebuild_one(self, thing: Any, shape: ContainerType) -> None:
        label = self._seen[id(thing)][1]
        kind = self._kind_of(thing, label)
        if kind is type(thing) and not any(id(each) in self._new for each in shape.contents(thing)):
            return
        try:
            new = rebuilt(thing, kind, self.now)
        except Exception as exc:  # of the author's own __hash__, for one
            self._stay(thing, label, kind, exc)
        else:
            self._new[id(thing)] = new
            self._seen[id(new)] = new, label  # its attributes are those of the old one

    def _refit(self, thing: Any, label: str) -> None:
        shape = self._shape(type(thing))
        if shape is not None and shape is not _LEAF:
            try:
                shape.refit(thing, self.now)
            except Exception as exc:
                kept = f"{label} holds a {type(thing).__name__} that is kept as it was, with keys from before the edit"
                self.news.append(
                    (definitions.home_of(type(thing)), f"{kept}: {type(exc).__name__}: {exc}.")
                )

    # What cannot be changed

    def _stay(self, thing: Any, label: str, kind: type, exc: Exception) -> None:
        self.stuck[id(thing)] = str(exc)
        if id(thing) not in self._made_by:
            self.news.append(
                (definitions.home_of(kind), _CANNOT.format(label, kind.__qualname__, exc))
            )

    def _miss(self, defined: Any, label: str, what: str) -> None:
        sentence = _HIDDEN if "<locals>" in what else _GONE
        self.news.append((definitions.home_of(defined), sentence.format(label, what)))


_CANNOT: Final = (
    "{} holds an object of the class {} that Python cannot change into one of the new class: {}. It is kept as it was, "
    "with its old methods."
)
_GONE: Final = "{} holds {}, which is no longer there. It is kept as it was until there is one of that name again."
_HIDDEN: Final = "{} holds {}, which is defined inside a function, where the new one cannot be found. It is kept as it was."
_TOO_MUCH: Final = (
    "{} and what comes after it hold more than {:,} objects. Those beyond are kept as they were."
)


def _member(old: Enum, kind: Any) -> Enum | None:
    """The member of *kind* that has the name of *old*, or the names of its parts."""
    if not isinstance(old, Flag):
        return kind.__members__.get(old.name)  # type: ignore[no-any-return]
    parts = list(old)
    if any(part.name not in kind.__members__ for part in parts):
        return None
    new = kind(old.value & ~functools.reduce(lambda value, part: value | part.value, parts, 0))
    return functools.reduce(lambda value, part: value | kind[part.name], parts, new)  # type: ignore[no-any-return]
