"""What is wrong with what a script left in the name ``resource``, and the line to write instead.

Each finding is a message and a hint, both in words for somebody who sees resources for the first
time. A resource is good if it can answer at all: a method that is merely missing is no fault while
another one answers. Looks at values and signatures only, and calls nothing of the script's.
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


# A resource


def validate_resource(value: Resource) -> Finding:
    """Look over a resource: can it answer any request, and can its methods be called?"""
    kind = type(value)
    render_methods = [name for name in dir(kind) if re.fullmatch(r"render_[A-Z]+", name)]
    expected = {
        **dict.fromkeys(render_methods, ("self", "request")),
        "render": ("self", "request"),
        "getChild": ("self", "name", "request"),
    }
    for name, parameter_names in expected.items():
        if not takes(getattr(value, name), len(parameter_names) - 1):
            return _explain_signature(kind, name, parameter_names)
    overrides = kind.render is not Resource.render or kind.getChild is not Resource.getChild
    if render_methods or overrides or value.children or hasattr(kind, "__getattr__"):
        return FINE
    return _explain_no_method(value)


def _explain_no_method(value: Resource) -> Finding:
    kind = type(value)
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
    return (
        f"{kind.__name__} has no render_ method, so it cannot answer anything.",
        f"Add a method:\n{class_example(kind.__name__)}",
    )


def _explain_signature(kind: type, name: str, wanted: tuple[str, ...]) -> Finding:
    function = inspect.getattr_static(kind, name)
    function = getattr(function, "__func__", function)
    found = parameters(function) or ()
    if len(found) >= len(wanted):
        what = f"takes {len(found)} parameters, but is given {len(wanted)}"
    elif "self" in found:
        what = f"does not take {wanted[-1]}"
    elif found:
        what = "does not take self"
    else:
        what = "takes neither self nor request"
    line = f"{_async_prefix(function)}def {name}({', '.join(wanted)}):"
    return f"{kind.__name__}.{name} {what}.", f"Write:\n{line}"


def meant(name: str) -> str | None:
    """Return the method that a misspelt *name* stands for; None if it is no such name."""
    plain = name.replace("_", "").lower()
    if name.startswith("__") or name in {"render", "children"}:
        return None
    for method in METHODS:
        if plain in {method.lower(), f"do{method.lower()}"}:
            return f"render_{method}"
    if plain[:2] not in {"re", "rn", "er"}:
        return None
    candidates = {f"render{method.lower()}": f"render_{method}" for method in METHODS}
    near = difflib.get_close_matches(plain, candidates, 1, 0.85)
    return candidates[near[0]] if near else None


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether *function* can be called with *count* positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError as exc:
        # A method without even self; anything else is written in C, and has no signature to read.
        return str(exc) != "invalid method signature"
    return True


def parameters(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return the names of the parameters; None where that cannot be known."""
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def class_example(name: str) -> str:
    """Return lines that define a resource class called *name*, and make an instance of it."""
    method = '    def render_GET(self, request):\n        return "<h1>Hello</h1>"'
    return f"class {name}(Resource):\n{method}\nresource = {name}()"


# What a script left


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
        return _explain_missing(namespace, source)
    if isinstance(value, Resource):
        return validate_resource(value)
    if (kind := app_kind(value)) is not None:
        return _explain_app("resource", kind)
    if inspect.isclass(value):
        return _explain_class(value)
    if inspect.isroutine(value):
        return _validate_function(value)
    return _explain_value(value, source)


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


def _explain_app(name: str, kind: str) -> Finding:
    if kind in _WSGI:
        mend = f"from rpyserve import WSGIResource\nresource = WSGIResource({name})"
        return f"{name} is {kind}, which is not a resource by itself.", f"Mount it:\n{mend}"
    return (
        f"{name} is {kind}, which rpyserve cannot serve.",
        "Run it by itself, and pass requests on to it:\nfrom rpyserve import ReverseProxyResource\n"
        'resource = ReverseProxyResource("http://127.0.0.1:8000")',
    )


# No `resource` at all


def _explain_missing(namespace: Mapping[str, Any], source: str) -> Finding:
    if not source.strip():
        return "This script is empty.", f"Write into it what to serve, such as:\n{EXAMPLE}"
    for name in ("app", "application"):
        if name in namespace and (kind := app_kind(namespace[name])) is not None:
            return _explain_app(name, kind)
    message = "There is no `resource` in this script, so there is nothing to serve."
    return message, _hint_for_missing(namespace, source)


def _hint_for_missing(namespace: Mapping[str, Any], source: str) -> str:
    for name, value in namespace.items():
        if isinstance(value, Resource):
            return f"`{name}` can be served. Rename it, or add this line:\nresource = {name}"
    own = {name: value for name, value in namespace.items() if _is_own(value, namespace)}
    classes = [value for value in own.values() if inspect.isclass(value)]
    resource_classes = [each for each in classes if issubclass(each, Resource)]
    if resource_classes:
        which = "your class" if len(resource_classes) == 1 else "one of your classes"
        line = f"resource = {_example_call(resource_classes[-1])}"
        return f"Make an instance of {which}, as the last line:\n{line}"
    rendering_classes = [each for each in classes if _render_names(each)]
    if rendering_classes:
        return _hint_for_base_class(rendering_classes[-1])
    functions = {name: value for name, value in own.items() if inspect.isfunction(value)}
    return _hint_for_functions(functions, source)


