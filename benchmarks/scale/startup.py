"""How soon the first response is there, beside what it takes to import the libraries of a server.

``python -m benchmarks.scale.startup``. A process is started and asked at once, again and again, in
turn with a Python that only imports trio, h11, click and zope.interface, and ends. ``--help``
likewise, against ``import click``. What counts are medians.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.common.docs import table
from benchmarks.common.options import add_write, option_parser
from benchmarks.scale import report

ROUNDS = 21
IMPORTS = "import trio, h11, click, zope.interface"
FIRST_RESPONSE = "`rpyserve` until its first response, baseline `" + IMPORTS + "`"
HELP = "`rpyserve --help`, baseline `import click`"
LIMITS = {FIRST_RESPONSE: 1.3, HELP: 2.0}
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SCRIPT = """\
from rpyserve import Resource

cache()


class Hello(Resource):
    def render_GET(self, request):
        return "Hello, world!"


resource = Hello()
"""
# Without it, compiled code would be made again at each start, which nobody has.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


def seconds_of(*command: str) -> float:
    """Seconds until *command* has ended."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - began


def seconds_to_first_response(site: Path) -> float:
    """Seconds from the start of the command to its first response."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "rpyserve", site, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(REQUEST)
            response = client.recv(65536)
        took = time.perf_counter() - began
    finally:
        process.terminate()
        process.communicate()
    assert response.endswith(b"Hello, world!"), response
    return took


def measure(site: Path, rounds: int) -> dict[str, float]:
    """The medians of each, in seconds."""
    python = sys.executable
    measured: dict[str, Callable[[], float]] = {
        "python": lambda: seconds_of(python, "-c", "pass"),
        "imports": lambda: seconds_of(python, "-c", IMPORTS),
        FIRST_RESPONSE: lambda: seconds_to_first_response(site),
        "click": lambda: seconds_of(python, "-c", "import click"),
        HELP: lambda: seconds_of(python, "-m", "rpyserve", "--help"),
    }
    for measure_one in measured.values():
        measure_one()  # so that all is compiled, and in the system's memory
    times: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, measure_one in measured.items():
            times[name].append(measure_one())
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def ratios(medians: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Of each figure with a limit: its median, and that of what it is compared with."""
    return {
        FIRST_RESPONSE: (medians[FIRST_RESPONSE], medians["imports"]),
        HELP: (medians[HELP], medians["click"]),
    }


def section(medians: dict[str, float], rounds: int) -> str:
    rows = [
        [
            title,
            f"{own * 1000:.0f}",
            f"{other * 1000:.0f}",
            report.marked(own / other, LIMITS[title]),
            str(LIMITS[title]),
        ]
        for title, (own, other) in ratios(medians).items()
    ]
    runs = report.count_of(rounds, "run")
    return f"""\
Milliseconds from the start of the process, medians of {runs} in turn; Python alone takes
{medians["python"] * 1000:.0f}. {report.machine()}

{table(["", "ms", "baseline", "ratio", "at most"], rows)}

Modules that the first response does not need are imported after it, one at a time. Meanwhile, file
watching starts in a separate thread."""


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    add_write(parser, report.DOCUMENT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "index.rpy").write_text(SCRIPT)
        medians = measure(Path(directory), options.rounds)
    text = section(medians, options.rounds)
    report.write_section(report.STARTUP, text, options.write)
    print(text)
    good = all(own <= LIMITS[title] * other for title, (own, other) in ratios(medians).items())
    sys.exit(not good)


if __name__ == "__main__":
    main()
