"""What the inspector costs: rpyserve with it, looked at and not, beside ``--no-inspector``.

``python -m benchmarks.performance.inspector [--rounds 9]`` starts the servers, and asks each for
the same pages in turn, round by round, without an access log, as that would hide a part of the
cost. What counts is the processor time of a server for one response, and the ratios of those within
a round. One of the servers is looked at: its list of requests is asked for before each of its
turns, and for 60 s after that each request records more. The answers to looks are not counted.

It ends with 1 if the ratio of a server that nobody looks at is not its target.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.common.docs import ROOT
from benchmarks.common.options import option_parser
from benchmarks.common.server_process import ServerProcess
from benchmarks.performance.stores import VISITORS, cost, first_cookie, make_site, serving

LEAST = 0.98
"""What the speed of a server that nobody looks at may be, beside one without an inspector."""

NONE, UNWATCHED, WATCHED = "--no-inspector", "nobody looks", "somebody looks"

PAGES = {"hello": ("/hello", False), "counter": ("/counter", True)}

Costs = dict[tuple[str, str], list[float]]


def look(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/-/requests.json")
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise SystemExit(f"/-/requests.json: {response.status}")
    connection.close()


def measure(servers: dict[str, ServerProcess], rounds: int) -> Costs:
    cookies = {
        name: [first_cookie(server) for _ in range(VISITORS)] for name, server in servers.items()
    }
    costs: Costs = {}
    for number in range(rounds + 1):
        for page, (path, has_session) in PAGES.items():
            names = list(servers) if number % 2 else list(reversed(servers))
            for name in names:
                if name == WATCHED:
                    look(servers[name])
                sample = cost(servers[name], path, cookies[name] if has_session else [""])
                if number:  # the first round warms up
                    costs.setdefault((page, name), []).append(sample)
    return costs


def report(costs: Costs) -> bool:
    """Print the ratios. Return whether the targets are met."""
    met = True
    for (page, name), samples in costs.items():
        bare = costs[page, NONE]
        ratios = [without / with_it for without, with_it in zip(bare, samples, strict=True)]
        speed = statistics.median(ratios)
        is_met = name != UNWATCHED or speed >= LEAST
        met = met and is_met
        print(
            f"{page:8} {name:15} {1e6 * statistics.median(samples):6.1f} us,"
            f" {speed:.3f} times as fast ({min(ratios):.3f} to {max(ratios):.3f})"
            f"{'' if is_met else f'; {LEAST} is the target'}"
        )
    return met


def main() -> int:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {}
        for name in (NONE, UNWATCHED, WATCHED):
            site = make_site(scratch, name.strip("-"))
            options_of_it = ("--no-inspector",) if name == NONE else ()
            servers[name] = stack.enter_context(serving(ROOT, site, *options_of_it))
        return 0 if report(measure(servers, options.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
