"""`html`: a template with values put in, escaped by markupsafe."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from rpyserve._names import public

__all__ = ["html"]


@public
def html(template: str, /, *args: Any, **values: Any) -> Markup:
    """Return *template* with the values put in, each escaped so that it cannot become markup.

    ``html("<p>Hello {name}</p>", name=name)`` is safe whatever the visitor called themselves. What
    an earlier `html` call returned goes in as it is. A literal brace is written twice, as in
    `str.format`.

    Args:
        template: HTML with ``{name}`` or ``{}`` where values go.
        args, values: the values, of any type.

    Returns:
        `markupsafe.Markup`, a `str` that may be returned from a render method.
    """
    return Markup(template).format(*args, **values)
