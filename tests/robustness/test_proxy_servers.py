"""The proxy in front of real servers: nginx, uvicorn, and a WebSocket server, each a process of its
own.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.real_process import Server, serving

pytestmark = pytest.mark.process
httpx = pytest.importorskip("httpx")

NGINX = """
daemon off; master_process off; error_log {root}/error.log; pid {root}/nginx.pid;
events {{}}
http {{
  access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
  uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
  gzip on; gzip_proxied any; gzip_min_length 1; gzip_types text/plain;
  server {{
    listen 127.0.0.1:{port}; root {root}/www;
    location /who {{ default_type text/plain; return 200 "$http_host $http_x_forwarded_for $http_via"; }}
    location /moved {{ return 302 /who; }}
    location /dies {{ default_type text/plain; return 200 "x"; }}
  }}
}}
"""

ASGI = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    size = 0
    while True:
        event = await receive()
        size += len(event.get("body", b""))
        if not event.get("more_body"):
            break
    kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if scope["path"] == "/events":
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
            await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": b""})
    elif scope["path"] == "/dies":
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.sleep(0.2)
        raise RuntimeError("half-way")
    else:
        text = f"{scope['method']} {scope['raw_path'].decode()}?{scope['query_string'].decode()} {size}"
        await send({"type": "http.response.body", "body": text.encode()})
"""