def _hint_for_functions(functions: Mapping[str, Callable[..., Any]], source: str) -> str:
    near = difflib.get_close_matches("resource", functions, 1, 0.75)
    near = near or [name for name, value in functions.items() if _takes_request(value)]
    if near:
        return f"Is it your function {near[0]}? Then add this line:\nresource = {near[0]}"
    if re.search(r"^\s*(async\s+)?def\s+render_\w+\(self", source, re.MULTILINE):
        return f"Put the method into a class:\n{class_example('Hello')}"
    if re.search(r"\bprint\s*\(", source):
        return (
            "print() writes to the server's console. "
            f"What the visitor is to see, a function returns:\n{EXAMPLE}"
        )
    return (
        "Give that name to a function of the request, "
        f"or to an instance of a Resource class:\n{EXAMPLE}"
    )


# A `resource` of the wrong kind


def _explain_class(value: type) -> Finding:
    if issubclass(value, Resource):
        return (
            f"resource is the class {value.__name__}, not an instance of it.",
            f"Add parentheses:\nresource = {_example_call(value)}",
        )
    message = f"resource is the class {value.__name__}, which is no Resource."
    if _render_names(value):
        return message, _hint_for_base_class(value)
    return message, f"Write a function instead:\n{EXAMPLE}"


def _validate_function(value: Callable[..., Any]) -> Finding:
    if takes(value, 1):
        return FINE
    name = getattr(value, "__name__", "resource")
    names = parameters(value) or ()
    line = f"{_async_prefix(value)}def {name}(request):"
    if not names:
        message = f"The function {name} takes no parameter, but it is called with the request."
        return message, f"Add it:\n{line}"
    message = (
        f"The function {name} is called with the request only, but takes {len(names)} parameters."
    )
    if names[0] == "self":
        return message, f"A method belongs into a class. For a plain function write:\n{line}"
    return message, f"Write:\n{line}"


def _explain_value(value: object, source: str) -> Finding:
    kind = type(value).__name__
    if value is None:
        return "resource is None.", _hint_for_none(source)
    if isinstance(value, (str, bytes)):
        return "resource is a text.", f"Return the text from a function:\n{_returning(value)}"
    if isinstance(value, (dict, list)):
        example = "def resource(request):\n    return ..."
        return (
            f"resource is a {kind}.",
            f"Return it from a function; it is sent as JSON:\n{example}",
        )
    if isinstance(value, Response):
        example = "def resource(request):\n    return Response(...)"
        return "resource is a Response.", f"Return it from a function:\n{example}"
    if isinstance(value, ModuleType):
        message = f"resource is the module {value.__name__}."
        return message, f"Give the name to what is to be served:\n{EXAMPLE}"
    if inspect.iscoroutine(value):
        value.close()
        example = f"resource = {value.__name__}"
        return "resource is a coroutine.", f"Leave out the parentheses:\n{example}"
    message = f"resource is an object of the class {kind}, which is no Resource."
    return message, _hint_for_object(value)


def _hint_for_none(source: str) -> str:
    called = re.search(r"^resource\s*=\s*([\w.]+)\(", source, re.MULTILINE)
    if called:
        example = "return Hello()"
        return f"{called[1]}() returned nothing. End it with a `return`, such as:\n{example}"
    return f"Give that name to a function, or to an instance of a Resource class:\n{EXAMPLE}"


def _hint_for_object(value: object) -> str:
    if _render_names(type(value)):
        return _hint_for_base_class(type(value))
    if callable(value):
        example = "handler = ...\ndef resource(request):\n    return handler(request)"
        return f"Call it from a function:\n{example}"
    return f"Write a function:\n{EXAMPLE}"


# Helpers


def _is_own(value: object, namespace: Mapping[str, Any]) -> bool:
    """Whether the script itself defined *value*."""
    return bool(getattr(value, "__module__", None) == namespace.get("__name__", _MISSING))


def _render_names(kind: type) -> list[str]:
    return [name for name in dir(kind) if name.startswith("render_") or name == "render"]


def _takes_request(function: Callable[..., Any]) -> bool:
    """Whether *function* has one parameter, and its name says that it is the request."""
    names = parameters(function) or ()
    return len(names) == 1 and "req" in names[0]


def _async_prefix(function: Callable[..., Any]) -> str:
    return "async " if inspect.iscoroutinefunction(function) else ""


def _example_call(kind: type) -> str:
    needs = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    return f"{kind.__name__}({', '.join(needs)})"


def _hint_for_base_class(kind: type) -> str:
    name = kind.__name__
    lines = f"from rpyserve import Resource\nclass {name}(Resource):\n    ...\nresource = {name}()"
    return f"Say that it is one, and make an instance:\n{lines}"


def _returning(value: str | bytes) -> str:
    shown = repr(value) if len(value) <= 40 and "\n" not in repr(value) else '"..."'
    return f"def resource(request):\n    return {shown}"
