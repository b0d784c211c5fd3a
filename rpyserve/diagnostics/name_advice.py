"""Names that people bring along from elsewhere: Twisted's and Flask's on requests, and what modules hold by that name.

Each with what to write here. Names that rpyserve has itself are not in here: a test keeps it so.

Names that are nearly right: what Python itself suggests on a terminal, and the names of a script's own things.

Looks names up without calling anything of the author's. A name of two letters is never taken for a slip.
"""

from __future__ import annotations

import builtins
import difflib
import sys
from collections.abc import Iterable
from typing import Any, Final

from rpyserve.diagnostics.async_advice import innermost
from rpyserve.http.request import Request
from rpyserve.resources.resource import Resource
from rpyserve.sessions.session import Session

__all__ = ["for_attribute", "for_import", "for_member", "for_name", "for_unimported", "near"]


_REQUEST: Final = {
    # Twisted's IRequest
    "getClientIP": "request.client[0]", "getClientAddress": "request.client", "getClient": "request.client[0]",
    "getHost": "request.server", "getRequestHostname": 'request.getHeader("host")', "host": "request.server",
    "getAllHeaders": 'request.getHeader("user-agent")', "requestHeaders": 'request.getHeader("user-agent")',
    "received_headers": 'request.getHeader("user-agent")', "received_cookies": "request.cookies",
    "responseHeaders": 'request.setHeader("Content-Type", "text/plain")',
    "isSecure": 'request.scheme == "https"', "clientproto": "request.http_version",
    "notifyFinish": "async def render_GET(self, request):\n    try:\n        ...\n    finally:",
    "registerProducer": "yield chunk  # a generator sends a page in pieces", "prePathURL": '"/".join(request.prepath)',
    "URLPath": "request.path", "transport": "request.client",
    "setLastModified": 'request.setHeader("Last-Modified", ...)', "setETag": 'request.setHeader("ETag", ...)',
    # Flask's and others'
    "form": 'request.field("name")', "values": 'request.field("name")', "GET": 'request.field("name")',
    "POST": 'request.field("name")', "params": 'request.field("name")', "query_params": 'request.field("name")',
    "get": 'request.field("name", "")', "headers": 'request.getHeader("user-agent")',
    "data": "request.content.read()", "body": "request.content.read()", "get_data": "request.content.read()",
    "get_json": "request.json()",
    "remote_addr": "request.client[0]", "query_string": "request.query", "url": "request.uri",
    "full_path": "request.uri", "user_agent": 'request.getHeader("user-agent")',
    "host_url": 'request.getHeader("host")',
}  # fmt: skip
_SESSION: Final = {
    "setAdapter": "registerAdapter(Counter, Session, ICounter)", "permanent": "session.sessionTimeout = None",
    "modified": 'session["name"] = value', "invalidate": "session.expire()",
    "id": "session.uid", "sid": "session.uid",
}  # fmt: skip
_RESOURCE: Final = {
    "listNames": "list(self.children)", "listStaticNames": "list(self.children)",
    "delEntity": "del self.children[name]", "getStaticEntity": "self.children.get(name)",
    "getDynamicEntity": "self.getChild(name, request)",
    "getChildForRequest": "self.getChildWithDefault(name, request)",
}  # fmt: skip
_MEMBERS: Final = {Request: _REQUEST, Session: _SESSION, Resource: _RESOURCE}

_HOMES: Final = {
    "Path": "pathlib", "datetime": "datetime", "date": "datetime", "timedelta": "datetime", "partial": "functools",
    "wraps": "functools", "lru_cache": "functools", "dataclass": "dataclasses", "field": "dataclasses",
    "defaultdict": "collections", "namedtuple": "collections", "deque": "collections", "OrderedDict": "collections",
    "Enum": "enum", "randint": "random", "choice": "random", "shuffle": "random", "sqrt": "math", "ceil": "math",
    "floor": "math", "pi": "math", "sleep": "trio", "open_nursery": "trio", "quote": "urllib.parse",
    "urlencode": "urllib.parse", "escape": "html", "Any": "typing", "Optional": "typing", "Decimal": "decimal",
    "chain": "itertools", "count": "itertools", "StringIO": "io", "BytesIO": "io", "dedent": "textwrap",
    "contextmanager": "contextlib", "suppress": "contextlib", "uuid4": "uuid", "getLogger": "logging",
}  # fmt: skip


def for_member(thing: object, name: str) -> str:
    """Return the hint for an attribute *name* of a request, session or resource that another server's have."""
    for kind, names in _MEMBERS.items():
        if issubclass(type(thing), kind) and name in names:
            return f"rpyserve's {kind.__name__} has no {name}. Write:\n{names[name]}"
    return ""


def for_unimported(name: str) -> str:
    """Return the hint for a *name* that must be imported first; empty if it is none that is known."""
    from rpyserve._names import PUBLIC

    if name in PUBLIC:
        return f"Import it first:\nfrom rpyserve import {name}"
    if name in _HOMES:
        return f"Import it first:\nfrom {_HOMES[name]} import {name}"
    if name == "trio" or name in sys.stdlib_module_names:
        return f"Import it first:\nimport {name}"
    return ""


def near(name: str, names: Iterable[str], cutoff: float = 0.7) -> str:
    """Return the one of *names* that *name* may stand for; empty if there is none."""
    known = [each for each in names if isinstance(each, str) and each != name]
    if len(name) < 3 or len(name) > 80:
        return ""
    same = [
        each for each in known if each.replace("_", "").lower() == name.replace("_", "").lower()
    ]
    return next(iter(same or difflib.get_close_matches(name, known, 1, cutoff)), "")


def for_name(exc: NameError, name: str) -> str:
    """Return the hint for an unknown *name*: one of the method's own object, or one that is nearly the same."""
    frame, _ = innermost(exc)
    if frame is None:
        return ""
    this = frame.f_locals.get("self")
    members = set(_members(this)) if this is not None else set()
    if name in members:
        return f"{name} belongs to the object. Write:\nself.{name}"
    if found := near(name, [*frame.f_locals, *frame.f_globals, *dir(builtins)]):
        return f"Did you mean this?\n{found}"
    found = near(name, members)
    return f"Did you mean this?\nself.{found}" if found else ""


def for_attribute(thing: object, name: str) -> str:
    """Return the hint for an attribute *name* that *thing* lacks."""
    found = near(
        name, [each for each in _members(thing) if not each.startswith("_") or name.startswith("_")]
    )
    return f"Did you mean this?\n.{found}" if found else ""


def for_import(module: str, name: str) -> str:
    """Return the hint for a *name* that *module*, which has been imported, lacks."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return ""
    names = getattr(loaded, "__all__", None) or [
        each for each in vars(loaded) if not each.startswith("_")
    ]
    found = near(name, names)
    if not found:
        return ""
    relative = module.startswith("rpydir")  # a name of ours, that nobody can write
    return f"Did you mean this?\n{found if relative else f'from {module} import {found}'}"


def _members(thing: Any) -> list[str]:
    found = [name for kind in type.__dict__["__mro__"].__get__(type(thing)) for name in vars(kind)]
    try:
        own = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        own = {}
    return [*found, *(own if isinstance(own, dict) else ())]
