"""The attributes that an object has itself, and what its class says about those it should have.

An object has attributes in its ``__dict__`` and its slots. They are read and set without any
``__getattr__``, ``__setattr__`` or property of its class, so that looking has no effect, and what
is frozen can be changed. What the class provides counts as present, but never as the object's own.

What a constructor sets is read from its code, without calling it: the names, and for each of them
what its value is made of, parameters and other attributes. Libraries that write constructors
themselves (dataclasses, attrs, msgspec, pydantic) keep the defaults of their fields on the class.
None of them is imported here.

Whether an object lacks any of that, and where it is taken from: see `missing_attributes`. Knows
nothing of sessions.
"""

from __future__ import annotations

import ast
import dataclasses
import dis
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from types import CodeType, FunctionType, MemberDescriptorType
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from rpyserve.scripts.execution import ExecutionName

# Attributes that there are


def attributes(thing: Any) -> dict[str, Any]:
    """Return the attributes that *thing* has itself, by name."""
    found = dict(dict_of(thing))
    for name, slot in _slots_of(type(thing)):
        try:
            found[name] = slot.__get__(thing)
        except AttributeError:  # it is empty
            continue
    return found


def has_attribute(thing: Any, name: str) -> bool:
    """Whether *thing* or its class has an attribute *name*."""
    if name in dict_of(thing):
        return True
    slot = _slot_of(type(thing), name)
    if slot is None:
        return any(name in vars(base) for base in type(thing).__mro__)
    try:
        slot.__get__(thing)
    except AttributeError:  # it is empty
        return False
    return True


def set_attribute(thing: Any, name: str, value: Any) -> None:
    """Set an attribute, also of an object that is frozen.

    Raises:
        AttributeError: it has no room for it.
    """
    slot = _slot_of(type(thing), name)
    if slot is not None:
        slot.__set__(thing, value)
    elif type(thing).__dictoffset__:
        dict_of(thing)[name] = value
    else:
        raise AttributeError(name)


def dict_of(thing: Any) -> dict[str, Any]:
    """The ``__dict__`` of *thing* itself, whatever its class makes of that name."""
    try:
        found = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


def slot_names(cls: type) -> frozenset[str]:
    """Return the names of the attributes for which *cls* has slots."""
    return frozenset(name for name, _ in _slots_of(cls))


STATE: Final = "<state>"
"""The attribute of an object that waits for a class which is not there: what the class's own
``__setstate__`` is to be given then.
"""


def _slots_of(cls: type) -> Iterator[tuple[str, Any]]:
    if cls in _without_slots:
        return
    has_slots = False
    for base in cls.__mro__:
        if "__slots__" in vars(base):
            for name, value in vars(base).items():
                if type(value) is MemberDescriptorType:
                    has_slots = True
                    yield name, value
    if not has_slots:
        _without_slots.add(cls)


# A slot keeps its class alive, so that slots themselves must not be remembered.
_without_slots: WeakSet[type] = WeakSet()


def _slot_of(cls: type, name: str) -> Any:
    return next((slot for slot_name, slot in _slots_of(cls) if slot_name == name), None)


# The defaults of fields, where libraries keep them

Default = Callable[[Any], Any]
"""Returns the default of a field of the object that it is given."""


def field_defaults(cls: type) -> dict[str, Default]:
    """What makes the default of each field of *cls* that has one."""
    found: dict[str, Default] = {}
    for read in (_dataclass_defaults, _attrs_defaults, _msgspec_defaults, _pydantic_defaults):
        found.update(read(cls))
    return found


def field_names(cls: type) -> frozenset[str]:
    """The names of the fields of *cls*, with and without a default."""
    names = {*(class_value(cls, "__dataclass_fields__") or ())}
    names.update(field.name for field in class_value(cls, "__attrs_attrs__") or ())
    names.update(getattr(cls, "__struct_fields__", ()))
    names.update(class_value(cls, "__pydantic_fields__") or ())
    return frozenset(names)


