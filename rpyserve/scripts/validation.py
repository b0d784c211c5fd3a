"""What is wrong with what a script left in the name ``resource``, if anything, and the line to write instead.

Each finding is a message and a hint, both in words for somebody who sees resources for the first time. Looks at
values and signatures only, calls nothing of the script's.

Whether a `Resource` can answer at all: its render methods, their names and their parameters.

Calls nothing of the script's. A method that is merely missing is no fault while another one answers.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from rpyserve.http.response import Response
from rpyserve.resources.resource import Resource

__all__ = [
    "FINE",
    "Finding",
    "app_kind",
    "class_example",
    "meant",
    "parameters",
    "takes",
    "validate_namespace",
    "validate_resource",
]


Finding = tuple[str, str]
"""A message (empty: all is well) and a hint, in lines."""

FINE: Final[Finding] = ("", "")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


def validate_resource(value: Resource) -> Finding:
    """Look over a resource: can it answer any request, and can its methods be called as they are written?"""
    kind = type(value)
    good = [name for name in dir(kind) if re.fullmatch(r"render_[A-Z]+", name)]
    for name in good:
        if not takes(getattr(value, name), 1):
            return _method(kind, name, ("self", "request"))
    for name, names in {
        "render": ("self", "request"),
        "getChild": ("self", "name", "request"),
    }.items():
        if not takes(getattr(value, name), len(names) - 1):
            return _method(kind, name, names)
    overrides = kind.render is not Resource.render or kind.getChild is not Resource.getChild
    if good or overrides or value.children or hasattr(kind, "__getattr__"):
        return FINE
    message = f"{kind.__name__} has no render_ method, so it cannot answer anything."
    for name in vars(value).keys() | set(dir(kind)):
        if (wanted := meant(name)) is not None:
            return (
                f"{kind.__name__} has a method {name}, which is never called.",
                f"Write:\ndef {wanted}(self, request):",
            )
    if kind is Resource:
        return (
            "A plain Resource cannot answer anything.",
            f"Make a class of your own:\n{class_example('Hello')}",
        )
    return message, f"Add a method:\n{class_example(kind.__name__)}"


def meant(name: str) -> str | None:
    """Return the method that a misspelt *name* stands for; None if it is no such name."""
    plain = name.replace("_", "").lower()
    if name.startswith("__") or name in {"render", "children"}:
        return None
    for method in METHODS:
        if plain in {method.lower(), f"do{method.lower()}"}:
            return f"render_{method}"
    candidates = {f"render{method.lower()}": f"render_{method}" for method in METHODS}
    near = (
        difflib.get_close_matches(plain, candidates, 1, 0.85)
        if plain[:2] in {"re", "rn", "er"}
        else []
    )
    return candidates[near[0]] if near else None


def _method(kind: type, name: str, wanted: tuple[str, ...]) -> Finding:
    function = inspect.getattr_static(kind, name)
    function = getattr(function, "__func__", function)
    has = parameters(function) or ()
    is_async = "async " if inspect.iscoroutinefunction(function) else ""
    if "self" not in has and has[:1] != ("self",) and len(has) < len(wanted):
        what = "does not take self" if has else "takes neither self nor request"
    elif len(has) < len(wanted):
        what = f"does not take {wanted[-1]}"
    else:
        what = f"takes {len(has)} parameters, but is given {len(wanted)}"
    return f"{kind.__name__}.{name} {what}.", f"Write:\n{is_async}def {name}({', '.join(wanted)}):"


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether *function* can be called with *count* positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError as exc:
        return (
            str(exc) != "invalid method signature"
        )  # a method without even self; else: written in C
    return True


def parameters(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return the names of the parameters; None where that cannot be known."""
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def class_example(name: str) -> str:
    method = '    def render_GET(self, request):\n        return "<h1>Hello</h1>"'
    return f"class {name}(Resource):\n{method}\nresource = {name}()"


EXAMPLE: Final = 'def resource(request):\n    return "<h1>Hello</h1>"'

