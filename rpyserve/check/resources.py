"""Checks the text of a script for its ``resource`` and its render methods.

Describes what the text shows, and `scripts.validation` judges it, as it judges values after an
execution. This module executes nothing, so it says only what is certain: what a decorator, a base
class or an import from elsewhere may change is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from inspect import Parameter, Signature
from types import ModuleType
from typing import Any, Final, TypeGuard

from rpyserve.check.bindings import (
    RESOURCE_NAMES,
    Block,
    Definition,
    Function,
    ModuleBindings,
    name_bound_by,
)
from rpyserve.check.findings import Finding, Rule
from rpyserve.diagnostics import advice
from rpyserve.http.request import Request
from rpyserve.scripts import source, validation
from rpyserve.scripts.validation import Class, Instance, is_called_by_requests

# A value that nothing is known of.
_UNKNOWN: Final = Instance(Class("", {}, None), may_answer=True)
# For displays, a value that is judged alike.
_EXAMPLES: Final[dict[type, Any]] = {
    ast.JoinedStr: "...",
    ast.Dict: {},
    ast.DictComp: {},
    ast.List: [],
    ast.ListComp: [],
    ast.Set: set(),
    ast.Tuple: (),
}


def check_resource(tree: ast.Module, bindings: ModuleBindings) -> Iterator[Finding]:
    """Yield what is wrong with the resource and the methods of the script that *tree* is."""
    bound = bindings.names.get("resource", [None])[-1]
    if not tree.body:
        yield Finding(0, Rule.NO_RESOURCE, *validation.EMPTY_SCRIPT)
    elif bound and _calls_itself(bindings.names["resource"]):
        message = "resource is what the function returned once, without a request."
        hint = "Remove this line: the function is called for each request."
        yield Finding(bound.lineno, Rule.WRONG_RESOURCE, message, hint)
    elif bound:
        problem = validation.problem_with(_describe(bound, bindings))
        if problem != validation.NO_PROBLEM:
            yield Finding(bound.lineno, Rule.WRONG_RESOURCE, *problem)
    elif "resource" not in bindings.names and not bindings.has_dynamic_names:
        things = {name: _describe(found[-1], bindings) for name, found in bindings.names.items()}
        hint = validation.hint_for_missing(things, prints="print" in bindings.used_names)
        yield Finding(1, Rule.NO_RESOURCE, validation.NO_RESOURCE, hint)
    for cls in bindings.classes:
        if bindings.may_be_resource(cls):
            yield from _check_methods(cls, bindings)


def _calls_itself(statements: list[ast.stmt | None]) -> bool:
    """Whether *statements* define a function ``resource``, and call it: ``resource = resource()``.

    That is not known of a function with a decorator.
    """
    match statements:
        case [
            ast.FunctionDef(decorator_list=[]) | ast.AsyncFunctionDef(decorator_list=[]),
            ast.Assign(value=ast.Call(ast.Name("resource"))),
        ]:
            return True
    return False


def _check_methods(cls: str, bindings: ModuleBindings) -> Iterator[Finding]:
    methods = bindings.methods(cls)
    described = _class(cls, bindings)
    for name, problem in validation.wrong_parameters(described):
        yield Finding(methods[name].lineno, Rule.WRONG_PARAMETERS, *problem)
    for name, problem in validation.misspelled_methods(described, bindings.used_attributes):
        # Where there is a base class from elsewhere, `get` may be meant for that.
        if name.startswith(("r", "R")) or _is_self_contained(cls, bindings):
            yield Finding(methods[name].lineno, Rule.MISSPELLED_METHOD, *problem)
    for name in _called_on_self(cls, bindings):
        method = described.methods.get(name)
        if method and _takes_nothing(method) and not is_called_by_requests(name):
            hint = f"Write:\n{method.rewritten(name, 'self')}"
            message = f"{cls}.{name} does not take self."
            yield Finding(methods[name].lineno, Rule.WRONG_PARAMETERS, message, hint)


def _takes_nothing(method: validation.Function) -> bool:
    return not method.parameters and not method.takes(1)


def _called_on_self(cls: str, bindings: ModuleBindings) -> set[str]:
    """The names of methods that the methods of *cls* call on their object."""
    found: set[str] = set()
    for block in bindings.blocks:
        if block.class_name == cls and block.self_name:
            for node in block.nodes:
                match node:
                    case ast.Call(ast.Attribute(ast.Name(owner), name)) if owner == block.self_name:
                        found.add(name)
    return found


# What render methods return, and what they ask of the request

_NOT_SENT: Final = (bool, int, float, complex, type(...))
"""Types of constants that cannot be sent."""

# What a method may have done instead of returning something.
_ANSWERS: Final = frozenset({"write", "finish", "redirect", "render", "setResponseCode"})


def check_results(bindings: ModuleBindings) -> Iterator[Finding]:
    """Yield the render functions that return nothing, or what cannot be sent."""
    for block in _rendering_blocks(bindings):
        returned = [node.value for node in _own_nodes(block) if isinstance(node, ast.Return)]
        for value in returned:
            match value:
                case ast.Constant(constant) if isinstance(constant, _NOT_SENT):
                    kind = type(constant).__name__
                    message = f"{block.name}() returns {_with_article(kind)}, which cannot be sent."
                    hint = f"Return a text:\nreturn str({constant!r})"
                    yield Finding(value.lineno, Rule.WRONG_RESULT, message, hint)
        if _returns_nothing(block):
            yield _nothing_returned(block)


def _nothing_returned(block: Block) -> Finding:
    function = block.function
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    message = f"{block.name}() returns nothing."
    dropped = source.find_dropped_in(function)
    if dropped is None:
        hint = 'Return the text of the page:\nreturn "..."'
        return Finding(function.lineno, Rule.WRONG_RESULT, message, hint)
    text = dropped.text
    line = ast.unparse(text) if text.lineno == text.end_lineno else "..."
    hint = advice.hint_for_dropped(line, dropped.is_printed, dropped.is_repeated)
    return Finding(text.lineno, Rule.WRONG_RESULT, message, hint)


def check_requests(bindings: ModuleBindings) -> Iterator[Finding]:
    """Yield uses of the request's attributes that there are not."""
    if any(origin.partition(".")[0] == "twisted" for origin in bindings.origins.values()):
        return  # whose request has other ones
    known = _request_attributes()
    for block in _rendering_blocks(bindings):
        name = _request_name(block)
        stored = {node.id for node in block.nodes if _stores(node)}
        for node in block.nodes if name and name not in stored else ():
            match node:
                case ast.Attribute(ast.Name(owner), attribute, ast.Load()) if owner == name:
                    if attribute not in known and not _is_set(attribute, bindings):
                        yield _unknown_attribute(node, attribute)
                case ast.Subscript(
                    ast.Attribute(ast.Name(owner), "args"), ast.Constant(bytes() as key)
                ) if owner == name:
                    message = f"The names in request.args are texts, so {key!r} is never there."
                    hint = f"Write:\nrequest.args[{key.decode('latin-1')!r}]"
                    yield Finding(node.lineno, Rule.UNKNOWN_ATTRIBUTE, message, hint)