def add_private_attributes(thing: Any) -> list[str]:
    """Give an object of pydantic the private attributes that it lacks and that have a default.

    They are in a dict of their own, which an object lacks whose class had none.

    Returns:
        Their names.
    """
    lacking = missing_private_attributes(thing)
    if not lacking:
        return []
    present = attributes(thing).get("__pydantic_private__") or {}
    defaults = {name: _pydantic_default(each, thing) for name, each in lacking.items()}
    added = {name: value for name, value in defaults.items() if not _is_undefined(value)}
    set_attribute(thing, "__pydantic_private__", present | added)
    return list(added)


def missing_private_attributes(thing: Any) -> dict[str, Any]:
    """The declarations of the private attributes that an object of pydantic lacks, by name."""
    declared = private_attributes_of(type(thing))
    present = attributes(thing).get("__pydantic_private__") or {}
    return {name: each for name, each in declared.items() if name not in present}


def private_attributes_of(cls: type) -> dict[str, Any]:
    """The private attributes that *cls* declares, if it is a model of pydantic, by name."""
    is_model = class_value(cls, "__pydantic_fields__") is not None
    return class_value(cls, "__private_attributes__") or {} if is_model else {}


def class_value(cls: type, name: str) -> Any:
    """What *cls* has under *name*, itself or from a base class, as it stands there; or None."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _dataclass_defaults(cls: type) -> Iterator[tuple[str, Default]]:
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        if field.default_factory is not dataclasses.MISSING:
            yield field.name, partial(_call, field.default_factory)
        elif field.default is not dataclasses.MISSING:
            yield field.name, partial(_same, field.default)


def _attrs_defaults(cls: type) -> Iterator[tuple[str, Default]]:
    for field in class_value(cls, "__attrs_attrs__") or ():
        factory = getattr(field.default, "factory", None)
        if factory is not None:
            takes_self = field.default.takes_self
            yield field.name, factory if takes_self else partial(_call, factory)
        elif type(field.default).__name__ != "_Nothing":
            yield field.name, partial(_same, field.default)


def _msgspec_defaults(cls: type) -> Iterator[tuple[str, Default]]:
    fields, defaults = (getattr(cls, f"__struct_{name}__", ()) for name in ("fields", "defaults"))
    for name, default in zip(reversed(fields), reversed(defaults), strict=False):
        if type(default).__name__ == "Factory":
            yield name, partial(_call, default.factory)
        elif type(default).__name__ != "NoDefaultType":
            yield name, partial(_same, default)


def _pydantic_defaults(cls: type) -> Iterator[tuple[str, Default]]:
    for name, field in (class_value(cls, "__pydantic_fields__") or {}).items():
        if not field.is_required():
            yield name, partial(_pydantic_default, field)


def _pydantic_default(field: Any, thing: Any) -> Any:
    if field.default_factory is None:
        return field.get_default()
    if getattr(field, "default_factory_takes_validated_data", False):
        return field.default_factory(dict(dict_of(thing)))
    return field.default_factory()


def _is_undefined(value: object) -> bool:
    return type(value).__name__ == "PydanticUndefinedType"


def _call(make: Callable[[], Any], thing: Any) -> Any:
    return make()


def _same(value: Any, thing: Any) -> Any:
    return value


# What is missing


def missing_of(thing: Any, names: frozenset[str]) -> frozenset[str]:
    """Those of *names* that neither *thing* nor its class has."""
    return frozenset(name for name in names if not has_attribute(thing, name))


# What code assigns

_CONSTRUCTORS: Final = ("__new__", "__init__", "__post_init__", "__attrs_post_init__")

# Names in code that sets attributes whose names cannot be read off.
_UNREADABLE: Final = frozenset({"setattr", "vars", "__dict__", "__setattr__"})

# What was read from the code of each class, for the next of its objects.
_assigned: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def assigned_by_class(cls: type) -> frozenset[str]:
    """The attributes that constructing a *cls* sets, by what the site's own code of it says.

    Code that sets attributes whose names cannot be read off counts as one of its own, with a name
    that is none: if it was edited, it may set others now.
    """
    names = _assigned.get(cls)
    if names is None:
        names = _assigned[cls] = _find_assigned(cls)
    return names


def assigned_by_function(function: Any) -> frozenset[str]:
    """The attributes that *function* sets, if it is a function of the site."""
    if isinstance(function, FunctionType) and isinstance(function.__module__, ExecutionName):
        return frozenset(_assigned_in(function.__code__))
    return frozenset()


def _find_assigned(cls: type) -> frozenset[str]:
    codes = _codes_of(cls)
    names: set[str] = set()
    # The constructors, and the methods and properties that are named in code looked at before.
    queue, seen = list(_CONSTRUCTORS), set(_CONSTRUCTORS)
    while queue:
        for code in codes.get(queue.pop(), ()):
            names.update(_assigned_in(code))
            called = codes.keys() & (set(code.co_names) - seen)
            seen |= called
            queue += called
    return frozenset(names)


def _assigned_in(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_ATTR":
            yield str(instruction.argval)
    if _UNREADABLE.intersection(code.co_names):
        yield f"*{_plain_constants(code)}"
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _assigned_in(const)


def _codes_of(cls: type) -> dict[str, list[CodeType]]:
    """The code of functions and properties, by name, as far as the site defines the classes."""
    found: dict[str, list[CodeType]] = {}
    for base in cls.__mro__:
        if isinstance(base.__module__, ExecutionName):
            for name, value in vars(base).items():
                codes = list(_codes_in(value))
                if codes:
                    found.setdefault(name, []).extend(codes)
    return found


def _codes_in(value: Any) -> Iterator[CodeType]:
    functions = (value.fget, value.fset) if isinstance(value, property) else (value,)
    function: Any
    for function in functions:
        function = getattr(function, "__func__", function)  # of a classmethod
        if callable(function):
            function = inspect.unwrap(function)
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield code


# What the value of an attribute is made of


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """What the attributes that a constructor sets are made of.

    Attributes:
        of: for each of these attributes, names of parameters, and of attributes with a dot before
            them: ``{"slug": {"title", ".language"}}``.
        kept_as: the attributes that a parameter is assigned to as it is: ``{"name": ["_name"]}``.
    """

    of: dict[str, set[str]]
    kept_as: dict[str, list[str]]


def sources_of(cls: type) -> Sources:
    """Read from its source what the attributes are made of that constructing a *cls* sets.

    Too much rather than too little: whatever a condition, a loop or a call has to do with counts.
    """
    found = _sources.get(cls)
    if found is None:
        reading = _Reading(cls)
        for name in _CONSTRUCTORS:
            reading.read_method(name)
        found = _sources[cls] = Sources(reading.of, reading.kept_as)
    return found


def code_text(cls: type, code: CodeType) -> list[Any]:
    """What *code* says, and the methods of *cls* that it names: equal for equal source."""
    codes = _codes_of(cls)
    text: list[Any] = []
    queue, seen = [code], set()
    while queue:
        each = queue.pop()
        inner = [const for const in each.co_consts if isinstance(const, CodeType)]
        text += [each.co_code, each.co_names, each.co_varnames, _plain_constants(each)]
        named = [name for name in each.co_names if name in codes and name not in seen]
        seen.update(named)
        queue += inner + [method for name in named for method in codes[name]]
    return text


def _plain_constants(code: CodeType) -> str:
    return repr([_ordered(const) for const in code.co_consts if not isinstance(const, CodeType)])


def _ordered(const: Any) -> Any:
    """A constant of code, with an order that is the same in each process."""
    if isinstance(const, frozenset):
        return sorted(map(repr, const))
    return tuple(map(_ordered, const)) if isinstance(const, tuple) else const


def cached_properties(cls: type) -> dict[str, bytes]:
    """For each `cached_property` of *cls* that the site defines, a digest of its code.

    It covers the methods that the code names.
    """
    found = _cached_properties.get(cls)
    if found is None:
        found = _cached_properties[cls] = {
            name: hashlib.blake2b(repr(code_text(cls, code)).encode(), digest_size=8).digest()
            for base in reversed(cls.__mro__)
            if isinstance(base.__module__, ExecutionName)
            for name, value in vars(base).items()
            if isinstance(value, functools.cached_property)
            if isinstance(code := getattr(value.func, "__code__", None), CodeType)
        }
    return found


def source_of(function: Any) -> str:
    """Return the source of *function*, a function of the site, without its decorators; or empty."""
    definition = _definition_of(function) if isinstance(function, FunctionType) else None
    if definition is None:
        return ""
    bare = ast.FunctionDef(**{**dict(ast.iter_fields(definition)), "decorator_list": []})
    return ast.unparse(ast.fix_missing_locations(bare))


def describe(
    cls: type, assigned: frozenset[str], parameters: Iterable[str], cached: dict[str, bytes]
) -> None:
    """Say of *cls*, which stands for a class whose code is gone, what was read from that.

    Args:
        assigned: what `assigned_by_class` has returned.
        parameters: the names of those that `parameters_of` has returned.
        cached: what `cached_properties` has returned.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    _assigned[cls] = assigned
    _parameters[cls] = tuple(inspect.Parameter(name, kind) for name in parameters)
    _cached_properties[cls] = cached


