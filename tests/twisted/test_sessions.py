"""What scripts are promised about sessions holds for genuine resources as it does for our own."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.support.genuine import TwistedSite

HEADS = {
    "ours": "from rpyserve import Resource, Session, registerAdapter\n",
    "genuine": (
        "from twisted.web.resource import Resource\n"
        "from twisted.web.server import Session\n"
        "from twisted.python.components import registerAdapter\n"
    ),
    "both": (
        "from rpyserve import registerAdapter\n"
        "from twisted.web.resource import Resource\n"
        "from twisted.web.server import Session\n"
    ),
    "both, the other way": (
        "from rpyserve import Resource, Session\n"
        "from twisted.python.components import registerAdapter\n"
    ),
}

COUNTER = """
from zope.interface import Interface, Attribute, implementer

class ICounter(Interface):
    value = Attribute("An int value which counts up once per page view.")

@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0

registerAdapter(Counter, Session, ICounter)

class CounterResource(Resource):
    def render_GET(self, request):
        counter = ICounter(request.getSession())
        counter.value += 1
        return "Visit #%d for you!" % counter.value

resource = CounterResource()
"""


@pytest.fixture(params=HEADS)
def head(request: pytest.FixtureRequest) -> str:
    return HEADS[request.param]


def visits(client: Any, path: str = "/a", times: int = 3) -> list[int]:
    return [int(client.get(path).text.partition("#")[2].split()[0]) for _ in range(times)]


def visit(number: int) -> str:
    return f"Visit #{number} for you!"


def test_a_cached_counter_counts(site: TwistedSite, head: str) -> None:
    site.write("a.rpy", f"cache()\n{head}{COUNTER}")
    with site.client() as client, client.new_visitor() as other:
        assert visits(client) == [1, 2, 3]
        assert visits(other) == [1, 2, 3]
        assert visits(client) == [4, 5, 6]


def test_a_session_of_either_kind_is_adapted_by_what_is_said_of_the_other(
    site: TwistedSite,
) -> None:
    head = "from rpyserve import Resource\n" + HEADS["genuine"].partition("\n")[2]
    site.write("a.rpy", f"cache()\n{head}{COUNTER}")
    with site.client() as client:
        assert visits(client) == [1, 2, 3]


def test_an_uncached_counter_stays_at_one(site: TwistedSite, head: str) -> None:
    site.write("a.rpy", f"{head}{COUNTER}")
    with site.client() as client:
        assert visits(client) == [1, 1, 1]


def test_two_scripts_have_two_counters(site: TwistedSite, head: str) -> None:
    site.write("a.rpy", f"cache()\n{head}{COUNTER}")
    site.write("b.rpy", f"cache()\n{head}{COUNTER}")
    with site.client() as client:
        assert visits(client, "/a") == [1, 2, 3]
        assert visits(client, "/b") == [1, 2, 3]


def test_two_interfaces_of_one_name_in_one_script(site: TwistedSite, head: str) -> None:
    two = COUNTER.replace("resource = CounterResource()", "first = ICounter\n") + COUNTER.replace(
        "counter.value += 1", "counter.value += 1; first(request.getSession()).value += 10"
    ).replace("% counter.value", "% (counter.value + first(request.getSession()).value)")
    site.write("a.rpy", f"cache()\n{head}{two}")
    with site.client() as client:
        assert visits(client) == [11, 22, 33]


def test_an_edit_goes_on_counting_in_the_new_class(site: TwistedSite, head: str) -> None:
    site.write("a.rpy", f"cache()\n{head}{COUNTER}")
    with site.client() as client:
        assert visits(client) == [1, 2, 3]
        edited = COUNTER.replace("self.value = 0", "self.value = 0; self.colour = 'red'").replace(
            '"Visit #%d for you!" % counter.value',
            '"Visit #%d for you! %s %s" % (counter.value, counter.colour, type(counter) is Counter)',
        )
        site.write("a.rpy", f"cache()\n{head}{edited}")
        assert client.get("/a").text == "Visit #4 for you! red True"
        assert visits(client) == [5, 6, 7]


def test_components_are_set_and_unset(site: TwistedSite, head: str) -> None:
    body = """
class Note: pass
class Page(Resource):
    def render_GET(self, request):
        session = request.getSession()
        before = session.getComponent(Note), session.getComponent(Note, "none")
        session.setComponent(Note, Note())
        found = type(session.getComponent(Note)).__name__
        session.unsetComponent(Note)
        return "%s %s %s" % (before, found, session.getComponent(Note))
resource = Page()
"""
    site.write("a.rpy", f"cache()\n{head}{body}")
    with site.client() as client:
        assert client.get("/a").text == "(None, 'none') Note None"


def test_visits_keep_a_session_alive_and_idle_time_ends_it(site: TwistedSite, head: str) -> None:
    site.write("a.rpy", f"cache()\n{head}{COUNTER}")
    with site.client(session_timeout=2) as client:
        for number in range(1, 6):
            assert client.get("/a").text == visit(number)
            client.sleep(1)
        client.sleep(1.5)
        assert client.get("/a").text == visit(1)


EXPIRY = """
ended = []

class Short(Session):
    sessionTimeout = 5

