"""The servers that `compare` measures, each with the same pages, written as that server has it. Data only.

``/hello`` greets, ``/counter`` counts a visitor's visits in a session, ``/json``, ``/stream`` and ``/form`` are what
they are called; ``small.txt`` and ``large.bin`` are files. A page that a server would not have is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HELLO = b"Hello, world!"
SMALL = b"0123456789abcde\n" * 64
LARGE = bytes(range(256)) * 40960
STREAMED = b"x" * 16384
FORM = b"name=Ada&text=" + b"lorem+ipsum+" * 20
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cache-Control": "max-age=0",
    "Sec-CH-UA": '"Chromium";v="130", "Not?A_Brand";v="99"',
    "Sec-CH-UA-Mobile": "?0",
    "Sec-CH-UA-Platform": '"Linux"',
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
}

_HELLO_RPY = """
from rpyserve import Resource


class Hello(Resource):
    def render_GET(self, request):
        return "Hello, world!"


resource = Hello()
"""
_MODULES = "\nimport " + ", ".join(f"module{n}" for n in range(10)) + "\n"

OURS = {
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
WITH_MODULES = {"hello.rpy": "cache()\n" + _MODULES + _HELLO_RPY} | {f"module{n}.py": f"N = {n}\n" for n in range(10)}

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

# The script of "Twisted Web in 60 seconds", as this server and Twisted run it.
OURS["series.rpy"] = TWISTED["series.rpy"]

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
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port}; root .; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One server, set up in one way.

    Args:
        name: what the tables call it.
        command: starts it; ``{bin}`` is where the installed commands are, ``{port}`` the port.
        files: what is in its directory, besides the files that all have; ``{port}`` in `nginx.conf` is filled in.
        packages: what to install from PyPI.
        pages: the rows that it takes part in.
        suffix: what the paths of scripts end in.
        ours: whether it is this server, or the bare loop, and runs in this environment.
    """

    name: str
    command: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    pages: frozenset[str] = frozenset()
    suffix: str = ""
    ours: bool = False


BARE = "bare loop"
OWN = "rpyserve"
_DYNAMIC = frozenset({"hello", "404", "json", "stream", "form", "browser"})
_FILES = frozenset({"small", "large"})
_COUNTS = frozenset({"one", "many"})
_SERVE = ("{python}", "-m", "rpyserve", ".", "--port", "{port}")
_UVICORN = ("{bin}/python", "-m", "uvicorn", "pages:app", "--http", "h11", "--loop", "asyncio", "--port", "{port}")

CONTESTANTS = [
    Contestant(BARE, ("{python}", "{here}/baseline_loop.py", "{port}"), ours=True),
    Contestant(
        OWN,
        _SERVE,
        OURS,
        pages=_DYNAMIC | _FILES | _COUNTS | {"counter", "series", "uncached"},
        ours=True,
    ),
    Contestant(f"{OWN}, log off", (*_SERVE, "--quiet"), OURS, pages=frozenset({"hello"}), ours=True),
    Contestant(f"{OWN}, 10 modules", _SERVE, WITH_MODULES, pages=frozenset({"hello", "one"}), ours=True),
    Contestant("uvicorn (h11)", _UVICORN, {"pages.py": ASGI}, ("uvicorn", "h11"), pages=_DYNAMIC | _COUNTS),
    Contestant(
        "uvicorn, log off", (*_UVICORN, "--no-access-log"), {"pages.py": ASGI}, ("uvicorn", "h11"),
        pages=frozenset({"hello"}),
    ),
    Contestant(
        "Hypercorn (trio)",
        ("{bin}/python", "-m", "hypercorn", "pages:app", "--worker-class", "trio", "--bind", "127.0.0.1:{port}"),
        {"pages.py": ASGI},
        ("hypercorn[trio]",),
        pages=frozenset({"hello", "json", "stream"}),
    ),
    Contestant(
        "Twisted Web",
        ("{bin}/python", "-m", "twisted", "web", "--path", ".", "--listen", "tcp:{port}:interface=127.0.0.1"),
        TWISTED,
        ("twisted",),
        pages=_DYNAMIC | _FILES | _COUNTS | {"series", "uncached"},
        suffix=".rpy",
    ),
    Contestant(
        "Flask", ("{bin}/python", "pages.py", "{port}"), {"pages.py": FLASK}, ("flask",),
        pages=_DYNAMIC - {"browser"} | {"counter"},
    ),
    Contestant(
        "php -S", ("php", "-S", "127.0.0.1:{port}", "pages.php"), {"pages.php": PHP},
        pages=_DYNAMIC - {"browser"} | _FILES | {"counter", "uncached"},
    ),
    Contestant(
        "nginx", ("nginx", "-p", ".", "-c", "nginx.conf"), {"nginx.conf": NGINX}, pages=_FILES,
    ),
    Contestant(
        "http.server", ("{bin}/python", "-m", "http.server", "{port}", "--bind", "127.0.0.1"), pages=_FILES,
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request.

    Args:
        key: what contestants' ``pages`` have.
        title: what the table says.
        path: the URL's path.
        body: what is answered; None if each server words it as it likes.
        status: of the answer.
        form: what is posted.
        headers: what is sent besides Host.
        connections: how many clients ask at once.
        cookie: whether each client keeps the session of the first answer.
    """

    key: str
    title: str
    path: str
    body: bytes | None = None
    status: int = 200
    form: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    connections: int = 16
    cookie: bool = False


JSON = b'{"message": "Hello, world!", "numbers": [1, 2, 3]}'
ROWS = [
    Row("hello", "hello, cached", "/hello", HELLO),
    Row("browser", "the same, with a browser's head", "/hello", HELLO, headers=BROWSER),
    Row("one", "the same, 1 connection", "/hello", HELLO, connections=1),
    Row("many", "the same, 256 connections", "/hello", HELLO, connections=256),
    Row("counter", "counter in a session, cached", "/counter", cookie=True),
    Row("series", "the series' counter, cached", "/series", cookie=True),
    Row("uncached", "hello, uncached", "/uncached", HELLO),
    Row("json", "JSON", "/json"),
    Row("form", "form, posted", "/form", b"Hello, Ada!", form=FORM),
    Row("404", "nothing there", "/nothing", status=404),
    Row("stream", "1 MiB, streamed", "/stream", STREAMED * 64),
    Row("small", "file of 1 KiB", "/small.txt", SMALL),
    Row("large", "file of 10 MiB", "/large.bin", LARGE),
]
