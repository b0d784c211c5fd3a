"""Four workers and Redis, while workers and Redis are killed and stalled: no visit is lost.

``python -m benchmarks.robustness.workers [--requests 400] [SCENARIO ...]``. Workers are processes
of the command that share their sessions in a Redis of their own; whoever ends is started again. A
visitor asks a random worker for the next number, one request after the other. What must hold is
checked: a visitor's numbers are distinct and rise, a number is missing only where a request of that
visitor was cut off or refused, and nobody waits for long. Needs redis-server.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from benchmarks.common.docs import ROOT
from benchmarks.common.options import option_parser

WORKERS = 4
LINES = 12
"""Of the workers' consoles, which are printed."""
LONGEST_WAIT = 3.0
"""Seconds that nobody may wait for longer while workers are killed."""
LATEST = 1.0
"""Seconds that the callbacks of a session may be late."""

SITE = {
    "item.rpy": """\
from rpyserve import Resource

cache()


class Visits(Resource):
    def render_GET(self, request):
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])


resource = Visits()
""",
    "component.rpy": """\
from rpyserve import Attribute, Interface, Resource, Session, implementer, registerAdapter

cache()


class ICounter(Interface):
    value = Attribute("An int which counts up once per page view.")


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)


class CounterResource(Resource):
    def render_GET(self, request):
        counter = ICounter(request.getSession())
        counter.value += 1
        return str(counter.value)


resource = CounterResource()
""",
    "slow.rpy": """\
import trio

from rpyserve import Resource

cache()


class Slow(Resource):
    async def render_GET(self, request):
        session = request.getSession()
        n = session.get("n", 0)
        await trio.sleep(0.05)
        session["n"] = n + 1
        return str(session["n"])


resource = Slow()
""",
    "long.rpy": """\
import trio

from rpyserve import Resource

cache()


class Long(Resource):
    async def render_GET(self, request):
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        n = session["n"]
        await trio.sleep(1)
        return str(n)


resource = Long()
""",
    "expiring.rpy": """\
import os
import time
from functools import partial

from rpyserve import Resource

cache()


def note_end(name):
    line = f"{name} {time.time()!r}\\n".encode()
    log = os.open(os.environ["ENDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)
    os.close(log)


class Expiring(Resource):
    def render_GET(self, request):
        session = request.getSession()
        session.notifyOnExpire(partial(note_end, request.args["name"][0]))
        return "1"


resource = Expiring()
""",
}


class Redis:
    """A redis-server on a Unix socket, which writes each command to its file before it answers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/socket"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.directory / "socket").unlink(missing_ok=True)
        command = [
            "redis-server", "--port", "0", "--unixsocket", str(self.directory / "socket"),
            "--dir", str(self.directory), "--save", "", "--appendonly", "yes",
            "--appendfsync", "always",
        ]  # fmt: skip
        with open(self.directory / "redis.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    async def wait_ready(self) -> None:
        while not (self.directory / "socket").exists():  # noqa: ASYNC110
            await trio.sleep(0.01)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def ask(self, *words: str) -> bytes:
        command = ["redis-cli", "-s", str(self.directory / "socket"), *words]
        return subprocess.run(command, capture_output=True, check=True).stdout

    def cpu_time(self) -> float:
        assert self._process is not None
        return cpu_time(self._process.pid)


class Workers:
    """The command, once for each port, started again whenever it ends."""

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.ports = free_ports(WORKERS)
        self.kills = 0
        self.directory = directory
        self._options = options
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def command(self, port: int) -> list[str]:
        options = ["--production", "--quiet", "--cookie-name", "visits", *self._options]
        site = str(self.directory / "site")
        return [sys.executable, "-m", "rpyserve", site, "--port", str(port), *options]

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for port in self.ports:
                    nursery.start_soon(self._supervise, port)
                for port in self.ports:
                    await wait_listening(port)
                task_status.started()
        finally:
            for process in self._processes.values():
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        with open(self.directory / f"{port}.log", "ab") as log:
            return subprocess.Popen(
                self.command(port), stdout=log, stderr=log, env=self._environment
            )

    async def _supervise(self, port: int) -> None:
        while True:
            process = self._processes[port] = self._start(port)
            while process.poll() is None:  # noqa: ASYNC110
                await trio.sleep(0.02)

    def signal(self, port: int, how: signal.Signals) -> None:
        self._processes[port].send_signal(how)

    def kill_one(self) -> None:
        self.signal(random.choice(self.ports), signal.SIGKILL)
        self.kills += 1

    def cpu_time(self) -> float:
        return sum(cpu_time(process.pid) for process in self._processes.values())

    def print_console(self) -> None:
        """Print what the workers have said, the same lines once."""
        logs = (self.directory / f"{port}.log" for port in self.ports)
        lines = (line for log in logs for line in log.read_text(errors="replace").splitlines())
        said = Counter(re.sub(r"^[\d:]+ ", "", line) for line in lines if line.strip())
        for line, count in said.most_common(LINES):
            print(f"    {count} x {line:.200}")
        crashes = [log for log in self.directory.glob("*.log") if "Traceback" in log.read_text()]
        for log in crashes[:1]:
            print(log.read_text()[-4000:])


def free_ports(count: int) -> list[int]:
    """Return ports that the system gives to nobody else while a worker is away."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20000, 32000)
        with suppress(OSError), socket.socket() as trial:
            trial.bind(("127.0.0.1", port))
            found.append(port)
    return found


