"""Templates beside scripts, by Jinja2: ``template("page.html.j2", name=name)`` is the page.

Owns where templates are found (beside the caller, then in the site's directory, never outside of
it) and that an edit of one, or of one that it extends or includes, is seen by the next request:
that goes by `file_state`, because Jinja's own look at the time stamp misses edits. Jinja2 is an
extra, and imported by the first call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from rpyserve._names import public
from rpyserve.files.path_rules import is_inside
from rpyserve.scripts import file_state
from rpyserve.util.author_code import working_directory

if TYPE_CHECKING:
    import jinja2

_MISSING_EXTRA: Final = "Templates need Jinja2, which is not installed. Write: pip install Jinja2"


@public
def template(name: str, /, **values: Any) -> Markup:
    """Return the template *name* with *values* put in, escaped so that none becomes markup.

    What `html` returned goes in as it is. A name that the template uses and that has no value is an
    error. Values in ``.txt.j2`` templates are not escaped.

    Args:
        name: the template's file, such as ``"page.html.j2"``: beside the script or module that
            calls this, or in the site's directory. ``{% extends %}`` and ``{% include %}`` look
            beside the template, then in the site.
        values: what the template may use.

    Returns:
        `markupsafe.Markup`, a `str` that may be returned from a render method.

    Raises:
        ImportError: Jinja2 is not installed.
        jinja2.TemplateNotFound: there is no such template in the site.
        jinja2.UndefinedError: the template uses a name that has no value.
    """
    caller = sys._getframe(1).f_globals
    beside = os.path.dirname(os.path.abspath(caller.get("__file__") or "."))
    root = getattr(caller.get("__execution__"), "root", None) or working_directory() or beside
    root, beside = os.path.realpath(root), os.path.realpath(beside)
    if not is_inside(root, beside):
        root = beside
    loaded = _environment(root).get_template(_relative(name, beside, root))
    return Markup(loaded.render(**values))


def _relative(name: str, beside: str, root: str) -> str:
    """Return *name* as the loader has it: relative to the site's directory, with slashes."""
    path = os.path.join(beside, name)
    if os.path.isfile(path):
        return os.path.relpath(path, root).replace(os.sep, "/")
    return name


@lru_cache(maxsize=16)
def _environment(root: str) -> jinja2.Environment:
    try:
        import jinja2
    except ImportError as exc:
        raise ImportError(_MISSING_EXTRA, name=exc.name) from None

    class Environment(jinja2.Environment):
        def join_path(self, template: str, parent: str) -> str:
            beside = os.path.dirname(os.path.join(root, parent))
            return _relative(template, beside, root)

    def is_escaped(name: str | None) -> bool:
        return name is None or not name.lower().endswith((".txt.j2", ".txt.jinja"))

    return Environment(
        loader=jinja2.FunctionLoader(partial(_source, root, jinja2.TemplateNotFound)),
        autoescape=is_escaped,
        undefined=jinja2.StrictUndefined,
        auto_reload=True,
        cache_size=400,
    )


def _source(
    root: str, not_found: Callable[[str, str], Exception], name: str
) -> tuple[str, str, Callable[[], bool]]:
    """Return the text of a template, its file, and what says whether that text is up to date."""
    path = os.path.join(root, *name.split("/"))
    if not is_inside(root, os.path.realpath(path)):
        raise not_found(name, f"The template {name!r} would be outside of the site.")
    try:
        data, state = file_state.read(path)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ValueError(f"The template {name!r} is not UTF-8; save it as UTF-8.") from exc
    except (OSError, ValueError):
        raise not_found(name, f"There is no template {name!r} in the site.") from None
    return text, path, lambda: not state.changed()
