"""Judges the ``resource`` that a script left, and the methods of a `Resource`.

Owns what is said of them, and when. Each `Problem` is a message and a hint with the line to write
instead, both in words for somebody who sees resources for the first time. Functions, classes and
their objects are judged by a description. It is made here of the values that an execution left, and
by `check.resources` of the script's text, so both say the same. Calls nothing of the script's.

A method that is merely missing is no problem while another one answers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import CoroutineType, ModuleType
from typing import Any, Final

from rpyserve.http.response import Response
from rpyserve.resources.rendering import app_kind
from rpyserve.resources.resource import HTTP_METHODS, Resource, base_class_of, foreign_resource
from rpyserve.util.text import closest_match

# A message and a hint, which may have several lines.
Problem = tuple[str, str]

NO_PROBLEM: Final[Problem] = ("", "")

_RENDER_PARAMETERS: Final = ("self", "request")
# The parameters of the other methods that requests call.
_PARAMETERS: Final = {"render": _RENDER_PARAMETERS, "getChild": ("self", "name", "request")}
# The render methods, by their names in small letters without underscores.
_RENDER_METHODS: Final = {f"render{name.lower()}": f"render_{name}" for name in HTTP_METHODS}
# How much a misspelled name has to be like that of a render method, from 0 to 1.
_SAME_METHOD: Final = 0.85

_EXAMPLE: Final = 'def resource(request):\n    return "<h1>Hello</h1>"'
_METHOD_EXAMPLE: Final = '    def render_GET(self, request):\n        return "<h1>Hello</h1>"'
EMPTY_SCRIPT: Final[Problem] = (
    "This script is empty.",
    f"Write into it what to serve, such as:\n{_EXAMPLE}",
)
NO_RESOURCE: Final = "There is no `resource` in this script, so there is nothing to serve."
_PRINT_HINT: Final = (
    "print() writes to the server's console. "
    f"What the visitor is to see, a function returns:\n{_EXAMPLE}"
)
_NO_RESOURCE_HINT: Final = (
    "Give that name to a function of the request, "
    f"or to an instance of a Resource class:\n{_EXAMPLE}"
)

# The kinds of applications that speak WSGI, in the words of `rendering.app_kind`.
_WSGI_KINDS: Final = frozenset(
    {"a Flask app", "a Bottle app", "a Django application", "a WSGI application"}
)
# The first place in these texts is for a name, the second for the kind of application.
_WSGI_APP: Final[Problem] = (
    "{0} is {1}, which is not a resource by itself.",
    "Mount it:\nfrom rpyserve import WSGIResource\nresource = WSGIResource({0})",
)
_OTHER_APP: Final[Problem] = (
    "{0} is {1}, which rpyserve cannot serve.",
    "Run it by itself, and pass requests on to it:\nfrom rpyserve import ReverseProxyResource\n"
    'resource = ReverseProxyResource("http://127.0.0.1:8000")',
)


# Descriptions


@dataclass(frozen=True, slots=True)
class Function:
    """What is known of a function or method.

    Args:
        name: its name.
        signature: its parameters, including ``self``; None if they are not known.
        is_async: it is an ``async def``.
    """

    name: str
    signature: inspect.Signature | None
    is_async: bool

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters, as far as they are known."""
        return list(self.signature.parameters) if self.signature else []

    def takes(self, count: int) -> bool:
        """Whether it can be called with *count* positional arguments, as far as is known."""
        try:
            if self.signature:
                self.signature.bind(*[None] * count)
        except TypeError:
            return False
        return True

    def rewritten(self, name: str, *parameters: str) -> str:
        """Return the first line of such a function called *name*, with these *parameters*."""
        return f"{'async ' if self.is_async else ''}def {name}({', '.join(parameters)}):"


