"""Visitors who send no cookie, so that each request makes a session: does memory stay flat?

``python -m benchmarks.robustness.cookieless --requests 1000000``. The server may keep 1,000
sessions, so nearly every request evicts one. What the server has at the end may exceed what it had
after the first tenth of the requests by 2 MB at most, and no request may fail.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

from benchmarks.common.client import Client
from benchmarks.common.options import option_parser
from benchmarks.common.server_process import ServerProcess, serving

CLIENTS = 8
MOST_SESSIONS = 1000
MOST_GROWTH = 2 * 1024 * 1024
"""Bytes of memory that the server may have more at the end."""
MEASUREMENTS = 10

COUNTER = """
from rpyserve import Resource, cache

cache()


class Counter(Resource):
    def render_GET(self, request):
        session = request.getSession()
        session["visits"] = session.get("visits", 0) + 1
        return f"Visit #{session['visits']} for you!"


resource = Counter()
"""


@dataclass(frozen=True)
class Result:
    """What was seen.

    Args:
        requests: how many were sent.
        answers: how many of them were answered as by a visitor's first visit.
        memory: what the server had after each tenth of the requests, in bytes.
    """

    requests: int
    answers: int
    memory: list[int]

    @property
    def good(self) -> bool:
        grown = self.memory[-1] - self.memory[0]
        return self.answers == self.requests and grown <= MOST_GROWTH


async def visit(port: int, requests: int) -> int:
    """Send so many requests, none with a cookie. Returns how many got the right response."""
    answers = 0
    async with Client.connect(port) as client:
        for _ in range(requests):
            answers += await client.get("/counter") == b"Visit #1 for you!"
            client.cookies.clear()
    return answers


async def run(server: ServerProcess, requests: int) -> Result:
    """Send *requests*, a multiple of the number of clients and measurements."""
    answers: list[int] = []
    memory = []

    async def visit_and_count() -> None:
        answers.append(await visit(server.port, requests // MEASUREMENTS // CLIENTS))

    for _ in range(MEASUREMENTS):
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(visit_and_count)
        memory.append(server.memory())
    return Result(requests, sum(answers), memory)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    portion = CLIENTS * MEASUREMENTS
    requests = max(portion, parser.parse_args().requests // portion * portion)
    with tempfile.TemporaryDirectory() as directory:
        site = Path(directory, "site")
        site.mkdir()
        (site / "counter.rpy").write_text(COUNTER)
        options = "--quiet", "--max-sessions", str(MOST_SESSIONS)
        with serving(site, Path(directory, "console"), *options) as server:
            result = trio.run(run, server, requests)
    megabytes = ", ".join(f"{size / 1024**2:.1f}" for size in result.memory)
    print(f"{result.answers} of {result.requests} answered; MB after each tenth: {megabytes}")
    sys.exit(not result.good)


if __name__ == "__main__":
    main()