def names_in_code(cls: type, name: str) -> frozenset[str]:
    """The names in the code of the method or property *name*, as far as the site defines it."""
    found = _names_in_code.get(cls)
    if found is None:
        found = _names_in_code[cls] = {
            method: frozenset(each for code in codes for each in code.co_names)
            for method, codes in _codes_of(cls).items()
        }
    return found.get(name, frozenset())


def parameters_of(cls: type) -> tuple[inspect.Parameter, ...]:
    """The parameters of the constructor of *cls*; none if they cannot be found out."""
    found = _parameters.get(cls)
    if found is None:
        try:
            found = tuple(inspect.signature(cls).parameters.values())
        except (TypeError, ValueError):
            found = ()
        _parameters[cls] = found
    return found


# What was found for each class, for the next of its objects.
_sources: WeakKeyDictionary[type, Sources] = WeakKeyDictionary()
_names_in_code: WeakKeyDictionary[type, dict[str, frozenset[str]]] = WeakKeyDictionary()
_parameters: WeakKeyDictionary[type, tuple[inspect.Parameter, ...]] = WeakKeyDictionary()
_cached_properties: WeakKeyDictionary[type, dict[str, bytes]] = WeakKeyDictionary()

_COMPOUND: Final = ("body", "orelse", "finalbody", "handlers", "cases")
_LEAVING: Final = (ast.Return, ast.Raise, ast.Break, ast.Continue)


