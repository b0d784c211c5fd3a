"""How soon the first answer is there, against what it takes to import the libraries that a server needs.

``python benchmarks/start_up.py``. A process is started and asked at once, again and again, in turn with a Python that
only imports trio, h11, click and zope.interface, and ends. ``--help`` likewise, against ``import click``. What
counts are medians.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.scale import report as sections

ROUNDS = 21
IMPORTS = "import trio, h11, click, zope.interface"
LIMITS = {"first answer": 1.3, "--help": 2.0}
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SCRIPT = """\
from rpyserve import Resource

cache()


class Hello(Resource):
    def render_GET(self, request):
        return "Hello, world!"


resource = Hello()
"""
# Where code that was compiled is not kept, it is compiled at each start; that is not what anybody has.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def timed(*command: object) -> float:
    """Seconds until *command* has ended."""
    began = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - began


def first_answer(site: Path) -> float:
    """Seconds from the start of the command to its first answer."""
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
            answer = client.recv(65536)
        took = time.perf_counter() - began
    finally:
        process.terminate()
        process.communicate()
    assert answer.endswith(b"Hello, world!"), answer
    return took


def measure(site: Path, rounds: int) -> dict[str, list[float]]:
    what: dict[str, Callable[[], float]] = {
        "python": lambda: timed(sys.executable, "-c", "pass"),
        "imports": lambda: timed(sys.executable, "-c", IMPORTS),
        "first answer": lambda: first_answer(site),
        "click": lambda: timed(sys.executable, "-c", "import click"),
        "--help": lambda: timed(sys.executable, "-m", "rpyserve", "--help"),
    }
    for each in what.values():
        each()  # so that all is compiled, and in the system's memory
    took: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(rounds):
        for name, each in what.items():
            took[name].append(each())
    return took


def section(took: dict[str, list[float]]) -> str:
    middle = {name: statistics.median(times) for name, times in took.items()}
    rows = [
        [
            named,
            f"{middle[name] * 1000:.0f}",
            f"{middle[base] * 1000:.0f}",
            sections.verdict(middle[name] / middle[base], LIMITS[name]),
            str(LIMITS[name]),
        ]
        for named, name, base in (
            ("`rpyserve`, to its first answer, beside `" + IMPORTS + "`", "first answer", "imports"),
            ("`rpyserve --help`, beside `import click`", "--help", "click"),
        )
    ]
    return f"""\
Milliseconds from the start of the process, medians of {len(took["imports"])} rounds in turn; Python alone takes
{middle["python"] * 1000:.0f}. {sections.machine()}

{sections.table(["", "ms", "beside it", "ratio", "at most"], rows)}

What the first answer does not need is imported after it, a module at a time (`later`). The watch for edits gets
ready meanwhile, in a thread of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", type=Path, default=sections.DOCUMENT, metavar="FILE", help="where the section goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "index.rpy").write_text(SCRIPT)
        took = measure(Path(directory), options.rounds)
    text = section(took)
    sections.write(sections.HEADINGS[1], text, options.write)
    print(text)
    middle = {name: statistics.median(times) for name, times in took.items()}
    good = all(
        middle[name] <= LIMITS[name] * middle[base] for name, base in (("first answer", "imports"), ("--help", "click"))
    )
    sys.exit(not good)


if __name__ == "__main__":
    main()
