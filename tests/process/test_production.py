"""``rpyserve --production`` as a process: how it starts, what it tells whom, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.real_process import Server, free_port, program, serving

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name == "nt", reason="signals and sockets of Unix"),
]

ROOT = Path(__file__).parent.parent.parent
PAGE = "def resource(request):\n    request.getSession()\n    return 'hello'\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "page.rpy").write_text(PAGE)
    (directory / "broken.rpy").write_text("def resource(request):\n    return 1 / 0\n")
    return directory


@pytest.fixture
def short() -> Iterator[Path]:
    with TemporaryDirectory(prefix="rpy") as name:
        yield Path(name)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(
    connection: http.client.HTTPConnection, path: str, **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


@contextmanager
def connected(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def test_nobody_is_told_anything(site: Path, tmp_path: Path) -> None:
    with (
        serving(site, tmp_path, "--production", "--drain", "0") as server,
        connected(server.port) as c,
    ):
        assert ask(c, "/page")[0] == 200
        status, _, text = ask(c, "/broken")
        assert (status, "ZeroDivisionError" in text) == (500, False)
        for path in ("/pag", "/broken.rp", "/hello"):
            status, _, text = ask(c, path)
            assert (status, "page" in text.lower().replace("page not found", "")) == (404, False)
        assert ask(c, "/-/follow.js")[0] == 404
        assert ask(c, "/-/events?once=")[0] == 404
        assert ask(c, "/-/health")[0] == ask(c, "/-/ready")[0] == 200
        status, _, text = ask(c, "/page", Sec_Fetch_Dest="document", Accept="text/html")
        assert (status, text) == (200, "hello")
        status, _, text = ask(c, "/page", Host="evil.example")
        assert (status, "--allowed-host" in text) == (403, False)
        server.wait_for("ZeroDivisionError")
        output = server.output()
        assert "--trust" not in output
        assert "Did you mean" not in output and "There is no" not in output
        assert "/-/ready" not in output


def test_the_site_is_still_the_current_directory(site: Path, tmp_path: Path) -> None:
    (site / "words.rpy").write_text("def resource(request):\n    return open('words.txt').read()\n")
    (site / "words.txt").write_text("words")
    with (
        serving(site, tmp_path, "--production", "--drain", "0") as server,
        connected(server.port) as c,
    ):
        assert ask(c, "/words")[2] == "words"


# Modules of the site that have the names of others

NAMES = ("calendar", "click", "email", "h11", "json", "random", "secrets", "trio", "zope")
COMMAND = str(Path(sys.executable).with_name("rpyserve"))
STARTS = {
    "rpyserve SITE": ([COMMAND, "site"], "."),
    "rpyserve": ([COMMAND], "site"),
    "rpyserve .": ([COMMAND, "."], "site"),
    "python -m rpyserve SITE": ([sys.executable, "-m", "rpyserve", "site"], "."),
    "python -m rpyserve": ([sys.executable, "-m", "rpyserve"], "site"),
    "python -m rpyserve .": ([sys.executable, "-m", "rpyserve", "."], "site"),
    "python program.py": ([sys.executable, "program.py"], "."),
}


@pytest.mark.parametrize("flags", [["--production", "--drain", "0"], []], ids=["production", "dev"])
@pytest.mark.parametrize("start", STARTS)
def test_no_module_of_the_site_replaces_one_of_the_server(
    site: Path, tmp_path: Path, start: str, flags: list[str]
) -> None:
    command, directory = STARTS[start]
    if command[0] == COMMAND and not Path(COMMAND).exists():
        pytest.skip("the command is not installed")
    for name in NAMES:
        (site / f"{name}.py").write_text(f"raise SystemExit('the {name} of the site')\n")
    (site / "own.py").write_text("import secrets\nTEXT = secrets.token_hex(2) and 'own'\n")
    (site / "page.rpy").write_text(
        "import calendar, json, trio, own\nfrom rpyserve import Response\n"
        "async def resource(request):\n    await trio.sleep(0)\n    request.getSession()\n"
        "    return {'text': own.TEXT, 'month': calendar.month_name[1]}\n"
    )
    (tmp_path / "program.py").write_text(
        "import sys\nfrom rpyserve import Directory, Site, run\n"
        "run(Site(Directory('site')), port=int(sys.argv[2]))\n"
    )
    port = free_port()
    if start == "python program.py":
        flags = []
    full = [*command, "--port", str(port), *flags]
    with program(full, tmp_path / "console", cwd=tmp_path / directory) as server:
        server.wait_for(r"http://127")
        with connected(port) as c:
            status, _, text = ask(c, "/page")
            assert (status, text) == (200, '{"text": "own", "month": "January"}'), server.output()
            assert ask(c, "/broken", Accept="text/html")[0] == 500
            assert ask(c, "/missing", Accept="application/json")[0] == 404
        assert "of the site'" not in server.output()


@pytest.mark.parametrize("path", [".", "", "{site}", "{site}:"])
def test_nor_by_the_path_of_imports(site: Path, tmp_path: Path, path: str) -> None:
    """What Python itself has imported by then is its user's business; the server's is not."""
    (site / "secrets.py").write_text("raise SystemExit('the secrets of the site')\n")
    (site / "trio.py").write_text("raise SystemExit('the trio of the site')\n")
    code = "from rpyserve.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": f"{path.format(site=site)}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code, ".", "--get", "/page"],
        cwd=site,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "hello", done.stderr


# Sockets


def test_a_unix_socket(site: Path, tmp_path: Path, short: Path) -> None:
    path = short / "a.sock"
    flags = ["--bind", f"unix:{path}", "--production", "--drain", "0", "--behind-proxy", "unix"]
    command = [sys.executable, "-m", "rpyserve", str(site), *flags]
    with program(command, tmp_path / "console") as server:
        server.wait_for(rf"unix:{path}")
        connection = UnixConnection(path)
        status, headers, _ = ask(
            connection, "/page", X_Forwarded_For="192.0.2.1", X_Forwarded_Proto="https"
        )
        assert status == 200 and "rpyserve_443=" in headers["Set-Cookie"]
        connection.close()
        second = subprocess.run(
            [*command[:-2]], capture_output=True, text=True, timeout=60, env=environment()
        )
        assert second.returncode == 1
        assert second.stderr.strip().count("\n") == 0 and "is in use" in second.stderr
    assert not path.exists()


def test_one_that_was_killed_leaves_a_socket_that_the_next_one_takes(
    site: Path, tmp_path: Path, short: Path
) -> None:
    path = short / "a.sock"
    command = [sys.executable, "-m", "rpyserve", str(site), "--bind", f"unix:{path}"]
    victim = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
    assert victim.stdout is not None and b"unix:" in victim.stdout.readline()
    victim.kill()
    victim.communicate()
    assert path.is_socket()
    with program(command, tmp_path / "console") as server:
        server.wait_for(rf"unix:{path}")
        connection = UnixConnection(path)
        assert ask(connection, "/page")[2] == "hello"
        connection.close()


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RPYSERVE_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


ACTIVATE = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
number = listening.fileno()
if number != 3:
    os.dup2(number, 3)
os.set_inheritable(3, True)
os.environ["LISTEN_FDS"] = "1"
os.environ["LISTEN_PID"] = sys.argv[2].replace("own", str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "rpyserve", *sys.argv[3:]])
"""


