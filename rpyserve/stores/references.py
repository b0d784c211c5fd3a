"""How records name what the site defines: its scripts, classes, functions, interfaces and pages.

A name must mean the same in another process, with another number of sites, in another checkout. So
it is the place of the directory in the tree of the site's resources, the script or module, and the
qualified name there: ``/.counter`` and ``Counter`` for a class of ``counter.rpy``, ``/shop`` and
``Cart`` for one of ``shop.py``, ``/blog/.post`` for a script of a directory that is put into the
tree as ``blog``.

What a name stands for is asked of `definitions`, which has its file executed first, and follows it
to the module that it has moved to. For that a record says as well which other files used it.

Knows nothing of pickles.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from rpyserve.resources.resource import Resource, Wrapper
from rpyserve.scripts import definitions
from rpyserve.scripts.definitions import Place, Use
from rpyserve.scripts.execution import Execution, ExecutionName, Key, is_interface
from rpyserve.scripts.loader import ScriptLoader
from rpyserve.sessions.adapters import factory_for
from rpyserve.sessions.object_state import assigned_by_function
from rpyserve.stores import former

MOST_FORMER: Final = 1_000
"""How many definitions as they were are remembered."""

Users = tuple[tuple[str, bool, tuple[str, ...]], ...]
"""The files that use a definition; see `definitions.Use`. Files are stored names."""


StoredKey = tuple[str, str, int, Users, tuple[str, ...]]
"""What is kept of the key of a component: file, name and number of its interface, who uses that,
and which attributes the function sets that makes such components.
"""

CLASS: Final = "class"
FUNCTION: Final = "function"
INTERFACE: Final = "interface"


class Definition(NamedTuple):
    """What a record says of a class, a function or an interface.

    Args:
        kind: `CLASS`, `FUNCTION` or `INTERFACE`.
        file: the stored name of its script or module.
        name: its qualified name there.
        users: which other files use it.
        shape: of a class, see `Facts.shape`.
        facts: of a class, packed.
    """

    kind: str
    file: str
    name: str
    users: Users = ()
    shape: bytes = b""
    facts: bytes = b""


class Directories:
    """The directories of a site that have scripts, by their place in its tree.

    Args:
        site: the `Site`.
    """

    def __init__(self, site: Any) -> None:
        self._site = site
        self._loaders: dict[str, ScriptLoader] = {}

    def stored_name(self, home: str) -> str | None:
        """Return what records call the file of *home* (see `ExecutionName`).

        None if it belongs to no directory in the tree.
        """
        for _ in range(2):
            for place, loader in self._loaders.items():
                name = loader.stored_name(home)
                if name is not None:
                    return place + name
            self._look()
        return None

    def find(self, stored_name: str) -> tuple[ScriptLoader, str] | None:
        """Return the loader and the home of what records call *stored_name*."""
        place, slash, name = stored_name.rpartition("/")
        loader = self._loaders.get(place + slash)
        if loader is None:
            self._look()
            loader = self._loaders.get(place + slash)
            if loader is None:
                return None
        loader.open(self._site)
        return loader, loader.home_of(name)

    def _look(self) -> None:
        known = {id(loader) for loader in self._loaders.values()}
        for place, loader in _loaders_in(self._site.root):
            if id(loader) in known:
                continue
            while place in self._loaders:  # of another virtual host
                place = f"{place[:-1]}*/"
            self._loaders[place] = loader


def _loaders_in(root: Resource) -> Iterator[tuple[str, ScriptLoader]]:
    """Yield what executes the scripts of each directory in the tree, with its place there."""
    todo, seen = [(root, "/")], set[int]()
    for resource, place in todo:  # it grows
        if id(resource) in seen:
            continue
        seen.add(id(resource))
        scripts = getattr(resource, "scripts", None)
        if isinstance(scripts, ScriptLoader):
            yield place, scripts
        if isinstance(resource, Wrapper):
            todo += [(inner, place) for inner in resource.inner()]
        todo += [(child, f"{place}{name}/") for name, child in resource.children.items()]


class References:
    """Finds what definitions are called in records, and what records mean.

    Args:
        site: the `Site`.
    """

    def __init__(self, site: Any) -> None:
        self.directories = Directories(site)
        # How often what is said of a definition has changed without an edit.
        self.adoptions = 0
        # What was found out, as long as no definition changes: by the ids of definitions, which are
        # kept alive, what records say of them, and the same of the keys of components;
        self._described: dict[tuple[int, frozenset[str]], tuple[Any, Definition]] = {}
        self._stored_keys: dict[tuple[Key, type], StoredKey] = {}
        self._as_of = (0, 0)
        # and the other way round.
        self._present: dict[Definition, Any] = {}
        self._keys: dict[tuple[StoredKey, type], tuple[Key, bool]] = {}
        self._generation = 0
        self._former: dict[Definition, Any] = {}
        # What former definitions belong to.
        self._executions: dict[str, Execution] = {}

    # From a definition to its name

    def describe(self, defined: Any, gaps: frozenset[str] = frozenset()) -> Definition:
        """Return what a record says of *defined*, a class, a function or an interface of the site.

        Args:
            defined: what is described.
            gaps: of a class, attributes that some of the objects in the record lack.

        Raises:
            LookupError: it could not be found again; says why.
        """
        self._forget_if_edited()
        known = self._described.get((id(defined), gaps))
        if known is None:
            known = defined, self._describe(defined, gaps)
            self._described[id(defined), gaps] = known
        return known[1]

    def stored_key(self, key: Key, holder: Any) -> StoredKey:
        """Return what records say of the key of a component that *holder* has."""
        self._forget_if_edited()
        known = self._stored_keys.get((key, type(holder)))
        if known is None:
            home, name, number, _ = key
            # A home that is none is the stored name of a file in no directory at present.
            file = home if "/" in home else self.directories.stored_name(home) or home
            users, assigned = tuple(self._users_of((home, name))), _assigned_by_factory(key, holder)
            known = file, name, number, users, assigned
            self._stored_keys[key, type(holder)] = known
        return known

    def _forget_if_edited(self) -> None:
        as_of = definitions.edits, definitions.remarks
        if self._as_of != as_of:
            self._described.clear()
            self._stored_keys.clear()
            self._as_of = as_of

    def _describe(self, defined: Any, gaps: frozenset[str]) -> Definition:
        origin: Definition | None = former.origin_of(defined)
        if origin is not None:
            return origin
        place = definitions.place_of(defined)
        file = None if place is None else self.directories.stored_name(place[0])
        if place is None or file is None:
            raise LookupError("the directory that defines it is not in the tree of the site")
        if not definitions.is_found_by_name(defined):
            raise LookupError("it is not at the top level of its file, where it could be found")
        users = tuple(self._users_of(place))
        if not isinstance(defined, type):
            kind = INTERFACE if is_interface(defined) else FUNCTION
            return Definition(kind, file, place[1], users)
        facts = former.facts_of(defined, gaps)
        return Definition(CLASS, file, place[1], users, facts.shape, facts.pack())

    def _users_of(self, place: Place) -> Iterator[tuple[str, bool, tuple[str, ...]]]:
        for use in sorted(definitions.uses_of(place), key=lambda use: use.home):
            file = self.directories.stored_name(use.home)
            homes = tuple(filter(None, map(self.directories.stored_name, use.homes)))
            if file is not None:
                yield file, use.has_name, homes

    # From a name to its definition

    def present(self, definition: Definition, *, may_execute: bool = True) -> Any:
        """Return what *definition* stands for at present.

        Args:
            definition: what is looked for.
            may_execute: whether its file may be executed for that.

        Returns:
            None if there is nothing, or it is a class of another shape.
        """
        self._forget_if_outdated()
        found = self._present.get(definition)
        if found is None and not may_execute:
            file = self.directories.find(definition.file)
            may_execute = file is not None and definitions.is_executed(file[1])
        if found is None and may_execute:
            found = self._find_present(definition)
            if found is not None and self._generation == definitions.generation:
                self._present[definition] = found
        return found

    def _find_present(self, definition: Definition) -> Any:
        found = self.successor(definition)
        if found is None or definition.kind != CLASS:
            return found
        try:
            described = self.describe(found)
        except LookupError:
            return None
        if described.shape != definition.shape:
            return None
        self._adopt(found, described, definition)
        return found

    def successor(self, definition: Definition) -> Any:
        """Return what stands now for *definition*, also of another shape; None if nothing does."""
        before = self.former(definition)
        found = definitions.current_definition(before)
        return None if found is before else found

    def _adopt(self, found: Any, described: Definition, definition: Definition) -> None:
        """Have *found* described as in *definition*, if that is the same and knows more.

        A record that is only read stays the same byte for byte.
        """
        is_same = described._replace(users=()) == definition._replace(users=())
        if is_same and {*described.users} < {*definition.users}:
            self._described[id(found), frozenset()] = found, definition
            self.adoptions += 1

    def display(self, file: str) -> str:
        """Return what people are told for the stored name of a file."""
        place, _, name = file.rpartition("/")
        suffix = ".rpy" if name.startswith(".") else ".py"
        return f"{place}/{name.lstrip('.:').replace('.', '/')}{suffix}".lstrip("/")

    def page(self, file: str, path: str) -> Any:
        """Return the resource that the top-level code of *file* has made and calls *path*.

        Raises:
            LookupError: there is none.
        """
        found = self.directories.find(file)
        if found is None:
            raise LookupError(f"there is no {file}")
        loader, home = found
        loader.recall(home)
        page = definitions.made_as((home, path))
        if page is None:
            raise LookupError(f"{file} has no {path}")
        return page

    def key_of(self, stored_key: StoredKey, holder: Any) -> tuple[Key, bool]:
        """Return the key under which a component of *holder* is held at present.

        And whether what makes such components sets more attributes than it did.
        """
        self._forget_if_outdated()
        known = self._keys.get((stored_key, type(holder)))
        if known is None:
            key, before = self._find_key(*stored_key[:4]), stored_key[4]
            known = key, not {*_assigned_by_factory(key, holder)} <= {*before}
            if self._generation == definitions.generation:
                self._keys[stored_key, type(holder)] = known
        return known

    def key_without_executing(self, stored_key: StoredKey) -> Key:
        """Return that key, and execute no file to find out more."""
        return self._find_key(*stored_key[:4])

    def _find_key(self, file: str, name: str, number: int, users: Users) -> Key:
        self._recall(Definition(INTERFACE, file, name, users))
        found = self.directories.find(file)
        if found is None:
            return file, name, number, 0
        loader, home = found
        return home, name, number, loader.era_of(home)

    def _forget_if_outdated(self) -> None:
        if self._generation != definitions.generation:
            self._present.clear()
            self._keys.clear()
            self._generation = definitions.generation

    def former(self, definition: Definition) -> Any:
        """Return what stands for the definition as it was."""
        found = self._former.get(definition)
        if found is None:
            if len(self._former) >= MOST_FORMER:
                self._former.clear()
            found = self._former[definition] = self._make_former(definition)
        return found

    def _make_former(self, definition: Definition) -> Any:
        name = self._recall(definition)
        if definition.kind == CLASS:
            return former.former_class(name, definition.name, definition.facts, definition)
        make = former.former_function if definition.kind == FUNCTION else former.former_interface
        return make(name, definition.name, definition)

    def _recall(self, definition: Definition) -> ExecutionName:
        """Return the name under which *definition* was defined.

        Its file will be executed, and others that may have it now, as soon as it is asked for.
        """
        found = self.directories.find(definition.file)
        if found is None:
            return self._execution(definition.file, "", definition.file).name
        loader, home = found
        top = definition.name.partition(".")[0]
        place = home, definition.name
        loader.recall(home)
        definitions.recall_use(Use(home, top, True, (home,)), place)
        for file, has_name, files in definition.users:
            user = self.directories.find(file)
            if user is not None:
                user[0].recall(user[1])
                homes = [found[1] for found in map(self.directories.find, files) if found]
                definitions.recall_use(Use(user[1], top, has_name, tuple(homes)), place)
        package, _, name = home.rpartition(":")
        return self._execution(home, package, name).name

    def _execution(self, home: str, package: str, name: str) -> Execution:
        known = self._executions.get(home)
        if known is None:
            known = Execution(name, Path(name), cached=True, package=package)
            self._executions[home] = known
        return known


def _assigned_by_factory(key: Key, holder: Any) -> tuple[str, ...]:
    """The attributes that a function sets which makes the components of that key."""
    interface = definitions.interface_at(key)
    factory = None if interface is None else factory_for(holder, interface)
    return tuple(sorted(assigned_by_function(factory)))
