"""What is wrong with a script's ``resource``, and with its render methods, as far as the script's text tells.

The counterpart of `nearmiss` and `misspelt`, which look at values after an execution: this one executes nothing, so it
says only what is certain. What a decorator, a base class or an import from elsewhere may change is left alone.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from typing import Final

from rpyserve.check.bindings import Binding, BindingKind, ModuleBindings
from rpyserve.check.findings import Finding, Rule
from rpyserve.scripts.validation import EXAMPLE, FINE, class_example, meant

__all__ = ["check_resource"]

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_RENDER: Final = re.compile(r"render_[A-Z]+")
_WANTED: Final = {"render": ("self", "request"), "getChild": ("self", "name", "request")}
_NOTHING: Final = "There is no `resource` in this script, so there is nothing to serve."


def check_resource(tree: ast.Module, top: ModuleBindings) -> Iterator[Finding]:
    """Yield what is wrong with the script that *tree* is, and *top* its top level."""
    bound = top.last("resource")
    if bound is None and not top.open:
        yield Finding(1 if tree.body else 0, Rule.NO_RESOURCE, *_missing(tree, top))
    if bound is not None and _is_sure(top.names["resource"]):
        message, hint = _judged(bound, top)
        if message:
            yield Finding(bound.line, Rule.WRONG_RESOURCE, message, hint)
    for kind in top.classes():
        yield from _methods(kind, top)


def _missing(tree: ast.Module, top: ModuleBindings) -> tuple[str, str]:
    if not tree.body:
        return "This script is empty.", f"Write into it what to serve, such as:\n{EXAMPLE}"
    kinds = [kind for kind in top.classes() if top.is_resource(kind) or _renders(kind)]
    for name, found in top.names.items():
        if _class_made(found[-1]) in {kind.name for kind in kinds}:
            return (
                _NOTHING,
                f"`{name}` can be served. Rename it, or add this line:\nresource = {name}",
            )
    if kinds:
        return _NOTHING, _instance(kinds[-1], top)
    functions = [name for name, found in top.names.items() if _takes_request(found[-1])]
    for name in [*difflib.get_close_matches("resource", functions, 1, 0.75), *functions[:1]]:
        return _NOTHING, f"Is it your function {name}? Then add this line:\nresource = {name}"
    if "print" in top.mentioned:
        return (
            _NOTHING,
            f"print() writes to the server's console. What the visitor is to see, a function returns:\n{EXAMPLE}",
        )
    return (
        _NOTHING,
        f"Give that name to a function of the request, or to an instance of a Resource class:\n{EXAMPLE}",
    )


def _instance(kind: ast.ClassDef, top: ModuleBindings) -> str:
    if top.is_resource(kind) is False:
        lines = f"from rpyserve import Resource\nclass {kind.name}(Resource):\n    ...\nresource = {kind.name}()"
        return f"Say that it is one, and make an instance:\n{lines}"
    return (
        f"Make an instance of your class, as the last line:\nresource = {kind.name}({_needs(kind)})"
    )


# A `resource` of the wrong kind


def _is_sure(bindings: list[Binding]) -> bool:
    """Whether the last of *bindings* is what the script is left with, whenever it binds the name at all."""
    return all(each.by is not BindingKind.OTHER for each in bindings) and (
        bindings[-1].certain or len(bindings) == 1
    )


def _judged(bound: Binding, top: ModuleBindings) -> tuple[str, str]:
    if isinstance(bound.node, ast.Name):
        named = top.names.get(bound.node.id, [])
        if len(named) != 1 or isinstance(named[0].node, ast.Name):
            return FINE
        bound = named[0]
    node = bound.node
    if getattr(node, "decorator_list", ()):
        return FINE
    if isinstance(node, ast.ClassDef):
        return _class(node, top)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return _function(node.name, node)
    if isinstance(node, ast.Lambda) and not _fits(node, 1):
        return (
            "resource is called with the request, which this lambda does not take.",
            "Write:\nlambda request: ...",
        )
    if isinstance(node, ast.alias):
        return _module(bound)
    return _value(node, top) if bound.by is BindingKind.VALUE else FINE


def _class(node: ast.ClassDef, top: ModuleBindings) -> tuple[str, str]:
    if node.keywords:
        return FINE  # a metaclass may make anything of it
    if node.name == "resource":
        other = f"class Hello({', '.join(map(ast.unparse, node.bases)) or 'Resource'}):\n    ...\nresource = Hello()"
        return (
            "resource is a class, not an instance of one.",
            f"Give the class another name, and add:\n{other}",
        )
    if top.is_resource(node) is False:
        return f"resource is the class {node.name}, which is no Resource.", _instance(node, top)
    return f"resource is the class {node.name}, not an instance of it.", (
        f"Add parentheses:\nresource = {node.name}({_needs(node)})"
    )


def _function(name: str, node: _Function) -> tuple[str, str]:
    if _fits(node, 1):
        return FINE
    names = [argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
    line = f"{_async(node)}def {name}(request):"
    if not names:
        return (
            f"The function {name} takes no parameter, but it is called with the request.",
            f"Add it:\n{line}",
        )
    message = (
        f"The function {name} is called with the request only, but takes {len(names)} parameters."
    )
    return message, f"A method belongs into a class. For a plain function write:\n{line}" if names[
        0
    ] == "self" else (f"Write:\n{line}")


def _module(bound: Binding) -> tuple[str, str]:
    modules = {"twisted.web.resource", "rpyserve.resources.resource"}
    if bound.by is BindingKind.MODULE or bound.source in modules:
        return (
            f"resource is the module {bound.source}.",
            f"Give the name to what is to be served:\n{EXAMPLE}",
        )
    return FINE


def _value(node: ast.AST, top: ModuleBindings) -> tuple[str, str]:
    match node:
        case ast.Constant(None):
            return (
                "resource is None.",
                f"Give that name to a function, or to an instance of a Resource class:\n{EXAMPLE}",
            )
        case ast.Constant(str() | bytes()) | ast.JoinedStr():
            return (
                "resource is a text.",
                'Return the text from a function:\ndef resource(request):\n    return "..."',
            )
        case ast.Dict() | ast.List() | ast.DictComp() | ast.ListComp():
            lines = "def resource(request):\n    return ..."
            return (
                "resource is a dict or a list.",
                f"Return it from a function; it is sent as JSON:\n{lines}",
            )
        case ast.Constant() | ast.Tuple() | ast.Set():
            return "resource is neither a Resource nor a function.", f"Write a function:\n{EXAMPLE}"
        case ast.Call(ast.Name(name)) if len(top.names.get(name, [])) == 1:
            return _made(top.names[name][0].node, top)
    return FINE


def _made(node: ast.AST, top: ModuleBindings) -> tuple[str, str]:
    if getattr(node, "decorator_list", ()) or getattr(node, "keywords", ()):
        return FINE
    if isinstance(node, ast.AsyncFunctionDef):
        return "resource is a coroutine.", f"Leave out the parentheses:\nresource = {node.name}"
    if not isinstance(node, ast.ClassDef):
        return FINE
    if top.is_resource(node) is False:
        return f"resource is an object of the class {node.name}, which is no Resource.", _instance(
            node, top
        )
    names = [name for name in _names(node) if name != "__init__"]
    if _is_plain(node, top) and not names and not top.attributes & {"putChild", "children"}:
        message = f"{node.name} has no render_ method, so it cannot answer anything."
        return message, f"Add a method:\n{class_example(node.name)}"
    return FINE


# Methods


def _methods(kind: ast.ClassDef, top: ModuleBindings) -> Iterator[Finding]:
    own = {
        node.name: node
        for node in kind.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    known = top.is_resource(kind)
    if known is False or (known is None and not _renders(kind)):
        return
    plain = _is_plain(kind, top) and not _renders(kind)
    for name, node in own.items():
        wanted = meant(name)
        if wanted is None or wanted == name:
            if name in _WANTED or _RENDER.fullmatch(name):
                yield from _method(kind, node, _WANTED.get(name, ("self", "request")))
        elif (
            (plain or name[:1] in "rR")
            and wanted not in own
            and name not in top.attributes
            and not node.decorator_list
        ):
            message = f"{kind.name} has a method {name}, which is never called."
            line = f"{_async(node)}def {wanted}(self, request):"
            yield Finding(node.lineno, Rule.NEVER_CALLED, message, f"Write:\n{line}")


def _method(kind: ast.ClassDef, node: _Function, wanted: tuple[str, ...]) -> Iterator[Finding]:
    if node.decorator_list or _fits(node, len(wanted)):
        return
    has = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    if "self" not in has and len(has) < len(wanted):
        what = "does not take self" if has else f"takes neither self nor {wanted[-1]}"
    elif len(has) < len(wanted):
        what = f"does not take {wanted[len(has)]}"
    else:
        what = f"takes {len(has)} parameters, but is given {len(wanted)}"
    line = f"{_async(node)}def {node.name}({', '.join(wanted)}):"
    yield Finding(
        node.lineno, Rule.PARAMETERS, f"{kind.name}.{node.name} {what}.", f"Write:\n{line}"
    )


# Helpers


def _names(kind: ast.ClassDef) -> list[str]:
    return [
        node.name for node in kind.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def _renders(kind: ast.ClassDef) -> bool:
    return any(name in _WANTED or _RENDER.fullmatch(name) for name in _names(kind))


def _is_plain(kind: ast.ClassDef, top: ModuleBindings) -> bool:
    """Whether all that *kind* has, but for what every Resource has, is written in its body."""
    known = [name for name, found in top.names.items() if found[-1].source.endswith(".Resource")]
    return bool(kind.bases) and all(
        isinstance(base, ast.Name) and base.id in known for base in kind.bases
    )


def _fits(node: _Function | ast.Lambda, count: int) -> bool:
    """Whether the function can be called with *count* positional arguments."""
    arguments = node.args
    places = len(arguments.posonlyargs) + len(arguments.args)
    if any(default is None for default in arguments.kw_defaults):
        return False
    return places - len(arguments.defaults) <= count and (
        count <= places or arguments.vararg is not None
    )


def _takes_request(bound: Binding) -> bool:
    node = bound.node
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or not _fits(node, 1):
        return False
    return bool(node.args.args) and "req" in node.args.args[0].arg


def _class_made(bound: Binding) -> str:
    node = bound.node
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _needs(kind: ast.ClassDef) -> str:
    """The arguments that making an instance needs."""
    for node in kind.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names = [argument.arg for argument in node.args.args][1:]
            return ", ".join(names[: len(names) - len(node.args.defaults)])
    return ""


def _async(node: _Function) -> str:
    return "async " if isinstance(node, ast.AsyncFunctionDef) else ""
