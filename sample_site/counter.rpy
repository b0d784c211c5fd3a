"""The visit counter of "Twisted Web in 60 seconds": one object of your own class for each visitor.

ICounter is the key under which a session stores its Counter. cache() makes this script run only
once, so the key stays the same and the Counter is found again.
"""

from layout import page
from rpyserve import (
    Attribute,
    Interface,
    Resource,
    Session,
    cache,
    html,
    implementer,
    registerAdapter,
)

cache()


class ICounter(Interface):
    value = Attribute("How many pages this visitor has seen, an int.")


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)


class CounterPage(Resource):
    def render_GET(self, request):
        counter = ICounter(request.getSession())
        counter.value += 1
        body = html('<p class="big">Visit #{} for you!</p>', counter.value)
        return page("Visit counter", body, __file__)


resource = CounterPage()
