"""The site's own page for every address that leads nowhere. It is sent with the status 404."""

from rpyserve import html
from tour import page


def resource(request):
    why = request.error.detail if request.error else ""
    body = html("<p>There is no <code>{}</code> on this tour. {}</p>", request.path, why)
    return page("Off the map", body, __file__)
