"""A WSGI application, mounted as it is. One of Flask or Django is mounted just so: resource = WSGIResource(app).

It runs in a thread of its own, so it may take its time.
"""

from rpyserve import WSGIResource, cache
from tour import page

cache()


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    where = f"You asked for {environ['PATH_INFO'] or 'nothing'} below {environ['SCRIPT_NAME']}."
    return [page("A relic", where, __file__).encode()]


resource = WSGIResource(app)
