"""Random programs: classes, containers, edits and visits in any order. Is anything ever lost?

``python -m benchmarks.robustness.edit_programs --programs 10000``. hypothesis makes a site: a
cached script, a module, classes of many kinds, and values of them in sessions and the registry. It
edits the site again and again (methods, attributes, bases, kinds of classes, moves between script
and module, members of enumerations, half-typed saves) and visits it: by the page that has the
classes, by one that imports none of them, by one that imports them in a thread; by one visitor, or
by several at the same time; with and without what a watcher would do; before and after a restart of
the site, over which records keep what there is. In some programs the registry counts as large, so
that it is brought up to date in slices.

What each value must look like is kept beside, by a model. After each save, every object that a page
reaches is of the present class, and has what it had and what the edit adds; equality, hashes,
lookups and ``isinstance`` hold; and no page fails. What fails is reduced as far as it can be.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import trio
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.common.options import option_parser
from rpyserve import Directory, Request, Site
from rpyserve.sessions import components
from rpyserve.stores.codec import Codec, key_of
from rpyserve.util.exceptions import unwrap_group

KEYS = [b"the secret that records are signed with"]

# The model: classes


@dataclass(frozen=True)
class Class:
    """A class of the program, in one version.

    Args:
        name: its name.
        kind: a key of `KINDS`.
        home: ``page`` (the script) or ``models`` (the module).
        fields: its attributes besides ``k`` and ``child``, with their defaults.
        version: what its method ``version`` returns.
        base: a key of `BASES`.
        members: those of an enumeration.
    """

    name: str
    kind: str
    home: str
    fields: dict[str, int] = field(default_factory=dict)
    version: int = 1
    base: str = ""
    members: tuple[str, ...] = ()

    @property
    def is_enum(self) -> bool:
        return self.kind == "enum"

    def source(self) -> str:
        """The statements that define it."""
        head, body = KINDS[self.kind](self)
        bases = ", ".join(filter(None, [BASES[self.base], *_own_bases(self.kind)]))
        lines = [*head, f"class {self.name}({bases}):" if bases else f"class {self.name}:"]
        return "\n".join([*lines, *(f"    {line}" for line in [*body, *self._methods()])])

    def _methods(self) -> list[str]:
        lines = ["def version(self):", f"    return {self.version}"]
        if self.is_enum:
            return lines
        names = ", ".join(f'"{name}"' for name in self.fields)
        lines += ["def names(self):", f"    return [{names}]"]
        if self.kind == "namedtuple":
            return lines
        lines += [
            "def __eq__(self, other):",
            f"    return isinstance(other, {self.name}) and self.k == other.k",
            "def __hash__(self):",
            "    return hash(self.k)",
        ]
        return lines


Parts = tuple[list[str], list[str]]
"""Lines before a class, and lines in it."""


def _assigned(cls: Class) -> list[str]:
    parameters = ", ".join(f"{name}={default}" for name, default in cls.fields.items())
    names = ["k", "child", *cls.fields]
    return [
        f"def __init__(self, k, child=None, {parameters}):",
        *(f"    self.{name} = {name}" for name in names),
    ]


def _annotated(cls: Class) -> list[str]:
    fields = [f"{name}: int = {default}" for name, default in cls.fields.items()]
    return ["k: int", "child: object = None", *fields]


def _slots(cls: Class, *more: str) -> str:
    return "__slots__ = " + repr(("k", "child", *cls.fields, *more))


def _own_bases(kind: str) -> list[str]:
    return {
        "namedtuple": ["NamedTuple"],
        "pydantic": ["pydantic.BaseModel"],
        "msgspec": ["msgspec.Struct, eq=False"],
        "enum": ["Enum"],
    }.get(kind, [])


KINDS: dict[str, Callable[[Class], Parts]] = {
    "plain": lambda cls: ([], _assigned(cls)),
    "slots": lambda cls: ([], [_slots(cls), *_assigned(cls)]),
    "weak_slots": lambda cls: ([], [_slots(cls, "__weakref__"), *_assigned(cls)]),
    "dataclass": lambda cls: (["@dataclass(eq=False)"], _annotated(cls)),
    "frozen": lambda cls: (["@dataclass(eq=False, frozen=True)"], _annotated(cls)),
    "slots_dataclass": lambda cls: (["@dataclass(eq=False, slots=True)"], _annotated(cls)),
    "attrs": lambda cls: (["@attrs.define(eq=False)"], _annotated(cls)),
    "attrs_frozen": lambda cls: (["@attrs.frozen(eq=False)"], _annotated(cls)),
    "pydantic": lambda cls: ([], _annotated(cls)),
    "msgspec": lambda cls: ([], _annotated(cls)),
    "namedtuple": lambda cls: ([], _annotated(cls)),
    "enum": lambda cls: ([], [f'{name} = "{name.lower()}"' for name in cls.members]),
}
NEEDED_LIBRARIES = {
    "attrs": "attrs",
    "attrs_frozen": "attrs",
    "pydantic": "pydantic",
    "msgspec": "msgspec",
}
CHANGEABLE_KINDS = ["plain", "slots", "weak_slots", "dataclass", "frozen", "slots_dataclass"]
"""Those that an edit may make into one another."""
BASES = {
    "": "",
    "abc": "ABC",
    "generic": "Generic[T]",
    "mixin": "Mixin",
    "slots_mixin": "SlotsMixin",
}
IMPORTS = """\
from abc import ABC
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Mixin:
    def mixed(self):
        return 1


