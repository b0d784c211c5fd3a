"""Names that people bring along from elsewhere: Twisted's and Flask's on requests, and what modules hold by that name.

Each with what to write here. Names that rpyserve has itself are not in here: a test keeps it so.
"""

from __future__ import annotations

import sys
from typing import Final

from rpyserve.http.request import Request
from rpyserve.resources.resource import Resource
from rpyserve.sessions.session import Session

__all__ = ["for_member", "for_unimported"]

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
    import rpyserve

    if name in rpyserve.__all__:
        return f"Import it first:\nfrom rpyserve import {name}"
    if name in _HOMES:
        return f"Import it first:\nfrom {_HOMES[name]} import {name}"
    if name == "trio" or name in sys.stdlib_module_names:
        return f"Import it first:\nimport {name}"
    return ""
