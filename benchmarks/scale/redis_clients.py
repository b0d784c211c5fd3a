"""What a client of Redis costs a worker: ours on trio, beside those that others maintain.

``python -m benchmarks.scale.redis_clients``. Each client takes a record and gives it back, again
and again, by the store's own scripts; once alone, and once by 16 tasks. Each round is a process of
its own. What counts is the processor time of that process for a pair, so that others on the machine
count as little as can be. redis-py's plain client holds the event loop meanwhile, so it has no 16
tasks.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.common.docs import ROOT, table
from benchmarks.common.options import add_environment, add_write, option_parser
from benchmarks.common.servers import Server, install
from benchmarks.scale import report
from rpyserve.stores.redis_scripts import Scripts

PAIRS = 6000
ROUNDS = 5
TASKS = 16
PACKAGES = ("trio", "hiredis", "redis[hiredis]", "coredis")
ROWS = {
    "ours": "rpyserve's, over hiredis",
    "coredis": "coredis, on trio",
    "redis-py": "redis-py, plain",
    "redis-py asyncio": "redis-py, asyncio",
}
Evaluate = Callable[..., Awaitable[Any]]


async def take_and_give(evaluate: Evaluate, count: int, number: int) -> None:
    """Take a record and give it back, *count* times."""
    scripts, member = Scripts("rpy"), f"{number:064x}"
    record, deadlines = f"rpy:{{{member[:2]}}}:s:{member}", f"rpy:{{{member[:2]}}}:due"
    blob = b"x" * 144
    keys = (record, deadlines)
    token = "0" * 31 + "1"
    await evaluate(scripts.create.sha, 2, *keys, token, 30000, 900000, member, blob)
    await evaluate(scripts.give.sha, 2, *keys, token, 30000, 900000, member, 0)
    for each in range(count):
        token = f"{each:032x}"
        answer = await evaluate(scripts.take.sha, 2, *keys, token, 30000, 1, 0, 1)
        assert answer[0] == 1
        done = await evaluate(scripts.give.sha, 2, *keys, token, 30000, 900000, member, 0, blob)
        assert done == 1


@asynccontextmanager
async def ours(path: str) -> AsyncIterator[Evaluate]:
    import trio

    from rpyserve.stores.redis_address import RedisAddress
    from rpyserve.stores.redis_client import RedisClient, RedisConnection

    async def greet(connection: RedisConnection) -> None:
        for script in Scripts("rpy"):
            await connection.call("SCRIPT", "LOAD", script.text)

    client = RedisClient(RedisAddress(path=path), greet)

    async def evaluate(*words: Any) -> Any:
        return await client.call("EVALSHA", *words)

    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        yield evaluate
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def coredis(path: str) -> AsyncIterator[Evaluate]:
    import coredis as library  # type: ignore[import-not-found]

    async with library.Redis(unix_socket_path=path) as client:

        async def evaluate(sha: str, count: int, *words: Any) -> Any:
            return await client.evalsha(sha, keys=words[:count], args=words[count:])

        for script in Scripts("rpy"):
            await client.script_load(script.text)
        yield evaluate


@asynccontextmanager
async def redis_py(path: str) -> AsyncIterator[Evaluate]:
    import redis  # type: ignore[import-not-found]

    client = redis.Redis(unix_socket_path=path)

    async def evaluate(*words: Any) -> Any:
        return client.evalsha(*words)

    for script in Scripts("rpy"):
        client.script_load(script.text)
    yield evaluate


@asynccontextmanager
async def redis_py_asyncio(path: str) -> AsyncIterator[Evaluate]:
    import redis.asyncio  # type: ignore[import-not-found]

    client = redis.asyncio.Redis(unix_socket_path=path)
    for script in Scripts("rpy"):
        await client.script_load(script.text)
    yield client.evalsha
    await client.aclose()


CLIENTS: dict[str, Callable[[str], Any]] = {
    "ours": ours,
    "coredis": coredis,
    "redis-py": redis_py,
    "redis-py asyncio": redis_py_asyncio,
}


async def on_trio(open_client: Callable[[str], Any], path: str, tasks: int) -> float:
    import trio

    async with open_client(path) as evaluate:
        began = process_time()
        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(take_and_give, evaluate, PAIRS // tasks, number)
        return process_time() - began


async def on_asyncio(open_client: Callable[[str], Any], path: str, tasks: int) -> float:
    import asyncio

    async with open_client(path) as evaluate:
        began = process_time()
        work = (take_and_give(evaluate, PAIRS // tasks, number) for number in range(tasks))
        await asyncio.gather(*work)
        return process_time() - began


def drive(name: str, path: str, tasks: int) -> float:
    """Return the microseconds of this process for a pair."""
    if name.endswith("asyncio"):
        import asyncio

        return asyncio.run(on_asyncio(CLIENTS[name], path, tasks)) / PAIRS * 1e6
    import trio

    return trio.run(on_trio, CLIENTS[name], path, tasks) / PAIRS * 1e6


@contextmanager
def redis_server() -> Iterator[str]:
    """A server of its own. Yields the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        path = os.path.join(directory, "socket")
        command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                while not os.path.exists(path):
                    assert process.poll() is None
                yield path
            finally:
                process.terminate()


