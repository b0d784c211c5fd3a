"""The public names, and where each is defined; nothing is imported here."""

from __future__ import annotations

from typing import Final

__all__ = ["HOMES", "PUBLIC"]

HOMES: Final = {
    "NOT_DONE_YET": "rpyserve.resources.rendering",
    "Attribute": "zope.interface",
    "BasicAuth": "rpyserve.resources.auth",
    "Directory": "rpyserve.files.directory",
    "HTTPError": "rpyserve.http.errors",
    "Interface": "zope.interface",
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
    "background": "rpyserve.scripts.background",
    "cache": "rpyserve.scripts.loader",
    "cors": "rpyserve.resources.cors",
    "html": "rpyserve.util.html",
    "implementer": "zope.interface",
    "registerAdapter": "rpyserve.sessions.components",
    "run": "rpyserve.serving.run",
    "serve": "rpyserve.serving.run",
    "template": "rpyserve.files.templates",
    "websocket": "rpyserve.resources.websocket",
}
"""The module that defines each public name."""

PUBLIC: Final = frozenset({*HOMES, "registry"})
"""What a script may import from ``rpyserve``; `registry` is that of the running script."""
