"""Prints a line on the server's console when a visitor's session ends. From the series' last part on sessions."""

from rpyserve import Resource, cache, html
from tour import page

cache()

TEXT = """<p>Your session is <code>{}…</code>. Each visit to any page that asks for the session keeps it alive.</p>
<p>Stay away for as long as <code>--session-timeout</code> says (15 minutes if it says nothing), and the console
prints that the session has expired, once.</p>
"""


class ExpirationLogger(Resource):
    def render_GET(self, request):
        session = request.getSession()
        uid = session.uid
        if "logged" not in session:
            session["logged"] = True
            session.notifyOnExpire(lambda: print("Session", uid, "has expired."))
        return page("The end of a session", html(TEXT, uid[:6]), __file__)


resource = ExpirationLogger()
