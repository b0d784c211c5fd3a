"""What is in a record, once its signature is right: a session or the registry as a row of pickles.

The first pickle says what there is; then comes one for each value, component, attribute and
callback. They share one memo, so what several of them hold is one object afterwards, too. One that
cannot be written or read does not take the others with it: it is left out whole, never half.

A record is read in up to three ways, each slower than the one before: as it is, if all classes have
the shape that they had; with former classes, which are then brought up to date as after an edit;
and at last pickle by pickle, to find the ones that fail. Those become an `Unloaded`, and are
written again as they came.
"""

from __future__ import annotations

import importlib
import io
import logging
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final

from rpyserve.scripts import definitions
from rpyserve.scripts.execution import execution_name_of, without_partials
from rpyserve.sessions import migration
from rpyserve.sessions.components import Components, Entry, bring_up_to_date, mark_outdated
from rpyserve.sessions.containers import LEAF_CLASSES
from rpyserve.sessions.session import Contents, Session, contents_of, put_contents
from rpyserve.sessions.transient import children_of, shown
from rpyserve.stores import former
from rpyserve.stores.pickles import (
    Changed,
    Gaps,
    OneByOne,
    Output,
    Reader,
    Reductions,
    Refused,
    TooLarge,
    Way,
    Writer,
    described,
)
from rpyserve.stores.references import Definition, References

FORMAT: Final = b"\x01"
"""What records begin with: the format that is written. Newer ones cannot be read."""

MOST_LOOKS: Final = 100_000
"""How many objects are looked at to say where something is that cannot be written."""

_MOST_PASSES: Final = 3

# Nested calls of pickle, two for each object that is in another one: few enough for any stack.
_DEEPEST: Final = 4_000

# Before the module of an interface that cannot be imported at present, in the key of a component.
_NOT_THERE: Final = "not there: "

LARGEST: Final = 16 * 1024 * 1024
"""Bytes of the largest record that is written. What would make it larger is left out."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A value that a record cannot keep.

    Attributes:
        name: the value that is left out, as its author writes it: ``session["job"]``.
        path: what in it is to blame: ``session["job"].file``.
        kind: the name of its class.
        why: the reason, a clause.
    """

    name: str
    path: str
    kind: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} ({self.kind}) cannot be kept: {self.why}"


class Unreadable(Exception):
    """A record cannot be read, not even in part. It is best left where it is."""


@dataclass(slots=True)
class Written:
    """What `write` has written.

    Attributes:
        record: the record, without its signature.
        left_out: what is not in it.
        callbacks: those that are not in it.
    """

    record: bytes
    left_out: tuple[LeftOut, ...] = ()
    callbacks: tuple[Any, ...] = ()


# Writing