async def wait_listening(port: int) -> None:
    while True:
        with suppress(OSError):
            async with await trio.open_tcp_stream("127.0.0.1", port):
                return
        await trio.sleep(0.02)


def cpu_time(pid: int) -> float:
    """Seconds that a process has run on a CPU."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Visitor:
    """One visitor, who asks for a number again and again.

    Attributes:
        numbers: those that came with 200, in order.
        failed: how many requests were cut off or refused since the last of them.
        faults: what must not be.
        statuses: of all answers; 0 is a request that was cut off.
        longest: seconds that the longest request took.
    """

    path: str = "/item"
    cookie: bytes = b""
    numbers: list[int] = field(default_factory=list)
    failed: int = 0
    faults: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    longest: float = 0.0

    async def visit(self, port: int) -> None:
        """Ask the worker at *port* once. A worker that is not there is not asked.

        Raises:
            ConnectionRefusedError: it is not there.
        """
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        began = time.monotonic()
        async with stream:
            status, body = await self._ask(stream)
        self.longest = max(self.longest, time.monotonic() - began)
        self.statuses[status] += 1
        if status == 200:
            self._note(int(body))
        elif self.cookie:
            self.failed += 1

    async def _ask(self, stream: trio.SocketStream) -> tuple[int, bytes]:
        cookie = b"Cookie: visits=%s\r\n" % self.cookie if self.cookie else b""
        request = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n"
        answer = b""
        try:
            await stream.send_all(request % (self.path.encode(), cookie))
            while data := await stream.receive_some(65536):
                answer += data
        except trio.BrokenResourceError:
            pass
        head, end, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if not end or length is None or len(body) != int(length[1]):
            return 0, b""
        status = int(head.split(None, 2)[1])
        if status not in (200, 503) or (status == 503 and b"retry-after" not in head.lower()):
            self.faults.append(repr(head))
        if found := re.search(rb"(?i)\r\nset-cookie: visits=([^;]*)", head):
            if self.cookie:
                self.faults.append("another session")
            self.cookie = found[1]
        return status, body

    def _note(self, number: int) -> None:
        last = self.numbers[-1] if self.numbers else 0
        if not last < number <= last + self.failed + 1:
            self.faults.append(f"{number} after {last}, with {self.failed} that failed between")
        self.numbers.append(number)
        self.failed = 0


async def visit_often(visitor: Visitor, ports: list[int], count: int) -> None:
    """Ask random workers *count* times."""
    done = 0
    while done < count:
        try:
            await visitor.visit(random.choice(ports))
            done += 1
        except OSError:
            await trio.sleep(0.01)


@asynccontextmanager
async def running(
    *options: str, store: bool = True, environment: dict[str, str] | None = None
) -> AsyncIterator[tuple[Workers, Redis]]:
    """Workers and their Redis; both end with the block."""
    with tempfile.TemporaryDirectory(prefix="workers-") as name:
        directory = Path(name)
        (directory / "site").mkdir()
        for path, text in SITE.items():
            (directory / "site" / path).write_text(text)
        (directory / "secret").write_text(secrets.token_hex(32))
        redis = Redis(directory)
        redis.start()
        try:
            await redis.wait_ready()
            kept = ("--session-store", f"{redis.url}?lease=30") if store else ()
            workers = Workers(
                directory, *kept, *options,
                RPYSERVE_SECRET_FILE=str(directory / "secret"), ENDS=str(directory / "ends"),
            )  # fmt: skip
            async with trio.open_nursery() as nursery:
                await nursery.start(workers.run)
                yield workers, redis
                workers.print_console()
                nursery.cancel_scope.cancel()
        finally:
            redis.kill()


async def every(seconds: float, action: Callable[[], Any]) -> None:
    while True:
        await trio.sleep(seconds)
        result = action()
        if isinstance(result, Awaitable):
            await result


def verdict(name: str, visitors: list[Visitor], what: str, allowed: set[int]) -> list[str]:
    """Print what became of the visits, and return what must not be."""
    statuses: Counter[int] = sum((each.statuses for each in visitors), Counter())
    longest = max(each.longest for each in visitors)
    faults = [fault for each in visitors for fault in each.faults]
    faults += [f"status {status}" for status in statuses if status not in allowed]
    if longest > LONGEST_WAIT:
        faults.append(f"somebody has waited for {longest:.1f} s")
    cut = statuses.pop(0, 0)
    answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
    print(f"{name}: {answers}; {cut} cut off; longest {longest:.2f} s; {what}")
    return faults


async def kills(visitors: int, requests: int, *, redis_too: bool = False) -> list[str]:
    """A worker is killed each second; and if *redis_too*, Redis every fourth second."""
    async with running() as (workers, redis):
        everybody = [Visitor() for _ in range(visitors)]
        lost = 0

        async def kill_redis() -> None:
            nonlocal lost
            redis.kill()
            redis.start()
            lost += 1

        async with trio.open_nursery() as chaos:
            chaos.start_soon(every, 1, workers.kill_one)
            if redis_too:
                chaos.start_soon(every, 4, kill_redis)
            async with trio.open_nursery() as nursery:
                for visitor in everybody:
                    nursery.start_soon(visit_often, visitor, workers.ports, requests)
            chaos.cancel_scope.cancel()
        what = f"workers killed {workers.kills} times, Redis {lost} times"
        faults = verdict("Redis killed" if redis_too else "killed", everybody, what, {0, 200, 503})
        if not redis_too:
            faults += ["a 503 without need" for each in everybody if each.statuses[503]]
        return faults + cookies_found(everybody, redis)


def cookies_found(visitors: list[Visitor], redis: Redis) -> list[str]:
    """Whether what Redis has stored holds the id of a session."""
    redis.ask("SAVE")
    files = [path for path in redis.directory.rglob("*") if path.suffix in (".rdb", ".aof")]
    stored = b"".join(path.read_bytes() for path in files)
    assert stored, "Redis has stored nothing"
    issued = [each.cookie for each in visitors if each.cookie]
    found = [cookie for cookie in issued if cookie in stored or cookie.hex().encode() in stored]
    print(f"  {len(issued)} ids were issued, {len(found)} are in {len(stored):,} bytes of dumps")
    return [f"{len(found)} ids are in the dump"] if found else []


async def stalled(rounds: int) -> list[str]:
    """A worker stands still for 5 seconds in a request: that is refused, or its number was free."""
    faults = []
    async with running() as (workers, _):
        for _ in range(rounds):
            late = Visitor("/long")
            await late.visit(workers.ports[0])
            other = Visitor("/item", late.cookie, list(late.numbers))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(late.visit, workers.ports[0])
                await trio.sleep(0.3)
                workers.signal(workers.ports[0], signal.SIGSTOP)
                nursery.start_soon(visit_often, other, workers.ports[1:], 5)
                await trio.sleep(5)
                workers.signal(workers.ports[0], signal.SIGCONT)
            twice = set(late.numbers[1:]) & set(other.numbers)
            faults += [f"{number} was given twice" for number in twice]
            faults += late.faults + verdict(
                "stalled", [other], f"late: {dict(late.statuses)}", {200}
            )
    return faults


async def crowd(visitors: int, at_once: int, rounds: int) -> list[str]:
    """Each visitor asks *at_once* times at the same moment: exactly 1, 2, 3... come out."""
    faults = []
    async with running() as (workers, _):
        for path in ("/item", "/component", "/slow"):
            everybody = [Visitor(path) for _ in range(visitors)]
            async with trio.open_nursery() as nursery:
                for visitor in everybody:
                    nursery.start_soon(ask_at_once, visitor, workers, at_once, rounds)
            faults += verdict(f"{at_once} at once, {path}", everybody, "", {200})
    return faults


async def ask_at_once(visitor: Visitor, workers: Workers, at_once: int, rounds: int) -> None:
    await visitor.visit(random.choice(workers.ports))
    for _ in range(rounds):
        clones = [Visitor(visitor.path, visitor.cookie) for _ in range(at_once)]
        before = visitor.numbers[-1]
        async with trio.open_nursery() as nursery:
            for clone in clones:
                clone.failed = 10**9  # in which order they come is open
                nursery.start_soon(clone.visit, random.choice(workers.ports))
        numbers = sorted(number for clone in clones for number in clone.numbers)
        if numbers != list(range(before + 1, before + at_once + 1)):
            visitor.faults.append(f"{numbers} after {before}")
        visitor.numbers += numbers
        visitor.longest = max(clone.longest for clone in clones)
        for clone in clones:
            visitor.statuses += clone.statuses
            visitor.faults += clone.faults


async def expiries(sessions: int) -> list[str]:
    """Sessions of 2 seconds end: each callback once, none early, none late; a worker is killed."""
    async with running("--session-timeout", "2") as (workers, redis):
        answered: dict[str, tuple[float, float]] = {}
        limit = trio.CapacityLimiter(16)

        async def begin(name: str) -> None:
            async with limit:
                visitor, asked = Visitor(f"/expiring?name={name}"), time.time()
                await visitor.visit(random.choice(workers.ports))
                answered[name] = asked, time.time()

        async with trio.open_nursery() as nursery:
            for number in range(sessions):
                nursery.start_soon(begin, str(number))
        began = min(asked for asked, _ in answered.values())
        await trio.sleep(max(0.0, began + 1.9 - time.time()))
        workers.kill_one()
        log = redis.directory / "ends"
        await trio.sleep(6)
        ends = [line.split() for line in log.read_text().splitlines()]
    called = Counter(name for name, _ in ends)
    faults = [f"{name} was called {count} times" for name, count in called.items() if count > 1]
    faults += [f"{name} was not called" for name in answered if name not in called]
    late = [float(when) - answered[name][1] - 2 for name, when in ends]
    early = [float(when) - answered[name][0] - 2 for name, when in ends]
    if min(early, default=0) < 0:
        faults.append(f"a callback ran {-min(early):.3f} s early")
    if max(late, default=0) > LATEST:
        faults.append(f"a callback ran {max(late):.2f} s late")
    print(f"expiries: {len(called):,} of {sessions:,}, at most {max(late, default=0):.2f} s late")
    return faults


async def cost(requests: int) -> list[str]:
    """What a request costs the workers' processors, with Redis and in memory, side by side."""
    spent: dict[bool, list[float]] = {True: [], False: []}
    async with running() as (shared, _), running(store=False) as (alone, _):
        for _ in range(5):
            for store, workers in ((True, shared), (False, alone)):
                everybody = [Visitor("/component") for _ in range(16 * WORKERS)]
                before = workers.cpu_time()
                async with trio.open_nursery() as nursery:
                    for number, visitor in enumerate(everybody):
                        port = workers.ports[number % WORKERS]
                        nursery.start_soon(visit_kept, visitor, port, requests)
                spent[store].append((workers.cpu_time() - before) / len(everybody) / requests * 1e6)
    redis, memory = (sorted(spent[store])[2] for store in (True, False))
    print(f"cost: {redis:.0f} us with Redis, {memory:.0f} in memory: {redis / memory:.2f}")
    return [f"{redis / memory:.2f} is more than 3.0"] if redis > 3 * memory else []


