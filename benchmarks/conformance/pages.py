"""The pages whose answers are compared, written as each server has them. Data only.

``/`` says the method, the body and the header X; ``/host`` says the host; ``/204``, ``/205`` and
``/304`` give a body to a status that has none; ``/stream`` is sent in two parts; ``/length`` and
``/coding`` set a framing of their own, and ``/split`` tries to add a header by a line break in a
value. A method other than GET, HEAD and POST is a 405 where the server leaves that to its
application.
"""

from __future__ import annotations

from benchmarks.common import servers

_RESPONSE = """
from rpyserve import Response

def resource(request):
    return Response({})
"""

RPYSERVE = {
    "index.rpy": """
from rpyserve import Response

async def resource(request):
    body = request.content.read().decode("latin-1")
    x = request.getHeader("X")
    words = [request.method, body, *([] if x is None else [f"X={x}"])]
    return Response(" ".join(filter(None, words)).encode("latin-1"))
""",
    "host.rpy": """
def resource(request):
    return request.getHeader("Host")
""",
    "stream.rpy": """
def resource(request):
    yield "stre"
    yield "amed"
""",
    "204.rpy": _RESPONSE.format('"body", 204'),
    "205.rpy": _RESPONSE.format('"body", 205'),
    "304.rpy": _RESPONSE.format('"body", 304'),
    "length.rpy": _RESPONSE.format('"GET", headers={"Content-Length": "99"}'),
    "coding.rpy": _RESPONSE.format('"GET", headers={"Transfer-Encoding": "chunked"}'),
    "split.rpy": _RESPONSE.format('"GET", headers={"A": "b\\r\\nSplit: c"}'),
}
"""The tests serve these, too."""

ASGI = """
FIXED = {
    "/204": (204, [], b"body"), "/205": (205, [], b"body"), "/304": (304, [], b"body"),
    "/length": (200, [(b"content-length", b"99")], b"GET"),
    "/coding": (200, [(b"transfer-encoding", b"chunked")], b"GET"),
    "/split": (200, [(b"a", b"b\\r\\nSplit: c")], b"GET"),
}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            asked = (await receive())["type"]
            await send({"type": asked + ".complete"})
            if asked == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message.get("body", b""), message.get("more_body")
    said = dict(scope["headers"])
    words = [scope["method"].encode(), body, *([b"X=" + said[b"x"]] if b"x" in said else [])]
    content = b" ".join(filter(None, words))
    status, headers, content = FIXED.get(scope["path"], (200, [], content))
    if scope["method"] not in ("GET", "HEAD", "POST"):
        status, headers, content = 405, [(b"allow", b"GET, HEAD, POST")], b""
    if scope["path"] == "/host":
        content = said.get(b"host", b"")
    parts = [b"stre", b"amed"] if scope["path"] == "/stream" else [content]
    if not headers and scope["path"] != "/stream" and status not in (204, 304):
        headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})
"""

FLASK = """
import sys
from flask import Flask, Response, request

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def page():
    words = [request.method.encode(), request.get_data()]
    if "X" in request.headers:
        words.append(b"X=" + request.headers["X"].encode("latin-1"))
    return b" ".join(filter(None, words))


@app.route("/host")
def host():
    return request.host


@app.route("/<int:status>")
def fixed(status):
    return Response("body", status)


@app.route("/stream")
def stream():
    return Response(iter(["stre", "amed"]))


@app.route("/length")
def length():
    return Response("GET", headers={"Content-Length": "99"})


@app.route("/coding")
def coding():
    return Response("GET", headers={"Transfer-Encoding": "chunked"})


@app.route("/split")
def split():
    return Response("GET", headers={"A": "b\\r\\nSplit: c"})


app.run(port=int(sys.argv[1]))
"""

TWISTED = """
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET


class Page(Resource):
    isLeaf = True

    def render_GET(self, request):
        path = request.path
        if path in (b"/204", b"/205", b"/304"):
            request.setResponseCode(int(path[1:]))
            return b"body"
        if path == b"/host":
            return request.getHeader(b"host") or b""
        if path == b"/stream":
            request.write(b"stre")
            request.write(b"amed")
            request.finish()
            return NOT_DONE_YET
        if path == b"/length":
            request.setHeader(b"content-length", b"99")
        elif path == b"/coding":
            request.setHeader(b"transfer-encoding", b"chunked")
        elif path == b"/split":
            request.setHeader(b"a", b"b\\r\\nSplit: c")
        x = request.getHeader(b"x")
        words = [request.method, request.content.read(), *([] if x is None else [b"X=" + x])]
        return b" ".join(filter(None, words))

    render_POST = render_GET
"""

PHP = """<?php
$path = parse_url($_SERVER["REQUEST_URI"], PHP_URL_PATH);
$method = $_SERVER["REQUEST_METHOD"];
if (!in_array($method, ["GET", "HEAD", "POST"])) {
    http_response_code(405);
    header("Allow: GET, HEAD, POST");
} elseif (in_array($path, ["/204", "/205", "/304"])) {
    http_response_code((int) substr($path, 1));
    echo "body";
} elseif ($path == "/host") {
    echo $_SERVER["HTTP_HOST"] ?? "";
} elseif ($path == "/stream") {
    echo "stre";
    flush();
    echo "amed";
} else {
    if ($path == "/length") header("Content-Length: 99");
    if ($path == "/coding") header("Transfer-Encoding: chunked");
    if ($path == "/split") header("A: b\\r\\nSplit: c");
    $body = file_get_contents("php://input");
    echo $method, $body == "" ? "" : " " . $body;
    if (isset($_SERVER["HTTP_X"])) echo " X=", $_SERVER["HTTP_X"];
}
"""

PEERS = {
    servers.RPYSERVE.with_options("--quiet"): RPYSERVE,
    servers.UVICORN: {"pages.py": ASGI},
    servers.HYPERCORN: {"pages.py": ASGI},
    servers.FLASK: {"pages.py": FLASK},
    servers.PHP: {"pages.php": PHP},
    servers.TWISTED.with_options("--class", "pages.Page"): {"pages.py": TWISTED},
}
"""The servers, and what they serve."""
