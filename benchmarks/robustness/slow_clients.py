"""A thousand clients that are slow on purpose, in the four ways of slowhttptest.

``python -m benchmarks.robustness.slow_clients [--seconds 30] [--clients 1000] [MODE ...]``. It
needs slowhttptest (a package of Debian and Homebrew). Beside each attack a normal client asks for a
script and a file, each on a new connection, ten times a second; its slowest response is what
counts, and must take less than a second.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from benchmarks.common.client import fetch
from benchmarks.common.options import option_parser
from benchmarks.common.server_process import ServerProcess, serving


@dataclass(frozen=True)
class Attack:
    """One way of slowhttptest: its options, and the page that it asks for."""

    options: str
    target: str


ATTACKS = {
    "slow headers": Attack("-H -i 1 -x 24", "page"),
    "slow body": Attack("-B -i 1 -x 10 -s 8192 -t POST", "page"),
    "range": Attack("-R -a 10 -b 3000", "large.bin"),
    "slow read": Attack("-X -w 10 -y 20 -n 1 -z 32 -k 3", "large.bin"),
}
PAGES = {"/page": b"<p>page", "/small.txt": b"small"}
"""What the normal client asks for, and how the responses end."""
LIMIT = 1.0
"""Seconds that a response may take."""


@dataclass
class Seen:
    """What the normal client saw. It is good if nothing failed, and nothing was slow."""

    times: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    most_files: int = 0
    attackers: int = 0

    @property
    def good(self) -> bool:
        return bool(self.times) and not self.failures and max(self.times) < LIMIT


async def request(port: int, seen: Seen, path: str) -> None:
    """One request on a connection of its own."""
    began = time.monotonic()
    try:
        with trio.fail_after(20):
            response = await fetch(port, path)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as exc:
        seen.failures.append(f"{path}: {type(exc).__name__}")
        return
    seen.times.append(time.monotonic() - began)
    if not (response.startswith(b"HTTP/1.1 200 ") and response.endswith(PAGES[path])):
        seen.failures.append(f"{path}: {response[:80]!r}")


async def be_normal(server: ServerProcess, seen: Seen) -> None:
    while True:
        for path in PAGES:
            await request(server.port, seen, path)
            seen.most_files = max(seen.most_files, server.open_files())
            await trio.sleep(0.1)


async def attack(server: ServerProcess, mode: str, clients: int, seconds: int) -> Seen:
    """Run slowhttptest for some seconds, with a normal client beside it."""
    seen = Seen()
    command = [
        "slowhttptest",
        *("-c", str(clients), "-r", str(clients // 3), "-l", str(seconds), "-p", "3"),
        *ATTACKS[mode].options.split(),
        *("-u", server.url + ATTACKS[mode].target),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_normal, server, seen)
        end = trio.current_time() + seconds
        with trio.move_on_after(seconds + 15):
            # One way ends by itself, when all requests have been answered.
            while trio.current_time() < end:
                await trio.run_process(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
                )
                seen.attackers += clients
        nursery.cancel_scope.cancel()
    return seen


def report(mode: str, seen: Seen, server: ServerProcess, cpu_time: float) -> None:
    times = sorted(seen.times)
    print(
        f"{mode:13} {seen.attackers:5} attackers; {len(times):3} responses, "
        f"median {times[len(times) // 2] * 1000:.0f} ms, slowest {times[-1] * 1000:.0f} ms, "
        f"{len(seen.failures)} failures; at most {seen.most_files} open files, "
        f"{server.memory() / 1e6:.0f} MB, {cpu_time:.1f} s of CPU time"
    )
    for failure in seen.failures[:5]:
        print("  ", failure)


def make_site(site: Path) -> None:
    site.mkdir()
    (site / "page.rpy").write_text("def resource(request): return '<p>page'\n")
    (site / "small.txt").write_text("small")
    (site / "large.bin").write_bytes(bytes(5_000_000))


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("modes", nargs="*", metavar="MODE", help=", ".join(ATTACKS))
    options = parser.parse_args()
    if shutil.which("slowhttptest") is None:
        sys.exit("There is no slowhttptest here: install the package of that name.")
    good = True
    with tempfile.TemporaryDirectory() as directory:
        site = Path(directory, "site")
        make_site(site)
        with serving(site, Path(directory, "console"), "--quiet") as server:
            print(f"{options.clients} slow clients, {options.seconds} s for each way:")
            for mode in options.modes or ATTACKS:
                before = server.cpu_time()
                seen = trio.run(attack, server, mode, options.clients, options.seconds)
                report(mode, seen, server, server.cpu_time() - before)
                good = good and seen.good and seen.attackers >= options.clients
    sys.exit(not good)


if __name__ == "__main__":
    main()
