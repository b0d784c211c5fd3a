"""Clients that are slow on purpose, a thousand at once, in the four ways of slowhttptest: is a normal one answered?

``python benchmarks/slow_clients.py [--seconds 30] [--clients 1000] [MODE ...]``. It needs slowhttptest (a package of
Debian and Homebrew). Beside each attack a normal client asks for a script, a file and a new connection, ten times a
second; its slowest answer is what counts, and must be under a second.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from benchmarks.common.server_process import Server, fetch, serving

MODES = {
    "slow headers": ["-H", "-i", "1", "-x", "24"],
    "slow body": ["-B", "-i", "1", "-x", "10", "-s", "8192", "-t", "POST"],
    "range": ["-R", "-a", "10", "-b", "3000"],
    "slow read": ["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "3"],
}
TARGETS = {"slow headers": "page", "slow body": "page", "range": "large.bin", "slow read": "large.bin"}
LIMIT = 1.0


@dataclass
class Seen:
    """What the normal client saw. Good is: no failure, and nothing as slow as a second."""

    times: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    most_open: int = 0
    attacks: int = 0

    @property
    def good(self) -> bool:
        return bool(self.times) and not self.failures and max(self.times) < LIMIT


async def ask(port: int, seen: Seen, path: str, expected: bytes) -> None:
    """One request on a connection of its own."""
    began = time.monotonic()
    try:
        with trio.fail_after(20):
            answer = await fetch(port, path)
        seen.times.append(time.monotonic() - began)
        if not (answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(expected)):
            seen.failures.append(f"{path}: {answer[:80]!r}")
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as exc:
        seen.failures.append(f"{path}: {type(exc).__name__}")


async def attack(server: Server, mode: str, clients: int, seconds: int) -> Seen:
    """Run slowhttptest for some seconds, and be a normal client meanwhile."""
    seen = Seen()
    command = ["slowhttptest", "-c", str(clients), "-r", str(clients // 3), "-l", str(seconds), "-p", "3"]
    command += [*MODES[mode], "-u", server.url + TARGETS[mode]]

    async def be_normal() -> None:
        while True:
            for path, expected in (("/page", b"<p>page"), ("/small.txt", b"small")):
                await ask(server.port, seen, path, expected)
                seen.most_open = max(seen.most_open, server.descriptors())
                await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_normal)
        end = trio.current_time() + seconds
        with trio.move_on_after(seconds + 15):
            while trio.current_time() < end:  # one way ends by itself, when all have been answered
                await trio.run_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
                seen.attacks += clients
        nursery.cancel_scope.cancel()
    return seen


def report(mode: str, seen: Seen, server: Server, seconds: float) -> None:
    times = sorted(seen.times)
    print(
        f"{mode:13} {seen.attacks:5} attackers; {len(times):3} answers, median {times[len(times) // 2] * 1000:.0f} ms, "
        f"slowest {times[-1] * 1000:.0f} ms, {len(seen.failures)} failures; at most {seen.most_open} descriptors, "
        f"{server.memory() / 1e6:.0f} MB, {seconds:.1f} s of processor time"
    )
    for told in seen.failures[:5]:
        print("  ", told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("modes", nargs="*", metavar="MODE", help=", ".join(MODES))
    options = parser.parse_args()
    if shutil.which("slowhttptest") is None:
        sys.exit("There is no slowhttptest here: install the package of that name.")
    good = True
    with tempfile.TemporaryDirectory() as directory:
        site = Path(directory, "site")
        site.mkdir()
        (site / "page.rpy").write_text("def resource(request): return '<p>page'\n")
        (site / "small.txt").write_text("small")
        (site / "large.bin").write_bytes(bytes(5_000_000))
        with serving(site, Path(directory, "console"), "--quiet") as server:
            print(f"{options.clients} slow clients, {options.seconds} s each way; a normal client beside them:")
            for mode in options.modes or MODES:
                before = server.seconds()
                seen = trio.run(attack, server, mode, options.clients, options.seconds)
                report(mode, seen, server, server.seconds() - before)
                good = good and seen.good and seen.attacks >= options.clients
    sys.exit(not good)


if __name__ == "__main__":
    main()
