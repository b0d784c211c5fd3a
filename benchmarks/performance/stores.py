"""What it costs to keep sessions: rpyserve with SQLite and with Redis, beside one without a store.

``python -m benchmarks.performance.stores [--rounds 5] [--before DIRECTORY]`` starts the servers,
and asks each for the same pages in turn, round by round. What counts is the processor time of a
server for one response, and the ratios of those within a round. With ``--before``, another checkout
of rpyserve serves as well, without a store. Redis counts where redis-server is installed, and its
own time does not. It ends with 1 if a ratio is not its target.
"""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from benchmarks.common.docs import ROOT
from benchmarks.common.options import option_parser
from benchmarks.common.server_process import ServerProcess, free_port, is_listening
from benchmarks.performance.load_generator import Request, generate_load
from benchmarks.performance.pages import RPYSERVE
from benchmarks.robustness.workers import Redis

VISITORS = 200
CONNECTIONS = 16
SECONDS = 2


@dataclass(frozen=True)
class Target:
    """A ratio of two costs, and what it may be.

    Args:
        what: in words.
        above, below: each a server and a page.
        most: what the ratio may be.
    """

    what: str
    above: tuple[str, str]
    below: tuple[str, str]
    most: float


TARGETS = (
    Target("memory, a counter: now / before", ("memory", "counter"), ("before", "counter"), 1.02),
    Target("memory, hello: now / before", ("memory", "hello"), ("before", "hello"), 1.02),
    Target("a counter: SQLite / memory", ("sqlite", "counter"), ("memory", "counter"), 1.7),
    Target("the series' counter: SQLite / memory", ("sqlite", "series"), ("memory", "series"), 1.7),
    Target("a counter: Redis / memory", ("redis", "counter"), ("memory", "counter"), 3.0),
    Target("the series' counter: Redis / memory", ("redis", "series"), ("memory", "series"), 3.0),
    Target(
        "Redis, hello: with / without a session's cookie",
        ("redis", "hello with a cookie"),
        ("redis", "hello"),
        1.1,
    ),
    Target(
        "SQLite, hello: with / without a session's cookie",
        ("sqlite", "hello with a cookie"),
        ("sqlite", "hello"),
        1.1,
    ),
)


def pages() -> dict[str, tuple[str, bool]]:
    """The pages by their names: the path, and whether the visitors have sessions."""
    return {
        "hello": ("/hello", False),
        "hello with a cookie": ("/hello", True),
        "counter": ("/counter", True),
        "series": ("/series", True),
    }


@contextmanager
def serving(checkout: Path, site: Path, *options: str) -> Iterator[ServerProcess]:
    port, console = free_port(), site / "console.txt"
    command = [sys.executable, "-m", "rpyserve", ".", "--port", str(port), "--quiet", *options]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    with console.open("w") as output:
        process = subprocess.Popen(command, cwd=site, env=environment, stdout=output, stderr=output)
    server = ServerProcess(process, port, console)
    try:
        if not is_listening(port):
            raise SystemExit(f"the server did not start:\n{console.read_text()}")
        yield server
    finally:
        server.stop()


def first_cookie(server: ServerProcess) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/counter")
    response = connection.getresponse()
    response.read()
    return response.getheader("Set-Cookie", "").partition(";")[0]


def cost(server: ServerProcess, path: str, cookies: list[str]) -> float:
    """Seconds of processor time for one response.

    Raises:
        SystemExit: one of the responses was not what it should be.
    """
    headers = [{"Cookie": cookie} if cookie else {} for cookie in cookies]
    before = server.cpu_time()
    done = generate_load(
        server.port, [Request(path, each) for each in headers], CONNECTIONS, SECONDS
    )
    if done.bad or done.failed or not done.requests:
        raise SystemExit(f"{path}: {done.bad} bad and {done.failed} failed of {done.requests}")
    return (server.cpu_time() - before) / done.requests


Costs = dict[tuple[str, str], list[float]]


def measure(servers: dict[str, ServerProcess], rounds: int) -> Costs:
    cookies = {
        name: [first_cookie(server) for _ in range(VISITORS)] for name, server in servers.items()
    }
    costs: Costs = {}
    for number in range(rounds + 1):
        for page, (path, has_session) in pages().items():
            for name, server in servers.items():
                sample = cost(server, path, cookies[name] if has_session else [""])
                if number:  # the first round warms up
                    costs.setdefault((name, page), []).append(sample)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return costs


def ratios(costs: Costs, target: Target) -> list[float]:
    pairs = zip(costs[target.above], costs[target.below], strict=True)
    return [above / below for above, below in pairs]


def report(costs: Costs) -> bool:
    """Print the costs and the ratios; return whether all are their targets."""
    for (name, page), samples in costs.items():
        print(f"{name:8} {page:20} {statistics.median(samples) * 1e6:6.1f} us")
    is_good = True
    for target in TARGETS:
        if target.above in costs and target.below in costs:
            found = ratios(costs, target)
            median = statistics.median(found)
            is_good &= median <= target.most
            spread = f"{min(found):.2f} to {max(found):.2f}"
            print(f"{target.what}: {median:.2f} ({spread}), at most {target.most}")
    return is_good


def make_site(directory: Path, name: str) -> Path:
    site = directory / name
    site.mkdir()
    for file, content in RPYSERVE.items():
        (site / file).write_text(content.lstrip(), encoding="utf-8")
    return site


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """A Redis of its own, and a secret for its workers. Yields its URL."""
    secret = directory / "secret"
    secret.write_text(secrets.token_hex(32))
    os.environ["RPYSERVE_SECRET_FILE"] = str(secret)
    redis = Redis(directory)
    redis.start()
    try:
        trio.run(redis.wait_ready)
        yield redis.url
    finally:
        redis.kill()


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout of rpyserve")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:

        def start(name: str, checkout: Path, *more: str) -> ServerProcess:
            site = make_site(Path(scratch), name)
            return stack.enter_context(serving(checkout, site, *more))

        servers = {"memory": start("memory", ROOT)}
        if options.before:
            servers["before"] = start("before", options.before.resolve())
        servers["sqlite"] = start("sqlite", ROOT, "--session-store", "sqlite")
        if shutil.which("redis-server"):
            redis = stack.enter_context(redis_server(Path(scratch)))
            servers["redis"] = start("redis", ROOT, "--session-store", redis)
        costs = measure(servers, options.rounds)
    sys.exit(not report(costs))


if __name__ == "__main__":
    main()
