"""What is wrong with the ``resource`` that a script left, and with the methods of a `Resource`, if
anything.

Each `Problem` is a message and a hint with the line to write instead, both in words for somebody
who sees resources for the first time. Looks at values and signatures only and calls nothing of the
script's. `check.resources` looks for the same problems without executing the script, so the
sentences that both need are functions and constants here.

A method that is merely missing is no problem while another one answers.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from rpyserve.http.response import Response
from rpyserve.resources.rendering import app_kind
from rpyserve.resources.resource import HTTP_METHODS, Resource
from rpyserve.util.text import closest_match

__all__ = [
    "ANY_RESOURCE_HINT",
    "EMPTY_SCRIPT",
    "EXAMPLE",
    "METHOD_PARAMETERS",
    "NONE_AS_RESOURCE",
    "NO_PROBLEM",
    "NO_RESOURCE",
    "PRINT_HINT",
    "RENDER_METHOD",
    "Problem",
    "class_as_resource",
    "coroutine_as_resource",
    "data_as_resource",
    "definition",
    "function_hint",
    "inheritance_hint",
    "instance_hint",
    "intended_method",
    "misspelled_method",
    "module_as_resource",
    "name_hint",
    "no_render_method",
    "not_a_resource",
    "parameters",
    "takes",
    "text_as_resource",
    "validate_namespace",
    "validate_resource",
    "wrong_function_parameters",
    "wrong_method_parameters",
]

Problem = tuple[str, str]
"""A message and a hint, which may have several lines."""

NO_PROBLEM: Final[Problem] = ("", "")
RENDER_METHOD: Final = re.compile(r"render_[A-Z]+")
"""The names of methods that answer requests of one HTTP method."""
METHOD_PARAMETERS: Final = {"render": ("self", "request"), "getChild": ("self", "name", "request")}
"""The parameters of the other methods that requests call."""

EXAMPLE: Final = 'def resource(request):\n    return "<h1>Hello</h1>"'
"""The simplest script."""
NO_RESOURCE: Final = "There is no `resource` in this script, so there is nothing to serve."
EMPTY_SCRIPT: Final[Problem] = (
    "This script is empty.",
    f"Write into it what to serve, such as:\n{EXAMPLE}",
)
NONE_AS_RESOURCE: Final[Problem] = (
    "resource is None.",
    f"Give that name to a function, or to an instance of a Resource class:\n{EXAMPLE}",
)
PRINT_HINT: Final = (
    "print() writes to the server's console. "
    f"What the visitor is to see, a function returns:\n{EXAMPLE}"
)
ANY_RESOURCE_HINT: Final = (
    "Give that name to a function of the request, "
    f"or to an instance of a Resource class:\n{EXAMPLE}"
)

_WSGI: Final = frozenset(
    {"a Flask app", "a Bottle app", "a Django application", "a WSGI application"}
)
_MISSING: Final = object()
_SAME_METHOD: Final = 0.85
"""How much a misspelled name has to be like that of a render method, from 0 to 1."""


def validate_namespace(namespace: Mapping[str, Any], source: str) -> Problem:
    """Return what is wrong with the *namespace* that a script's code left.

    Args:
        source: its source, or as much of it as can be read.
    """
    value = namespace.get("resource", _MISSING)
    if value is _MISSING:
        return _missing(namespace, source)
    if isinstance(value, Resource):
        return validate_resource(value)
    kind = app_kind(value)
    if kind is not None:
        return _app("resource", kind)
    if inspect.isclass(value):
        return _class(value)
    if inspect.isroutine(value):
        return _function(value)
    return _other(value, source)


def _app(name: str, kind: str) -> Problem:
    if kind in _WSGI:
        mend = f"from rpyserve import WSGIResource\nresource = WSGIResource({name})"
        return f"{name} is {kind}, which is not a resource by itself.", f"Mount it:\n{mend}"
    return (
        f"{name} is {kind}, which rpyserve cannot serve.",
        "Run it by itself, and pass requests on to it:\nfrom rpyserve import ReverseProxyResource\n"
        'resource = ReverseProxyResource("http://127.0.0.1:8000")',
    )


def validate_resource(value: Resource) -> Problem:
    """Return what is wrong with a resource, such as a method that cannot be called."""
    cls = type(value)
    render_methods = [name for name in dir(cls) if RENDER_METHOD.fullmatch(name)]
    for name in [*render_methods, *METHOD_PARAMETERS]:
        wanted = METHOD_PARAMETERS.get(name, ("self", "request"))
        if not takes(getattr(value, name), len(wanted) - 1):
            function = inspect.getattr_static(cls, name)
            function = getattr(function, "__func__", function)
            return wrong_method_parameters(
                cls.__name__, name, parameters(function) or (), is_async=_is_async(function)
            )
    overrides = cls.render is not Resource.render or cls.getChild is not Resource.getChild
    if render_methods or overrides or value.children or hasattr(cls, "__getattr__"):
        return NO_PROBLEM
    for name in vars(value).keys() | set(dir(cls)):
        intended = intended_method(name)
        if intended is not None:
            function = inspect.getattr_static(value, name, None)
            return misspelled_method(cls.__name__, name, intended, is_async=_is_async(function))
    if cls is Resource:
        hint = f"Make a class of your own:\n{class_example('Hello')}"
        return "A plain Resource cannot answer anything.", hint
    return no_render_method(cls.__name__)


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether *function* can be called with *count* positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError as exc:  # a method without even self; any other function is written in C
        return str(exc) != "invalid method signature"
    return True


def parameters(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return the names of the parameters; None where that cannot be known."""
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function)


