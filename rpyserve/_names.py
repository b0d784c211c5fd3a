"""The version, the public names, and where each is defined; nothing is imported here."""

from __future__ import annotations

from typing import Final, TypeVar

__all__ = ["HOMES", "PUBLIC", "__version__", "public"]

__version__ = "0.1.0"

HOMES: Final = {
    "NOT_DONE_YET": "rpyserve.resources.rendering",
    "Attribute": "zope.interface",
    "BasicAuth": "rpyserve.resources.auth",
    "Directory": "rpyserve.files.directory",
    "HTTPError": "rpyserve.http.errors",
    "Interface": "zope.interface",
    "Job": "rpyserve.scripts.background",
    "NameVirtualHost": "rpyserve.resources.virtual_host",
    "Redirect": "rpyserve.http.errors",
    "Registry": "rpyserve.sessions.session",
    "Request": "rpyserve.http.request",
    "Resource": "rpyserve.resources.resource",
    "Response": "rpyserve.http.response",
    "ReverseProxyResource": "rpyserve.resources.proxy",
    "Session": "rpyserve.sessions.session",
    "Site": "rpyserve.site",
    "Upload": "rpyserve.http.forms",
    "WSGIResource": "rpyserve.resources.wsgi",
    "WebSocketResource": "rpyserve.resources.websocket",
    "Limits": "rpyserve.protocol.server_state",
    "SessionEnd": "rpyserve.sessions.session",
    "WebSocket": "rpyserve.http.websocket",
    "WebSocketClosed": "rpyserve.http.websocket",
    "background": "rpyserve.scripts.background",
    "cache": "rpyserve.scripts.execution",
    "current_job": "rpyserve.scripts.background",
    "cors": "rpyserve.resources.cors",
    "html": "rpyserve.util.html",
    "in_thread": "rpyserve.scripts.threads",
    "implementer": "zope.interface",
    "registerAdapter": "rpyserve.sessions.adapters",
    "run": "rpyserve.serving.run",
    "serve": "rpyserve.serving.run",
    "template": "rpyserve.files.templates",
    "websocket": "rpyserve.resources.websocket",
}
"""The module that defines each public name."""

PUBLIC: Final = frozenset({*HOMES, "registry"})
"""What a script may import from ``rpyserve``; `registry` is that of the running script."""

T = TypeVar("T")


def public(thing: T) -> T:
    """Give a class or function that scripts import from ``rpyserve`` that module as its home.

    Then `help`, error messages and pickles name a place that stays, not an inner module.
    """
    thing.__module__ = "rpyserve"
    return thing