class SlotsMixin:
    __slots__ = ()

    def mixed(self):
        return 1
"""


# The model: values


@dataclass
class Thing:
    """An object of a class, as it must be.

    Args:
        name: the name of its class.
        key: its ``k``.
        child: what it refers to.
        fields: what it has that differs from the defaults of its class, or stood there before.
    """

    name: str
    key: int
    child: Any = None
    fields: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    name: str
    member: str


@dataclass
class Many:
    """A container of *kind*, a key of `CONTAINERS`."""

    kind: str
    items: list[Any]


CONTAINERS = {
    "list": "[{}]",
    "tuple": "({},)",
    "set": "{{{}}}",
    "frozenset": "frozenset([{}])",
    "deque": "deque([{}])",
    "keys": "dict.fromkeys([{}], 7)",
    "values": "dict(enumerate([{}]))",
}
HASHED = {"set", "frozenset", "keys"}


def expression(value: Any, classes: dict[str, Class]) -> str:
    """The Python that makes *value*."""
    if isinstance(value, Member):
        return f"{value.name}.{value.member}"
    if isinstance(value, Thing):
        given = {"k": str(value.key), "child": expression(value.child, classes)}
        given |= {name: str(number) for name, number in _given(value, classes).items()}
        return f"{value.name}({', '.join(f'{name}={text}' for name, text in given.items())})"
    if isinstance(value, Many):
        items = [expression(item, classes) for item in value.items]
        return CONTAINERS[value.kind].format(", ".join(items))
    return repr(value)


def _given(thing: Thing, classes: dict[str, Class]) -> dict[str, int]:
    """The arguments of *thing* that its class still takes."""
    known = classes[thing.name].fields
    return {name: number for name, number in thing.fields.items() if name in known}


def description(value: Any, classes: dict[str, Class]) -> Any:
    """What `DESCRIBE` must say of *value*, as JSON has it."""
    if isinstance(value, Member):
        return ["member", value.name, value.member, classes[value.name].version]
    if isinstance(value, Thing):
        cls = classes[value.name]
        fields = {name: value.fields.get(name, default) for name, default in cls.fields.items()}
        child = description(value.child, classes)
        return ["object", value.name, value.key, cls.version, fields, child]
    if isinstance(value, Many):
        items = [description(item, classes) for item in value.items]
        if value.kind in HASHED:
            items.sort(key=json.dumps)
        return [value.kind, items]
    return value


DESCRIBE = """
from collections import deque
from enum import Enum
import json


def describe(value, classes):
    if isinstance(value, Enum):
        cls = type(value)
        assert value is cls[value.name] and value == cls(value.value)
        check_class(value, classes)
        return ["member", cls.__name__, value.name, value.version()]
    if hasattr(value, "names"):
        check_class(value, classes)
        assert value == value and (isinstance(value, tuple) or hash(value) == hash(value))
        fields = {name: getattr(value, name) for name in value.names()}
        child = describe(value.child, classes)
        return ["object", type(value).__name__, value.k, value.version(), fields, child]
    if isinstance(value, dict):
        for key, item in value.items():
            assert value[key] is item
        if set(map(type, value)) <= {int}:
            return ["values", [describe(item, classes) for item in value.values()]]
        return ["keys", ordered(describe(key, classes) for key in value)]
    if isinstance(value, (set, frozenset)):
        assert all(item in value for item in list(value))
        return [type(value).__name__, ordered(describe(item, classes) for item in value)]
    if isinstance(value, (list, tuple, deque)):
        assert not value or value.index(value[-1]) < len(value)
        return [type(value).__name__, [describe(item, classes) for item in value]]
    return value


def ordered(items):
    return sorted(items, key=json.dumps)


