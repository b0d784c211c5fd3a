"""Whether a `Resource` can answer at all: its render methods, their names and their parameters.

Calls nothing of the script's. A method that is merely missing is no fault while another one answers.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from typing import Any, Final

from rpyserve.resources.resource import Resource

__all__ = ["FINE", "Finding", "class_example", "judge", "meant", "parameters", "takes"]

Finding = tuple[str, str]
"""A message (empty: all is well) and a hint, in lines."""

FINE: Final[Finding] = ("", "")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


def judge(value: Resource) -> Finding:
    """Look over a resource: can it answer any request, and can its methods be called as they are written?"""
    kind = type(value)
    good = [name for name in dir(kind) if re.fullmatch(r"render_[A-Z]+", name)]
    for name in good:
        if not takes(getattr(value, name), 1):
            return _method(kind, name, ("self", "request"))
    for name, names in {"render": ("self", "request"), "getChild": ("self", "name", "request")}.items():
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
        return "A plain Resource cannot answer anything.", f"Make a class of your own:\n{class_example('Hello')}"
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
    near = difflib.get_close_matches(plain, candidates, 1, 0.85) if plain[:2] in {"re", "rn", "er"} else []
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
        return str(exc) != "invalid method signature"  # a method without even self; else: written in C
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
