"""What is told to Twisted's log is on our console."""

from __future__ import annotations

import gc
import logging

import pytest

from tests.support.genuine import TwistedSite

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PAGE = """\
from twisted.internet import defer, reactor
from twisted.logger import Logger
from twisted.python import log
from twisted.web.resource import Resource

class Page(Resource):
    isLeaf = True

    def render_GET(self, request):
        {body}
        return b""

def fail():
    raise KeyError("the name")

resource = Page()
"""


def messages_of(site: TwistedSite, body: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged when the script is visited whose method is *body*."""
    caplog.set_level(logging.INFO)
    site.write("a.rpy", PAGE.format(body=body))
    with site.client() as client:
        assert client.get("/a").status_code == 200
        gc.collect()
        client.get("/a")
        gc.collect()
    records = [each for each in caplog.records if each.name in ("rpyserve", "twisted")]
    return [f"{each.name} {each.levelname} {each.getMessage()}" for each in records]


def test_a_timed_call_that_raises(site: TwistedSite, caplog: pytest.LogCaptureFixture) -> None:
    (message,) = messages_of(site, "reactor.callLater(0, fail)", caplog)
    what, _, report = message.partition(" failed: ")
    # Older versions do not say what it was.
    assert what.endswith(("A timed call of Twisted's reactor", "What Twisted's reactor called"))
    assert report.startswith("KeyError")
    assert "a.rpy:14 in fail" in message
    assert 'raise KeyError("the name")' in message


def test_a_deferred_that_fails(site: TwistedSite, caplog: pytest.LogCaptureFixture) -> None:
    body = "defer.succeed(None).addCallback(lambda _: fail())"
    message = messages_of(site, body, caplog)[0]
    assert message.startswith(
        "rpyserve ERROR A Deferred whose failure nobody handled failed: KeyError"
    )
    assert "a.rpy:14 in fail" in message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("log.msg('hello')", "twisted INFO hello"),
        ("Logger().info('hello {who}', who='you')", "twisted INFO hello you"),
        ("Logger().error('no')", "twisted ERROR no"),
        ("log.err('no')", "twisted CRITICAL 'no'"),
    ],
)
def test_what_the_author_says(
    site: TwistedSite, caplog: pytest.LogCaptureFixture, body: str, expected: str
) -> None:
    assert messages_of(site, body, caplog) == [expected] * 2


def test_what_twisted_says_of_itself(site: TwistedSite, caplog: pytest.LogCaptureFixture) -> None:
    body = "from twisted.internet.protocol import Factory; f = Factory(); f.doStart(); f.doStop()"
    assert messages_of(site, body, caplog) == []