class Page(Resource):
    def render_GET(self, request):
        request.site.sessionFactory = Short
        session = request.getSession()
        if request.args.get("watch"):
            session.notifyOnExpire(lambda: ended.append("ended"))
        if request.args.get("end"):
            session.expire()
            session.expire()
        return "%s %s" % (type(session).__name__, ended)

resource = Page()
"""


def test_a_class_that_says_how_long(site: TwistedSite, head: str) -> None:
    site.write("a.rpy", f"cache()\n{head}{EXPIRY}")
    with site.client(session_timeout=100) as client, client.new_visitor() as other:
        for _ in range(3):
            assert client.get("/a?watch=1").text.startswith("Short [")
            client.sleep(3)
        client.sleep(2.5)
        assert other.get("/a").text == "Short ['ended', 'ended', 'ended']"


def test_an_uncached_script_cannot_give_the_class_of_sessions(site: TwistedSite, head: str) -> None:
    site.write("a.rpy", f"{head}{EXPIRY}")
    site.write("b.rpy", f"cache()\n{head}{COUNTER}")
    with site.client(raise_errors=False) as client:
        response = client.get("/a")
        assert response.status_code == 500
        assert "site.sessionFactory makes sessions" in response.text
        assert "cache() as the first line" in response.text
        assert visits(client, "/b") == [1, 2, 3]


def test_to_expire_twice_does_nothing(site: TwistedSite, head: str) -> None:
    site.write("a.rpy", f"cache()\n{head}{EXPIRY}")
    with site.client() as client:
        assert client.get("/a?watch=1&end=1").text == "Short ['ended']"
        assert client.get("/a").text == "Short ['ended']"


def test_a_session_ends_with_the_site(site: TwistedSite, head: str) -> None:
    site.write(
        "a.rpy", f"cache()\n{head}{EXPIRY}".replace("ended = []", "ended = registry['e'] = []")
    )
    with site.client() as client:
        client.get("/a?watch=1")
        ended = client.registry["e"]
    assert ended == ["ended"]


def test_the_site_option_holds_for_twisteds_own_class(site: TwistedSite) -> None:
    site.write("a.rpy", f"cache()\n{HEADS['genuine']}{COUNTER}")
    with site.client(session_timeout=2) as client:
        client.get("/a")
        assert client.session is not None
        assert client.session.sessionTimeout == 2


def test_what_is_kept_on_a_genuine_session_follows_an_edit(site: TwistedSite) -> None:
    body = """
class Cart:
    def __init__(self): self.things = []

class Mine(Session):
    def greeting(self): return "old"

class Page(Resource):
    def render_GET(self, request):
        request.site.sessionFactory = Mine
        session = request.getSession()
        if not hasattr(session, "cart"): session.cart = Cart()
        session.cart.things.append(1)
        return "%s %d %s" % (
            session.greeting(), len(session.cart.things), type(session.cart) is Cart)
resource = Page()
"""
    site.write("a.rpy", f"cache()\n{HEADS['genuine']}{body}")
    with site.client() as client:
        assert client.get("/a").text == "old 1 True"
        site.write("a.rpy", f"cache()\n{HEADS['genuine']}{body.replace('old', 'new')}")
        assert client.get("/a").text == "new 2 True"
        assert client.get("/a").text == "new 3 True"


def test_the_sessions_of_the_site(site: TwistedSite) -> None:
    body = """
class Page(Resource):
    def render_GET(self, request):
        session, site = request.getSession(), request.site
        same = site.getSession(session.uid) is session and site.sessions[session.uid] is session
        known = session.uid in site.sessions, b"x" in site.sessions, len(site.sessions)
        return "%s %s %s" % (same, known, request.session is session)
resource = Page()
"""
    site.write("a.rpy", f"{HEADS['genuine']}{body}")
    with site.client() as client:
        assert client.get("/a").text == "True (True, False, 1) True"


def test_a_new_id_is_the_genuine_sessions_too(site: TwistedSite) -> None:
    body = """
class Page(Resource):
    def render_GET(self, request):
        registry["sessions"] = request.site.sessions
        return request.getSession().uid
resource = Page()
"""
    site.write("a.rpy", f"{HEADS['genuine']}{body}")
    with site.client() as client:
        first = client.get("/a").text
        session = client.session
        assert session is not None and session.uid == first
        sessions = client.registry["sessions"]
        genuine = sessions[first.encode()]
        session.regenerate()
        assert client.session is None  # the cookie still has the old id
        assert session.uid != first
        assert sessions[session.uid.encode()] is genuine
        assert genuine.uid == session.uid


def test_a_session_leaves_the_reactor_of_the_site_alone(site: TwistedSite) -> None:
    body = """
class Page(Resource):
    def render_GET(self, request):
        request.site.reactor = own = object()
        request.getSession()
        return str(request.site.reactor is own)
resource = Page()
"""
    site.write("a.rpy", f"{HEADS['genuine']}{body}")
    with site.client() as client:
        assert client.get("/a").text == "True"


def test_uncached_executions_leave_nothing(site: TwistedSite) -> None:
    site.write("a.rpy", f"{HEADS['genuine']}{COUNTER}")
    with site.client() as client:
        for _ in range(5):
            client.get("/a")
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(200):
            client.get("/a")
        gc.collect()
        after = len(gc.get_objects())
    assert after - before < 200
