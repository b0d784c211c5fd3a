"""The visit counter of "Twisted Web in 60 seconds": an object of your own for each visitor.

ICounter is the key under which a session keeps its Counter. cache() makes this script run once,
so the key stays the same and the Counter is found again.
"""

from rpyserve import Attribute, Interface, Resource, Session, cache, html, implementer, registerAdapter
from tour import page

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
        return page("The counter", html('<p class="big">Visit #{} for you!</p>', counter.value), __file__)


resource = CounterPage()