_FRAMEWORKS: Final = {
    "flask": "a Flask app", "quart": "a Quart app", "fastapi": "a FastAPI app", "starlette": "a Starlette app",
    "django": "a Django application", "bottle": "a Bottle app", "falcon": "a Falcon app", "aiohttp": "an aiohttp app",
    "sanic": "a Sanic app", "tornado": "a Tornado application", "litestar": "a Litestar app", "dash": "a Dash app",
}  # fmt: skip
_CALLS: Final = {
    ("environ", "start_response"): "a WSGI application",
    ("scope", "receive", "send"): "an ASGI app",
}
_WSGI: Final = frozenset(
    {"a Flask app", "a Bottle app", "a Django application", "a WSGI application"}
)
_MISSING: Final = object()


def validate_namespace(namespace: Mapping[str, Any], source: str) -> Finding:
    """Look over the *namespace* that a script's code left.

    Args:
        source: its source, or as much of it as can be read.
    """
    value = namespace.get("resource", _MISSING)
    if value is _MISSING:
        return _missing(namespace, source)
    if isinstance(value, Resource):
        return validate_resource(value)
    if (kind := app_kind(value)) is not None:
        return _app("resource", kind)
    if inspect.isclass(value):
        return _class(value)
    if inspect.isroutine(value):
        return _function(value)
    return _other(value, source)


def app_kind(value: object) -> str | None:
    """Say what application of another framework *value* is; None if it is none."""
    if isinstance(value, ModuleType):
        return None
    for base in type(value).__mro__:
        if (root := base.__module__.partition(".")[0]) in _FRAMEWORKS and callable(value):
            return _FRAMEWORKS[root]
    if inspect.isclass(value) or not callable(value):
        return None
    names = parameters(value)
    return _CALLS.get(names) if names is not None else None


def _app(name: str, kind: str) -> Finding:
    if kind in _WSGI:
        mend = f"from rpyserve import WSGIResource\nresource = WSGIResource({name})"
        return f"{name} is {kind}, which is not a resource by itself.", f"Mount it:\n{mend}"
    return (
        f"{name} is {kind}, which rpyserve cannot serve.",
        "Run it by itself, and pass requests on to it:\nfrom rpyserve import ReverseProxyResource\n"
        'resource = ReverseProxyResource("http://127.0.0.1:8000")',
    )


# No `resource` at all


def _missing(namespace: Mapping[str, Any], source: str) -> Finding:
    message = "There is no `resource` in this script, so there is nothing to serve."
    if not source.strip():
        return "This script is empty.", f"Write into it what to serve, such as:\n{EXAMPLE}"
    own = {name: value for name, value in namespace.items() if _is_own(value, namespace)}
    for name in ("app", "application"):
        if name in namespace and (kind := app_kind(namespace[name])) is not None:
            return _app(name, kind)
    for name, value in namespace.items():
        if isinstance(value, Resource):
            return (
                message,
                f"`{name}` can be served. Rename it, or add this line:\nresource = {name}",
            )
    classes = [value for value in own.values() if inspect.isclass(value)]
    if found := [each for each in classes if issubclass(each, Resource)]:
        which = (
            "Make an instance of your class"
            if len(found) == 1
            else "Make an instance of one of your classes"
        )
        return message, f"{which}, as the last line:\nresource = {_call(found[-1])}"
    if unbased := [each for each in classes if _render_names(each)]:
        return message, _based(unbased[-1])
    functions = {name: value for name, value in own.items() if inspect.isfunction(value)}
    return message, _for_functions(functions, source)


def _for_functions(functions: Mapping[str, Callable[..., Any]], source: str) -> str:
    near = difflib.get_close_matches("resource", functions, 1, 0.75) or [
        name
        for name, value in functions.items()
        if len(names := parameters(value) or ()) == 1 and "req" in names[0]
    ]
    if near:
        return f"Is it your function {near[0]}? Then add this line:\nresource = {near[0]}"
    if re.search(r"^\s*(async\s+)?def\s+render_\w+\(self", source, re.MULTILINE):
        return f"Put the method into a class:\n{class_example('Hello')}"
    if re.search(r"\bprint\s*\(", source):
        return f"print() writes to the server's console. What the visitor is to see, a function returns:\n{EXAMPLE}"
    return f"Give that name to a function of the request, or to an instance of a Resource class:\n{EXAMPLE}"


