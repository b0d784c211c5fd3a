"""Checks the text of a script for its ``resource`` and its render methods.

Describes what the text shows, and `scripts.validation` judges it, as it judges values after an
execution. This module executes nothing, so it says only what is certain: what a decorator, a base
class or an import from elsewhere may change is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from inspect import Parameter, Signature
from types import ModuleType
from typing import Any, Final

from rpyserve.check.bindings import (
    RESOURCE_NAMES,
    Function,
    ModuleBindings,
    name_bound_by,
)
from rpyserve.check.findings import Finding, Rule
from rpyserve.scripts import validation
from rpyserve.scripts.validation import Class, Instance

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


def _check_methods(cls: str, bindings: ModuleBindings) -> Iterator[Finding]:
    methods = bindings.methods(cls)
    described = _class(cls, bindings)
    for name, problem in validation.wrong_parameters(described):
        yield Finding(methods[name].lineno, Rule.WRONG_PARAMETERS, *problem)
    for name, problem in validation.misspelled_methods(described, bindings.used_attributes):
        # Where there is a base class from elsewhere, `get` may be meant for that.
        if name.startswith(("r", "R")) or _is_self_contained(cls, bindings):
            yield Finding(methods[name].lineno, Rule.MISSPELLED_METHOD, *problem)


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
