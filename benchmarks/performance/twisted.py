"""The session counter of the series, by Twisted's own server and here, by processor time.

``python -m benchmarks.performance.twisted [--requests N] [--before CHECKOUT]`` starts all servers,
and asks each in turn, round by round, by connections that stay open. What is compared is the time
that a server's process has used for its requests, which other processes on the machine hardly
change. With ``--before``, an earlier checkout of rpyserve serves the native counter as well.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import statistics
import subprocess
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Final

from benchmarks.common.server_process import ServerProcess, free_port, is_listening
from benchmarks.conformance.twisted import rpyserve_command, twisted_command

DEFINITIONS: Final = """
from zope.interface import Attribute, Interface, implementer

class ICounter(Interface):
    value = Attribute("An int value which counts up once per page view.")

@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0

registerAdapter(Counter, Session, ICounter)

class CounterResource(Resource):
    def render_GET(self, request):
        counter = ICounter(request.getSession())
        counter.value += 1
        return b"Visit #%d for you!" % (counter.value,)

resource = CounterResource()
"""
NATIVE: Final = f"cache()\nfrom rpyserve import Resource, Session, registerAdapter\n{DEFINITIONS}"
GENUINE: Final = f"""cache()
from twisted.web.resource import Resource
from twisted.web.server import Session
from twisted.python.components import registerAdapter
{DEFINITIONS}"""
REACTOR: Final = """cache()
from twisted.internet import reactor, task
task.LoopingCall(int).start(1)
def resource(request): return "runs"
"""


class Server:
    """A server that runs until the block is left.

    Args:
        command: starts it; ``{port}`` stands for its port.
        target: what is asked for.
        first: asked for once, before.
        checkout: where rpyserve is.
    """

    def __init__(
        self, command: list[str], target: str, first: str = "", checkout: str = ""
    ) -> None:
        port = free_port()
        arguments = [part.replace("{port}", str(port)) for part in command]
        environment = os.environ | ({"PYTHONPATH": checkout} if checkout else {})
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(arguments, env=environment, stdout=quiet, stderr=quiet)
        self.process = ServerProcess(process, port, Path(os.devnull))
        if not is_listening(port, 30):
            raise SystemExit(f"the server did not start: {arguments}")
        self.target = target
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._cookie = ""
        for each in filter(None, (first, target)):
            reply = self._get(each)
            made = (reply.getheader("Set-Cookie") or "").partition(";")[0]
            self._cookie = made or self._cookie

    def _get(self, target: str) -> http.client.HTTPResponse:
        self._connection.request("GET", target, headers={"Cookie": self._cookie})
        reply = self._connection.getresponse()
        reply.read()
        assert reply.status == 200, (self.process.process.args, reply.status)
        return reply

    def microseconds(self, count: int) -> float:
        """Return the processor time that one of *count* requests takes."""
        before = self.process.cpu_time()
        for _ in range(count):
            self._get(self.target)
        return (self.process.cpu_time() - before) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        site = Path(directory)
        for name, text in (("native", NATIVE), ("genuine", GENUINE), ("reactor", REACTOR)):
            (site / f"{name}.rpy").write_text(text)
        here = rpyserve_command(site)
        servers = {
            "twist web": Server(twisted_command(site), "/genuine.rpy"),
            "genuine": Server(here, "/genuine"),
            "native": Server(here, "/native"),
            "native, with Twisted": Server(here, "/native", "/genuine"),
            "native, with the reactor": Server(here, "/native", "/reactor"),
        }
        if options.before:
            servers["native, before"] = Server(here, "/native", checkout=options.before)
        for server in servers.values():
            stack.callback(server.process.stop)
        measure(servers, options.rounds, options.requests)


def measure(servers: dict[str, Server], rounds: int, count: int) -> None:
    for server in servers.values():
        server.microseconds(500)
    times: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            times[name].append(server.microseconds(count))
    for name, found in times.items():
        print(f"{name}: {statistics.median(found):.0f} us a request")
    natives = [name for name in times if name.startswith("native")]
    pairs = [("twist web", "genuine"), *combinations(natives, 2)]
    for above, below in pairs:
        if above in times:
            ratios = [a / b for a, b in zip(times[above], times[below], strict=True)]
            print(f"{below} is {statistics.median(ratios):.2f} times {above}")


if __name__ == "__main__":
    main()
