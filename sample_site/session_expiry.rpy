"""Prints a line on the server's console when a visitor's session expires."""

from layout import page
from rpyserve import Resource, cache, html

cache()

TEXT = """<p>Your session is <code>{}…</code>. Every request to a page that uses the session keeps
it alive.</p>
<p>Stay away for as long as <code>--session-timeout</code> says (15 minutes by default), and the
console prints once that the session has expired.</p>
"""


class ExpirationLogger(Resource):
    def render_GET(self, request):
        session = request.getSession()
        uid = session.uid
        if "logged" not in session:
            session["logged"] = True
            session.notifyOnExpire(lambda: print("Session", uid, "has expired."))
        return page("Session expiry", html(TEXT, uid[:6]), __file__)


resource = ExpirationLogger()
