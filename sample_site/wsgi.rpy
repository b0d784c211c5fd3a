"""A WSGI application as part of the site.

Those of Flask and Django work the same way: resource = WSGIResource(app). The application runs in a
separate thread, so it may block.
"""

from layout import page
from rpyserve import WSGIResource, cache

cache()


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    path, mount = environ["PATH_INFO"] or "/", environ["SCRIPT_NAME"]
    text = f"The path is {path}, and the application is mounted at {mount}."
    return [page("WSGI application", text, __file__).encode()]


resource = WSGIResource(app)