ECHO = """
import sys
from websockets.sync.server import serve

def echo(socket):
    for message in socket:
        socket.send(message)

with serve(echo, "127.0.0.1", int(sys.argv[1])) as server:
    server.serve_forever()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(400):
                assert process.poll() is None, command
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()


@contextmanager
def proxied(port: int, tmp_path: Path) -> Iterator[Server]:
    site = tmp_path / "site"
    site.mkdir()
    (site / "api.rpy").write_text(
        "from rpyserve import ReverseProxyResource, cache\n\ncache()\n"
        f"resource = ReverseProxyResource('http://127.0.0.1:{port}')\n",
        encoding="utf-8",
    )
    with serving(site, tmp_path) as server:
        yield server


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Server]:
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if program is None:
        assert not (os.environ.get("CI") and sys.platform == "linux"), "CI on Linux must have nginx"
        pytest.skip("no nginx here")
    root, port = tmp_path / "nginx", free_port()
    (root / "www").mkdir(parents=True)
    (root / "www" / "file.txt").write_bytes(b"0123456789" * 1000)
    (root / "nginx.conf").write_text(NGINX.format(root=root, port=port), encoding="utf-8")
    with (
        running([program, "-c", str(root / "nginx.conf"), "-p", str(root)], port),
        proxied(port, tmp_path) as server,
    ):
        yield server


def test_nginx(nginx: Server) -> None:
    with httpx.Client(base_url=nginx.url, trust_env=False) as client:
        who = client.get("/api/who").text
        assert who.startswith("127.0.0.1:") and " 127.0.0.1 1.1 rpyserve-" in who
        moved = client.get("/api/moved")
        assert moved.status_code == 302 and moved.headers["location"] == "/api/who"
        file = client.get("/api/file.txt")
        assert file.headers["content-encoding"] == "gzip" and file.text == "0123456789" * 1000
        plain = {"Accept-Encoding": "identity"}
        part = client.get("/api/file.txt", headers={"Range": "bytes=5-14", **plain})
        assert (part.status_code, part.text) == (206, "5678901234")
        whole = client.get("/api/file.txt", headers=plain)
        assert whole.headers["content-length"] == "10000"
        again = client.get(
            "/api/file.txt", headers={"If-None-Match": whole.headers["etag"], **plain}
        )
        assert again.status_code == 304
        assert client.head("/api/file.txt", headers=plain).headers["content-length"] == "10000"
        assert client.get("/api/nothing").status_code == 404


def uvicorn_command(directory: Path, port: int, *options: str) -> list[str]:
    """What runs the application `ASGI` on *port*. Skips the test if uvicorn is not installed."""
    pytest.importorskip("uvicorn")
    (directory / "asgiapp.py").write_text(ASGI, encoding="utf-8")
    uvicorn = [sys.executable, "-m", "uvicorn", "--http", "h11", "--port", str(port)]
    return [*uvicorn, "--app-dir", str(directory), *options, "asgiapp:app"]


def test_uvicorn(tmp_path: Path) -> None:
    port = free_port()
    command = uvicorn_command(tmp_path, port)
    with running(command, port), proxied(port, tmp_path) as server:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
            assert client.get("/api/a%2Fb?x=%20").text == "GET /a%2Fb?x=%20 0"
            assert client.post("/api/up", content=b"x" * 3_000_000).text == "POST /up? 3000000"
            assert (
                client.post("/api/up", content=iter([b"x" * 1000] * 500)).text == "POST /up? 500000"
            )
            with client.stream("GET", "/api/events") as events:
                began, times = time.monotonic(), []
                for line in events.iter_lines():
                    if line:
                        times.append(time.monotonic() - began)
            assert len(times) == 3 and times[0] < times[2] - 0.3  # one by one, not all at the end
            with pytest.raises(httpx.RemoteProtocolError):
                client.get("/api/dies")
        server.wait_for(
            r"/api/dies is broken off\. http://127\.0\.0\.1:\d+ closed the connection half-way"
        )


def test_a_backend_that_ends_idle_connections_and_is_started_again(tmp_path: Path) -> None:
    port = free_port()
    command = uvicorn_command(tmp_path, port, "--timeout-keep-alive", "1")
    with httpx.Client(trust_env=False, timeout=30) as client, ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        first.enter_context(running(command, port))
        server = stack.enter_context(proxied(port, tmp_path))
        for pause in (0.98, 1.0, 1.02, 1.0):  # about when it closes what is idle
            assert client.get(f"{server.url}/api/").status_code == 200
            time.sleep(pause)
        time.sleep(0.5)  # what must not be asked for twice is sent when they are closed for certain
        assert client.post(f"{server.url}/api/", content=b"abc").text == "POST /? 3"
        first.close()
        assert client.get(f"{server.url}/api/").status_code == 502
        with running(command, port):
            assert client.post(f"{server.url}/api/", content=b"abc").text == "POST /? 3"


def test_many_streams_at_once_and_clients_that_leave(tmp_path: Path) -> None:
    port = free_port()
    command = uvicorn_command(tmp_path, port)
    ask = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running(command, port), proxied(port, tmp_path) as server:
        asking = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        for each in asking:
            each.settimeout(30)
            each.sendall(ask)
        for each in asking[::2]:
            each.close()
        for each in asking[1::2]:
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += each.recv(65536)
            assert received.count(b"data: ") == 3
            each.close()
        assert httpx.get(f"{server.url}/api/x", trust_env=False).text == "GET /x? 0"


def test_a_websocket_server(tmp_path: Path) -> None:
    client = pytest.importorskip("websockets.sync.client")
    port = free_port()
    with (
        running([sys.executable, "-c", ECHO, str(port)], port),
        proxied(port, tmp_path) as server,
        client.connect(f"ws://127.0.0.1:{server.port}/api/chat") as socket,
    ):
        for message in ("hello", b"\x00\x01" * 100_000, "é" * 1000):
            socket.send(message)
            assert socket.recv() == message


def test_the_proxy_of_the_tour(tmp_path: Path) -> None:
    with serving(Path(__file__).parent.parent.parent / "sample_site", tmp_path) as server:
        assert (
            httpx.get(f"{server.url}/proxy?name=Grace", trust_env=False).text
            == "<h1>Hello Grace!</h1>"
        )


def test_a_backend_that_is_killed_half_way(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        proxied(listener.getsockname()[1], tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port)) as asking,
    ):
        asking.settimeout(20)
        asking.sendall(b"GET /api/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        backend, _ = listener.accept()
        with backend:
            backend.recv(65536)
            backend.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            assert b"\r\nContent-Length: 100\r\n" in asking.recv(65536)
        rest = b"".join(iter(lambda: asking.recv(65536), b""))
        assert rest in (b"", b"half")  # fewer bytes than were announced, then the end