class RecordWriter:
    """Writes the record of one session, or of the registry.

    Args:
        holder: the session or registry.
        references: names what the site defines.
        reductions: see `Writer`.
        site: the site.
    """

    def __init__(
        self, holder: Components, references: References, reductions: Reductions, site: Any
    ) -> None:
        self._holder = holder
        self._references = references
        self._reductions = reductions
        self._site = site
        self._gaps: Gaps = {}

    def write(self, *, carefully: bool) -> Written:
        """Write it.

        Args:
            carefully: whether it is known that something cannot be written.
        """
        contents = contents_of(self._holder)
        all_callbacks = contents.callbacks
        if all_callbacks:
            contents.callbacks = [each for each in all_callbacks if _may_have_name(each)]
        try:
            if not carefully:
                written = Written(self._write_all(contents))
        except Exception:
            carefully = True
        if carefully:
            written = self._write_carefully(contents)
        if all_callbacks:
            known = set(map(id, contents.callbacks))
            written.callbacks = tuple([each for each in all_callbacks if id(each) not in known])
        return written

    def _write_carefully(self, contents: Contents) -> Written:
        with _deeper_recursion():
            left_out = self._leave_out(contents)
            record = self._write_what_fits(contents, left_out)
        return Written(record, tuple(left_out))

    def _write_all(self, contents: Contents) -> bytes:
        # A class is written before its objects: what these lack is not known at first.
        for _ in range(_MOST_PASSES):
            output = Output(LARGEST, FORMAT)
            writer = self._writer(output)
            self._write_with(writer.dump, contents)
            if writer.found_gaps == self._gaps:
                break
            self._gaps = writer.found_gaps
        return output.joined()

    def _write_with(self, dump: Callable[[Any], None], contents: Contents) -> None:
        cls = type(self._holder)
        values, attributes, callbacks = contents.values, contents.attributes, contents.callbacks
        keys = [self._stored_key(*item) for item in contents.components.items()]
        dump(
            (
                None if cls is Session or not isinstance(self._holder, Session) else cls,
                tuple(values),
                tuple(keys),
                tuple(attributes),
                len(callbacks),
            )
        )
        for thing in values.values():
            dump(thing)
        for entry in contents.components.values():
            dump(entry.component)
        for thing in attributes.values():
            dump(thing)
        for callback in callbacks:
            dump(callback)

    def _writer(self, output: Output, kind: type[Writer] = Writer) -> Writer:
        return kind(
            output, self._references, self._reductions, self._site, self._holder, self._gaps
        )

    def _stored_key(self, key: Any, entry: Entry) -> tuple[Any, ...]:
        """What a record says of the interface or class that a component is kept for."""
        if not isinstance(key, tuple):
            target = entry.target
            return target.__module__, getattr(target, "__qualname__", None) or target.__name__
        if key[0].startswith(_NOT_THERE):
            return key[0].removeprefix(_NOT_THERE), key[1]
        return self._references.stored_key(key, self._holder)

    # What cannot be written

    def _leave_out(self, contents: Contents) -> list[LeftOut]:
        """Take out of *contents* what cannot be written, each looked at by itself."""
        left_out: list[LeftOut] = []
        for held, key, thing in list(_things_in(contents)):
            try:
                self._writer(Output(LARGEST)).dump(thing)
            except Exception as exc:
                left_out += self._take_out(contents, held, key, thing, exc)
        return left_out

    def _write_what_fits(self, contents: Contents, left_out: list[LeftOut]) -> bytes:
        while True:
            try:
                return self._write_all(contents)
            except TooLarge as exc:
                largest = max(_things_in(contents), key=lambda each: self._size(each[2]))
                left_out += self._take_out(contents, *largest, exc)

    def _take_out(
        self, contents: Contents, held: Any, key: Any, thing: Any, exc: Exception
    ) -> list[LeftOut]:
        """Take one thing out of *contents*; say why, unless it is a callback."""
        if held is contents.callbacks:
            held[:] = [each for each in held if each is not thing]
            return []
        found = self._explain(_label_in(contents, self._holder, held, key), thing, exc)
        del held[key]
        return [found]

    def _size(self, thing: Any) -> int:
        output = Output(LARGEST)
        self._writer(output).dump(thing)
        return len(output.joined())

    def _explain(self, label: str, thing: Any, exc: Exception) -> LeftOut:
        culprit, path = thing, label
        if not isinstance(exc, (TooLarge, RecursionError)):
            tracer: Any = self._writer(Output(LARGEST), _Tracer)
            with suppress(Exception):
                tracer.dump(thing)
            culprit = tracer.last
            path = _path_to(culprit, thing, label) or label
        kind = culprit if isinstance(culprit, type) else type(culprit)
        return LeftOut(label, path, kind.__name__, _reason(culprit, exc))


