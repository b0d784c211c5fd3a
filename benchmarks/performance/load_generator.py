"""Sends requests in turn, on some connections, as fast as they are answered.

What is to be told apart has `NUMBER` in it, in whose place a running number goes: no two of these
requests have the same head. wrk sends them where it is there. Otherwise ``python -m
benchmarks.performance.load_generator PORT CONNECTIONS SECONDS < requests.json`` does, in a process
of its own: raw sockets, and the next request only after the whole response. It prints requests,
bytes and seconds, as JSON.
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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

from benchmarks.common.docs import ROOT

WRK = shutil.which("wrk")
NUMBER = "NUMBER"
"""Stands for the running number in a request."""
WRK_SCRIPT = """
local place, number = 0, 0
request = function()
  place, number = place % #parts + 1, number + 1
  return table.concat(parts[place], number)
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\\n{%s}\\n", table.concat({
    '"requests": ' .. summary.requests, '"bytes": ' .. summary.bytes,
    '"seconds": ' .. summary.duration / 1e6,
    '"bad": ' .. e.status, '"failed": ' .. e.connect + e.read + e.write + e.timeout}, ", ")))
end
"""
FORM_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Load:
    """What came back.

    Args:
        requests: how many responses.
        bytes: the size of all of them, heads included.
        seconds: how long it took.
        bad: how many responses were errors.
        failed: how many requests had no response.
    """

    requests: int
    bytes: int
    seconds: float
    bad: int = 0
    failed: int = 0

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Request:
    """A request for *path*, with *headers*, and *form* as its body if there is one."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)
    form: bytes = b""

    @property
    def method(self) -> str:
        return "POST" if self.form else "GET"

    def encode(self, port: int) -> bytes:
        fields = {"Host": f"127.0.0.1:{port}"} | self.headers
        if self.form:
            fields |= {"Content-Type": FORM_TYPE, "Content-Length": str(len(self.form))}
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.form


def generate_load(port: int, requests: Sequence[Request], connections: int, seconds: int) -> Load:
    """Send *requests* in turn on so many connections for so many whole seconds."""
    texts = [request.encode(port).decode() for request in requests]
    if WRK is not None:
        return _run_wrk(WRK, port, texts, connections, seconds)
    arguments = map(str, (port, connections, seconds))
    command = [sys.executable, "-m", "benchmarks.performance.load_generator", *arguments]
    done = subprocess.run(
        command, input=json.dumps(texts), capture_output=True, check=True, cwd=ROOT, text=True
    )
    return Load(**json.loads(done.stdout))


def _run_wrk(wrk: str, port: int, texts: Sequence[str], connections: int, seconds: int) -> Load:
    # JSON's texts are Lua's, as long as they are ASCII.
    rows = ",\n".join(f"{{{json.dumps(text.split(NUMBER))[1:-1]}}}" for text in texts)
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "load.lua"
        script.write_text(f"local parts = {{{rows}}}\n{WRK_SCRIPT}", encoding="ascii")
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
        url = f"http://127.0.0.1:{port}/"
        done = subprocess.run([*command, url], capture_output=True, check=True)
    return Load(**json.loads(done.stdout.splitlines()[-1]))


# The generator of our own


class Connection:
    """One connection, made anew when the server closes it."""

    def __init__(
        self, port: int, requests: Iterator[bytes], selector: selectors.BaseSelector
    ) -> None:
        self.port = port
        self.requests = requests
        self.selector = selector
        self.connect()

    def connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.selector.register(self.socket, selectors.EVENT_READ, self)
        self.send()

    def send(self) -> None:
        self.buffer = b""
        self.remaining: int | None = None  # bytes of the body; None while the head is incomplete
        with suppress(ConnectionError):  # the server has closed it: `receive` will see that
            self.socket.sendall(next(self.requests))

    def receive(self) -> tuple[int, int] | None:
        """The status and size of a response, once it is complete."""
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            return self._reconnect()
        if self.remaining is not None:
            self.size += len(data)
            self.remaining -= len(data)
        else:
            self.buffer += data
            self._parse_head()
        if self.remaining is None or self.remaining > 0:
            return None
        response = self._response()
        self.send()
        return response

    def _reconnect(self) -> tuple[int, int] | None:
        """Connect anew. What has come is a response if its end is that of the connection."""
        self.selector.unregister(self.socket)
        self.socket.close()
        is_complete = self.remaining is None and b"\r\n\r\n" in self.buffer
        response = self._response() if is_complete else None
        self.connect()
        return response

    def _parse_head(self) -> None:
        """See how much is still to come."""
        head, blank, body = self.buffer.partition(b"\r\n\r\n")
        self.size = len(self.buffer)
        if not blank:
            return
        if length := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
            self.remaining = int(length[1]) - len(body)
        elif re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
            self.remaining = 0 if body.endswith(b"\r\n0\r\n\r\n") else None

    def _response(self) -> tuple[int, int]:
        return int(self.buffer[9:12]), self.size


def numbered(texts: Sequence[str]) -> Iterator[bytes]:
    """Yield *texts* in turn, for ever, each with the next number in it."""
    for number in count(1):
        text = texts[(number - 1) % len(texts)]
        yield text.replace(NUMBER, str(number)).encode()


def send_in_turn(port: int, texts: Sequence[str], connections: int, seconds: float) -> Load:
    """The generator itself."""
    requests = size = bad = 0
    sent = numbered(texts)
    with selectors.DefaultSelector() as selector:
        clients = [Connection(port, sent, selector) for _ in range(connections)]
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < seconds:
            for key, _ in selector.select(1):
                if (response := key.data.receive()) is not None:
                    requests += 1
                    size += response[1]
                    bad += response[0] >= 400
        for client in clients:
            client.socket.close()
    return Load(requests, size, now - began, bad)


def main() -> None:
    port, connections, seconds = sys.argv[1:]
    texts = json.load(sys.stdin)
    print(json.dumps(asdict(send_in_turn(int(port), texts, int(connections), float(seconds)))))


if __name__ == "__main__":
    main()