@pytest.mark.parametrize("flags", [[], ["--bind", "systemd"], ["--bind", "fd:3"]])
def test_a_socket_that_systemd_has_opened(site: Path, tmp_path: Path, flags: list[str]) -> None:
    port = free_port()
    (site / "page.rpy").write_text(
        "import os\ndef resource(r):\n    return os.getenv('LISTEN_PID', '-')\n"
    )
    command = [sys.executable, "-c", ACTIVATE, str(port), "own", str(site), *flags]
    with program(command, tmp_path / "console") as server:
        server.wait_for(rf"http://127.0.0.1:{port}/")
        with connected(port) as c:
            assert ask(c, "/page")[2] == (
                "-" if flags != ["--bind", "fd:3"] else str(server.process.pid)
            )


def test_a_socket_that_it_has_opened_for_another_process(site: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", ACTIVATE, str(port), "1", str(site)]
    done = subprocess.run(
        [*command, "--bind", "systemd"], capture_output=True, text=True, env=environment(), timeout=60
    )  # fmt: skip
    assert done.returncode == 1 and "are for process '1'" in done.stderr
    with program([*command, "--port", "0"], tmp_path / "console") as server:
        found = server.wait_for(r"http://127.0.0.1:(\d+)/")
        assert int(found[1]) != port


def test_ipv6(site: Path, tmp_path: Path) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6")
    binds = ["--bind", f"[::1]:{port}", "--bind", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "rpyserve", str(site), *binds]
    with program(command, tmp_path / "console") as server:
        server.wait_for(rf"Also at http://127.0.0.1:{port}/")
        server.wait_for(rf"http://\[::1\]:{port}/")
        for host in ("::1", "127.0.0.1"):
            connection = http.client.HTTPConnection(host, port, timeout=10)
            assert ask(connection, "/page")[2] == "hello"
            connection.close()


@pytest.mark.parametrize("kind", ["metrics", "bind"])
def test_a_port_that_is_taken_is_one_clear_line(site: Path, kind: str) -> None:
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = {
            "metrics": ["--port", "0", "--metrics", str(port)],
            "bind": ["--bind", f"127.0.0.1:{port}"],
        }
        command = [sys.executable, "-m", "rpyserve", str(site), "--production", *flags[kind]]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment(), timeout=60
        )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"Error: Port {port} of 127.0.0.1 is in use.")
    assert done.stderr.count("\n") == 1