# A `resource` of the wrong kind


def _class(value: type) -> Finding:
    if issubclass(value, Resource):
        return (
            f"resource is the class {value.__name__}, not an instance of it.",
            f"Add parentheses:\nresource = {_call(value)}",
        )
    if _render_names(value):
        return f"resource is the class {value.__name__}, which is no Resource.", _based(value)
    return (
        f"resource is the class {value.__name__}, which is no Resource.",
        f"Write a function instead:\n{EXAMPLE}",
    )


def _function(value: Callable[..., Any]) -> Finding:
    name = getattr(value, "__name__", "resource")
    if takes(value, 1):
        return FINE
    names = parameters(value) or ()
    is_async = "async " if inspect.iscoroutinefunction(value) else ""
    if not names:
        message = f"The function {name} takes no parameter, but it is called with the request."
        return message, f"Add it:\n{is_async}def {name}(request):"
    message = (
        f"The function {name} is called with the request only, but takes {len(names)} parameters."
    )
    if names[0] == "self":
        return (
            message,
            f"A method belongs into a class. For a plain function write:\n{is_async}def {name}(request):",
        )
    return message, f"Write:\n{is_async}def {name}(request):"


def _other(value: object, source: str) -> Finding:
    kind = type(value).__name__
    if value is None:
        called = re.search(r"^resource\s*=\s*([\w.]+)\(", source, re.MULTILINE)
        if called:
            return (
                "resource is None.",
                f"{called[1]}() returned nothing. End it with a `return`, such as:\nreturn Hello()",
            )
        return (
            "resource is None.",
            f"Give that name to a function, or to an instance of a Resource class:\n{EXAMPLE}",
        )
    if isinstance(value, (str, bytes)):
        return "resource is a text.", f"Return the text from a function:\n{_returning(value)}"
    if isinstance(value, (dict, list)):
        return (
            f"resource is a {kind}.",
            "Return it from a function; it is sent as JSON:\ndef resource(request):\n    return ...",
        )
    if isinstance(value, Response):
        return (
            "resource is a Response.",
            "Return it from a function:\ndef resource(request):\n    return Response(...)",
        )
    if isinstance(value, ModuleType):
        return (
            f"resource is the module {value.__name__}.",
            f"Give the name to what is to be served:\n{EXAMPLE}",
        )
    if inspect.iscoroutine(value):
        value.close()
        return (
            "resource is a coroutine.",
            f"Leave out the parentheses:\nresource = {value.__name__}",
        )
    if _render_names(type(value)):
        return f"resource is an object of the class {kind}, which is no Resource.", _based(
            type(value)
        )
    if callable(value):
        hint = "Call it from a function:\nhandler = ...\ndef resource(request):\n    return handler(request)"
        return f"resource is an object of the class {kind}, which is no Resource.", hint
    return (
        f"resource is an object of the class {kind}, which is no Resource.",
        f"Write a function:\n{EXAMPLE}",
    )


# Helpers


def _is_own(value: object, namespace: Mapping[str, Any]) -> bool:
    return bool(getattr(value, "__module__", None) == namespace.get("__name__", _MISSING))


def _render_names(kind: type) -> list[str]:
    return [name for name in dir(kind) if name.startswith("render_") or name == "render"]


def _call(kind: type) -> str:
    needs = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    return f"{kind.__name__}({', '.join(needs)})"


def _based(kind: type) -> str:
    name = kind.__name__
    lines = f"from rpyserve import Resource\nclass {name}(Resource):\n    ...\nresource = {name}()"
    return f"Say that it is one, and make an instance:\n{lines}"


def _returning(value: str | bytes) -> str:
    shown = repr(value) if len(value) <= 40 and "\n" not in repr(value) else '"..."'
    return f"def resource(request):\n    return {shown}"
