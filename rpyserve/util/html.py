"""`html`: a template with values put in, escaped by markupsafe."""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

from markupsafe import Markup, escape

from rpyserve._names import public

# A template whose fields are just names or numbers, and the types that are always written alike.
_SIMPLE_TEMPLATE: Final = re.compile(r"(?:[^{}]++|\{\{|\}\}|\{\w*+\})*+")
_SIMPLE_TYPES: Final = frozenset({str, int, float, Markup})


class _Interpolation(Protocol):
    """A value of a t-string, and how it is to be written."""

    @property
    def value(self) -> Any: ...
    @property
    def conversion(self) -> str | None: ...
    @property
    def format_spec(self) -> str: ...


class _Template(Protocol):
    """What a t-string makes (PEP 750): ``string.templatelib.Template`` of Python 3.14."""

    @property
    def strings(self) -> tuple[str, ...]: ...
    @property
    def interpolations(self) -> tuple[_Interpolation, ...]: ...


@public
def html(template: str | _Template, /, *args: Any, **values: Any) -> Markup:
    """Return *template* with the values put in, each escaped so that it cannot become markup.

    ``html("<p>Hello {name}</p>", name=name)`` is safe whatever the visitor called themselves. What
    an earlier `html` call returned goes in as it is, and so does the text of a t-string. A literal
    brace is written twice, as in `str.format`.

    Args:
        template: HTML with ``{name}`` or ``{}`` where values go; from Python 3.14 on also a
            t-string, ``html(t"<p>Hello {name}</p>")``, which has its values in it (PEP 750).
        args, values: the values, of any type; none with a t-string.

    Returns:
        `markupsafe.Markup`, a `str` that may be returned from a render method.

    Raises:
        TypeError: *template* is no template, or a t-string with values beside it.
    """
    if not isinstance(template, str):
        if not is_t_string(template):
            raise TypeError(
                f"html takes a template, not {type(template).__name__}: html('{{}}', it)"
            )
        if args or values:
            raise TypeError("A t-string has its values in it: html takes no others beside it")
        return _of_t_string(template)
    if _SIMPLE_TYPES.issuperset(map(type, (*args, *values.values()))) and (
        _SIMPLE_TEMPLATE.fullmatch(template)
    ):
        # The same, by the interpreter's own `str.format`, in a third of the time.
        escaped = {name: escape(value) for name, value in values.items()}
        return Markup(str.format(template, *map(escape, args), **escaped))
    given = {name: _of_value(value) for name, value in values.items()}
    return Markup(template).format(*map(_of_value, args), **given)


def _of_t_string(template: _Template) -> Markup:
    strings = iter(template.strings)
    parts = [Markup(next(strings))]
    for each, text in zip(template.interpolations, strings, strict=True):
        value = _of_value(each.value)
        conversion = f"!{each.conversion}" if each.conversion else ""
        parts.append(Markup(f"{{{conversion}:{each.format_spec}}}").format(value))
        parts.append(Markup(text))
    return Markup().join(parts)


def _of_value(value: Any) -> Any:
    return _of_t_string(value) if is_t_string(value) else value


def is_t_string(value: object) -> bool:
    """Return whether *value* is what a t-string makes."""
    return hasattr(type(value), "interpolations") and hasattr(type(value), "strings")