def test_metrics_of_a_process(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    with serving(site, tmp_path, "--production", "--drain", "0", "--metrics", "0") as server:
        own = int(server.wait_for(r"Metrics at http://127.0.0.1:(\d+)/metrics")[1])
        # The first URL is that of the site.
        port = int(re.findall(r"^http://127.0.0.1:(\d+)/$", server.output(), re.MULTILINE)[0])
        for _ in range(3):
            assert get(port, "/page") == "hello"
        text = get(own, "/metrics")
        assert 'rpyserve_requests_total{method="GET",status="2xx"} 3.0' in text
        assert "process_resident_memory_bytes" in text
        with connected(port) as c:
            assert ask(c, "/metrics")[0] == 404


# Behind nginx

NGINX = """
daemon off; master_process off; error_log {root}/error.log; pid {root}/nginx.pid;
events {{}}
http {{
  access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
  uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://unix:{socket}; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header Forwarded "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host "";
      proxy_set_header X-Forwarded-Port ""; proxy_set_header X-Forwarded-Prefix "";
      proxy_set_header X-Request-ID $request_id;
    }}
    location /internal/ {{ internal; alias {site}/; }}
  }}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx")
def test_nginx_sends_the_files_that_the_site_names(site: Path, tmp_path: Path, short: Path) -> None:
    content = bytes(range(256)) * 2000
    (site / "large file.bin").write_bytes(content)
    (site / "data.db").write_bytes(content)
    (site / "who.rpy").write_text(
        "def resource(request):\n    return f'{request.client[0]} {request.url} {request.id}'\n"
    )
    path, port = short / "a.sock", free_port()
    flags = [
        "--bind",
        f"unix:{path},mode=666",
        "--behind-proxy",
        "unix",
        "--production",
        "--drain",
        "0",
    ]
    more = ["--send-file", "nginx:/internal/", "--access-log", "json"]
    command = [sys.executable, "-m", "rpyserve", str(site), *flags, *more]
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(root=tmp_path, port=port, socket=path, site=site))
    with program(command, tmp_path / "console") as server:
        server.wait_for("unix:")
        proxy = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            wait_until_open(port)
            with connected(port) as c:
                c.request("GET", "/large%20file.bin")
                answer = c.getresponse()
                assert (answer.status, answer.read() == content) == (200, True)
                assert answer.headers["Server"].startswith("nginx") and answer.headers["ETag"]
                c.request("GET", "/large%20file.bin", headers={"Range": "bytes=1000-1009"})
                answer = c.getresponse()
                assert (answer.status, answer.read()) == (206, content[1000:1010])
                etag = answer.headers["ETag"]
                assert ask(c, "/large%20file.bin", If_None_Match=etag)[0] == 304
                for private in ("/internal/large%20file.bin", "/internal/page.rpy", "/data.db"):
                    assert ask(c, private)[0] == 404
                _, headers, text = ask(c, "/who", X_Forwarded_For="192.0.2.9", X_Request_ID="me")
                client, url, request_id = text.split()
                assert (client, url) == ("127.0.0.1", f"http://127.0.0.1:{port}/who")
                assert request_id == headers["X-Request-ID"] != "me"
        finally:
            proxy.terminate()
            proxy.wait(10)
        server.wait_for(rf'"id": "{request_id}", "client": "127.0.0.1"')
        lines = [line for line in server.output().splitlines() if line.startswith("{")]
        assert json.loads(lines[0])["bytes"] == 0  # nginx has sent it


def wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


# The end

SLOW = """import trio, sys
async def resource(request):
    print("begun", file=sys.stderr)
    await trio.sleep(1.5)
    return "whole"
"""


def test_sigterm_drains(site: Path, tmp_path: Path) -> None:
    (site / "slow.rpy").write_text(SLOW)
    with serving(site, tmp_path, "--production", "--drain", "4s") as server:
        with connected(server.port) as kept, connected(server.port) as idle:
            assert ask(kept, "/page")[1]["Connection"] is None
            assert ask(idle, "/page")[0] == 200
            slow: list[str] = []
            worker = threading.Thread(target=lambda: slow.append(get(server.port, "/slow")))
            worker.start()
            server.wait_for("begun")
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("SIGTERM: 4 more seconds")
            # It says so to the load balancer, and goes on serving whoever comes all the same.
            status, headers, text = ask(kept, "/page")
            assert (status, text, headers["Connection"]) == (200, "hello", "close")
            with connected(server.port) as new:
                assert ask(new, "/-/ready")[0] == 503
            with connected(server.port) as new:
                assert ask(new, "/-/health")[0] == 200
            assert server.process.poll() is None
            assert server.process.wait(20) == 0
            assert time.monotonic() - began >= 4
            worker.join()
            assert slow == ["whole"]
        check_ended(server)


def get(port: int, path: str) -> str:
    with connected(port) as connection:
        return ask(connection, path)[2]


def check_ended(server: Server) -> None:
    assert server.process.returncode == 0
    assert "Stopped." in server.output()


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_another_signal_ends_the_drain(site: Path, tmp_path: Path, second: int) -> None:
    with serving(site, tmp_path, "--production", "--drain", "60s") as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("SIGTERM: 60 more seconds")
        server.process.send_signal(second)
        assert server.process.wait(10) == 0
        check_ended(server)


def test_ctrl_c_does_not_drain(site: Path, tmp_path: Path) -> None:
    with serving(site, tmp_path, "--production", "--drain", "60s") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
        check_ended(server)
        assert "SIGTERM" not in server.output()


def test_a_script_that_holds_the_loop_does_not_hold_up_the_drain(
    site: Path, tmp_path: Path
) -> None:
    (site / "busy.rpy").write_text(
        "import sys\ndef resource(request):\n    print('begun', file=sys.stderr)\n    while True:\n        pass\n"
    )
    with serving(site, tmp_path, "--production", "--drain", "1s") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n")
            server.wait_for("begun")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(15) == 0
        assert "Interrupted" in server.output()


def test_without_production_sigterm_stops_at_once(site: Path, tmp_path: Path) -> None:
    with serving(site, tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert "more seconds" not in server.output()