# No `resource` at all


def _missing(namespace: Mapping[str, Any], source: str) -> Problem:
    if not source.strip():
        return EMPTY_SCRIPT
    for name in ("app", "application"):
        kind = app_kind(namespace.get(name))
        if kind is not None:
            return _app(name, kind)
    for name, value in namespace.items():
        if isinstance(value, Resource):
            return NO_RESOURCE, name_hint(name)
    own = {name: value for name, value in namespace.items() if _is_own(value, namespace)}
    classes = [value for value in own.values() if inspect.isclass(value)]
    resources = [cls for cls in classes if issubclass(cls, Resource)]
    if resources:
        which = "your class" if len(resources) == 1 else "one of your classes"
        return NO_RESOURCE, instance_hint(_call(resources[-1]), which)
    renderers = [cls for cls in classes if _render_names(cls)]
    if renderers:
        return NO_RESOURCE, inheritance_hint(renderers[-1].__name__)
    functions = {name: value for name, value in own.items() if inspect.isfunction(value)}
    return NO_RESOURCE, _hint_for_functions(functions, source)


def _hint_for_functions(functions: Mapping[str, Callable[..., Any]], source: str) -> str:
    closest = closest_match("resource", functions)
    of_request = [name for name, value in functions.items() if _is_of_request(value)]
    for name in [closest, *of_request]:
        if name is not None:
            return function_hint(name)
    if re.search(r"^\s*(async\s+)?def\s+render_\w+\(self", source, re.MULTILINE):
        return f"Put the method into a class:\n{class_example('Hello')}"
    if re.search(r"\bprint\s*\(", source):
        return PRINT_HINT
    return ANY_RESOURCE_HINT


def _is_of_request(function: Callable[..., Any]) -> bool:
    names = parameters(function) or ()
    return len(names) == 1 and "req" in names[0]


# A `resource` of the wrong kind


def _class(cls: type) -> Problem:
    if issubclass(cls, Resource):
        return class_as_resource(cls.__name__, _call(cls))
    hint = f"Write a function instead:\n{EXAMPLE}"
    if _render_names(cls):
        hint = inheritance_hint(cls.__name__)
    return not_a_resource(f"the class {cls.__name__}", hint)


def _function(value: Callable[..., Any]) -> Problem:
    if takes(value, 1):
        return NO_PROBLEM
    name = getattr(value, "__name__", "resource")
    return wrong_function_parameters(name, parameters(value) or (), is_async=_is_async(value))


def _other(value: object, source: str) -> Problem:
    if value is None:
        return _none(source)
    if isinstance(value, (str, bytes)):
        shown = repr(value)
        return text_as_resource(shown) if len(shown) <= 40 else text_as_resource()
    if isinstance(value, (dict, list)):
        return data_as_resource(f"a {type(value).__name__}")
    if isinstance(value, Response):
        lines = "def resource(request):\n    return Response(...)"
        return "resource is a Response.", f"Return it from a function:\n{lines}"
    if isinstance(value, ModuleType):
        return module_as_resource(value.__name__)
    if inspect.iscoroutine(value):
        value.close()
        return coroutine_as_resource(value.__name__)
    return not_a_resource(f"an object of the class {type(value).__name__}", _hint_for_object(value))


def _none(source: str) -> Problem:
    call = re.search(r"^resource\s*=\s*([\w.]+)\(", source, re.MULTILINE)
    if call is None:
        return NONE_AS_RESOURCE
    hint = f"{call[1]}() returned nothing. End it with a `return`, such as:\nreturn Hello()"
    return NONE_AS_RESOURCE[0], hint


def _hint_for_object(value: object) -> str:
    if _render_names(type(value)):
        return inheritance_hint(type(value).__name__)
    if callable(value):
        lines = "handler = ...\ndef resource(request):\n    return handler(request)"
        return f"Call it from a function:\n{lines}"
    return f"Write a function:\n{EXAMPLE}"


def _is_own(value: object, namespace: Mapping[str, Any]) -> bool:
    return bool(getattr(value, "__module__", None) == namespace.get("__name__", _MISSING))


def _render_names(cls: type) -> list[str]:
    return [name for name in dir(cls) if name.startswith("render_") or name == "render"]


def _call(cls: type) -> str:
    """The call that makes an instance of *cls*, with the names of what it needs."""
    needed = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    return f"{cls.__name__}({', '.join(needed)})"


# The sentences that the check needs as well