@contextmanager
def _deeper_recursion() -> Iterator[None]:
    """While inside, objects may be nested deeper than calls usually may: pickle recurses."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


class _Tracer(Writer):
    """A writer that knows what it was given last."""

    last: Any = None

    def reducer_override(self, thing: Any) -> Any:
        self.last = thing
        return super().reducer_override(thing)


def _may_have_name(callback: Any) -> bool:
    """Whether a callback may be found by its name again: most are closures."""
    function = without_partials(callback)
    return not isinstance(function, FunctionType) or "<" not in function.__qualname__


def _things_in(contents: Contents) -> Iterator[tuple[Any, Any, Any]]:
    """Yield what is held: by what, under which key, and the thing itself."""
    for held in (contents.values, contents.attributes):
        yield from ((held, key, thing) for key, thing in held.items())
    components = contents.components
    yield from ((components, key, entry.component) for key, entry in components.items())
    yield from ((contents.callbacks, callback, callback) for callback in contents.callbacks)


def _label_in(contents: Contents, holder: Components, held: Any, key: Any) -> str:
    """What the author calls what is held under *key*."""
    name = holder._display_name
    if held is contents.components:
        target = held[key].target
        shown_name = key[1] if isinstance(key, tuple) else target.__name__
        return f"{shown_name}({name})"
    if held is contents.callbacks:
        return f"a callback of the {name}"
    return f"{name}.{key}" if held is contents.attributes else f"{name}[{shown(key)}]"


def _path_to(culprit: Any, thing: Any, label: str) -> str:
    """How an author reaches *culprit* from *thing*, which is called *label*; empty if not known.

    If that is a class, an object of it is meant as well.
    """
    queue = deque([(thing, label)])
    seen: dict[int, Any] = {}
    while queue and len(seen) < MOST_LOOKS:
        each, path = queue.popleft()
        if each is culprit or type(each) is culprit:
            return path
        if id(each) not in seen and not isinstance(each, LEAF_CLASSES):
            seen[id(each)] = each
            queue += ((child, path + step) for child, step in children_of(each))
    return ""


def _reason(culprit: Any, exc: Exception) -> str:
    if isinstance(exc, Refused):
        return str(exc)
    if isinstance(exc, TooLarge):
        return f"it takes more than {LARGEST // 2**20} MB; keep it in a file, and its name here"
    if isinstance(exc, RecursionError):
        return "its objects are nested too deep"
    for kinds, reason in _REASONS.items():
        if isinstance(culprit, kinds):
            return reason
    return described(exc)


_SUSPENDED: Final = (GeneratorType, CoroutineType, AsyncGeneratorType)
_LOCKS: Final = (type(threading.Lock()), type(threading.RLock()))
_REASONS: Final[dict[Any, str]] = {
    io.IOBase: "an open file ends with the process; keep its name, and open it when it is used",
    socket.socket: "a connection ends with the process",
    _LOCKS: "a lock is of use in this process only; give its class a __getstate__ without it",
    _SUSPENDED: "code that waits half-way cannot be stored; keep what it needs to begin again",
    ModuleType: "a module is not data; keep its name",
    type: "its class is not at the top level of a file, where it could be found again",
    FunctionType: "it is not at the top level of a file, where it could be found again",
}


# Reading

MakeHolder = Callable[[Any], Components]


class RecordReader:
    """Reads records.

    Args:
        references: finds what the site defines.
        site: the site.
    """

    def __init__(self, references: References, site: Any) -> None:
        self._references = references
        self._site = site

    def read(
        self, record: bytes, make_holder: MakeHolder, *, may_execute: bool = True
    ) -> Components:
        """Return the session or registry that *record* is of.

        Args:
            record: what `RecordWriter.write` has written.
            make_holder: returns the one to fill, of a class; None stands for the usual class.
            may_execute: whether files of the site may be executed for it now. Not so for the
                registry, which the code in there uses. If that would be needed, it is brought up to
                date at its first use, else at once.

        Raises:
            Unreadable: there is no way to read it.
        """
        try:
            return self._read_as_it_is(record, make_holder, may_execute)
        except Exception as exc:
            reason = exc
        try:
            return self._read_as_former(record, make_holder, may_execute)
        except Exception as exc:
            raise Unreadable(str(reason)) from exc

    def _read_as_it_is(
        self, record: bytes, make_holder: MakeHolder, may_execute: bool
    ) -> Components:
        reader = self._reader(record, Way.AS_IT_IS, may_execute)
        holder = self._read(reader, make_holder)
        self._keep_as_before(_callbacks_of(holder))
        return holder

    def _reader(self, record: bytes, way: Way, may_execute: bool) -> Reader:
        file = io.BytesIO(record)
        file.seek(len(FORMAT))
        return Reader(file, self._references, self._site, way, may_execute=may_execute)

    def _read(self, reader: Any, make_holder: MakeHolder) -> Components:
        load: Any = reader.load
        cls, values, components, attributes, callbacks = load()
        reader.holder = holder = make_holder(cls)
        contents = Contents(
            values={name: load() for name in values},
            components={self._key(each, reader): self._entry(each, load()) for each in components},
            attributes={name: load() for name in attributes},
            callbacks=[load() for _ in range(callbacks)],
        )
        put_contents(holder, contents)
        return holder

    def _keep_as_before(self, callbacks: list[Any]) -> None:
        """Have callbacks known as those from before.

        They run the present code, but one of that name which is registered now takes their place.
        """
        if callbacks:
            callbacks[:] = map(self._as_before, callbacks)

    def _as_before(self, callback: Any) -> Any:
        if isinstance(callback, partial):
            function = self._as_before(callback.func)
            return partial(function, *callback.args, **callback.keywords)
        if isinstance(callback, MethodType):
            return MethodType(self._as_before(callback.__func__), callback.__self__)
        if isinstance(callback, FunctionType) and execution_name_of(callback) is not None:
            return self._references.former(self._references.describe(callback))
        return callback

    def _key(self, stored: Any, reader: Any) -> Any:
        """The key under which a component is held, of what a record says of its interface."""
        if len(stored) == 2:
            target = _found(*stored)
            return (_NOT_THERE + stored[0], stored[1], 0, 0) if target is None else id(target)
        if not reader.marks.may_execute:
            return self._references.key_without_executing(stored)
        key, sets_more = self._references.key_of(stored, reader.holder)
        if sets_more and reader.marks.way is Way.AS_IT_IS:
            raise Changed(stored[1])
        return key

    def _entry(self, stored: tuple[Any, ...], component: Any) -> Entry:
        # What an ordinary module defines is known by its id, and must live as long as that.
        return Entry(component, None, _found(*stored) if len(stored) == 2 else None)

    # With former classes

    def _read_as_former(
        self, record: bytes, make_holder: MakeHolder, may_execute: bool
    ) -> Components:
        with former.noting_made(may_execute=may_execute) as made:

            def make(cls: Any) -> Components:
                present = cls if cls is None else self._present_holder(cls)
                holder = make_holder(present)
                if present is not cls:
                    made.append((holder, cls))
                return holder

            reader: Any = self._reader(record, Way.FORMER, may_execute)
            try:
                holder = self._read(reader, make)
            except Exception:
                made.clear()
                references, site = self._references, self._site
                reader = OneByOne(record, references, site, may_execute=may_execute)
                holder = self._read(reader, make)
            if may_execute:
                bring_up_to_date(holder, _callbacks_of(holder), made)
                self._keep_as_before(_callbacks_of(holder))
                self._tell_of_absent(reader.marks.used)
            else:
                mark_outdated(holder)
        _tell_of_unloaded(holder)
        return holder

    def _present_holder(self, cls: Any) -> Any:
        found = definitions.current_definition(cls)
        return found if isinstance(found, type) and issubclass(found, Session) else cls

    def _tell_of_absent(self, used: Iterable[Definition]) -> None:
        """Say of which classes objects stay as they were stored."""
        for definition in used:
            before = self._references.former(definition)
            if definitions.current_definition(before) is before:
                migration.log_once(
                    logging.WARNING,
                    definitions.home_of(before),
                    _ABSENT.format(definition.name, self._references.display(definition.file)),
                )


def _tell_of_unloaded(holder: Components) -> None:
    contents = contents_of(holder)
    for held, key, thing in _things_in(contents):
        if type(thing) is former.Unloaded:
            label = _label_in(contents, holder, held, key)
            migration.log_once(logging.WARNING, "", _UNLOADED.format(label, former.why_of(thing)))


_ABSENT: Final = (
    "objects of the class {} of {} are kept as they were stored, until there is a class of that "
    "name again"
)
_UNLOADED: Final = "{} could not be loaded: {}. It is kept as it was stored, and tried again."


def _callbacks_of(holder: Components) -> list[Any]:
    """The very list of callbacks that a session has."""
    return (holder._callbacks if isinstance(holder, Session) else None) or []


def _found(module: str, name: str) -> Any:
    """The interface or class *name* of *module*, which is none of the site's; or None."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return found
