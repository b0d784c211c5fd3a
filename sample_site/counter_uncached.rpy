"""The visit counter without cache(), to show what cache() is for.

This script runs again for every request. Each run defines an ICounter of its own, which is a key that the
session has never seen: it makes a new Counter, and that one starts at nought.
"""

from rpyserve import Attribute, Interface, Resource, Session, html, implementer, registerAdapter
from tour import page


class ICounter(Interface):
    value = Attribute("How many pages this visitor has seen, an int.")


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)

TEXT = """<p class="big">Visit #{} for you!</p>
<p>It will not get past one. Without <code>cache()</code> the script is executed for every request, so each time
<code>ICounter</code> is a new interface: another key, and another <code>Counter</code> that starts at nought.</p>
<p>Two ways out: call <code>cache()</code>, as <a href="/counter">counter.rpy</a> does, or keep the number under a
plain name, <code>session["visits"]</code>, as <a href="/visits">visits.rpy</a> does.</p>
"""


class CounterPage(Resource):
    def render_GET(self, request):
        counter = ICounter(request.getSession())
        counter.value += 1
        return page("The counter without cache()", html(TEXT, counter.value), __file__)


resource = CounterPage()