def class_example(name: str) -> str:
    """Return a script with a Resource class called *name*."""
    method = '    def render_GET(self, request):\n        return "<h1>Hello</h1>"'
    return f"class {name}(Resource):\n{method}\nresource = {name}()"


def definition(name: str, names: Sequence[str], *, is_async: bool) -> str:
    """Return the first line of a function with the parameters *names*."""
    return f"{'async ' if is_async else ''}def {name}({', '.join(names)}):"


def name_hint(name: str) -> str:
    """The hint if what can be served is called *name*."""
    return f"`{name}` can be served. Rename it, or add this line:\nresource = {name}"


def function_hint(name: str) -> str:
    """The hint if the function *name* may be what is to be served."""
    return f"Is it your function {name}? Then add this line:\nresource = {name}"


def instance_hint(call: str, which: str = "your class") -> str:
    """The hint if there is a class, but no instance; *call* makes one."""
    return f"Make an instance of {which}, as the last line:\nresource = {call}"


def inheritance_hint(name: str) -> str:
    """The hint if the class *name* has render methods, but does not inherit from Resource."""
    lines = f"from rpyserve import Resource\nclass {name}(Resource):\n    ...\nresource = {name}()"
    return f"Say that it is one, and make an instance:\n{lines}"


def class_as_resource(name: str, call: str) -> Problem:
    """``resource`` is the Resource class *name*; *call* makes an instance."""
    message = f"resource is the class {name}, not an instance of it."
    return message, f"Add parentheses:\nresource = {call}"


def not_a_resource(what: str, hint: str) -> Problem:
    """``resource`` is *what*: a class without the base Resource, or an instance of one."""
    return f"resource is {what}, which is not a Resource.", hint


def text_as_resource(text: str = '"..."') -> Problem:
    """``resource`` is a text, which *text* writes."""
    lines = f"def resource(request):\n    return {text}"
    return "resource is a text.", f"Return the text from a function:\n{lines}"


def data_as_resource(what: str) -> Problem:
    """``resource`` is *what*: data that a function may return."""
    lines = "def resource(request):\n    return ..."
    return f"resource is {what}.", f"Return it from a function; it is sent as JSON:\n{lines}"


def module_as_resource(name: str) -> Problem:
    """``resource`` is the module *name*."""
    hint = f"Give the name to what is to be served:\n{EXAMPLE}"
    return f"resource is the module {name}.", hint


def coroutine_as_resource(name: str) -> Problem:
    """``resource`` is what calling the async function *name* gave."""
    return "resource is a coroutine.", f"Leave out the parentheses:\nresource = {name}"


def no_render_method(class_name: str) -> Problem:
    """A Resource class has no method that answers requests."""
    message = f"{class_name} has no render_ method, so it cannot answer anything."
    return message, f"Add a method:\n{class_example(class_name)}"


def misspelled_method(class_name: str, name: str, intended: str, *, is_async: bool) -> Problem:
    """A Resource class has a method *name*, which should be called *intended*."""
    message = f"{class_name} has a method {name}, which is never called."
    return message, f"Write:\n{definition(intended, ('self', 'request'), is_async=is_async)}"


def intended_method(name: str) -> str | None:
    """Return the render method that a misspelled *name* stands for; None if it is no such name."""
    if name.startswith("__") or name in {"render", "children"}:
        return None
    plain = name.replace("_", "").lower()
    by_plain_name = {f"render{method.lower()}": f"render_{method}" for method in HTTP_METHODS}
    intended = by_plain_name.get(f"render{plain.removeprefix('do')}")
    if intended is not None:
        return intended
    if not plain.startswith(("re", "rn", "er")):
        return None
    closest = closest_match(plain, by_plain_name)
    if closest is None or difflib.SequenceMatcher(None, closest, plain).ratio() < _SAME_METHOD:
        return None
    return by_plain_name[closest]


def wrong_function_parameters(name: str, has: Sequence[str], *, is_async: bool) -> Problem:
    """The function *name* with the parameters *has* cannot be called with a request."""
    line = definition(name, ["request"], is_async=is_async)
    if not has:
        message = f"The function {name} takes no parameter, but it is called with the request."
        return message, f"Add it:\n{line}"
    count = len(has)
    message = f"The function {name} is called with the request only, but takes {count} parameters."
    if has[0] == "self":
        return message, f"A method belongs in a class. For a plain function write:\n{line}"
    return message, f"Write:\n{line}"


def wrong_method_parameters(
    class_name: str, name: str, has: Sequence[str], *, is_async: bool
) -> Problem:
    """The method *name* with the parameters *has* cannot be called as requests call it."""
    wanted = METHOD_PARAMETERS.get(name, ("self", "request"))
    if len(has) >= len(wanted):
        what = f"takes {len(has)} parameters, but is given {len(wanted)}"
    elif "self" in has:
        what = f"does not take {wanted[len(has)]}"
    else:
        what = "does not take self" if has else f"takes neither self nor {wanted[-1]}"
    line = definition(name, wanted, is_async=is_async)
    return f"{class_name}.{name} {what}.", f"Write:\n{line}"