class _Reading:
    """Reads the constructors of one class, and the methods that they call."""

    def __init__(self, cls: type) -> None:
        self.of: dict[str, set[str]] = {}
        self.kept_as: dict[str, list[str]] = {}
        self._classes = cls.__mro__
        self._under_way: list[Any] = []

    def read_method(
        self,
        name: str,
        given: set[str] | None = None,
        conditions: Iterable[str] = (),
        *,
        after: type | None = None,
    ) -> None:
        """Read the method *name*.

        Args:
            given: what its arguments are made of; None: they are arguments of the constructor.
            conditions: what it depends on whether it is called.
            after: the class in which ``super()`` was written.
        """
        classes = self._classes
        if after is not None:
            classes = classes[classes.index(after) + 1 :]
        for cls in classes:
            method = vars(cls).get(name)
            if method is not None and method not in self._under_way:
                self._under_way.append(method)
                self._read(method, cls, given, set(conditions))
                self._under_way.pop()
            if method is not None:
                return

    def assign(self, attribute: str, sources: set[str]) -> None:
        self.of.setdefault(attribute, set()).update(sources)
        if isinstance(class_value(self._classes[0], attribute), property):
            self.read_method(attribute, sources, sources)

    def _read(self, method: Any, cls: type, given: set[str] | None, conditions: set[str]) -> None:
        if isinstance(method, property):
            method = method.fset
        function = inspect.unwrap(getattr(method, "__func__", method)) if method else None
        if not isinstance(function, FunctionType):
            return
        definition = _definition_of(function)
        parameters = [*inspect.signature(function).parameters]
        if definition is not None:
            self_names = {*parameters[:1], "self"}
            arguments = {name: {name} if given is None else given for name in parameters[1:]}
            body = _Body(self, cls, self_names, arguments, given is None)
            body.read(definition, conditions)
        elif given is None:
            self._read_generated(parameters)

    def _read_generated(self, parameters: list[str]) -> None:
        """Of a constructor that a library wrote: it assigns each parameter as it is."""
        for name in parameters[1:]:
            for attribute in (name, f"_{name}"):
                self.of.setdefault(attribute, set()).add(name)
                self.kept_as.setdefault(name, []).append(attribute)


