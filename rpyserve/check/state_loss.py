"""State that a request or an edit will lose: what a script keeps in its own names.

Reads the script's text, and executes nothing. A script without ``cache()`` is executed for each
request, so whatever its functions change is gone with the request. What a cached script or a module
of the site keeps is shared by all visitors, and is reset when the file is edited. A false alarm is
worse than a missed loss: what only saves work, or is not known to last, is no loss.

A *target* is what code changes: ``count``, ``state.n`` or ``Page.n``; ``self.n`` in methods,
whatever they call their object. A *write* is one place that changes a target, by giving it another
value or by changing the value that it has. Code that only the top level calls runs *at start*, once
for each execution. Its writes make what is there at first.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import product
from operator import attrgetter
from typing import Final, NamedTuple

from rpyserve.check.bindings import Block, Definition, ModuleBindings
from rpyserve.check.findings import Finding, Rule
from rpyserve.scripts.validation import is_called_by_requests

_MUTATING_METHODS: Final = frozenset({
    "add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft",
    "insert", "intersection_update", "pop", "popitem", "popleft", "remove", "rotate", "setdefault",
    "subtract", "symmetric_difference_update", "update",
})  # fmt: skip
# These change their first argument.
_MUTATING_FUNCTIONS: Final = frozenset({
    "heappop", "heappush", "heappushpop", "heapreplace", "insort", "insort_left", "next",
})  # fmt: skip
_MUTABLE_TYPES: Final = frozenset({
    "ChainMap", "Counter", "OrderedDict", "SimpleNamespace", "WeakKeyDictionary", "WeakSet",
    "WeakValueDictionary", "array", "bytearray", "count", "cycle", "defaultdict", "deque", "dict",
    "enumerate", "iter", "list", "set",
})  # fmt: skip
_MUTABLE_DISPLAYS: Final = (
    ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp,
)  # fmt: skip
# Methods that are only called while an object, or a class, is made.
_CONSTRUCTORS: Final = frozenset({"__init__", "__new__", "__init_subclass__", "__set_name__"})
# What every Resource has, and that is no state.
_RESOURCE_ATTRIBUTES: Final = frozenset({"isLeaf", "children"})
_CACHE_NAME: Final = re.compile(r"cache|memo", re.IGNORECASE)
_CACHING_DECORATORS: Final = frozenset({"functools.cache", "functools.lru_cache"})
_MESSAGES: Final = {
    Rule.STATE_LOST_ON_REQUEST: (
        "`{}` is lost after each request, as the script runs again for each."
    ),
    Rule.STATE_LOST_ON_EDIT: "`{}` is shared by all visitors, but lost when this file is edited.",
    Rule.USELESS_CACHE: "`{}` saves no work, as the script runs again for each request.",
}
_KEEP: Final = (
    'Keep it in session["{0}"] for each visitor (session = request.getSession()), '
    'or in registry["{0}"] for all of them.'
)
_HINTS: Final = {
    Rule.STATE_LOST_ON_REQUEST: _KEEP,
    Rule.STATE_LOST_ON_EDIT: _KEEP,
    Rule.USELESS_CACHE: "Call cache() in the first line, so that the script runs only once.",
}


def find_state_losses(bindings: ModuleBindings, *, is_module: bool = False) -> list[Finding]:
    """Return what the code with these *bindings* will lose, in the order of its lines.

    Args:
        is_module: it is a module of the site, not a script.
    """
    judge = _Judge(bindings, is_module)
    first: dict[tuple[str, str], Finding] = {}
    for write in sorted(filter(judge.is_loss, judge.writes), key=attrgetter("line")):
        rule = judge.rule(write)
        if rule:
            target = write.target
            class_name = write.block.class_name if target.startswith("self.") else ""
            hint = _HINTS[rule].format(target.rpartition(".")[2].strip("_"))
            finding = Finding(write.line, rule, _MESSAGES[rule].format(target), hint)
            first.setdefault((class_name, target), finding)
    return list(first.values())


class _Write(NamedTuple):
    """One place that changes a target.

    Args:
        block: the code that it is in.
        target: what is changed.
        line: the line of the statement.
        is_assignment: the target gets another value.
    """

    block: Block
    target: str
    line: int
    is_assignment: bool


class _Judge:
    """Collects what the code does to targets, and decides which writes are losses."""

    def __init__(self, bindings: ModuleBindings, is_module: bool) -> None:
        self._bindings = bindings
        self._lasts_until_edit = is_module or bool(bindings.cache_calls)
        self.writes: list[_Write] = []
        self._reads: dict[str, list[tuple[Block, int]]] = defaultdict(list)
        # The first values of attributes, by the class and the target.
        self._values: dict[tuple[str, str], ast.expr] = {}
        # Lines that are reached only where a target has just been found to be None or empty.
        self._first_times: dict[str, set[int]] = defaultdict(set)
        # The code that calls what has a name, or None where it is used otherwise. Attributes begin
        # with a dot.
        self._callers: dict[str, set[Block | None]] = defaultdict(set)
        self._called: set[ast.AST | None] = set()
        for block in bindings.blocks:
            line = getattr(block.function, "lineno", 0)
            for node in block.nodes:
                line = node.lineno if isinstance(node, ast.stmt) else line
                self._visit(node, block, line)
        self._start = self._blocks_at_start()

    # What the text does

    def _visit(self, node: ast.AST, block: Block, line: int) -> None:
        self._called |= {getattr(node, "func", None), *getattr(node, "decorator_list", ())}
        match node:
            case ast.Name(name, ast.Load()):
                self._callers[name].add(block if node in self._called else None)
            case ast.Attribute(_, name, ast.Load()):
                self._callers[f".{name}"].add(block if node in self._called else None)
                self._reads[_target(node, block)[0]].append((block, line))
            case ast.Name() | ast.Attribute() | ast.Subscript(ctx=ast.Store() | ast.Del()):
                self._write(node, block, line, is_assignment=True)
            case ast.AugAssign(target):
                self._reads[_target(target, block)[0]].append((block, line))
            case ast.Call(ast.Attribute(changed, name)) if name in _MUTATING_METHODS:
                self._write(changed, block, line)
            case ast.Call(ast.Name(name) | ast.Attribute(_, name), [changed, *_]):
                if name in _MUTATING_FUNCTIONS:
                    self._write(changed, block, line)
            case ast.FunctionDef(decorator_list=decorators) if not block.name:
                functions = [getattr(each, "func", each) for each in decorators]
                if not _CACHING_DECORATORS.isdisjoint(map(self._bindings.dotted_name, functions)):
                    self.writes.append(_Write(block, node.name, node.lineno, False))
            case ast.Nonlocal(names):
                self.writes += [_Write(block, name, line, True) for name in names]
            case ast.Assign([target], value) | ast.AnnAssign(target, _, ast.expr() as value):
                if block.name in ("", "__init__"):
                    name = _target(target, block)[0]
                    self._values.setdefault((block.class_name, name), value)
            case ast.If(ast.UnaryOp(ast.Not(), tested), body) | ast.If(
                ast.Compare(tested, [ast.Is()], [ast.Constant(None)]), body
            ):
                lines = range(body[0].lineno, (body[-1].end_lineno or 0) + 1)
                self._first_times[_target(tested, block)[0]].update(lines)

    def _write(
        self, changed: ast.expr, block: Block, line: int, *, is_assignment: bool = False
    ) -> None:
        target, is_part = _target(changed, block)
        if target and block.name:  # what the top level writes is there at first
            self.writes.append(_Write(block, target, line, is_assignment and not is_part))

    # What is lost

    def rule(self, write: _Write) -> Rule | None:
        """The rule that a loss breaks; None for work that is saved long enough."""
        is_first_time = write.line in self._first_times[write.target]
        is_named_cache = _CACHE_NAME.search(write.target) is not None
        saves_work = is_first_time or is_named_cache or not write.block.name
        if self._lasts_until_edit:
            return None if saves_work else Rule.STATE_LOST_ON_EDIT
        return Rule.USELESS_CACHE if saves_work else Rule.STATE_LOST_ON_REQUEST

    def is_loss(self, write: _Write) -> bool:
        """Whether a value is lost that another request may want."""
        if not write.block.name:
            return True  # the values of a cached function
        runs_at_start = write.block in self._start
        if write.target in write.block.local_names:
            # By nonlocal: it lives as long as the function that has it.
            return runs_at_start
        if runs_at_start:
            return False
        owner, _, attribute = write.target.partition(".")
        if owner == "self":
            return self._is_loss_of_own_attribute(write, attribute)
        bound = self._bindings.names.get(owner, [None])[0]
        value = getattr(bound, "value", bound)
        if not attribute:
            return write.is_assignment or self._is_mutable(value)
        # An object or a definition of this file: what is imported may keep things elsewhere.
        if not self._is_mutable(value) and not isinstance(value, Definition | ast.ClassDef):
            return False
        cls = getattr(value, "name", getattr(getattr(value, "func", None), "id", ""))
        return write.is_assignment or self._is_mutable(self._first_value(cls, attribute))

    def _is_loss_of_own_attribute(self, write: _Write, attribute: str) -> bool:
        cls = write.block.class_name
        is_state = write.block.name not in _CONSTRUCTORS and attribute not in _RESOURCE_ATTRIBUTES
        if not is_state or not self._bindings.may_be_resource(cls):
            return False
        value = self._first_value(cls, attribute)
        if write.is_assignment:
            return self._outlives_requests(cls) and self._is_read_later(write, value)
        # What the class has is shared by its objects, even by those that live for one request.
        is_kept = (cls, attribute) in self._values or self._outlives_requests(cls)
        return is_kept and self._is_mutable(value)

    def _is_read_later(self, write: _Write, value: ast.expr | None) -> bool:
        """Whether another request may read what this one assigns, and not only this one itself."""
        reads = self._reads[write.target]
        if self._lasts_until_edit:
            return bool(reads)
        if value is None:
            return False
        is_read_before = any(block is write.block and line <= write.line for block, line in reads)
        readers = {block.name for block, _ in reads}
        return is_read_before or self._is_read_by_another_request(write, readers)

    def _is_read_by_another_request(self, write: _Write, readers: set[str]) -> bool:
        """Whether one of the *readers* is called by a request other than the one that assigns."""
        methods = {
            block.name: block
            for block in self._bindings.blocks
            if block.class_name == write.block.class_name and block.name
        }
        called = {name: _reached(name, methods) for name in filter(is_called_by_requests, methods)}
        same_request: set[str] = set()
        for names in called.values():
            if write.block.name in names:
                same_request |= names
        return any(readers & called[name] for name in called.keys() - same_request)

    # What values are at first, and how long they last

    def _is_mutable(self, value: ast.AST | None) -> bool:
        """Whether *value* can change, and keeps what it has in itself."""
        if isinstance(value, ast.Call):
            name = self._bindings.dotted_name(value.func).rpartition(".")[2]
            return name in _MUTABLE_TYPES or getattr(value.func, "id", "") in self._bindings.classes
        # A list of so many noughts.
        value = value.left if isinstance(value, ast.BinOp) else value
        return isinstance(value, _MUTABLE_DISPLAYS)

    def _first_value(self, cls: str, attribute: str) -> ast.expr | None:
        keys = product(self._bindings.family(cls), (f"self.{attribute}", attribute))
        return next((self._values[key] for key in keys if key in self._values), None)

    def _outlives_requests(self, cls: str) -> bool:
        """Whether the top-level code makes an object of the class or of a subclass."""
        names = [name for name in self._bindings.classes if cls in self._bindings.family(name)]
        callers = set().union(*(self._callers[name] for name in names))
        return not self._start.isdisjoint(callers)

    def _blocks_at_start(self) -> set[Block | None]:
        callers: dict[Block, set[Block | None]] = {}
        for block in self._bindings.blocks:
            name = f".{block.name}" if block.class_name else block.name
            callers[block] = self._callers[
                block.class_name if block.name in _CONSTRUCTORS else name
            ]
        found: set[Block | None] = {block for block in callers if not block.name}
        while more := {block for block, by in callers.items() if by and by <= found} - found:
            found |= more
        return found


def _target(expression: ast.expr, block: Block) -> tuple[str, bool]:
    """Return the target that *expression* is or is a part of, and whether it is only a part.

    A part is ``self.hits["a"]`` or ``state.user.name``, of ``self.hits`` and ``state.user``. The
    target is empty for what is local to a call.
    """
    steps: list[str] = []
    while isinstance(expression, ast.Attribute | ast.Subscript):
        steps.append(getattr(expression, "attr", ""))
        expression = expression.value
    attribute = steps.pop() if steps and steps[-1] else ""
    match expression:
        case ast.Call(ast.Name("type"), [argument]):
            expression = argument
    name = getattr(expression, "id", "")
    if name and name == block.self_name:
        name = "self" if attribute else ""
    elif name in block.local_names:
        name = ""
    return f"{name}.{attribute}" if name and attribute else name, bool(steps)


def _reached(method: str, methods: Mapping[str, Block]) -> set[str]:
    """The names of *method* and of the *methods* that it uses, directly or not."""
    found = [method]
    for name in found:  # it grows
        used = {getattr(node, "attr", "") for node in methods[name].nodes}
        found += (used & methods.keys()).difference(found)
    return set(found)
