"""The pages whose speed is compared, written as each server has them. Data only.

``/hello`` greets, ``/counter`` counts a visitor's visits in a session, ``/series`` is the counter
of "Twisted Web in 60 seconds", ``/json``, ``/stream`` and ``/form`` are what they are called. What
a server would not have is left out.
"""

_HELLO_RPY = """
from rpyserve import Resource


class Hello(Resource):
    def render_GET(self, request):
        return "Hello, world!"


resource = Hello()
"""
_MODULES = "\nimport " + ", ".join(f"module{n}" for n in range(10)) + "\n"

RPYSERVE = {
    "hello.rpy": "cache()\n" + _HELLO_RPY,
    "uncached.rpy": _HELLO_RPY,
    "counter.rpy": """
cache()

from rpyserve import Resource


class Counter(Resource):
    def render_GET(self, request):
        session = request.getSession()
        session["visits"] = session.get("visits", 0) + 1
        return f"Visit {session['visits']:08}"


resource = Counter()
""",
    "json.rpy": """
cache()


def resource(request):
    return {"message": "Hello, world!", "numbers": [1, 2, 3]}
""",
    "stream.rpy": """
cache()


def resource(request):
    for _ in range(64):
        yield b"x" * 16384
""",
    "form.rpy": """
cache()


def resource(request):
    return f"Hello, {request.field('name')}!"
""",
}
RPYSERVE_WITH_MODULES = {"hello.rpy": "cache()\n" + _MODULES + _HELLO_RPY} | {
    f"module{n}.py": f"N = {n}\n" for n in range(10)
}

_TWISTED_HELLO = """
from twisted.web.resource import Resource


class Hello(Resource):
    def render_GET(self, request):
        return b"Hello, world!"


resource = Hello()
"""
TWISTED = {
    "hello.rpy": "cache()\n" + _TWISTED_HELLO,
    "uncached.rpy": _TWISTED_HELLO,
    "series.rpy": """
cache()

from twisted.web.resource import Resource
from zope.interface import Attribute, Interface, implementer
from twisted.python.components import registerAdapter
from twisted.web.server import Session


class ICounter(Interface):
    value = Attribute("An int value which counts up once per page view.")


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)


class CounterResource(Resource):
    def render_GET(self, request):
        counter = ICounter(request.getSession())
        counter.value += 1
        return b"Visit %08d" % counter.value


resource = CounterResource()
""",
    "json.rpy": """
cache()

import json
from twisted.web.resource import Resource


class Page(Resource):
    def render_GET(self, request):
        request.setHeader(b"content-type", b"application/json")
        return json.dumps({"message": "Hello, world!", "numbers": [1, 2, 3]}).encode()


resource = Page()
""",
    "stream.rpy": """
cache()

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET


class Page(Resource):
    def render_GET(self, request):
        for _ in range(64):
            request.write(b"x" * 16384)
        request.finish()
        return NOT_DONE_YET


resource = Page()
""",
    "form.rpy": """
cache()

from twisted.web.resource import Resource


class Page(Resource):
    def render_POST(self, request):
        return b"Hello, " + request.args[b"name"][0] + b"!"


resource = Page()
""",
}

# The same script: both run it.
RPYSERVE["series.rpy"] = TWISTED["series.rpy"]

ASGI = """
import json
from urllib.parse import parse_qs

HTML = (b"content-type", b"text/html; charset=utf-8")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            asked = (await receive())["type"]
            await send({"type": asked + ".complete"})
            if asked == "lifespan.shutdown":
                return
    path, status, kind, body = scope["path"], 200, HTML, b"Hello, world!"
    if path == "/json":
        kind, body = (b"content-type", b"application/json"), json.dumps(
            {"message": "Hello, world!", "numbers": [1, 2, 3]}
        ).encode()
    elif path == "/form":
        said, more = b"", True
        while more:
            message = await receive()
            said, more = said + message.get("body", b""), message.get("more_body")
        body = b"Hello, " + parse_qs(said)[b"name"][0] + b"!"
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [HTML]})
        for _ in range(64):
            await send({"type": "http.response.body", "body": b"x" * 16384, "more_body": True})
        await send({"type": "http.response.body"})
        return
    elif path != "/hello":
        status, body = 404, b"Not found"
    headers = [kind, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

FLASK = """
import sys
from flask import Flask, request, session

app = Flask(__name__)
app.secret_key = "not a secret"


@app.route("/hello")
def hello():
    return "Hello, world!"


@app.route("/counter")
def counter():
    session["visits"] = session.get("visits", 0) + 1
    return f"Visit {session['visits']:08}"


@app.route("/json")
def json():
    return {"message": "Hello, world!", "numbers": [1, 2, 3]}


@app.route("/stream")
def stream():
    return app.response_class(b"x" * 16384 for _ in range(64))


@app.route("/form", methods=["POST"])
def form():
    return f"Hello, {request.form['name']}!"


app.run(port=int(sys.argv[1]))
"""

PHP = """<?php
$path = parse_url($_SERVER["REQUEST_URI"], PHP_URL_PATH);
if ($path == "/hello" || $path == "/uncached") {
    echo "Hello, world!";
} elseif ($path == "/counter") {
    session_start();
    $_SESSION["visits"] = ($_SESSION["visits"] ?? 0) + 1;
    printf("Visit %08d", $_SESSION["visits"]);
} elseif ($path == "/json") {
    header("Content-Type: application/json");
    echo json_encode(["message" => "Hello, world!", "numbers" => [1, 2, 3]]);
} elseif ($path == "/stream") {
    for ($i = 0; $i < 64; $i++) echo str_repeat("x", 16384);
} elseif ($path == "/form") {
    echo "Hello, ", $_POST["name"], "!";
} elseif (in_array($path, ["/small.txt", "/large.bin"])) {
    return false;
} else {
    http_response_code(404);
    echo "Not found";
}
"""

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    server { listen 127.0.0.1:{port}; root .; }
}
"""