def measure(python: Path, rounds: int) -> dict[str, dict[int, float]]:
    """The medians of each client that is there, in microseconds for a pair, by tasks."""
    found: dict[str, dict[int, list[float]]] = {}
    with redis_server() as path:
        for _ in range(rounds):
            for name in ROWS:
                for tasks in (1,) if name == "redis-py" else (1, TASKS):
                    took = run_driver(python, name, path, tasks)
                    if took is not None:
                        found.setdefault(name, {}).setdefault(tasks, []).append(took)
    return {
        name: {tasks: statistics.median(times) for tasks, times in each.items()}
        for name, each in found.items()
    }


def run_driver(python: Path, name: str, path: str, tasks: int) -> float | None:
    """Return what one client took; None if it is not installed."""
    module = "benchmarks.scale.redis_clients"
    command = [str(python), "-m", module, "--drive", name, path, str(tasks)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    if done.returncode:
        print(f"{name}: {done.stderr.decode()[-500:]}", file=sys.stderr)
        return None
    return float(json.loads(done.stdout))


def section(medians: dict[str, dict[int, float]], versions: str, rounds: int) -> str:
    rows = [
        [
            ROWS[name],
            f"{times[1]:.0f}",
            f"{times[TASKS]:.0f}" if TASKS in times else "",
            f"{times[1] / medians['ours'][1]:.1f}",
            f"{times[TASKS] / medians['ours'][TASKS]:.1f}" if TASKS in times else "",
        ]
        for name, times in medians.items()
    ]
    header = ["client", "alone, µs", f"{TASKS} tasks, µs", "to ours, alone", f"{TASKS} tasks"]
    return f"""\
Microseconds of a worker's CPU time to take a session of 144 bytes from Redis and to give it back,
two calls; medians of {report.count_of(rounds, "run")} in turn. {versions}. {report.machine()}

{table(header, rows)}

rpyserve has a client of its own because of these figures. It is a thin layer over hiredis, the
parser and packer that the authors of Redis maintain: one connection for each server, which all
tasks share, so that the commands of one moment go out together. coredis runs on trio and is
maintained, but costs more than everything else in a request. The plain client of redis-py would
hold the event loop while Redis answers, and its other one needs asyncio.
"""


def versions_of(python: Path) -> str:
    code = (
        "from importlib.metadata import version\n"
        "print(*(f'{name} {version(name)}' for name in ('hiredis', 'coredis', 'redis')), sep=', ')"
    )
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    parser = option_parser(__doc__)
    add_environment(parser)
    add_write(parser, report.DOCUMENT)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--drive", nargs=3, metavar=("CLIENT", "SOCKET", "TASKS"))
    options = parser.parse_args()
    if options.drive:
        name, path, tasks = options.drive
        print(drive(name, path, int(tasks)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        environment = options.environment or Path(temporary) / "environment"
        python = install(environment, [Server("clients", (), packages=PACKAGES)]) / "python"
        medians = measure(python, options.rounds)
        text = section(medians, versions_of(python), options.rounds)
    print(text)
    report.write_section(report.REDIS_CLIENTS, text, options.write)


if __name__ == "__main__":
    main()
