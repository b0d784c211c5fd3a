"""Advice about names: those of Twisted's and Flask's requests, forgotten imports, misspellings.

Names are looked up without calling any code of the author's.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterable
from typing import Any, Final

from rpyserve._names import PUBLIC
from rpyserve.http.request import Request
from rpyserve.scripts.source import innermost_author_line
from rpyserve.sessions.session import Session
from rpyserve.util.text import closest_match

__all__ = ["closest", "for_attribute", "for_import", "for_member", "for_name"]

_REQUEST: Final = (
    # Twisted's
    ("getHost host", "request.server"),
    ("getClientAddress transport", "request.client"),
    ("getAllHeaders requestHeaders", 'request.getHeader("user-agent")'),
    ("responseHeaders", 'request.setHeader("Content-Type", "text/plain")'),
    ("setLastModified", 'request.setHeader("Last-Modified", ...)'),
    ("setETag", 'request.setHeader("ETag", ...)'),
    ("received_cookies", "request.cookies"),
    ("isSecure", 'request.scheme == "https"'),
    ("clientproto", "request.http_version"),
    ("prePathURL", '"/".join(request.prepath)'),
    ("URLPath", "request.path"),
    ("notifyFinish", "async def render_GET(self, request):\n    try:\n        ...\n    finally:"),
    ("registerProducer", "yield chunk  # a generator sends a page in pieces"),
    # Flask's and others'
    ("form values params query_params GET POST", 'request.field("name")'),
    ("get", 'request.field("name", "")'),
    ("data body get_data", "request.content.read()"),
    ("get_json", "request.json()"),
    ("headers user_agent", 'request.getHeader("user-agent")'),
    ("host_url getRequestHostname", 'request.getHeader("host")'),
    ("remote_addr getClientIP", "request.client[0]"),
    ("query_string", "request.query"),
    ("url full_path", "request.uri"),
)
_SESSION: Final = (
    ("permanent", "session.sessionTimeout = None"),
    ("modified", 'session["name"] = value'),
    ("invalidate", "session.expire()"),
    ("sid", "session.uid"),
)
_MEMBERS: Final = {
    kind: {name: line for names, line in rows for name in names.split()}
    for kind, rows in {Request: _REQUEST, Session: _SESSION}.items()
}
"""What rpyserve has in place of a member of another server's class."""

_HOMES: Final = {
    "Path": "pathlib", "date": "datetime", "timedelta": "datetime", "dataclass": "dataclasses",
    "defaultdict": "collections", "randint": "random", "choice": "random", "sqrt": "math",
    "escape": "html", "quote": "urllib.parse", "sleep": "trio", "open_nursery": "trio",
}  # fmt: skip
"""The modules of names that are often used without an import."""


def for_member(exc: AttributeError) -> str:
    """Return the advice about a member of another server's requests or sessions."""
    for kind, names in _MEMBERS.items():
        if issubclass(type(exc.obj), kind) and exc.name in names:
            return f"rpyserve's {kind.__name__} has no {exc.name}. Write:\n{names[exc.name]}"
    return ""


def for_name(exc: NameError) -> str:
    """Return the advice about a name that is not defined: import it, or what it may stand for."""
    name = exc.name or ""
    if line := _import_line(name):
        return f"Import it first:\n{line}"
    frame, _ = innermost_author_line(exc)
    if frame is None:
        return ""
    if "self" in frame.f_locals and name in _members(frame.f_locals["self"]):
        return f"{name} belongs to the object. Write:\nself.{name}"
    return _did_you_mean(closest(name, [*frame.f_locals, *frame.f_globals, *dir(builtins)]))


def for_attribute(exc: AttributeError) -> str:
    """Return the advice about an attribute that is misspelled."""
    name = exc.name or ""
    names = [each for each in _members(exc.obj) if each[:1] != "_" or name[:1] == "_"]
    found = closest(name, names)
    return _did_you_mean(f".{found}" if found else None)


def for_import(module: str, name: str) -> str:
    """Return the advice about a *name* that *module*, which has been imported, does not have."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return ""
    found = closest(name, getattr(loaded, "__all__", None) or list(vars(loaded)))
    is_relative = module.startswith("rpydir")  # rpyserve's own name for the script's directory
    if found is None or is_relative:
        return _did_you_mean(found)
    return _did_you_mean(f"from {module} import {found}")


def closest(name: str, names: Iterable[Any]) -> str | None:
    """Return the one of *names* that *name* is a misspelling of; None if there is none."""
    if not 3 <= len(name) <= 80:
        return None
    return closest_match(name, [each for each in names if isinstance(each, str) and each != name])


def _did_you_mean(line: str | None) -> str:
    return f"Did you mean this?\n{line}" if line else ""


def _import_line(name: str) -> str:
    if name in PUBLIC:
        return f"from rpyserve import {name}"
    if name in _HOMES:
        return f"from {_HOMES[name]} import {name}"
    if name == "trio" or name in sys.stdlib_module_names:
        return f"import {name}"
    return ""


def _members(thing: object) -> list[str]:
    """The names in the classes of *thing* and in its ``__dict__``; `dir` would call its code."""
    classes = type.__dict__["__mro__"].__get__(type(thing))
    names = [name for each in classes for name in vars(each)]
    try:
        own = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return names
    return [*names, *own] if isinstance(own, dict) else names