def _unknown_attribute(node: ast.Attribute, name: str) -> Finding:
    try:
        getattr(Request("GET", "/"), name)
    except AttributeError as exc:
        hint = advice.advice_for(exc)
    else:
        hint = ""
    message = f"A request has no {name}."
    return Finding(
        node.lineno, Rule.UNKNOWN_ATTRIBUTE, message, hint or "See the reference of Request."
    )


@lru_cache(maxsize=1)
def _request_attributes() -> frozenset[str]:
    return frozenset({*dir(Request("GET", "/")), *Request.__annotations__})


def _is_set(attribute: str, bindings: ModuleBindings) -> bool:
    """Whether code of this file gives something an attribute of that name."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == attribute
        and not isinstance(node.ctx, ast.Load)
        for block in bindings.blocks
        for node in block.nodes
    )


def _stores(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)


def _rendering_blocks(bindings: ModuleBindings) -> Iterator[Block]:
    """The function ``resource``, and the methods that answer requests, if nothing wraps them."""
    for block in bindings.blocks:
        function = block.function
        if not isinstance(function, Definition) or function.decorator_list:
            continue
        if block.class_name:
            is_method = function in bindings.methods(block.class_name).values()
            renders = function.name.startswith("render") and is_called_by_requests(function.name)
            if is_method and renders and bindings.may_be_resource(block.class_name):
                yield block
        elif bindings.only("resource") is function:
            yield block


def _request_name(block: Block) -> str:
    arguments = block.function.args if block.function else None
    if arguments is None:
        return ""
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
    place = 1 if block.class_name else 0
    return names[place] if len(names) > place else ""


def _own_nodes(block: Block) -> Iterator[ast.AST]:
    """What belongs to the function itself, and not to functions and classes within it."""
    todo: list[ast.AST] = list(getattr(block.function, "body", ()))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, _SCOPES):
            todo += ast.iter_child_nodes(node)


_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def _returns_nothing(block: Block) -> bool:
    """Whether the function can only return None, and does nothing else that could be an answer."""
    for node in _own_nodes(block):
        match node:
            case ast.Yield() | ast.YieldFrom() | ast.Raise():
                return False
            case ast.Return(value) if not _is_nothing(value):
                return False
            case ast.Attribute(attr=name) if name in _ANSWERS:
                return False
            case ast.While(ast.Constant(value=truth)) if truth:
                return False  # it may never return
    return not _calls_with_request(block)


def _is_nothing(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def _calls_with_request(block: Block) -> bool:
    """Whether it passes the request on, to what may answer it."""
    name = _request_name(block)
    return any(
        isinstance(node, ast.Call)
        and any(isinstance(each, ast.Name) and each.id == name for each in ast.walk(node))
        and not isinstance(node.func, ast.Attribute)
        for node in block.nodes
    )


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


# What the text tells


def _describe(statement: ast.stmt | None, bindings: ModuleBindings) -> Any:
    """What *statement* gives to a name: a description, or a value that is judged alike."""
    node = getattr(statement, "value", statement)
    if isinstance(node, ast.Name):  # another name for something
        node = bindings.only(node.id)
        node = getattr(node, "value", node)
    match node:
        case ast.ClassDef(decorator_list=[], keywords=[]):
            return _class(node.name, bindings)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            return _function(node)
        case ast.Import([alias]) | ast.ImportFrom("twisted.web", [alias]):
            return ModuleType(bindings.origins[str(name_bound_by(alias))])
        case ast.Call(ast.Name(name)):
            return _result(bindings.only(name), bindings)
        case ast.Constant(value):
            return value
    return _EXAMPLES.get(type(node), _UNKNOWN)


def _result(called: ast.stmt | None, bindings: ModuleBindings) -> Any:
    match called:
        case ast.AsyncFunctionDef(decorator_list=[]):
            return Instance(Class("coroutine", {}, False))
        case ast.ClassDef(name, decorator_list=[], keywords=[]):
            described = _class(name, bindings)
            if described.is_resource is False:
                return Instance(described)
            # Its methods are checked by themselves.
            has_methods = not described.methods.keys() <= {"__init__"}
            has_children = not bindings.used_attributes.isdisjoint({"putChild", "children"})
            may_answer = has_methods or has_children or not _is_self_contained(name, bindings)
            return Instance(Class(name, {}, described.is_resource), may_answer)
    return _UNKNOWN


def _class(cls: str, bindings: ModuleBindings) -> Class:
    methods = {name: _function(node) for name, node in bindings.methods(cls).items()}
    return Class(cls, methods, bindings.is_resource(cls))


def _function(node: Function) -> validation.Function:
    name = getattr(node, "name", "resource")
    is_known = not getattr(node, "decorator_list", ())
    is_async = isinstance(node, ast.AsyncFunctionDef)
    return validation.Function(name, _signature(node.args) if is_known else None, is_async)


def _signature(arguments: ast.arguments) -> Signature:
    """The signature; the defaults of its parameters are expressions."""
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    defaults = [*[Parameter.empty] * required, *arguments.defaults]
    found = [
        Parameter(each.arg, Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for each, default in zip(positional, defaults, strict=True)
    ]
    if arguments.vararg:
        found.append(Parameter(arguments.vararg.arg, Parameter.VAR_POSITIONAL))
    found += [
        Parameter(each.arg, Parameter.KEYWORD_ONLY, default=default or Parameter.empty)
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return Signature(found)


def _is_self_contained(cls: str, bindings: ModuleBindings) -> bool:
    """Whether Resource is the only base of *cls*, so that all its own methods are in its body."""
    return set(map(bindings.dotted_name, bindings.classes[cls].bases)) <= RESOURCE_NAMES
