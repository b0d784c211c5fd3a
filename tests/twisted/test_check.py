"""``rpyserve --check`` knows an installed Twisted."""

from __future__ import annotations

import pytest

from rpyserve.check.checker import check
from tests.support.genuine import TwistedSite

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


def findings(site: TwistedSite, text: str) -> list[str]:
    site.write("a.rpy", text)
    found = check(str(site.root)).findings.get("a.rpy", [])
    return [f"{each.message} {each.hint}" for each in found]


def test_an_installed_one_is_known(site: TwistedSite) -> None:
    assert findings(site, GOOD + SCRIPT) == []


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("from twisted.web.server import Sesion", "There is no Sesion in twisted.web.server."),
        ("from twisted.web import nothing", "There is no nothing in twisted.web."),
        ("import twisted.web.nowhere", "Twisted has no module twisted.web.nowhere."),
    ],
)
def test_what_it_does_not_have(site: TwistedSite, line: str, finding: str) -> None:
    (found,) = findings(site, f"{line}\n{GOOD}{SCRIPT}")
    assert finding in found