def check_class(value, classes):
    cls = classes.get(type(value).__name__)
    assert cls is None or (type(value) is cls and isinstance(value, cls)), (value, cls)
"""

# Pages that have none of the classes: one asks, one imports them in a thread.
STRANGER = """\
from rpyserve import cache
from describe import describe

cache()


def resource(request):
    name = request.field("name")
    holder = registry if request.field("at") == "registry" else request.getSession()
    return {"value": describe(holder[name], {})}
"""
THREADED = """\
import trio
from rpyserve import cache

cache()


async def resource(request):
    name = request.field("name")
    holder = registry if request.field("at") == "registry" else request.getSession()
    value = holder[name]

    def work():
        import models
        from describe import describe
        return describe(value, vars(models))

    return {"value": await trio.to_thread.run_sync(work)}
"""
PAGE = """\
from rpyserve import cache
from describe import describe

cache()


def resource(request):
    name = request.field("name")
    holder = registry if request.field("at") == "registry" else request.getSession()
    if request.field("make", ""):
        holder[name] = MAKERS[name]()
    return {"value": describe(holder[name], globals())}
"""
BROKEN = "class Half(:\n"
PAGES = ["page", "stranger", "threaded"]


class Program:
    """A site, its edits, and what it must answer.

    Args:
        root: an empty directory for it.
        classes: the classes.
        values: by name, what pages make.
    """

    def __init__(self, root: Path, classes: list[Class], values: dict[str, Any]) -> None:
        self.root = root
        self.classes = {cls.name: cls for cls in classes}
        self.values = values
        self.made: dict[tuple[str, str], Any] = {}
        self.site = Site(Directory(root))
        self.cookies: dict[str, bytes] = {}
        self.written: dict[str, str] = {}
        self.fresh_names = (f"f{number}" for number in count(100))
        self.write("describe.py", DESCRIBE)
        self.write("stranger.rpy", STRANGER)
        self.write("threaded.rpy", THREADED)
        self.save()

    # Files

    def write(self, name: str, text: str) -> None:
        if self.written.get(name) != text:
            self.written[name] = text
            (self.root / name).write_text(text)

    def save(self) -> None:
        """Write what has changed."""
        self.write("models.py", self._models())
        self.write("page.rpy", self._page())

    def _imports(self) -> str:
        kinds = {cls.kind for cls in self.classes.values()}
        libraries = {NEEDED_LIBRARIES[kind] for kind in kinds & NEEDED_LIBRARIES.keys()}
        return "\n".join([*(f"import {library}" for library in sorted(libraries)), IMPORTS])

    def _definitions(self, home: str) -> list[str]:
        return [cls.source() for cls in self.classes.values() if cls.home == home]

    def _models(self) -> str:
        return "\n\n\n".join([self._imports(), *self._definitions("models")]) + "\n"

    def _page(self) -> str:
        imported = [cls.name for cls in self.classes.values() if cls.home == "models"]
        lines = [f"from models import {', '.join(imported)}"] if imported else []
        makers = ", ".join(
            f"{name!r}: lambda: {expression(value, self.classes)}"
            for name, value in self.values.items()
        )
        parts = [self._imports(), *lines, *self._definitions("page"), f"MAKERS = {{{makers}}}"]
        return "\n\n\n".join([*parts, PAGE])

    # Edits

    def edit(self, name: str, how: str, to: str) -> None:
        """Change the class *name* in the model, unless that would be no Python."""
        cls = self.classes[name]
        if {cls.kind, cls.base, to} >= {"weak_slots", "mixin"}:
            return  # the mixin has a ``__weakref__`` already
        match how:
            case "touch":
                self.classes[name] = replace(cls, version=cls.version + 1)
            case "move":
                self.classes[name] = replace(cls, home="models" if cls.home == "page" else "page")
            case "add":
                new = cls.fields | {next(self.fresh_names): cls.version + 10}
                self.classes[name] = replace(cls, fields=new)
            case "rename":
                *kept, _ = cls.fields.items()
                new = dict(kept) | {next(self.fresh_names): cls.version + 20}
                self.classes[name] = replace(cls, fields=new)
            case "base":
                self.classes[name] = replace(cls, base=to)
            case "kind":
                self.classes[name] = replace(cls, kind=to)
            case "member":
                members = (*cls.members, next(self.fresh_names).upper())
                self.classes[name] = replace(cls, members=members[::-1])

    # Visits

    async def make(self, visitor: str, at: str, name: str) -> None:
        """Have *visitor* make the value *name* in their session or the registry."""
        self.made[self._holder(visitor, at), name] = _deep_copy(self.values[name], self.classes)
        await self.look(visitor, at, name, "page", make="1")

    def _holder(self, visitor: str, at: str) -> str:
        return at if at == "registry" else visitor

    async def look(self, visitor: str, at: str, name: str, page: str, make: str = "") -> None:
        """Have *visitor* look at a value that was made, by *page*.

        Raises:
            AssertionError: it is not what it must be.
        """
        status, text = await self.visit(visitor, f"/{page}?name={name}&at={at}&make={make}")
        wanted = description(self.made[self._holder(visitor, at), name], self.classes)
        assert status == 200, f"{page} {name}: {text}"
        found = json.loads(text)["value"]
        assert found == wanted, f"{page} {name}: {found}, not {wanted}"

    async def visit(self, visitor: str, url: str) -> tuple[int, str]:
        headers = [(b"host", b"localhost")]
        if visitor in self.cookies:
            headers.append((b"cookie", self.cookies[visitor]))
        request = Request("GET", url, headers)
        response = await self.site.respond(request)
        request.close()
        for name, value in response.headers:
            if name.lower() == b"set-cookie":
                self.cookies[visitor] = value.partition(b";")[0]
        assert isinstance(response.body, bytes)
        return response.status, response.body.decode()

    async def visit_broken(self, visitor: str, file: str) -> None:
        """Save half a *file*, and visit the page: it must fail, and what was made must live on."""
        good = self.written[file]
        self.write(file, good + BROKEN)
        status, _ = await self.visit(visitor, "/page?name=none&at=registry")
        assert status == 500
        self.write(file, good)

    def restart(self) -> None:
        """Go on with another site, which has of this one what records keep."""
        before, codec = self.site, Codec(self.site, KEYS)
        kept = {
            session.uid: codec.dump(session, key_of(session.uid)).require_whole()
            for session in before.sessions
        }
        registry = codec.dump_registry().require_whole()
        before.close()
        site = self.site = Site(Directory(self.root))
        before.on_close(site.close)
        codec = Codec(site, KEYS)
        codec.load_registry(registry)
        for uid, record in kept.items():
            session = codec.load(uid, key_of(uid), record)
            session._store, session._last_access = site.sessions, site.sessions.now()
            session._timeout = site.sessions.timeout_of(session)
            site.sessions._live.put(uid, session)

    def watch(self) -> None:
        """Do what a watcher does when it hears of a change."""
        root = self.site.root
        assert isinstance(root, Directory)
        root.scripts.refresh()


def _deep_copy(value: Any, classes: dict[str, Class]) -> Any:
    """*value* as an object has it from now on: with the defaults of its class, whatever comes."""
    if isinstance(value, Thing):
        child = _deep_copy(value.child, classes)
        fields = classes[value.name].fields | _given(value, classes)
        return Thing(value.name, value.key, child, fields)
    if isinstance(value, Many):
        return Many(value.kind, [_deep_copy(item, classes) for item in value.items])
    return value


# What hypothesis chooses from


def available_kinds() -> list[str]:
    """The kinds of classes whose libraries are installed."""
    return [
        kind
        for kind in KINDS
        if kind not in NEEDED_LIBRARIES or importlib.util.find_spec(NEEDED_LIBRARIES[kind])
    ]


@st.composite
def class_lists(draw: st.DrawFn) -> list[Class]:
    """One to three classes."""
    kinds = draw(st.lists(st.sampled_from(available_kinds()), min_size=1, max_size=3))
    return [
        Class(
            name,
            kind,
            draw(st.sampled_from(["page", "models"])),
            fields={} if kind == "enum" else {"f0": 5, "f1": 6},
            members=("RED", "BLUE") if kind == "enum" else (),
        )
        for name, kind in zip("ABC", kinds, strict=False)
    ]


def values(classes: list[Class]) -> st.SearchStrategy[Any]:
    """Values of *classes*, in containers."""
    leaves = st.one_of([_leaf(cls) for cls in classes])

    def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        free = st.sampled_from(sorted(CONTAINERS.keys() - HASHED))
        items = st.lists(inner, min_size=1, max_size=3)
        hashed = st.builds(Many, st.sampled_from(sorted(HASHED)), _distinct(leaves))
        return st.one_of(st.builds(Many, free, items), hashed, *_parents(classes, inner))

    return st.recursive(leaves, containers, max_leaves=5)


def _distinct(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    # Named tuples of two classes are equal if they hold the same.
    return st.lists(
        leaves,
        min_size=1,
        max_size=3,
        unique_by=lambda leaf: (leaf.name, leaf.member) if isinstance(leaf, Member) else leaf.key,
    )


def _leaf(cls: Class) -> st.SearchStrategy[Any]:
    if cls.is_enum:
        return st.sampled_from([Member(cls.name, member) for member in cls.members])
    fields = st.sampled_from([{}, {"f0": 50}, {"f0": 51, "f1": 61}])
    return st.builds(Thing, st.just(cls.name), st.integers(1, 4), st.none(), fields)


def _parents(classes: list[Class], inner: st.SearchStrategy[Any]) -> Iterator[Any]:
    for cls in classes:
        if not cls.is_enum:
            yield st.builds(Thing, st.just(cls.name), st.integers(5, 9), inner, st.just({}))


def edits(cls: Class) -> st.SearchStrategy[tuple[str, str, str]]:
    """Edits of *cls*: its name, what to do, and to what."""
    if cls.is_enum:
        how = [("touch", ""), ("move", ""), ("member", "")]
    else:
        how = [("touch", ""), ("add", ""), ("rename", ""), ("move", "")]
    if cls.kind in CHANGEABLE_KINDS:
        how += [("kind", kind) for kind in CHANGEABLE_KINDS]
    if cls.kind in (*CHANGEABLE_KINDS, "attrs"):
        how += [("base", base) for base in BASES]
    return st.sampled_from([(cls.name, *each) for each in how])


async def run(draw: Callable[[st.SearchStrategy[Any]], Any], root: Path) -> None:
    """One program.

    Raises:
        AssertionError: something is not as it must be.
    """
    classes = draw(class_lists())
    names = ["v0", "v1", "v2"][: draw(st.integers(1, 3))]
    program = Program(root, classes, {name: draw(values(classes)) for name in names})
    steps = st.sampled_from(
        ["make", "look", "look", "crowd", "edit", "edit", "restart", "broken", "watch"]
    )
    visitors, places = st.sampled_from(["ann", "bob"]), st.sampled_from(["session", "registry"])
    async with program.site.running(), size_limits(is_large=draw(st.booleans())):
        await program.make("ann", draw(places), names[0])
        for _ in range(draw(st.integers(1, 8))):
            match draw(steps):
                case "make":
                    await program.make(draw(visitors), draw(places), draw(st.sampled_from(names)))
                case "look":
                    holder, name = draw(st.sampled_from(sorted(program.made)))
                    await _look(program, holder, name, draw(st.sampled_from(PAGES)))
                case "crowd":
                    looks = st.tuples(st.sampled_from(sorted(program.made)), st.sampled_from(PAGES))
                    async with trio.open_nursery() as nursery:
                        for (holder, name), page in draw(st.lists(looks, min_size=2, max_size=4)):
                            nursery.start_soon(_look, program, holder, name, page)
                case "edit":
                    for _ in range(draw(st.integers(1, 3))):
                        chosen = draw(st.sampled_from(sorted(program.classes)))
                        program.edit(*draw(edits(program.classes[chosen])))
                    program.save()
                case "restart":  # right after an edit, often
                    program.restart()
                case "broken":
                    file = draw(st.sampled_from(["page.rpy", "models.py"]))
                    await program.visit_broken(draw(visitors), file)
                case "watch":
                    program.watch()
        pages = draw(st.permutations(PAGES))
        for holder, name in program.made:
            for page in pages:
                await _look(program, holder, name, page)


@asynccontextmanager
async def size_limits(*, is_large: bool) -> AsyncIterator[None]:
    """While inside, each registry counts as large if *is_large*."""
    usual = components.MUCH, components.SLICE
    if is_large:
        components.MUCH, components.SLICE = 0, 0.0  # type: ignore[misc]
    try:
        yield
    finally:
        components.MUCH, components.SLICE = usual  # type: ignore[misc]


async def _look(program: Program, holder: str, name: str, page: str) -> None:
    """Look by *page* at the value *name* of *holder*, a visitor or the registry."""
    if holder == "registry":
        await program.look("ann", "registry", name, page)
    else:
        await program.look(holder, "session", name, page)


def run_programs(programs: int, first: int) -> None:
    """Run so many programs, by the seed *first*.

    Raises:
        AssertionError: one of them lost something; it was reduced as far as it could be.
    """

    @seed(first)
    @settings(
        max_examples=programs,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.data())
    def check(data: Any) -> None:
        with tempfile.TemporaryDirectory() as directory:
            try:
                trio.run(run, data.draw, Path(directory))
            except BaseExceptionGroup as group:
                raise unwrap_group(group) from None  # hypothesis knows its own exceptions

    check()


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    began = time.perf_counter()
    run_programs(options.programs, options.seed)
    print(f"{options.programs} programs in {time.perf_counter() - began:.0f} s: nothing is lost")


if __name__ == "__main__":
    main()
