"""Writes objects into records and reads them from there, by pickle.

What the site defines is written by name, see `references`; what belongs to this process, such as
the site itself, by what it is. All else is as pickle has it.

A `Reader` works in one of two ways. At first it takes present classes only, and raises `Changed` if
one is of another shape than in the record. Then another reads the same again and takes former
classes for all: see `former`.
"""

from __future__ import annotations

import copyreg
import enum
import io
import pickle
import pickletools
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum, Flag
from functools import partial
from types import FunctionType, MethodType
from typing import Any, ClassVar, Final, NoReturn

from zope.interface.interface import InterfaceClass

from rpyserve.resources.resource import Resource
from rpyserve.scripts import definitions
from rpyserve.scripts.execution import ExecutionName
from rpyserve.sessions import object_state
from rpyserve.sessions.missing_attributes import gaps_of, may_have_gaps
from rpyserve.sessions.session import Session
from rpyserve.stores import former, marks
from rpyserve.stores.former import How
from rpyserve.stores.references import CLASS, Definition, References
from rpyserve.util.author_code import ServerObject
from rpyserve.util.text import one_line

PROTOCOL: Final = 5


class Refused(Exception):
    """Why something is not written, a clause."""


class TooLarge(Exception):
    """There is more than a record may have."""


class Changed(Exception):
    """A class is of another shape than it was, or is not there."""


class Output:
    """Collects what a `Writer` writes.

    Args:
        limit: how many bytes there may be.
        start: what goes before that.
    """

    __slots__ = ("_left", "_parts")

    def __init__(self, limit: int, start: bytes = b"") -> None:
        self._left = limit
        self._parts = [start]

    def write(self, data: bytes) -> None:
        """Add *data*.

        Raises:
            TooLarge: it is too much.
        """
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge
        self._parts.append(bytes(data))

    def joined(self) -> bytes:
        """Return all that was written."""
        return b"".join(self._parts)


Reduced = Any
"""What `object.__reduce_ex__` may return, or NotImplemented for what that does return."""


Gaps = dict[type, frozenset[str]]
"""Of classes that were edited, attributes that their objects lack."""

_NO_GAPS: Final[frozenset[str]] = frozenset()


class Writer(pickle.Pickler):
    """Writes pickles that share what they hold.

    Args:
        output: where to.
        references: names what the site defines.
        reductions: what earlier writers have found out. The caller clears it when a definition
            changes.
        site: the site.
        holder: the session or registry that is written.
        gaps: what is said of the attributes that objects of a class lack.

    Attributes:
        found_gaps: what is to be said of that: it was found out on the way.
    """

    def __init__(
        self,
        output: Output,
        references: References,
        reductions: Reductions,
        site: Any,
        holder: Any,
        gaps: Gaps,
    ) -> None:
        super().__init__(output, PROTOCOL)
        self.references = references
        self.reductions = reductions
        self.site = site
        self.holder = holder
        self.gaps = gaps
        self.found_gaps: Gaps = {}

    def reducer_override(self, thing: Any) -> Reduced:
        """Reduce *thing*, which is of no builtin class."""
        kind = type(thing)
        reduce = self.reductions.of_objects.get(kind)
        if reduce is None:
            reduce = self.reductions.of_objects[kind] = reduction_for(kind)
        return NotImplemented if reduce is _as_pickle_does else reduce(self, thing)


Reduce = Callable[[Writer, Any], Reduced]


