"""The site's own 404 page, shown for every URL that does not exist. Its status is 404."""

from layout import page
from rpyserve import html


def resource(request):
    why = request.error.detail if request.error else ""
    body = html("<p>There is no <code>{}</code> on this tour. {}</p>", request.path, why)
    return page("Page not found", body, __file__)
