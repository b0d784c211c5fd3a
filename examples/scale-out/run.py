"""Four workers behind a proxy, with their sessions in Redis: started, visited, killed, restarted.

    python3 examples/scale-out/run.py                  # HAProxy
    python3 examples/scale-out/run.py --proxy nginx

It starts what `rpyserve@.service`, `haproxy.cfg` and `nginx.conf` beside it say, in a directory of
its own and on free ports, as the user who runs it. Visitors count their visits all the time. One
worker is killed, then all are restarted one after the other, and at the end it says what was lost.
The exit status is 0 if that is nothing.

On Debian: apt install haproxy nginx-light redis-server; pip install '.[metrics,redis]'.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKERS = 4
PATIENT = 60.0
"""Seconds after which something that should have happened by then is an error."""


def main() -> int:
    arguments = parse_arguments()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rpyserve-") as name, contextlib.ExitStack() as closing:
        cluster = Cluster(Path(name), arguments, closing)
        cluster.start()
        say(f"{WORKERS} workers behind {arguments.proxy}: {cluster.url}", began)
        with visiting(cluster.port, arguments.visitors) as visits:
            time.sleep(arguments.pause)
            for _ in range(arguments.kills):
                cluster.kill(0)
                say(f"one worker was killed, and is back; {visits.summary()}", began)
            for number in range(arguments.rolls):
                cluster.roll()
                say(f"restart {number + 1} of all workers; {visits.summary()}", began)
            time.sleep(arguments.pause)
    say(visits.summary(), began)
    if visits.repeated and arguments.proxy == "nginx":
        # It cannot tell a worker that has not got a request from one that was killed at work.
        print(
            f"Counted twice: {visits.repeated}, as nginx sends a GET again if there is no answer."
        )
    elif visits.repeated:
        visits.lost.append(f"{visits.repeated} visits were counted twice.")
    print("\n".join(visits.lost) or "Nothing was lost: each visitor's numbers go on.")
    print(f"It took {time.monotonic() - began:.1f} seconds.")
    return int(bool(visits.lost))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--proxy", choices=["haproxy", "nginx"], default="haproxy")
    parser.add_argument("--site", type=Path, default=HERE / "site", help="the site's directory")
    parser.add_argument("--visitors", type=int, default=20, help="how many there are at once")
    parser.add_argument("--kills", type=int, default=1, help="how often a worker is killed")
    parser.add_argument("--rolls", type=int, default=1, help="how often all are restarted")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds before and after that")
    return parser.parse_args()


def say(text: str, began: float) -> None:
    print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)


# What is started


class Worker(threading.Thread):
    """One process that is started again whenever it ends, as systemd does with Restart=always."""

    def __init__(self, command: list[str], environment: dict[str, str], console: Path) -> None:
        super().__init__(daemon=True)
        self.command, self.environment, self.console = command, environment, console
        self.stopping = False
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        while not self.stopping:
            with self.console.open("ab") as output:
                self.process = subprocess.Popen(
                    self.command, env=self.environment, stdout=output, stderr=output
                )
            self.process.wait()

    def end(self, number: int) -> None:
        """Send the process a signal, and wait until there is another one, or none."""
        process = self.process
        assert process is not None
        process.send_signal(number)
        process.wait(PATIENT)
        if not self.stopping:
            wait_for(lambda: self.process is not process, "another process")

    def stop(self) -> None:
        self.stopping = True
        if self.is_alive():
            self.end(signal.SIGINT)  # no drain: nobody visits any more
            self.join(PATIENT)


@dataclass
class Cluster:
    """Redis, the workers and the proxy, all in *directory*; *closing* ends them."""

    directory: Path
    arguments: argparse.Namespace
    closing: contextlib.ExitStack
    workers: list[Worker] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        redis_port = self.start_redis()
        secret = self.directory / "secret"
        secret.write_text(secrets.token_hex(32) + "\n")
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RPYSERVE_")},
            "RPYSERVE_SECRET_FILE": str(secret),
        }
        for number in range(1, WORKERS + 1):
            command = self.command_of_unit(number, redis_port)
            console = self.directory / f"worker{number}.log"
            worker = Worker(command, environment, console)
            self.workers.append(worker)
            worker.start()
            self.closing.callback(worker.stop)
        for number in range(1, WORKERS + 1):
            self.wait_ready(number)
        self.start_proxy()

    def start_redis(self) -> int:
        port = free_port()
        options = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(self.directory)]
        self.spawn("redis-server", *where, *options)
        self.wait_for(lambda: is_open(port), "redis-server")
        return port

    def command_of_unit(self, number: int, redis_port: int) -> list[str]:
        """What systemd would start, with the paths and ports of this run."""
        unit = (HERE / "rpyserve@.service").read_text().replace("\\\n", " ")
        found = re.search(r"^ExecStart=(\S+)(.*)$", unit, re.MULTILINE)
        assert found is not None
        text = found[2].replace("910%i", "0").replace("%i", str(number))
        text = text.replace("/run/rpyserve", shlex.quote(str(self.directory)))
        text = text.replace("/srv/site", shlex.quote(str(self.arguments.site.resolve())))
        text = text.replace("127.0.0.1:6379", f"127.0.0.1:{redis_port}")
        return [sys.executable, "-m", "rpyserve", *shlex.split(text)]

    def start_proxy(self) -> None:
        self.port = free_port()
        if self.arguments.proxy == "haproxy":
            variables = {"RUN": str(self.directory), "LISTEN": f"127.0.0.1:{self.port}"}
            self.spawn("haproxy", "-f", str(HERE / "haproxy.cfg"), **variables)
        else:
            self.spawn("nginx", "-c", str(self.nginx_config()), "-p", str(self.directory))
        self.wait_for(lambda: get(self.port, "/-/ready") == 200, self.arguments.proxy)

    def nginx_config(self) -> Path:
        text = (HERE / "nginx.conf").read_text()
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        text = text.replace("/run/rpyserve", str(self.directory))
        text = text.replace("/srv/site", str(self.arguments.site.resolve()))
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self.directory}/{kind};\n" for kind in kinds)
        head = (
            f"daemon off; pid {self.directory}/nginx.pid; error_log {self.directory}/nginx.log;\n"
        )
        if os.geteuid() == 0:
            head += "user root;\n"
        path = self.directory / "nginx.conf"
        path.write_text(head + text.replace("http {\n", f"http {{\n{paths}", 1))
        return path

    def spawn(self, program: str, *options: str, **variables: str) -> None:
        path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path is None:
            raise SystemExit(f"{program} is not installed: on Debian, apt install {program}")
        log = (self.directory / f"{program}.log").open("wb")
        self.closing.callback(log.close)
        process = subprocess.Popen(
            [path, *options], env={**os.environ, **variables}, stdout=log, stderr=log
        )
        self.closing.callback(process.wait, PATIENT)
        self.closing.callback(process.terminate)

    def wait_for(self, is_so: Callable[[], bool], program: str) -> None:
        """Wait until *is_so*; if that takes too long, show what *program* has written."""
        try:
            wait_for(is_so, program)
        except SystemExit:
            log_file = self.directory / f"{program}.log"
            print(log_file.read_text(errors="replace"), file=sys.stderr)
            raise

    # What happens to the workers

    def kill(self, index: int) -> None:
        self.workers[index].end(signal.SIGKILL)
        self.wait_ready(index + 1)

    def roll(self) -> None:
        """Restart the workers, one after the other."""
        for number, worker in enumerate(self.workers, 1):
            worker.end(signal.SIGTERM)
            self.wait_ready(number)

    def wait_ready(self, number: int) -> None:
        path = self.directory / f"{number}.sock"
        self.wait_for(lambda: get_on_socket(path, "/-/ready") == 200, f"worker{number}")


# Visitors


@dataclass
class Visits:
    """What visitors have seen.

    Attributes:
        answers: how many answers had which status; 0 for none, as the connection was cut.
        lost: what must not be, in words.
        repeated: how many visits were counted more than once.
        slowest: the seconds that an answer took at most.
        workers: which processes have answered.
    """

    answers: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    repeated: int = 0
    slowest: float = 0.0
    workers: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, status: int, seconds: float, worker: int) -> None:
        with self.lock:
            self.answers[status] += 1
            self.slowest = max(self.slowest, seconds)
            self.workers |= {worker} - {0}

    def summary(self) -> str:
        with self.lock:
            texts = {0: "without an answer"}
            counts = (f"{n} x {texts.get(k, k)}" for k, n in sorted(self.answers.items()))
            many = len(self.workers)
            return f"{', '.join(counts)}; {many} processes; slowest {self.slowest:.2f} s"


class Visitor:
    """Counts on the site's page, and compares.

    An answer that never came may have been counted or not; every other visit is counted once.
    """

    def __init__(self, name: str, port: int, visits: Visits) -> None:
        self.name, self.port, self.visits = name, port, visits
        self.cookie = ""
        self.number = 0
        self.uncertain = 0
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENT)

    def visit(self) -> None:
        began = time.monotonic()
        status, worker = 0, 0
        try:
            status, text = self.ask()
            if status == 200:
                found = json.loads(text)
                worker = found["worker"]
                self.compare(found["visits"])
        except (OSError, http.client.HTTPException):
            self.connection.close()
        if status != 200 and self.cookie:
            self.uncertain += 1
        self.visits.note(status, time.monotonic() - began, worker)

    def ask(self) -> tuple[int, str]:
        headers = {"Host": "example.com"} | ({"Cookie": self.cookie} if self.cookie else {})
        self.connection.request("GET", "/", headers=headers)
        response = self.connection.getresponse()
        text = response.read().decode()
        cookie = response.headers.get("Set-Cookie")
        if cookie is not None:
            if self.cookie:
                self.visits.lost.append(f"{self.name} had visit {self.number} and a new session.")
            self.cookie = cookie.partition(";")[0]
            self.number = self.uncertain = 0
        return response.status, text

    def compare(self, number: int) -> None:
        if number <= self.number:
            self.visits.lost.append(f"{self.name} had visit {self.number}, then {number}.")
        with self.visits.lock:
            self.visits.repeated += max(0, number - self.number - self.uncertain - 1)
        self.number, self.uncertain = number, 0


@contextlib.contextmanager
def visiting(port: int, many: int) -> Iterator[Visits]:
    """While inside, *many* visitors ask for the page all the time."""
    visits, over = Visits(), threading.Event()

    def run(number: int) -> None:
        visitor = Visitor(f"visitor {number}", port, visits)
        while not over.wait(0.01):
            visitor.visit()
        visitor.connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    try:
        yield visits
    finally:
        over.set()
        for thread in threads:
            thread.join(2 * PATIENT)


# Small things


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def get_on_socket(path: Path, target: str) -> int:
    return status_of(UnixConnection(path), target)


def get(port: int, target: str) -> int:
    return status_of(http.client.HTTPConnection("127.0.0.1", port, timeout=5), target)


def status_of(connection: http.client.HTTPConnection, target: str) -> int:
    """The status of a response; 0 if there is none."""
    try:
        connection.request("GET", target)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENT
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"There is no {what} after {PATIENT:g} seconds.")
        time.sleep(0.02)


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
