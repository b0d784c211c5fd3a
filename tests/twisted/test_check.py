"""``rpyserve --check`` knows an installed Twisted."""

from __future__ import annotations

GOOD = """\
from twisted.cred.portal import IRealm, Portal
from twisted.internet import defer, reactor, task
from twisted.internet.task import deferLater
from twisted.python import log
from twisted.python.components import registerAdapter
from twisted.web import http, resource, server, static
from twisted.web.guard import DigestCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Session, Site
from twisted.web.util import redirectTo
import twisted.web.vhost
"""
SCRIPT = """

class Page(Resource):
    def render_GET(self, request):
        return b""


resource = Page()
"""
