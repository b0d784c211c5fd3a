"""State for each visitor: a session is a mapping, like a dict."""

from layout import page
from rpyserve import html


def resource(request):
    session = request.getSession()
    visits = session["visits"] = session.get("visits", 0) + 1
    body = html("<p>Visits in this session: <strong>{}</strong></p>", visits)
    if session.new:
        body += html("<p>Your session is new: the response has set a cookie.</p>")
    return page("Session", body, __file__)
