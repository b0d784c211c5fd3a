"""How fast, beside others and beside the least that trio and h11 cost: docs/performance.md, written anew.

``python benchmarks/compare.py [--quick]`` installs the others into an environment of its own (php, nginx and wrk are
used where they are there), starts all of them, and asks each for the same pages, round by round, so that a
machine that becomes slower does so for all alike. Every answer is checked. What counts are ratios within a round; it
takes some 12 minutes, with ``--quick`` two, and that prints only. It ends with 1 if a figure is not what it must be.
"""

from __future__ import annotations

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.conformance.run import ROOT, answers_at, free_port, install
from benchmarks.performance.load_generator import WRK, Ask, load
from benchmarks.performance.pages import BARE, CONTESTANTS, LARGE, ROWS, SMALL, Contestant, Row
from benchmarks.performance.report import Results, Sample, chart, document, missed, table_of_musts

HERE = Path(__file__).resolve().parent
DOCUMENT = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "pictures" / "performance.svg"


def processor_time(pid: int) -> float:
    """Seconds that the process and its children have had a processor; 0 where that cannot be asked."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return time.clock_gettime((~pid << 3) | 2) + sum(processor_time(int(child)) for child in children)
    except (AttributeError, OSError):
        return 0


@dataclass
class Server:
    """A contestant that listens."""

    contestant: Contestant
    port: int
    process: subprocess.Popen[bytes]
    closes: bool = False  # after each answer, which wrk counts as a failure

    def ask_for(self, row: Row) -> tuple[Ask, int]:
        """How *row* is asked for here, and how many bytes an answer has. The answer is checked.

        Raises:
            AssertionError: it is not what it should be.
        """
        page = row.key in self.contestant.pages and row.key not in ("small", "large", "404")
        ask = Ask(row.path + (self.contestant.suffix if page else ""), dict(row.headers), row.form)
        if row.cookie:
            ask.headers["Cookie"] = self.exchange(ask, row)[1].partition(";")[0]
        return ask, self.exchange(ask, row)[0]

    def exchange(self, ask: Ask, row: Row) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = ask.headers | ({"Content-Type": "application/x-www-form-urlencoded"} if ask.form else {})
        connection.request("POST" if ask.form else "GET", ask.path, ask.form or None, headers)
        response = connection.getresponse()
        self.closes = response.will_close
        body = response.read()
        connection.close()
        wanted = body if row.body is None or self.contestant.name == BARE else row.body
        assert (response.status, body) == (row.status, wanted), f"{self.contestant.name} {ask.path}: {response.status}"
        return len(body), response.getheader("Set-Cookie", "")

    def measure(self, row: Row, seconds: int) -> Sample:
        """Measure *row* once.

        Raises:
            AssertionError: one of the answers was not what it should be.
        """
        ask, size = self.ask_for(row)
        began = processor_time(self.process.pid)
        done = load(self.port, ask, row.connections, seconds)
        took = processor_time(self.process.pid) - began
        name = f"{self.contestant.name}, {row.title}"
        assert done.bad == (done.requests if row.status >= 400 else 0), f"{name}: {done.bad} answers were bad"
        assert done.requests and (self.closes or not done.failed), f"{name}: {done.failed} of {done.requests} failed"
        each = done.bytes / done.requests
        assert size <= each * 1.02 and each < (size + 1500) * (1.02 + row.connections / done.requests), (
            f"{name}: answers have {each:.0f} bytes each"
        )
        self.exchange(ask, row)
        return Sample(done.rate, took / done.requests)


def start(contestant: Contestant, commands: Path, directory: Path) -> Server:
    """Start *contestant*.

    Raises:
        OSError: it is not there, or does not listen.
    """
    port = free_port()
    directory.mkdir()
    (directory / "small.txt").write_bytes(SMALL)
    (directory / "large.bin").write_bytes(LARGE)
    for name, text in contestant.files.items():
        text = text.format(port=port) if name == "nginx.conf" else text
        (directory / name).write_text(text, encoding="utf-8")
    command = [w.format(bin=commands, here=HERE, python=sys.executable, port=port) for w in contestant.command]
    with (directory.parent / f"{directory.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT if contestant.ours else directory)},
        )  # fmt: skip
    if not answers_at(port):
        process.kill()
        raise OSError(f"{contestant.name} does not listen")
    return Server(contestant, port, process)


def stop(server: Server) -> None:
    server.process.terminate()
    try:
        server.process.wait(8)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()


def taking_part(server: Server) -> list[Row]:
    """The rows of *server*; the bare loop is in each that is answered well."""
    contestant = server.contestant
    return [row for row in ROWS if row.key in contestant.pages or (contestant.name == BARE and row.status == 200)]


def run(servers: list[Server], rounds: int, seconds: int) -> Results:
    """Measure all rows of all *servers*, so many times; the bare loop in each row."""
    results: Results = {}
    for number in range(rounds):
        for row in ROWS:
            for server in servers:
                name = server.contestant.name
                if row in taking_part(server):
                    try:
                        results.setdefault((row.key, name), []).append(server.measure(row, seconds))
                    except (AssertionError, OSError, http.client.HTTPException) as exc:
                        raise SystemExit(f"round {number + 1}: {name}, {row.title}: {exc!r}") from exc
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return results


def compare(environment: Path, scratch: Path, rounds: int) -> tuple[Results, list[str]]:
    """What was measured, and who was not there."""
    commands = install(environment, CONTESTANTS)
    servers: list[Server] = []
    absent = [] if WRK else ["wrk (a generator of our own took its place)"]
    with ExitStack() as stack:
        for number, contestant in enumerate(CONTESTANTS):
            try:
                servers.append(start(contestant, commands, scratch / f"contestant{number}"))
                stack.callback(stop, servers[-1])
            except OSError:
                absent.append(contestant.name)
        for server in servers:
            for row in taking_part(server):
                server.ask_for(row)
        time.sleep(2.5)  # what was seen first just now is looked at more closely
        return run(servers, rounds, 1), absent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, and nothing is written")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (7)")
    parser.add_argument("--environment", type=Path, help="where the others are installed (a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        environment = (options.environment or Path(temporary) / "environment").absolute()
        results, absent = compare(environment, Path(temporary), 1 if options.quick else options.rounds)
    print("\n".join(table_of_musts(results)))
    if not options.quick:
        DOCUMENT.write_text(document(results, absent), encoding="utf-8")
        CHART.write_text(chart(results), encoding="utf-8")
        print(f"{DOCUMENT.relative_to(ROOT)} and {CHART.relative_to(ROOT)} are written")
    raise SystemExit(bool(missed(results)))


if __name__ == "__main__":
    main()
