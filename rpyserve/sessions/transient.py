"""Finds in sessions and the registry what the next request would not know, and takes it out again.

A script without ``cache()`` defines its classes anew for each request. An object of such a class
that a session keeps is a stranger to the next request: ``isinstance`` and ``==`` are False, and an
edit does not reach it. What is put into a session directly is refused there and then; this module
looks for what got into something that the session keeps, however deep it lies.

A `Watch` belongs to one request that an uncached script with classes of its own answers. It notes
which values of sessions and the registry are used meanwhile, and looks at those only, before the
answer goes out or at the end of a stream. First comes a quick look at nothing but types; only if
that finds something is the way to it looked for.

What is refused is taken out of the innermost container that can be changed, so that a list keeps
its other items. A value that the request has put in as a whole goes as a whole: what was there
before comes back.
"""

from __future__ import annotations

import functools
import gc
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from zope.interface.interface import InterfaceClass

from rpyserve.http.errors import ScriptError
from rpyserve.http.request import current_request
from rpyserve.scripts.definitions import IS_TRACKED
from rpyserve.scripts.execution import Execution, ExecutionName, execution_name_of, refusal
from rpyserve.sessions.components import Components, touch_observers
from rpyserve.sessions.containers import (
    ATOMS,
    LEAF_CLASSES,
    container_type_of,
    dict_class,
)
from rpyserve.sessions.object_state import attributes
from rpyserve.sessions.session import Session

log = logging.getLogger("rpyserve")

LIMIT: Final = 100_000
"""How many objects are looked at for one request, plain values apart."""

_DEFINITIONS: Final = (type, InterfaceClass)
_MISSING: Final = object()

IsRefused = Callable[[Any], bool]
"""Says of a class or interface whether the next request would not know it."""

# The names of executions whose requests have not ended, by their ids: those look for themselves.
_under_way: Final[dict[int, ExecutionName]] = {}


