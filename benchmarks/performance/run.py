"""How fast, beside other servers and beside the least that trio and h11 cost: docs/performance.md.

``python -m benchmarks.performance.run [--quick]`` installs the others into an environment of its
own (php, nginx and wrk are used where they are there), starts all of them, and asks each for the
same pages, round by round, so that a machine that becomes slower does so for all alike. Every
response is checked. What counts are ratios within a round. It takes some 12 minutes, with
``--quick`` two, and that only prints. It ends with 1 if a figure is not its target.
"""

from __future__ import annotations

import http.client
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.docs import DOCS, ROOT
from benchmarks.common.options import add_environment, option_parser
from benchmarks.common.server_process import ServerProcess
from benchmarks.common.servers import install, start
from benchmarks.performance.load_generator import FORM_TYPE, NUMBER, WRK, Request, generate_load
from benchmarks.performance.report import (
    Results,
    Sample,
    chart,
    document,
    rows_table,
    targets_table,
    unmet,
)
from benchmarks.performance.workload import (
    BROWSER,
    CONTESTANTS,
    COOKIE,
    FILES,
    ROWS,
    VISITORS,
    Contestant,
    Row,
)

DOCUMENT = DOCS / "performance.md"
CHART = DOCS / "pictures" / "performance.svg"
SETTLE = 2.5
"""Seconds before the first round: files that were read just now are compared by their contents."""


@dataclass
class RunningContestant:
    """A contestant that listens."""

    contestant: Contestant
    process: ServerProcess
    closes: bool = False
    """Whether it closes the connection after each response, which wrk counts as a failure."""

    def requests_for(self, row: Row) -> list[Request]:
        """The requests of *row*, one for each visitor. What checks responses checks the first.

        Raises:
            AssertionError: a response is not what it should be.
        """
        path = row.path + (self.contestant.suffix if row.is_page else "")
        if row.repeats:
            return [Request(path, form=row.form)]
        path += f"?number={NUMBER}"
        cookies = [COOKIE.format(visitor) for visitor in range(VISITORS)]
        if row.session:
            first_visit = Request(path, BROWSER)
            cookies = [self.exchange(first_visit, row)[1].partition(";")[0] for _ in cookies]
        return [Request(path, BROWSER | {"Cookie": cookie}, row.form) for cookie in cookies]

    def exchange(self, request: Request, row: Row) -> tuple[int, str]:
        """Send *request* once. Returns the size of the body, and the cookie that was set."""
        connection = http.client.HTTPConnection("127.0.0.1", self.process.port, timeout=20)
        headers = request.headers | ({"Content-Type": FORM_TYPE} if request.form else {})
        connection.request(request.method, request.path, request.form or None, headers)
        response = connection.getresponse()
        self.closes = response.will_close
        body = response.read()
        connection.close()
        expected = body if row.body is None or self.contestant.is_baseline else row.body
        assert (response.status, body) == (row.status, expected), (
            f"{self.contestant.name} {request.path}: {response.status}"
        )
        return len(body), response.getheader("Set-Cookie", "")

    def measure(self, row: Row, seconds: int) -> Sample:
        """Measure *row* once.

        Raises:
            AssertionError: one of the responses was not what it should be.
        """
        requests = self.requests_for(row)
        size, _ = self.exchange(requests[0], row)
        before = self.process.cpu_time()
        done = generate_load(self.process.port, requests, row.connections, seconds)
        cpu_time = self.process.cpu_time() - before
        name = f"{self.contestant.name}, {row.title}"
        bad = done.requests if row.status >= 400 else 0
        assert done.bad == bad, f"{name}: {done.bad} responses were bad"
        assert done.requests and (self.closes or not done.failed), (
            f"{name}: {done.failed} of {done.requests} failed"
        )
        # The head of each response is counted, too, and those that came in part at the end.
        mean = done.bytes / done.requests
        most = (size + 1500) * (1.02 + row.connections / done.requests)
        assert size <= mean * 1.02 and mean < most, f"{name}: responses have {mean:.0f} bytes each"
        self.exchange(requests[0], row)
        return Sample(done.rate, cpu_time / done.requests)


def rows_of(contestant: Contestant, rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.key in contestant.rows]


def measure_all(running: list[RunningContestant], rows: list[Row], rounds: int) -> Results:
    """Measure *rows* of all contestants, a second each, so many times."""
    results: Results = {}
    for number in range(1, rounds + 1):
        for row in rows:
            for each in running:
                if row.key not in each.contestant.rows:
                    continue
                name = each.contestant.name
                try:
                    sample = each.measure(row, 1)
                except (AssertionError, OSError, http.client.HTTPException) as exc:
                    raise SystemExit(f"round {number}: {name}, {row.title}: {exc!r}") from exc
                results.setdefault((row.key, name), []).append(sample)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return results


def compare(
    environment: Path, scratch: Path, rows: list[Row], rounds: int
) -> tuple[Results, list[str]]:
    """What was measured, and who was not there."""
    contestants = [each for each in CONTESTANTS if rows_of(each, rows)]
    commands = install(environment, [contestant.server for contestant in contestants])
    running: list[RunningContestant] = []
    absent = [] if WRK else ["wrk (a generator of our own took its place)"]
    with ExitStack() as stack:
        for number, contestant in enumerate(contestants):
            directory = scratch / f"contestant{number}"
            try:
                process = start(
                    contestant.server, {**FILES, **contestant.files}, directory, commands
                )
            except OSError:
                absent.append(contestant.name)
            else:
                stack.callback(process.stop)
                running.append(RunningContestant(contestant, process))
        for each in running:
            for row in rows_of(each.contestant, rows):
                each.exchange(each.requests_for(row)[0], row)
        time.sleep(SETTLE)
        return measure_all(running, rows, rounds), absent


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, which is only printed")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (7)")
    keys = [row.key for row in ROWS]
    parser.add_argument(
        "--rows", nargs="+", choices=keys, help="only these, which are only printed"
    )
    add_environment(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        environment = (options.environment or scratch / "environment").absolute()
        rounds = 1 if options.quick else options.rounds
        rows = [row for row in ROWS if row.key in (options.rows or keys)]
        results, absent = compare(environment, scratch, rows, rounds)
    print(f"{targets_table(results)}\n\n{rows_table(results)}")
    if not options.quick and not options.rows:
        DOCUMENT.write_text(document(results, absent), encoding="utf-8")
        CHART.write_text(chart(results), encoding="utf-8")
        print(f"{DOCUMENT.relative_to(ROOT)} and {CHART.relative_to(ROOT)} are written")
    raise SystemExit(bool(unmet(results)))


if __name__ == "__main__":
    main()