class Reductions:
    """How what is written is reduced, as far as that was found out since the last `clear`.

    Attributes:
        of_objects: by their classes.
        of_definitions: each with the definition, by the ids of those.
    """

    __slots__ = ("of_definitions", "of_objects")

    def __init__(self) -> None:
        self.of_objects: dict[type, Reduce] = {}
        self.of_definitions: dict[int, tuple[Any, Reduced]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget all that may depend on the site's definitions."""
        self.of_objects.clear()
        self.of_definitions.clear()
        self.of_definitions.update((id(each), (each, NotImplemented)) for each in _ALL_MARKS)


def reduction_for(kind: type) -> Reduce:
    """Return how the objects of the class *kind* are reduced."""
    for base, reduce in _REDUCTIONS.items():
        if issubclass(kind, base):
            return reduce
    if not _is_of_site(kind):
        return _as_pickle_does
    reduce = _OF_SITE.get(former.how_of(kind), _as_pickle_does)
    return partial(_reduce_noting_gaps, reduce) if may_have_gaps(kind) else reduce


def _reduce_noting_gaps(reduce: Reduce, writer: Writer, thing: Any) -> Reduced:
    gaps = gaps_of(thing)
    if gaps:
        kind = type(thing)
        writer.found_gaps[kind] = writer.found_gaps.get(kind, _NO_GAPS) | gaps
    return reduce(writer, thing)


def _is_of_site(defined: Any) -> bool:
    return isinstance(getattr(defined, "__module__", None), ExecutionName)


def _as_pickle_does(writer: Writer, thing: Any) -> Reduced:
    return NotImplemented


def _reduce_definition(writer: Writer, thing: Any) -> Reduced:
    known = writer.reductions.of_definitions.get(id(thing))
    if known is not None and not writer.gaps:
        return known[1]
    if not _is_of_site(thing):
        missing = former.origin_of(thing)
        return NotImplemented if missing is None else (marks.missing, missing)
    if thing.__module__.is_transient and former.origin_of(thing) is None:
        raise Refused("its script runs anew for every request and would not know it again")
    try:
        described = writer.references.describe(thing, writer.gaps.get(thing, _NO_GAPS))
    except LookupError as exc:
        raise Refused(str(exc)) from None
    reduced = marks.definition, tuple(described)
    if not writer.gaps:
        writer.reductions.of_definitions[id(thing)] = thing, reduced
    return reduced


def _reduce_member(writer: Writer, thing: Any) -> Reduced:
    kind = type(thing)
    if not _is_of_site(kind):
        return NotImplemented
    if not isinstance(thing, Flag):
        return marks.member, (kind, thing._name_)
    parts = list(thing)
    unnamed = thing._value_
    for part in parts:
        unnamed &= ~part._value_
    return marks.member, (kind, tuple(part._name_ for part in parts), unnamed)


def _reduce_method(writer: Writer, thing: Any) -> Reduced:
    if not _is_of_site(thing.__func__):
        return NotImplemented
    return marks.method, (thing.__func__, thing.__self__)


def _reduce_server_object(writer: Writer, thing: Any) -> Reduced:
    if thing is writer.holder:
        return marks.holder, ()
    if thing is writer.site:
        return marks.site, ()
    if thing is writer.site.registry:
        return marks.registry, ()
    if isinstance(thing, Session):
        raise Refused("it is the session of another visitor; keep something that you know it by")
    raise Refused("it belongs to the server that runs at present")


def _reduce_page(writer: Writer, thing: Any) -> Reduced:
    for home, path in definitions.roles_of(thing):
        file = writer.references.directories.stored_name(home)
        if file is not None:
            return marks.page, (file, path)
    return _OF_SITE.get(former.how_of(type(thing)), _as_pickle_does)(writer, thing)


def _reduce_by_name(writer: Writer, thing: Any) -> Reduced:
    kind = type(thing)
    own = object_state.attributes(thing)
    return copyreg.__newobj__, (kind,), own, None, None, marks.state  # type: ignore[attr-defined]


def _reduce_struct(writer: Writer, thing: Any) -> Reduced:
    kind: Any = type(thing)
    names = [name for name in kind.__struct_fields__ if hasattr(thing, name)]
    return marks.struct, (kind, {name: getattr(thing, name) for name in names})


def _reduce_call(writer: Writer, thing: Any) -> Reduced:
    if former.origin_of(type(thing)) is None:
        return NotImplemented
    return former.call_of(thing)


def _reduce_unloaded(writer: Writer, thing: Any) -> Reduced:
    return marks.unloaded, thing._rpyserve_record


# The special classes first.
_REDUCTIONS: Final[dict[type, Reduce]] = {
    type: _reduce_definition,
    FunctionType: _reduce_definition,
    InterfaceClass: _reduce_definition,
    Enum: _reduce_member,
    MethodType: _reduce_method,
    ServerObject: _reduce_server_object,
    Resource: _reduce_page,
    former.Unloaded: _reduce_unloaded,
}
_OF_SITE: Final[dict[How, Reduce]] = {
    How.BY_NAME: _reduce_by_name,
    How.STRUCT: _reduce_struct,
    How.BY_ITSELF: _reduce_call,
}


class Way(enum.Enum):
    """A way of reading a record."""

    AS_IT_IS = enum.auto()
    """All classes must have the shape that they had."""
    FORMER = enum.auto()
    """Former classes are taken for all of the site's."""


class Reader(pickle.Unpickler):
    """Reads what a `Writer` has written.

    Args:
        file: the pickles.
        references: finds what the site defines.
        site: the site.
        way: how.
        may_execute: whether files of the site may be executed meanwhile.

    Attributes:
        holder: the session or registry whose record it is.
    """

    def __init__(
        self, file: Any, references: References, site: Any, way: Way, *, may_execute: bool
    ) -> None:
        super().__init__(file)
        self.holder: Any = None
        self.marks = Marks(self, references, site, way, may_execute)

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle calls *name* of *module*."""
        if module == marks.__name__:
            return self.marks.find(name)
        return self.marks.find_foreign(super().find_class, module, name)


class Marks:
    """What `marks` stand for in one record.

    Args:
        reader: who reads it.
        references: finds what the site defines.
        site: the site.
        way: how it is read.
        may_execute: whether files of the site may be executed for that.

    Attributes:
        used: the classes of the site that were read as former ones.
    """

    def __init__(
        self, reader: Any, references: References, site: Any, way: Way, may_execute: bool
    ) -> None:
        self.references = references
        self._site = site
        self._reader = reader
        self.way = way
        self.may_execute = may_execute
        self.used: set[Definition] = set()

    def find(self, name: str) -> Callable[..., Any]:
        """Return what is called for the mark *name*."""
        return MethodType(_MARKS[name], self)

    def find_foreign(self, find: Callable[[str, str], Any], module: str, name: str) -> Any:
        """Return the class or function *name* of *module*, which is not of the site."""
        try:
            return find(module, name)
        except (ImportError, AttributeError):
            if self.way is Way.AS_IT_IS:
                raise Changed(name) from None
            return former.missing_class(module, name)

    def definition(self, *described: Any) -> Any:
        definition = Definition(*described)
        if self.way is Way.AS_IT_IS:
            found = self.references.present(definition, may_execute=self.may_execute)
            if found is None:
                raise Changed(definition.name)
            return found
        if definition.kind == CLASS:
            self.used.add(definition)
        return self.references.former(definition)

    def member(self, cls: Any, names: Any, unnamed: int = 0) -> Any:
        members = cls.__members__
        if isinstance(names, str):
            return members[names] if names in members else self._raise_changed(names)
        found = cls(unnamed)
        for name in names:
            found |= members[name] if name in members else self._raise_changed(name)
        return found

    def method(self, function: Any, thing: Any) -> Any:
        return MethodType(function, thing)

    def holder(self) -> Any:
        return self._reader.holder

    def site(self) -> Any:
        return self._site

    def registry(self) -> Any:
        return self._site.registry

    def page(self, file: str, path: str) -> Any:
        return self.references.page(file, path)

    def state(self, thing: Any, attributes: dict[str, Any]) -> None:
        for name, value in attributes.items():
            object_state.set_attribute(thing, name, value)

    def struct(self, cls: Any, fields: dict[str, Any]) -> Any:
        if former.origin_of(cls) is None:
            return cls(**fields)
        thing = object.__new__(cls)
        self.state(thing, fields)
        return thing

    def missing(self, module: str, name: str) -> Any:
        return self._reader.find_class(module, name)

    def unloaded(self, record: bytes, position: int) -> Any:
        if self.way is Way.AS_IT_IS:
            raise Changed("what could not be loaded")
        return load_again(self._reader, record, position)

    def _raise_changed(self, name: str) -> NoReturn:
        raise Changed(name)


_ALL_MARKS: Final = [
    value
    for name, value in vars(marks).items()
    if callable(value) and getattr(value, "__module__", "") == marks.__name__ and name[0] != "_"
]
_MARKS: Final = {each.__name__: vars(Marks)[each.__name__] for each in _ALL_MARKS}


class OneByOne:
    """Reads a record pickle by pickle, and goes on where one cannot be loaded.

    Args:
        record: the record, with one byte before the first pickle.
        references: finds what the site defines.
        site: the site.
        may_execute: whether files of the site may be executed meanwhile.

    Attributes:
        holder: the session or registry whose record it is.
    """

    def __init__(
        self, record: bytes, references: References, site: Any, *, may_execute: bool
    ) -> None:
        self._record = record
        self._pickles = list(_pickles_in(record))
        self._next = 0
        self._reader = _ResumingReader(references, site, may_execute)
        self.marks = self._reader.marks

    @property
    def holder(self) -> Any:
        return self._reader.holder

    @holder.setter
    def holder(self, holder: Any) -> None:
        self._reader.holder = holder

    def load(self) -> Any:
        """Return the next thing, or what stands for it."""
        position = self._next
        self._next += 1
        pickled, memo_size = self._pickles[position]
        try:
            return self._reader.load_one(pickled, memo_size)
        except Exception as exc:
            if position == 0:
                raise
            return former.Unloaded(described(exc), (self._record, position))

    def load_at(self, position: int) -> Any:
        """Return the thing at *position*.

        Raises:
            Exception: it cannot be loaded.
        """
        for each in self._pickles[:position]:
            with suppress(Exception):
                self._reader.load_one(*each)
        return self._reader.load_one(*self._pickles[position])


def _pickles_in(record: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each pickle in *record*, with the size of the memo when it begins."""
    file = io.BytesIO(record)
    start = file.seek(1)
    memo_size = 0
    while start < len(record):
        own = sum(code.name == "MEMOIZE" for code, _, _ in pickletools.genops(file))
        yield record[start : file.tell()], memo_size
        memo_size += own
        start = file.tell()


_Unpickler: Any = pickle._Unpickler


class _ResumingReader(_Unpickler):  # type: ignore[misc]
    """As `Reader`, and can go on after a pickle that could not be loaded.

    That can be done with the memo of Python's own unpickler only.
    """

    def __init__(self, references: References, site: Any, may_execute: bool) -> None:
        super().__init__(io.BytesIO())
        self.holder: Any = None
        self.memo: dict[int, Any] = {}
        self._memo_size = 0
        self.marks = Marks(self, references, site, Way.FORMER, may_execute)

    def find_class(self, module: str, name: str) -> Any:
        if module == marks.__name__:
            return self.marks.find(name)
        return self.marks.find_foreign(super().find_class, module, name)

    def load_one(self, pickled: bytes, memo_size: int) -> Any:
        file = io.BytesIO(pickled)
        self._file_read, self._file_readline, self._file_readinto = file.read, file.readline, None
        self._memo_size = memo_size
        return self.load()

    def load_memoize(self) -> None:
        self.memo[self._memo_size] = self.stack[-1]
        self._memo_size += 1

    dispatch: ClassVar = {**_Unpickler.dispatch, pickle.MEMOIZE[0]: load_memoize}


def load_again(reader: Any, record: bytes, position: int) -> Any:
    """Return what could not be loaded before, if it can be now, else what stands for it."""
    of = reader.marks
    again = OneByOne(record, of.references, of.site(), may_execute=of.may_execute)
    again.holder = reader.holder
    try:
        return again.load_at(position)
    except Exception as exc:
        return former.Unloaded(described(exc), (record, position))


def described(exc: BaseException) -> str:
    """Return what *exc* says, in one line."""
    return one_line(f"{type(exc).__name__}: {exc}")
