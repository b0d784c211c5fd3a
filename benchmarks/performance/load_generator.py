"""Asks one server for one thing, on some connections, as fast as it answers; wrk does it where it is there.

``python benchmarks/load.py PORT CONNECTIONS SECONDS < request`` is the generator of our own, in a process of its own:
raw sockets, the next request only after the whole answer. It prints requests, bytes and seconds, as JSON.
"""

from __future__ import annotations

import json
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

WRK = shutil.which("wrk")
_DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\\n{%s}\\n", table.concat({
    '"requests": ' .. summary.requests, '"bytes": ' .. summary.bytes, '"seconds": ' .. summary.duration / 1e6,
    '"bad": ' .. e.status, '"failed": ' .. e.connect + e.read + e.write + e.timeout}, ", ")))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it: how many answers, of how many bytes, in how many seconds."""

    requests: int
    bytes: int
    seconds: float
    bad: int = 0
    failed: int = 0

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: to *path*, with *headers*, and *form* as its body if there is one."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)
    form: bytes = b""

    def raw(self, port: int) -> bytes:
        fields = {"Host": f"127.0.0.1:{port}"} | self.headers
        if self.form:
            fields |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(self.form))}
        lines = [f"{'POST' if self.form else 'GET'} {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.form


def load(port: int, ask: Ask, connections: int, seconds: int) -> Load:
    """Have *ask* asked on so many connections for so many whole seconds."""
    if WRK is None:
        command = [sys.executable, __file__, str(port), str(connections), str(seconds)]
        done = subprocess.run(command, input=ask.raw(port), capture_output=True, check=True)
        return Load(**json.loads(done.stdout))
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "load.lua"
        method = f'wrk.method, wrk.body = "POST", "{ask.form.decode()}"\n' if ask.form else ""
        script.write_text(method + _DONE)
        fields = ask.headers | ({"Content-Type": "application/x-www-form-urlencoded"} if ask.form else {})
        command = [WRK, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
        command += [word for pair in fields.items() for word in ("-H", ": ".join(pair))]
        done = subprocess.run([*command, f"http://127.0.0.1:{port}{ask.path}"], capture_output=True, check=True)
    return Load(**json.loads(done.stdout.splitlines()[-1]))


class Client:
    """One connection of the generator, made anew when the server closes it."""

    def __init__(self, port: int, request: bytes, poll: selectors.BaseSelector) -> None:
        self.port = port
        self.request = request
        self.poll = poll
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.poll.register(self.socket, selectors.EVENT_READ, self)
        self.ask()

    def ask(self) -> None:
        self.buffer = b""
        self.left: int | None = None
        with suppress(ConnectionError):  # the server has closed it: `read` will see that
            self.socket.sendall(self.request)

    def read(self) -> tuple[int, int] | None:
        """The status and size of an answer, once it is whole."""
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            self.poll.unregister(self.socket)
            self.socket.close()
            whole = self.answer() if self.left is None and b"\r\n\r\n" in self.buffer else None
            self.connect()
            return whole
        if self.left is not None:
            self.size += len(data)
            self.left -= len(data)
        else:
            self.buffer += data
            self.look()
        if self.left is None or self.left > 0:
            return None
        whole = self.answer()
        self.ask()
        return whole

    def look(self) -> None:
        """See how much is to come."""
        head, blank, body = self.buffer.partition(b"\r\n\r\n")
        self.size = len(self.buffer)
        if blank and (found := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)):
            self.left = int(found[1]) - len(body)
        elif blank and re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
            self.left = 0 if body.endswith(b"\r\n0\r\n\r\n") else None

    def answer(self) -> tuple[int, int]:
        return int(self.buffer[9:12]), self.size


def generate(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """The generator itself."""
    requests = size = bad = 0
    with selectors.DefaultSelector() as poll:
        clients = [Client(port, request, poll) for _ in range(connections)]
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < seconds:
            for key, _ in poll.select(1):
                if (answer := key.data.read()) is not None:
                    requests += 1
                    size += answer[1]
                    bad += answer[0] >= 400
        for client in clients:
            client.socket.close()
    return Load(requests, size, now - began, bad)


if __name__ == "__main__":
    port, connections, seconds = sys.argv[1:]
    result = generate(int(port), sys.stdin.buffer.read(), int(connections), float(seconds))
    print(json.dumps({name: getattr(result, name) for name in ("requests", "bytes", "seconds", "bad")}))