async def visit_kept(visitor: Visitor, port: int, count: int) -> None:
    """Ask *count* times on one connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for _ in range(count):
            cookie = b"Cookie: visits=%s\r\n" % visitor.cookie if visitor.cookie else b""
            path = visitor.path.encode()
            await stream.send_all(b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (path, cookie))
            answer = b""
            while not re.search(rb"\r\n\r\n\d+$", answer):
                answer += await stream.receive_some(65536)
            if found := re.search(rb"(?i)\r\nset-cookie: visits=([^;]*)", answer):
                visitor.cookie = found[1]


SCENARIOS: dict[str, Callable[[Any], Awaitable[list[str]]]] = {
    "kills": lambda options: kills(options.visitors, options.requests),
    "redis": lambda options: kills(options.visitors, options.requests, redis_too=True),
    "stalled": lambda options: stalled(2),
    "crowd": lambda options: crowd(20, 8, 5),
    "expiries": lambda options: expiries(options.sessions),
    "cost": lambda options: cost(options.requests),
}


async def run(options: Any) -> int:
    failed = False
    for name in options.scenarios or SCENARIOS:
        faults = await SCENARIOS[name](options)
        for fault, count in Counter(faults).most_common(10):
            print(f"  FAULT: {fault}" + (f" ({count} times)" if count > 1 else ""))
        failed = failed or bool(faults)
    return int(failed)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--requests", type=int, default=400, help="of each visitor")
    parser.add_argument("--sessions", type=int, default=1000, help="that expire")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    sys.exit(trio.run(run, parser.parse_args()))


if __name__ == "__main__":
    main()
