"""The visit counter without cache(), to show what cache() is for.

This script runs again for every request. Each run defines a new ICounter, a key that the session
has never seen, so it creates a new Counter, which starts at 0.
"""

from layout import page
from rpyserve import Attribute, Interface, Resource, Session, html, implementer, registerAdapter


class ICounter(Interface):
    value = Attribute("How many pages this visitor has seen, an int.")


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)

TEXT = """<p class="big">Visit #{} for you!</p>
<p>It never gets past 1. Without <code>cache()</code> the script runs again for every request, so
each time <code>ICounter</code> is a new interface: a different key, and a new <code>Counter</code>
that starts at 0.</p>
<p>There are two solutions: call <code>cache()</code>, as <a href="/counter">counter.rpy</a> does,
or store the number under a plain name, <code>session["visits"]</code>, as
<a href="/session">session.rpy</a> does.</p>
"""


class CounterPage(Resource):
    def render_GET(self, request):
        counter = ICounter(request.getSession())
        counter.value += 1
        return page("Visit counter without cache()", html(TEXT, counter.value), __file__)


resource = CounterPage()
