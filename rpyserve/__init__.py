"""rpyserve: save a Python file and it is a web page; edit it and the page follows.

A script imports all it needs from here. Each name is loaded when it is first used, so that ``import
rpyserve`` and ``rpyserve --help`` cost next to nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rpyserve._names import HOMES
from rpyserve._names import __version__ as __version__

__all__ = [
    "NOT_DONE_YET",
    "Attribute",
    "BasicAuth",
    "Directory",
    "HTTPError",
    "Interface",
    "Job",
    "Limits",
    "NameVirtualHost",
    "Redirect",
    "Registry",
    "Request",
    "Resource",
    "Response",
    "ReverseProxyResource",
    "Session",
    "SessionEnd",
    "Site",
    "Upload",
    "WSGIResource",
    "WebSocket",
    "WebSocketClosed",
    "WebSocketResource",
    "background",
    "cache",
    "cors",
    "current_job",
    "html",
    "implementer",
    "in_thread",
    "registerAdapter",
    "registry",
    "run",
    "serve",
    "template",
    "websocket",
]

if TYPE_CHECKING:
    from zope.interface import Attribute, Interface, implementer

    from rpyserve.files.directory import Directory
    from rpyserve.files.templates import template
    from rpyserve.http.errors import HTTPError, Redirect
    from rpyserve.http.forms import Upload
    from rpyserve.http.request import Request
    from rpyserve.http.response import Response
    from rpyserve.http.websocket import WebSocket, WebSocketClosed
    from rpyserve.protocol.server_state import Limits
    from rpyserve.resources.auth import BasicAuth
    from rpyserve.resources.cors import cors
    from rpyserve.resources.proxy import ReverseProxyResource
    from rpyserve.resources.rendering import NOT_DONE_YET
    from rpyserve.resources.resource import Resource
    from rpyserve.resources.virtual_host import NameVirtualHost
    from rpyserve.resources.websocket import WebSocketResource, websocket
    from rpyserve.resources.wsgi import WSGIResource
    from rpyserve.scripts.background import Job, background, current_job
    from rpyserve.scripts.execution import cache
    from rpyserve.scripts.threads import in_thread
    from rpyserve.serving.run import run, serve
    from rpyserve.sessions.adapters import registerAdapter
    from rpyserve.sessions.session import Registry, Session, SessionEnd
    from rpyserve.site import Site
    from rpyserve.util.html import html

    registry: Registry


class _TwistedForPrograms:
    """The last resort for ``from twisted.web.server import Site`` in the author's own code.

    For what no installed Twisted answers, and for nobody but the author: a library that asks
    whether there is a Twisted gets its "no". See `scripts.twisted_names`.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name != "twisted":
            return None
        from rpyserve.scripts import twisted_names

        return twisted_names.find_for_author(name)


sys.meta_path.append(_TwistedForPrograms())


def __getattr__(name: str) -> Any:
    if name == "registry":
        return _running_registry()
    if name not in HOMES:
        raise AttributeError(f"module 'rpyserve' has no attribute {name!r}")
    value = getattr(import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def _running_registry() -> Any:
    """The registry of the site whose script is being executed: each site has its own."""
    from rpyserve.scripts.execution import current

    execution = current()
    if execution is None:
        raise AttributeError(
            "rpyserve.registry is that of a running script; elsewhere use request.site.registry"
        )
    return execution.registry


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