@dataclass(frozen=True, slots=True)
class Class:
    """What is known of a class.

    Args:
        name: its name.
        methods: its methods, except for those of `Resource`, by name.
        is_resource: it inherits from `Resource`; None if that is not known.
    """

    name: str
    methods: Mapping[str, Function]
    is_resource: bool | None

    @property
    def can_render(self) -> bool:
        """Whether it has a method that requests call."""
        return any(map(is_called_by_requests, self.methods))

    @property
    def call(self) -> str:
        """The call that makes an instance, with the names of what it needs."""
        constructor = self.methods.get("__init__")
        signature = constructor.signature if constructor else None
        needed = [
            parameter.name
            for parameter in (signature.parameters.values() if signature else ())
            if parameter.default is parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        return f"{self.name}({', '.join(needed[1:])})"


@dataclass(frozen=True, slots=True)
class Instance:
    """What is known of an object.

    Args:
        cls: its class.
        may_answer: something else than the methods of its class may answer requests.
    """

    cls: Class
    may_answer: bool = False


def _describe(value: object) -> Function | Class | Instance:
    if inspect.isclass(value):
        return _describe_class(value)
    if inspect.isroutine(value):
        return describe_function(value, value.__name__.replace("<lambda>", "resource"))
    cls = _describe_class(type(value))
    if isinstance(value, Resource):
        return Instance(cls, bool(value.children) or hasattr(type(value), "__getattr__"))
    return Instance(cls)


def _describe_class(cls: type) -> Class:
    own = {name: inspect.getattr_static(cls, name, None) for name in dir(cls)}
    base = base_class_of(cls)
    methods = {
        name: describe_function(value, name)
        for name, value in own.items()
        if value is not inspect.getattr_static(base or Resource, name, None)
    }
    return Class(cls.__name__, methods, base is not None)


def describe_function(function: object, name: str) -> Function:
    signature = None
    if inspect.isroutine(function) and not isinstance(function, staticmethod):
        with suppress(TypeError, ValueError):
            signature = inspect.signature(function)
    return Function(name, signature, inspect.iscoroutinefunction(function))


# What a script left


def validate_namespace(namespace: Mapping[str, Any], source: str) -> Problem:
    """Return what is wrong with the *namespace* that a script's code left.

    Args:
        source: its source, or as much of it as can be read.
    """
    if not source.strip():
        return EMPTY_SCRIPT
    names = ["resource"] if "resource" in namespace else ["app", "application"]
    for name in names:
        kind = app_kind(namespace.get(name))
        if kind is not None:
            message, hint = _WSGI_APP if kind in _WSGI_KINDS else _OTHER_APP
            return message.format(name, kind), hint.format(name)
    if "resource" not in namespace:
        prints = re.search(r"\bprint\s*\(", source) is not None
        return NO_RESOURCE, hint_for_missing(_own_things(namespace), prints=prints)
    if foreign_resource(namespace["resource"]) is not None:
        return NO_PROBLEM  # whose methods are its library's business
    message, hint = problem_with(namespace["resource"])
    call = re.search(r"^resource\s*=\s*([\w.]+)\(", source, re.MULTILINE)
    if namespace["resource"] is None and call:
        hint = f"{call[1]}() returned nothing. End it with a `return`, such as:\nreturn Hello()"
    return message, hint


def _own_things(namespace: Mapping[str, Any]) -> dict[str, object]:
    """Describe the resources in the *namespace*, and what the script defines itself."""
    own = namespace.get("__name__")
    return {
        name: _describe(value)
        for name, value in namespace.items()
        if isinstance(value, Resource) or getattr(value, "__module__", "") == own
    }


# Judgements


def hint_for_missing(things: Mapping[str, object], *, prints: bool) -> str:
    """Return what to do about a script without ``resource``.

    Args:
        things: what its own names are.
        prints: it calls ``print``.
    """
    for name, thing in things.items():
        if isinstance(thing, Instance) and thing.cls.is_resource:
            return f"`{name}` can be served. Rename it, or add this line:\nresource = {name}"
    classes = [thing for thing in things.values() if isinstance(thing, Class)]
    functions = {name: thing for name, thing in things.items() if isinstance(thing, Function)}
    hint = _hint_about_classes(classes) or _hint_about_functions(functions)
    if hint:
        return hint
    return _PRINT_HINT if prints else _NO_RESOURCE_HINT


def _hint_about_classes(classes: Sequence[Class]) -> str:
    resources = [cls for cls in classes if cls.is_resource]
    if resources:
        which = "your class" if len(resources) == 1 else "one of your classes"
        return f"Make an instance of {which}, as the last line:\nresource = {resources[-1].call}"
    for cls in classes:
        if cls.can_render:
            return _inheritance_hint(cls.name)
    return ""


def _hint_about_functions(functions: Mapping[str, Function]) -> str:
    misspelled = closest_match("resource", functions)
    if misspelled:
        line = functions[misspelled].rewritten("resource", "request")
        return f"Did you mean this?\n{line}"
    of_request = [name for name, function in functions.items() if _is_of_request(function)]
    if of_request:
        name = of_request[0]
        return f"Is it your function {name}? Then add this line:\nresource = {name}"
    if any(name.startswith("render_") for name in functions):
        return f"Put the method into a class:\n{_class_example('Hello')}"
    return ""


def _is_of_request(function: Function) -> bool:
    return function.takes(1) and any("req" in name for name in function.parameters[:1])


# Types of values, what is wrong with them, and what to write instead. The first place in a text is
# for a name, the second for the value.
_WRONG_VALUES: Final[tuple[tuple[type | tuple[type, ...], str, str], ...]] = (
    (
        type(None),
        "resource is None.",
        f"Give that name to a function, or to an instance of a Resource class:\n{_EXAMPLE}",
    ),
    (
        (str, bytes),
        "resource is a text.",
        "Return the text from a function:\ndef resource(request):\n    return {1}",
    ),
    (
        (dict, list),
        "resource is a {0}.",
        "Return it from a function; it is sent as JSON:\ndef resource(request):\n    return ...",
    ),
    (
        Response,
        "resource is a Response.",
        "Return it from a function:\ndef resource(request):\n    return Response(...)",
    ),
    (
        ModuleType,
        "resource is the module {0}.",
        f"Give the name to what is to be served:\n{_EXAMPLE}",
    ),
    (CoroutineType, "resource is a coroutine.", "Leave out the parentheses:\nresource = {0}"),
)


def problem_with(thing: object) -> Problem:
    """Return what is wrong with *thing* as the ``resource`` of a script.

    Args:
        thing: the description of a value, or the value itself.
    """
    for kinds, message, hint in _WRONG_VALUES:
        if isinstance(thing, kinds):
            return _wrong_value(thing, message, hint)
    match thing:
        case Function():
            return NO_PROBLEM if thing.takes(1) else _wrong_function(thing)
        case Class(name, is_resource=False):
            return _not_a_resource(f"the class {name}", thing)
        case Class(name):
            message = f"resource is the class {name}, not an instance of it."
            return message, f"Add parentheses:\nresource = {thing.call}"
        case Instance(cls) if cls.is_resource is False:
            return _not_a_resource(f"an object of the class {cls.name}", cls)
        case Instance(cls):
            return _wrong_methods(cls, may_answer=thing.may_answer)
    return problem_with(_describe(thing))


def _wrong_value(value: object, message: str, hint: str) -> Problem:
    if isinstance(value, CoroutineType):
        value.close()  # nothing will await it
    is_short = isinstance(value, str | bytes) and len(value) < 40
    shown = repr(value) if is_short else '"..."'
    name = getattr(value, "__name__", type(value).__name__)
    return message.format(name), hint.format(name, shown)


def _wrong_methods(cls: Class, *, may_answer: bool) -> Problem:
    problems = [problem for _, problem in wrong_parameters(cls)]
    if not may_answer and not cls.can_render:
        problems += [problem for _, problem in misspelled_methods(cls)]
        problems.append(_cannot_render(cls.name))
    return problems[0] if problems else NO_PROBLEM


def _wrong_function(function: Function) -> Problem:
    line = function.rewritten(function.name, "request")
    has = function.parameters
    if not has:
        message = "takes no parameter, but it is called with the request."
        return f"The function {function.name} {message}", f"Add it:\n{line}"
    what = "Write:"
    if has[0] == "self":
        what = "A method belongs in a class. For a plain function write:"
    message = f"is called with the request only, but takes {len(has)} parameters."
    return f"The function {function.name} {message}", f"{what}\n{line}"


def _not_a_resource(what: str, cls: Class) -> Problem:
    hint = f"Write a function instead:\n{_EXAMPLE}"
    if cls.can_render:
        hint = _inheritance_hint(cls.name)
    elif "__call__" in cls.methods:
        hint = (
            "Call it from a function:\n"
            "handler = ...\ndef resource(request):\n    return handler(request)"
        )
    return f"resource is {what}, which is not a Resource.", hint


def _cannot_render(class_name: str) -> Problem:
    if class_name == "Resource":
        hint = f"Make a class of your own:\n{_class_example('Hello')}"
        return "A plain Resource cannot answer anything.", hint
    message = f"{class_name} has no render_ method, so it cannot answer anything."
    return message, f"Add a method:\n{_class_example(class_name)}"


def _class_example(name: str) -> str:
    return f"class {name}(Resource):\n{_METHOD_EXAMPLE}\nresource = {name}()"


def _inheritance_hint(name: str) -> str:
    return (
        "Say that it is one, and make an instance:\n"
        f"from rpyserve import Resource\nclass {name}(Resource):\n    ...\nresource = {name}()"
    )


# Methods


def is_called_by_requests(name: str) -> bool:
    """Whether requests call the method *name* of a resource."""
    return name in _PARAMETERS or re.fullmatch(r"render_[A-Z]+", name) is not None


def wrong_parameters(cls: Class) -> Iterator[tuple[str, Problem]]:
    """Yield the methods of a Resource class that cannot be called as requests call them."""
    for name, method in cls.methods.items():
        wanted = _PARAMETERS.get(name, _RENDER_PARAMETERS)
        if not is_called_by_requests(name) or method.takes(len(wanted)):
            continue
        has = method.parameters
        if len(has) >= len(wanted):
            what = f"takes {len(has)} parameters, but is given {len(wanted)}"
        elif "self" in has:
            what = f"does not take {wanted[len(has)]}"
        else:
            what = "does not take self" if has else "takes neither self nor request"
        yield name, (f"{cls.name}.{name} {what}.", f"Write:\n{method.rewritten(name, *wanted)}")


def misspelled_methods(cls: Class, used: Container[str] = ()) -> Iterator[tuple[str, Problem]]:
    """Yield the methods of a Resource class whose names are nearly those of render methods.

    Args:
        used: the names of methods that something else may call.
    """
    for name, method in cls.methods.items():
        intended = _intended_method(name)
        if intended is None or intended in cls.methods or name in used:
            continue
        # Beside a good method, `get` may be meant for others.
        if not cls.can_render or name[0] in "rR":
            line = method.rewritten(intended, *_RENDER_PARAMETERS)
            message = f"{cls.name} has a method {name}, which is never called."
            yield name, (message, f"Write:\n{line}")


def _intended_method(name: str) -> str | None:
    """The render method that a misspelled *name* stands for; None if it is no such name."""
    if name.startswith("__") or name in {"render", "children"}:
        return None
    plain = name.replace("_", "").lower()
    of_verb = f"render{plain.removeprefix('do')}"  # `get`, `do_GET`
    if of_verb in _RENDER_METHODS:
        return _RENDER_METHODS[of_verb]
    return _RENDER_METHODS.get(closest_match(plain, _RENDER_METHODS, _SAME_METHOD) or "")
