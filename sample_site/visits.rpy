"""State for each visitor, the short way: a session is a mapping."""

from rpyserve import html
from tour import page


def resource(request):
    session = request.getSession()
    session["visits"] = session.get("visits", 0) + 1
    body = html("<p>You have been here <strong>{}</strong> times in this session.</p>", session["visits"])
    if session.new:
        body += html("<p>This visit began your session: the response has set a cookie.</p>")
    return page("Visits", body, __file__)
