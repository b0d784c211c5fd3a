"""Counts the visits of each visitor, and says which worker has answered."""

import os


def resource(request):
    session = request.getSession()
    session["visits"] = session.get("visits", 0) + 1
    return {"visits": session["visits"], "worker": os.getpid()}
