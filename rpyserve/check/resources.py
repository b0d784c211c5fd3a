"""What is wrong with a script's ``resource`` and with its render methods, as far as the script's
text tells.

The counterpart of `scripts.validation`, which looks at values after an execution and owns the
sentences. This module executes nothing, so it says only what is certain: what a decorator, a base
class or an import from elsewhere may change is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from rpyserve.check.bindings import DEFINITIONS, Binding, BindingKind, ModuleBindings
from rpyserve.check.findings import Finding, Rule
from rpyserve.resources import resource as resource_module
from rpyserve.scripts import validation
from rpyserve.scripts.validation import (
    EXAMPLE,
    METHOD_PARAMETERS,
    NO_PROBLEM,
    NO_RESOURCE,
    RENDER_METHOD,
    Problem,
)
from rpyserve.util.text import closest_match

__all__ = ["check_resource"]

_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def check_resource(tree: ast.Module, bindings: ModuleBindings) -> Iterator[Finding]:
    """Yield what is wrong with the resource and the methods of the script that *tree* is."""
    bound = bindings.last("resource")
    if bound is None and not bindings.has_dynamic_names:
        yield Finding(1 if tree.body else 0, Rule.NO_RESOURCE, *_missing(tree, bindings))
    if bound is not None and _is_certain(bindings.names["resource"]):
        message, hint = _problem_with(bound, bindings)
        if message:
            yield Finding(bound.line, Rule.WRONG_RESOURCE, message, hint)
    for cls in bindings.classes():
        yield from _check_methods(cls, bindings)


# No `resource` at all


def _missing(tree: ast.Module, bindings: ModuleBindings) -> Problem:
    if not tree.body:
        return validation.EMPTY_SCRIPT
    classes = [cls for cls in bindings.classes() if bindings.is_resource(cls) or _can_render(cls)]
    class_names = {cls.name for cls in classes}
    for name, found in bindings.names.items():
        if _called_name(found[-1].node) in class_names:
            return NO_RESOURCE, validation.name_hint(name)
    if classes:
        return NO_RESOURCE, _instance_hint(classes[-1], bindings)
    functions = [name for name, found in bindings.names.items() if _is_of_request(found[-1].node)]
    if functions:
        likely = closest_match("resource", functions) or functions[0]
        return NO_RESOURCE, validation.function_hint(likely)
    if "print" in bindings.used_names:
        return NO_RESOURCE, validation.PRINT_HINT
    return NO_RESOURCE, validation.ANY_RESOURCE_HINT


def _instance_hint(cls: ast.ClassDef, bindings: ModuleBindings) -> str:
    if bindings.is_resource(cls) is False:
        return validation.inheritance_hint(cls.name)
    return validation.instance_hint(_call(cls))


# A `resource` of the wrong kind


def _is_certain(bindings: list[Binding]) -> bool:
    """Whether the last of *bindings* is the one that counts, if the name is bound at all."""
    if any(each.kind is BindingKind.OTHER for each in bindings):
        return False
    return bindings[-1].is_unconditional or len(bindings) == 1


def _problem_with(bound: Binding, bindings: ModuleBindings) -> Problem:
    if isinstance(bound.node, ast.Name):  # another name for something
        named = bindings.names.get(bound.node.id, [])
        if len(named) != 1 or isinstance(named[0].node, ast.Name):
            return NO_PROBLEM
        bound = named[0]
    node = bound.node
    match node:
        case ast.ClassDef(decorator_list=[]):
            return _problem_with_class(node, bindings)
        case ast.FunctionDef(decorator_list=[]) | ast.AsyncFunctionDef(decorator_list=[]):
            return _problem_with_function(node)
        case ast.Lambda() if not _takes(node, 1):
            message = "resource is called with the request, which this lambda does not take."
            return message, "Write:\nlambda request: ..."
        case ast.alias():
            return _problem_with_import(bound)
    return _problem_with_value(node, bindings) if bound.kind is BindingKind.VALUE else NO_PROBLEM


def _problem_with_class(cls: ast.ClassDef, bindings: ModuleBindings) -> Problem:
    if cls.keywords:
        return NO_PROBLEM  # a metaclass may make anything of it
    if cls.name == "resource":
        bases = ", ".join(map(ast.unparse, cls.bases)) or "Resource"
        lines = f"class Hello({bases}):\n    ...\nresource = Hello()"
        message = "resource is a class, not an instance of one."
        return message, f"Give the class another name, and add:\n{lines}"
    if bindings.is_resource(cls) is False:
        hint = _instance_hint(cls, bindings)
        return validation.not_a_resource(f"the class {cls.name}", hint)
    return validation.class_as_resource(cls.name, _call(cls))


def _problem_with_function(node: _Definition) -> Problem:
    if _takes(node, 1):
        return NO_PROBLEM
    names = [each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)]
    return validation.wrong_function_parameters(node.name, names, is_async=_is_async(node))


def _problem_with_import(bound: Binding) -> Problem:
    modules = ("twisted.web.resource", resource_module.__name__)
    if bound.kind is BindingKind.MODULE or bound.imported in modules:
        return validation.module_as_resource(bound.imported)
    return NO_PROBLEM


def _problem_with_value(value: ast.AST, bindings: ModuleBindings) -> Problem:
    match value:
        case ast.Constant(None):
            return validation.NONE_AS_RESOURCE
        case ast.Constant(str() | bytes()) | ast.JoinedStr():
            return validation.text_as_resource()
        case ast.Dict() | ast.DictComp() | ast.List() | ast.ListComp():
            return validation.data_as_resource("a dict or a list")
        case ast.Constant() | ast.Tuple() | ast.Set():
            hint = f"Write a function:\n{EXAMPLE}"
            return "resource is neither a Resource nor a function.", hint
        case ast.Call(ast.Name(name)) if len(bindings.names.get(name, [])) == 1:
            return _problem_with_result(bindings.names[name][0].node, bindings)
    return NO_PROBLEM


def _problem_with_result(called: ast.AST, bindings: ModuleBindings) -> Problem:
    """``resource`` is what calling *called* gives."""
    match called:
        case ast.AsyncFunctionDef(name, decorator_list=[]):
            return validation.coroutine_as_resource(name)
        case ast.ClassDef(name, decorator_list=[], keywords=[]):
            if bindings.is_resource(called) is False:
                hint = _instance_hint(called, bindings)
                return validation.not_a_resource(f"an object of the class {name}", hint)
            if _is_empty(called, bindings) and not _has_children(bindings):
                return validation.no_render_method(name)
    return NO_PROBLEM


def _is_empty(cls: ast.ClassDef, bindings: ModuleBindings) -> bool:
    return _is_self_contained(cls, bindings) and _methods(cls).keys() <= {"__init__"}


def _has_children(bindings: ModuleBindings) -> bool:
    """Whether some resource may have children, so that it needs no methods of its own."""
    return not bindings.used_attributes.isdisjoint({"putChild", "children"})


# Methods


def _check_methods(cls: ast.ClassDef, bindings: ModuleBindings) -> Iterator[Finding]:
    is_resource = bindings.is_resource(cls)
    if is_resource is None:
        is_resource = _can_render(cls)
    if not is_resource:
        return
    methods = _methods(cls)
    for name, node in methods.items():
        intended = validation.intended_method(name)
        if intended is None or intended == name:
            yield from _check_parameters(cls, node)
        elif intended not in methods and _is_never_called(cls, node, bindings):
            problem = validation.misspelled_method(
                cls.name, name, intended, is_async=_is_async(node)
            )
            yield Finding(node.lineno, Rule.MISSPELLED_METHOD, *problem)


def _check_parameters(cls: ast.ClassDef, node: _Definition) -> Iterator[Finding]:
    if not _is_called_by_requests(node.name) or node.decorator_list:
        return
    wanted = METHOD_PARAMETERS.get(node.name, ("self", "request"))
    if not _takes(node, len(wanted)):
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        problem = validation.wrong_method_parameters(
            cls.name, node.name, names, is_async=_is_async(node)
        )
        yield Finding(node.lineno, Rule.WRONG_PARAMETERS, *problem)


def _is_never_called(cls: ast.ClassDef, node: _Definition, bindings: ModuleBindings) -> bool:
    """Whether nothing calls the method, whose name is nearly that of a render method."""
    if node.decorator_list or node.name in bindings.used_attributes:
        return False
    if node.name.startswith(("r", "R")):
        return True
    # Where there is a good method, or a base class from elsewhere, `get` may be meant for others.
    return _is_self_contained(cls, bindings) and not _can_render(cls)


def _is_called_by_requests(name: str) -> bool:
    return name in METHOD_PARAMETERS or RENDER_METHOD.fullmatch(name) is not None


# What the text tells of classes and functions


def _methods(cls: ast.ClassDef) -> dict[str, _Definition]:
    return {node.name: node for node in cls.body if isinstance(node, DEFINITIONS)}


def _can_render(cls: ast.ClassDef) -> bool:
    return any(map(_is_called_by_requests, _methods(cls)))


def _is_self_contained(cls: ast.ClassDef, bindings: ModuleBindings) -> bool:
    """Whether Resource is the only base of *cls*, so that all its own methods are in its body."""
    names = bindings.names.items()
    resources = [name for name, found in names if found[-1].imported.endswith(".Resource")]
    bases = [base.id if isinstance(base, ast.Name) else "" for base in cls.bases]
    return bool(bases) and set(bases) <= set(resources)


def _takes(node: _Definition | ast.Lambda, count: int) -> bool:
    """Whether the function can be called with *count* positional arguments."""
    arguments = node.args
    if None in arguments.kw_defaults:  # a parameter that must be given by name
        return False
    most = len(arguments.posonlyargs) + len(arguments.args)
    least = most - len(arguments.defaults)
    return least <= count and (count <= most or arguments.vararg is not None)


def _is_of_request(node: ast.AST) -> bool:
    """Whether *node* is a function whose parameter looks like a request."""
    if not isinstance(node, DEFINITIONS) or not _takes(node, 1):
        return False
    return bool(node.args.args) and "req" in node.args.args[0].arg


def _called_name(node: ast.AST) -> str:
    match node:
        case ast.Call(ast.Name(name)):
            return name
    return ""


def _call(cls: ast.ClassDef) -> str:
    """The call that makes an instance of *cls*, with the names of what it needs."""
    needed: list[str] = []
    constructor = _methods(cls).get("__init__")
    if constructor is not None:
        arguments = constructor.args
        names = [argument.arg for argument in arguments.args]
        needed = names[1 : len(names) - len(arguments.defaults)]
    return f"{cls.name}({', '.join(needed)})"


def _is_async(node: _Definition) -> bool:
    return isinstance(node, ast.AsyncFunctionDef)
