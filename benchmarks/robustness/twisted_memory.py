"""Executes a genuine session counter of Twisted's, without ``cache()``, 100,000 times.

``python -m benchmarks.robustness.twisted_memory [--executions N]`` prints the memory and the number
of objects as it goes, and ends with 1 if they have grown between the first tenth and the end.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from pathlib import Path

import trio

from benchmarks.performance.twisted import GENUINE
from rpyserve import Directory, Site
from rpyserve.http.request import Request

MOST_OBJECTS = 500
MOST_MEMORY = 4 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=100_000)
    executions = parser.parse_args().executions
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "a.rpy").write_text(GENUINE.removeprefix("cache()\n"))
        sys.exit(trio.run(run, Site(Directory(directory)), executions // 10))


async def run(site: Site, tenth: int) -> bool:
    measured = []
    async with site.running():
        cookie: list[tuple[bytes, bytes]] = []
        for part in range(10):
            for _ in range(tenth):
                cookie = await execute(site, cookie)
            gc.collect()
            measured.append((resident_memory(), len(gc.get_objects())))
            print(f"{(part + 1) * tenth:,}: {measured[-1][0] >> 20} MiB, {measured[-1][1]} objects")
    (memory, objects), (memory_at_end, objects_at_end) = measured[0], measured[-1]
    return memory_at_end - memory > MOST_MEMORY or objects_at_end - objects > MOST_OBJECTS


async def execute(site: Site, cookie: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    request = Request("GET", "/a", cookie)
    response = await site.respond(request)
    request.close()
    assert response.body == b"Visit #1 for you!", response.body
    made = [value for name, value in response.headers if name == b"Set-Cookie"]
    return [(b"cookie", made[0].partition(b";")[0])] if made else cookie


def resident_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
