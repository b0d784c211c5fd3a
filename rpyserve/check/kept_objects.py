"""Objects that an uncached script puts into sessions or the registry, which refuse them.

Says only what the text of one function shows: an object of a class of the script, or a member of an
enumeration of it, goes into what comes from `getSession()` or is the registry. What is passed to
other functions, or comes from them, is left to the server, which looks at the values themselves.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Final

from rpyserve.check.bindings import Block, ModuleBindings
from rpyserve.check.findings import Finding, Rule

_REGISTRY_NAMES: Final = frozenset({"registry", "rpyserve.registry"})
_KEEPING_METHODS: Final = frozenset({
    "add", "append", "appendleft", "extend", "insert", "setdefault", "update",
})  # fmt: skip
# They hold what they are called with.
_CONTAINERS: Final = frozenset({"deque", "dict", "frozenset", "list", "set", "sorted", "tuple"})
# Expressions whose values hold those of their parts.
_HOLDING: Final = (
    ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.GeneratorExp, ast.BinOp,
)  # fmt: skip
_ENUM_ENDINGS: Final = ("Enum", "Flag")
_MESSAGE: Final = (
    "`{}` cannot keep {} `{}`, as the script runs again for each request, with another class."
)
_HINT: Final = (
    "Write cache() as the first line of the script, or move the class {} into a .py file beside it "
    "and import it."
)


def find_kept_objects(bindings: ModuleBindings) -> Iterator[Finding]:
    """Yield where the script with these *bindings* keeps objects of its own classes."""
    if bindings.classes and not bindings.cache_calls:
        for block in bindings.blocks:
            yield from _BlockReader(bindings, block).findings()


class _BlockReader:
    """Follows the names of one function, in the order of the text."""

    def __init__(self, bindings: ModuleBindings, block: Block) -> None:
        self._bindings = bindings
        self._block = block
        # Names for what a session or the registry holds, and for what is of a class of the script.
        self._kept: set[str] = set()
        self._own: dict[str, str] = {}

    def findings(self) -> Iterator[Finding]:
        for node in self._block.nodes:
            match node:
                case ast.Assign(targets, value):
                    for target in targets:
                        yield from self._assign(target, value)
                case ast.AugAssign(target, _, value) | ast.AnnAssign(
                    target, _, ast.expr() as value
                ):
                    yield from self._assign(target, value)
                case ast.Call(ast.Attribute(changed, name) as called, arguments):
                    if name in _KEEPING_METHODS and self._is_kept(changed):
                        for argument in arguments:
                            yield from self._judge(called, argument)

    def _assign(self, target: ast.expr, value: ast.expr) -> Iterator[Finding]:
        if isinstance(target, ast.Name):
            self._bind(target.id, value)
        elif isinstance(target, ast.Subscript | ast.Attribute) and self._keeps(target):
            yield from self._judge(target, value)

    def _keeps(self, target: ast.Subscript | ast.Attribute) -> bool:
        is_factory = isinstance(target, ast.Attribute) and target.attr == "sessionFactory"
        return is_factory or self._is_kept(target.value)

    def _bind(self, name: str, value: ast.expr) -> None:
        self._kept.discard(name)
        self._own.pop(name, None)
        if self._is_kept(value):
            self._kept.add(name)
        elif cls := self._own_class(value):
            self._own[name] = cls

    def _judge(self, place: ast.Subscript | ast.Attribute, value: ast.expr) -> Iterator[Finding]:
        cls = self._own_class(value)
        if cls:
            is_class = isinstance(value, ast.Name) and value.id == cls
            what = "the class" if is_class else "an object of the class"
            # A place that is only read is a method of what keeps the value.
            shown = ast.unparse(place.value if isinstance(place.ctx, ast.Load) else place)
            message = _MESSAGE.format(shown, what, cls)
            yield Finding(place.lineno, Rule.TRANSIENT_OBJECT, message, _HINT.format(cls))

    def _is_kept(self, value: ast.expr) -> bool:
        """Whether *value* is a session, the registry, or something in there."""
        match value:
            case ast.Call(ast.Attribute(_, "getSession"), []):
                return True
            case ast.Call(ast.Attribute(holder, "get" | "setdefault")):
                return self._is_kept(holder)
            case ast.Attribute(ast.Attribute(_, "site"), "registry"):
                return True
            case ast.Subscript(holder) | ast.Attribute(holder):
                return self._is_kept(holder)
            case ast.Name(name):
                is_local = name in self._block.local_names
                is_registry = self._bindings.dotted_name(value) in _REGISTRY_NAMES
                return name in self._kept or (is_registry and not is_local)
        return False

    def _own_class(self, value: ast.AST) -> str:
        """The class of the script of which *value* is or holds an object; empty if none."""
        match value:
            case ast.Name(name) if name in self._own:
                return self._own[name]
            case ast.Call(ast.Name(name)) | ast.Name(name) if name in self._bindings.classes:
                return name
            case ast.Attribute(ast.Name(name)) if name in self._bindings.classes:
                return name if self._is_enum(name) else ""
            case ast.Call(ast.Name(name), arguments) if name in _CONTAINERS:
                return self._first_own(arguments)
            case ast.IfExp(_, item, other):
                return self._first_own([item, other])
            case _ if isinstance(value, _HOLDING):
                return self._first_own(ast.iter_child_nodes(value))
        return ""

    def _first_own(self, values: Iterable[ast.AST]) -> str:
        return next(filter(None, map(self._own_class, values)), "")

    def _is_enum(self, cls: str) -> bool:
        family = [self._bindings.classes[name] for name in self._bindings.family(cls)]
        bases = [self._bindings.dotted_name(base) for each in family for base in each.bases]
        return any(base.endswith(_ENUM_ENDINGS) for base in bases)