@dataclass(frozen=True, slots=True, eq=False)
class _Root:
    """A value that a session or the registry holds.

    Args:
        thing: the value.
        label: what its author calls it.
        take_out: takes it out, or puts back what was there before.
        is_new: the request has put it in.
    """

    thing: Any
    label: str
    take_out: Callable[[], object]
    is_new: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Something that is refused.

    Args:
        thing: what it is.
        label: where it lies, as its author writes that.
        container: what holds it; None where that is the session itself.
        root: the value of the session that it is, or is in.
    """

    thing: Any
    label: str
    container: Any
    root: _Root

    @property
    def goes_with_root(self) -> bool:
        """Whether the value of the session is to be taken out as a whole."""
        return self.container is None or self.root.is_new


class Watch:
    """What one request may have put into sessions and the registry.

    Args:
        site: its registry is looked at, and its ``sessionFactory``.
        request: the request.
    """

    __slots__ = ("_executions", "_factory", "_request", "_site", "_touched")

    def __init__(self, site: Any, request: Any) -> None:
        self._site = site
        self._request = request
        self._executions: list[Execution] = []
        self._factory = site.sessionFactory
        self._touched: dict[tuple[int, Any], tuple[Components, Any]] = {}
        touch_observers.append(self._note)

    def add(self, execution: Execution) -> None:
        """Look for what *execution* defines, too."""
        self._executions.append(execution)
        _under_way[id(execution.name)] = execution.name

    def check(self) -> ScriptError | None:
        """Take out what is refused, and return what to tell the author; None if nothing was."""
        if not self._may_have_kept():
            return None
        touched, self._touched = list(self._touched.items()), {}
        if not any(execution.is_transient for execution in self._executions):
            return None
        roots = [*self._touched_roots(touched), *self._attribute_roots(touched)]
        found = _take_out(roots, self._is_refused)
        told = [self._tell(each.thing, each.label) for each in found]
        if self._site.sessionFactory is not self._factory:
            told += self._check_factory()
        return next(filter(None, told), None)

    def close(self) -> None:
        """Look for the last time, as the request has ended; the console is told what is refused."""
        error = self.check()
        touch_observers.remove(self._note)
        for execution in self._executions:
            _under_way.pop(id(execution.name), None)
        self._request._watch = None  # which would hold both until the garbage collector comes by
        if error is not None:
            what = f"{self._request.method} {self._request.path}"
            self._site.errors.report_exception(what, error)

    def _may_have_kept(self) -> bool:
        """Whether there is anything to look at: most requests use no session and no registry.

        The attributes of a session and the registry are set without a touch.
        """
        if self._touched or self._request._session is not None or vars(self._site.registry):
            return True
        return self._site.sessionFactory is not self._factory

    def _note(self, holder: Components, key: Any) -> None:
        user = current_request()
        if user is not None and user is not self._request:
            return  # a long stream would keep the sessions of all others
        place = id(holder), key
        if place not in self._touched:
            held = holder._values if isinstance(key, str) else holder._components
            self._touched[place] = holder, (held or {}).get(key, _MISSING)

    # Where to look

    def _touched_roots(self, touched: list[tuple[Any, Any]]) -> Iterator[_Root]:
        for (_, key), (holder, before) in touched:
            if isinstance(key, str):
                yield from _value_root(holder, key, before, self._is_refused)
            elif key in (holder._components or {}):
                entry = holder._components[key]
                name = key[1] if isinstance(key, tuple) else entry.target.__name__
                take_out = functools.partial(holder._components.pop, key, None)
                yield _Root(entry.component, f"{name}({holder._display_name})", take_out)

    def _attribute_roots(self, touched: list[tuple[Any, Any]]) -> Iterator[_Root]:
        holders = {id(holder): holder for _, (holder, _) in touched}
        for holder in (self._site.registry, self._request._session):
            if holder is not None and vars(holder):
                holders[id(holder)] = holder
        for holder in holders.values():
            for name, value in list(vars(holder).items()):
                take_out = functools.partial(vars(holder).pop, name, None)
                yield _Root(value, f"{holder._display_name}.{name}", take_out)

    def _is_refused(self, defined: Any) -> bool:
        name = execution_name_of(defined)
        if name is None or not name.is_transient:
            return False
        is_own = any(name is execution.name for execution in self._executions)
        return is_own or id(name) not in _under_way

    def _check_factory(self) -> list[ScriptError | None]:
        factory = self._site.sessionFactory
        if not isinstance(factory, type) or not self._is_refused(factory):
            return []
        is_good = not self._is_refused(self._factory)
        self._site.sessionFactory = self._factory if is_good else Session
        return [self._tell(factory, "request.site.sessionFactory")]

    # What is said

    def _tell(self, thing: Any, where: str) -> ScriptError | None:
        """Return the error for the page, unless another script is to blame: then it is logged."""
        kind = thing if isinstance(thing, _DEFINITIONS) else type(thing)
        what = "the class" if kind is thing else "an object of the class"
        message, reason = refusal(where, what, kind.__name__)
        mend = f"{reason[0].upper()}{reason[1:]} It was taken out again."
        name = execution_name_of(kind)
        for execution in self._executions:
            if name is not None and name.home == execution.name.home:
                return ScriptError(execution.path, f"{message}.", mend)
        log.warning("%s. %s", message, mend)
        return None


def _value_root(holder: Any, key: str, before: Any, is_refused: IsRefused) -> Iterator[_Root]:
    values = holder._values or {}
    if key not in values:
        return

    def take_out() -> None:
        if is_new and before is not _MISSING and not is_refused(type(before)):
            values[key] = before
        else:
            values.pop(key, None)

    is_new = values[key] is not before
    yield _Root(values[key], f"{holder._display_name}[{shown(key)}]", take_out, is_new)


# Looking, and taking out


def _take_out(roots: list[_Root], is_refused: IsRefused) -> list[_Found]:
    """Take what is refused out of *roots*; return where it was."""
    if not _may_hold([root.thing for root in roots], is_refused):
        return []
    told: list[_Found] = []
    # What holds something that is refused and cannot be changed is spoilt: it is taken out as well.
    spoilt: dict[int, Any] = {}
    while found := list(_search(roots, is_refused, spoilt)):
        told += [each for each in found if id(each.thing) not in spoilt]
        whole = {id(each.root): each.root for each in found if each.goes_with_root}
        for root in whole.values():
            root.take_out()
        roots = [root for root in roots if id(root) not in whole]
        for each in found:
            if not (each.goes_with_root or _remove(each.container, each.thing)):
                spoilt[id(each.container)] = each.container
    return told


def _may_hold(things: list[Any], is_refused: IsRefused) -> bool:
    """Whether something may be refused that *things* are or hold: a quick look at types only."""
    seen: dict[int, Any] = {}
    while things and len(seen) < LIMIT:
        kinds = set(map(type, things))
        definitions = [thing for thing in things if isinstance(thing, _DEFINITIONS)]
        if any(map(is_refused, kinds)) or any(map(is_refused, definitions)):
            return True
        containers = set(filter(_is_container, kinds))
        inner = {id(thing): thing for thing in things if type(thing) in containers}
        new = [thing for number, thing in inner.items() if number not in seen]
        seen |= inner
        things = gc.get_referents(*new)
        if not all(kind.__flags__ & IS_TRACKED for kind in containers):
            # The collector knows nothing of what is in the others.
            things += (child for thing in new for child, _ in children_of(thing))
    return False


def _is_container(kind: type) -> bool:
    return not issubclass(kind, LEAF_CLASSES) and container_type_of(kind) is not None


def _search(roots: list[_Root], is_refused: IsRefused, spoilt: dict[int, Any]) -> Iterator[_Found]:
    """Yield what is refused, the nearest first, and what is *spoilt*."""
    queue = deque(_Found(root.thing, root.label, None, root) for root in roots)
    seen: dict[int, Any] = {}
    while queue and len(seen) < LIMIT:
        found = queue.popleft()
        thing = found.thing
        kind = thing if isinstance(thing, _DEFINITIONS) else type(thing)
        if is_refused(kind) or id(thing) in spoilt:
            yield found
        elif id(thing) not in seen and not isinstance(thing, LEAF_CLASSES):
            seen[id(thing)] = thing
            for child, step in children_of(thing):
                queue.append(_Found(child, found.label + step, thing, found.root))


def children_of(thing: Any) -> Iterator[tuple[Any, str]]:
    """Yield what *thing* holds, and how its author reaches that."""
    container_type = container_type_of(type(thing))
    if container_type is None:
        return
    named: list[tuple[Any, str]] = []
    if isinstance(thing, dict):
        for key, value in list(dict.items(thing)):
            named += [(value, f"[{shown(key)}]"), (key, f" (the key {shown(key)})")]
    elif isinstance(thing, (list, tuple, deque)):
        items = list(container_type.read_contents(thing))
        named += [(value, f"[{index}]") for index, value in enumerate(items)]
    named += [(value, f".{name}") for name, value in attributes(thing).items()]
    reached = {id(value) for value, _ in named}
    others = [each for each in container_type.children(thing) if id(each) not in reached]
    for value, step in [*named, *((each, " (in it)") for each in others)]:
        if type(value) not in ATOMS:
            yield value, step


def shown(key: Any) -> str:
    """Return how *key* is written, or of what class it is."""
    if isinstance(key, str):
        return f'"{key[:60]}"'
    return repr(key)[:60] if type(key) in ATOMS else type(key).__name__


def _remove(container: Any, thing: Any) -> bool:
    """Take *thing* out of *container*, wherever it is in there.

    Returns:
        Whether it is not in there any more.
    """
    try:
        for name, value in attributes(container).items():
            if value is thing:
                object.__delattr__(container, name)
        _remove_item(container, thing)
    except Exception:  # of the author's own __hash__ or __eq__, or a slot that cannot be emptied
        return False
    return all(child is not thing for child, _ in children_of(container))


def _remove_item(container: Any, thing: Any) -> None:
    if isinstance(container, dict):
        base = dict_class(container)
        for key, value in list(dict.items(container)):
            if key is thing or value is thing:
                base.__delitem__(container, key)
    for cls, extend in _EXTEND.items():
        if isinstance(container, cls):
            kept = cls(each for each in cls.__iter__(container) if each is not thing)
            cls.clear(container)
            extend(container, kept)


_EXTEND: Final[dict[Any, Callable[[Any, Any], None]]] = {
    list: list.extend,
    set: set.update,
    deque: deque.extend,
}
