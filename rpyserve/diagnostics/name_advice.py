"""Advice about names: those of Twisted's and Flask's requests, forgotten imports, misspellings.

Names are looked up without calling any code of the author's.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterable
from typing import Any, Final

from rpyserve._names import PUBLIC
from rpyserve.diagnostics.excerpts import innermost_author_line
from rpyserve.http.request import Request
from rpyserve.sessions.session import Session
from rpyserve.util.text import closest_match

__all__ = ["closest", "for_attribute", "for_import", "for_member", "for_name"]

_FIELD: Final = 'request.field("name")'
_HEADER: Final = 'request.getHeader("user-agent")'
_BODY: Final = "request.content.read()"

_REQUEST: Final = {
    # Twisted's
    "getClientIP": "request.client[0]",
    "getClientAddress": "request.client",
    "transport": "request.client",
    "getHost": "request.server",
    "getRequestHostname": 'request.getHeader("host")',
    "getAllHeaders": _HEADER,
    "requestHeaders": _HEADER,
    "responseHeaders": 'request.setHeader("Content-Type", "text/plain")',
    "setLastModified": 'request.setHeader("Last-Modified", ...)',
    "setETag": 'request.setHeader("ETag", ...)',
    "received_cookies": "request.cookies",
    "isSecure": 'request.scheme == "https"',
    "clientproto": "request.http_version",
    "prePathURL": '"/".join(request.prepath)',
    "URLPath": "request.path",
    "notifyFinish": "async def render_GET(self, request):\n    try:\n        ...\n    finally:",
    "registerProducer": "yield chunk  # a generator sends a page in pieces",
    # Flask's and others'
    "form": _FIELD,
    "values": _FIELD,
    "params": _FIELD,
    "query_params": _FIELD,
    "GET": _FIELD,
    "POST": _FIELD,
    "get": 'request.field("name", "")',
    "headers": _HEADER,
    "user_agent": _HEADER,
    "data": _BODY,
    "body": _BODY,
    "get_data": _BODY,
    "get_json": "request.json()",
    "remote_addr": "request.client[0]",
    "query_string": "request.query",
    "url": "request.uri",
    "full_path": "request.uri",
    "host": "request.server",
    "host_url": 'request.getHeader("host")',
}
_SESSION: Final = {
    "permanent": "session.sessionTimeout = None",
    "modified": 'session["name"] = value',
    "invalidate": "session.expire()",
    "sid": "session.uid",
}
_MEMBERS: Final = {Request: _REQUEST, Session: _SESSION}
"""What rpyserve has in place of a member of another server's class."""

_HOMES: Final = {
    "Path": "pathlib",
    "date": "datetime",
    "timedelta": "datetime",
    "dataclass": "dataclasses",
    "defaultdict": "collections",
    "randint": "random",
    "choice": "random",
    "sqrt": "math",
    "escape": "html",
    "quote": "urllib.parse",
    "sleep": "trio",
    "open_nursery": "trio",
}
"""The modules of names that are often used without an import."""


def for_member(thing: object, name: str) -> str:
    """Return the advice if *name* is a member of another server's request or session."""
    for kind, names in _MEMBERS.items():
        if issubclass(type(thing), kind) and name in names:
            return f"rpyserve's {kind.__name__} has no {name}. Write:\n{names[name]}"
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


def for_attribute(thing: object, name: str) -> str:
    """Return the advice about an attribute *name* that *thing* does not have."""
    names = [each for each in _members(thing) if each[:1] != "_" or name[:1] == "_"]
    found = closest(name, names)
    return _did_you_mean(f".{found}" if found else None)


def for_import(module: str, name: str) -> str:
    """Return the advice about a *name* that *module*, which has been imported, does not have."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return ""
    names = getattr(loaded, "__all__", None) or [each for each in vars(loaded) if each[:1] != "_"]
    found = closest(name, names)
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