class _Body:
    """Reads the body of one function: what its variables and attributes are made of."""

    def __init__(
        self,
        reading: _Reading,
        cls: type,
        self_names: set[str],
        variables: dict[str, set[str]],
        is_constructor: bool,
    ) -> None:
        self._reading = reading
        self._class = cls
        self._self_names = self_names
        self._variables = {name: set(sources) for name, sources in variables.items()}
        self._parameters = frozenset(variables) if is_constructor else frozenset()

    def read(self, definition: ast.FunctionDef, conditions: set[str]) -> None:
        for _ in range(2):  # what a loop does at its end counts for its beginning
            self._read_all(definition.body, conditions)

    def _read_all(self, statements: Iterable[ast.AST], conditions: set[str]) -> None:
        conditions = set(conditions)
        for statement in _in_single_steps(statements):
            inner = [each for name in _COMPOUND for each in getattr(statement, name, ())]
            of_head = conditions | self._read_head(statement, inner, conditions)
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                used = self._sources_in(ast.walk(statement))
                self._variables.setdefault(statement.name, set()).update(used)
            if inner and isinstance(inner[0], ast.AST):
                self._read_all(inner, of_head)
            if any(isinstance(node, _LEAVING) for node in ast.walk(statement)):
                conditions |= of_head

    def _read_head(
        self, statement: ast.AST, inner: list[ast.AST], conditions: set[str]
    ) -> set[str]:
        """Read a statement without those inside of it; return what it is made of."""
        children = ast.iter_child_nodes(statement)
        nodes = [n for child in children if child not in inner for n in ast.walk(child)]
        sources = self._sources_in(nodes) | conditions
        for node in nodes:
            if isinstance(node, ast.Call):
                self._read_call(node, conditions)
            elif isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
                self._assign(node, sources)
            elif isinstance(name := getattr(node, "name", None), str):
                # of an exception, or a pattern
                self._variables.setdefault(name, set()).update(sources)
        match statement:
            case ast.Assign(targets, ast.Name(name)):
                self._note_kept(name, targets)
            case ast.AnnAssign(target, _, ast.Name(name)):
                self._note_kept(name, [target])
        return sources

    def _sources_in(self, nodes: Iterable[ast.AST]) -> set[str]:
        found: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Name):
                found |= self._variables.get(node.id, set())
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                attribute = self._attribute(node)
                found |= {f".{attribute}"} if attribute else set()
        return found

    def _assign(self, target: ast.AST, sources: set[str]) -> None:
        root = self._root(target)
        if isinstance(root, ast.Name):
            self._variables.setdefault(root.id, set()).update(sources)
        elif root is not None:
            self._reading.assign(self._attribute(root), sources - {f".{self._attribute(root)}"})

    def _read_call(self, call: ast.Call, conditions: set[str]) -> None:
        function = call.func
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        nodes = [node for argument in arguments for node in ast.walk(argument)]
        given = self._sources_in(nodes) | conditions
        if isinstance(function, ast.Attribute):
            self._read_method_call(function, call, given, conditions)
        if _called_name(function) in ("setattr", "__setattr__") and len(arguments) > 2:
            self._set_by_name(arguments, given)
        # What is passed may be changed.
        for argument in arguments:
            root = self._root(argument)
            if isinstance(root, ast.Attribute):
                self._assign(root, given)

    def _read_method_call(
        self, function: ast.Attribute, call: ast.Call, given: set[str], conditions: set[str]
    ) -> None:
        owner = function.value
        if isinstance(owner, ast.Call) and _called_name(owner.func) == "super":
            self._reading.read_method(function.attr, given, conditions, after=self._class)
        elif self._is_self(owner):
            self._reading.read_method(function.attr, given, conditions)
        elif call.args and self._is_self(call.args[0]):  # Base.__init__(self)
            self._reading.read_method(function.attr, given, conditions, after=self._class)
        elif (root := self._root(owner)) is not None:
            self._assign(root, given)  # self.tags.extend(tags)

    def _set_by_name(self, arguments: list[ast.expr], given: set[str]) -> None:
        name = arguments[1]
        if self._is_self(arguments[0]) and isinstance(name, ast.Constant):
            self._reading.assign(str(name.value), given)

    def _note_kept(self, name: str, targets: list[ast.expr]) -> None:
        if name not in self._parameters or self._variables[name] != {name}:
            return
        for target in targets:
            attribute = self._attribute(target)
            kept_as = self._reading.kept_as.setdefault(name, [])
            if attribute and attribute not in kept_as:
                kept_as.append(attribute)

    def _root(self, node: ast.AST) -> Any:
        """The variable, or the attribute of the object itself, that *node* is a part of."""
        while not (isinstance(node, ast.Name) or self._attribute(node)):
            if not isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
                return None
            node = node.value
        return None if self._is_self(node) else node

    def _attribute(self, node: ast.AST) -> str:
        """The name of the attribute, if *node* is one of the object itself."""
        if not (isinstance(node, ast.Attribute) and self._is_self(node.value)):
            return ""
        is_private = node.attr.startswith("__") and not node.attr.endswith("__")
        return f"_{self._class.__name__.lstrip('_')}{node.attr}" if is_private else node.attr

    def _is_self(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id in self._self_names


def _in_single_steps(statements: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The statements, with ``a, b = c, d`` taken apart."""
    for statement in statements:
        match statement:
            case ast.Assign([ast.Tuple(targets)], ast.Tuple(values)) if len(targets) == len(values):
                for target, value in zip(targets, values, strict=True):
                    yield ast.Assign([target], value)
            case _:
                yield statement


def _called_name(function: ast.expr) -> str:
    return getattr(function, "id", "") or getattr(function, "attr", "")


def _definition_of(function: FunctionType) -> ast.FunctionDef | None:
    """The definition of *function* in the source that its execution ran."""
    name, code = function.__module__, function.__code__
    execution = name.execution if isinstance(name, ExecutionName) else None
    if execution is None or code.co_filename.startswith("<"):
        return None
    try:
        definitions = _definitions_in(execution.source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return definitions.get((code.co_name, code.co_firstlineno))


@lru_cache(maxsize=1)
def _definitions_in(source: bytes) -> dict[tuple[str, int], ast.FunctionDef]:
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            decorators = [each.lineno for each in node.decorator_list]
            found[node.name, min([node.lineno, *decorators])] = node
    return found
