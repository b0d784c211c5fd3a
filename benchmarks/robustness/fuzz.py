"""Bytes made by hypothesis against the real command, for a fixed time: no crash, no hang, no traceback, memory flat.

``python benchmarks/fuzz.py --seconds 60``. Each example is one connection: the bytes, in pieces, and the end of the
client's side. The server must answer with HTTP/1.1 or not at all, and close in time. The bytes are those of the rules
in `musts`, changed, cut and spliced, and anything at all. What fails is made as small as it can be; give it a name and
a test.
"""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.conformance.pages import SITE
from benchmarks.conformance.rules import MUSTS, raw

ROOT = Path(__file__).resolve().parents[2]
HANG = 10.0
"""Seconds in which a server must have closed a connection whose client has."""
ROUND = 300
"""Examples between two looks at the server."""
GROWTH = 16 * 1024**2
"""Bytes that the server may grow by after a quarter of the time, when all its code has been used."""

SEEDS = [raw(must.sent) for must in MUSTS if len(raw(must.sent)) < 1000]
BITS = (
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"\x00", b"\xff", b"0", b"5", b"-"]
    )
    | st.sampled_from([b"chunked", b"HTTP/1.1", b"x" * 300, b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
    | st.sampled_from([b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n"])
    | st.sampled_from([b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n"])
    | st.binary(min_size=1, max_size=6)
)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """The bytes of a rule, with up to four places in it changed."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.sampled_from([0, 0, 1, 2, 8]))
        new = draw(st.just(b"") | BITS | st.sampled_from(SEEDS))
        data = data[:at] + new + data[at + gone :]
    return data


ANYTHING = st.lists(changed() | st.binary(max_size=30), min_size=1, max_size=3).map(b"".join)


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    console: Path
    port: int

    def size(self) -> int | None:
        """Bytes of memory that it has; None where that cannot be known."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        except OSError:
            return None
        return int(pages) * 4096

    def answer(self, pieces: list[bytes]) -> bytes:
        """What comes back until the server closes the connection.

        Raises:
            TimeoutError: it does not.
        """
        with socket.create_connection(("127.0.0.1", self.port), HANG) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer = b""
            try:
                for piece in pieces:
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
                while data := client.recv(65536):
                    answer += data
            except (ConnectionError, OSError) as exc:
                if isinstance(exc, TimeoutError):
                    raise
            return answer

    def check(self) -> None:
        """See whether it still serves, and has not complained."""
        assert self.process.poll() is None, f"the server has ended:\n{self.told()}"
        answer = self.answer([b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
        assert re.fullmatch(rb"HTTP/1\.1 200 OK\r\n.*\r\n\r\nGET", answer, re.DOTALL), answer
        told = self.told()
        assert not re.search("Traceback|A connection failed|no response:|clean-up failed|access log failed", told), told

    def told(self) -> str:
        return self.console.read_text(encoding="utf-8", errors="replace")[-5000:]


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """The command, on a site of the small pages; it must end well."""
    site = directory / "site"
    site.mkdir()
    for name, code in SITE.items():
        if name != "split.rpy":  # its error page is a traceback
            (site / name).write_text(code, encoding="utf-8")
    console = directory / "console"
    command = [sys.executable, "-m", "rpyserve", str(site), "--port", "0", "--quiet"]
    with console.open("wb") as output:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, cwd=ROOT)
    assert process.stdout is not None
    try:
        found = re.search(rb":(\d+)", process.stdout.readline())
        assert found, console.read_text(encoding="utf-8")
        yield Server(process, console, int(found[1]))
        process.terminate()
        code = process.wait(10)
        assert code == 0 or sys.platform == "win32", f"it ended with {code}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def play(server: Server, number: int) -> None:
    """One round of examples; *number* decides which."""

    @seed(number)
    @settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=ANYTHING, cuts=st.lists(st.integers(1, 40), max_size=3))
    def example(data: bytes, cuts: list[int]) -> None:
        pieces = []
        for cut in cuts:
            pieces.append(data[:cut])
            data = data[cut:]
        answer = server.answer([*pieces, data])
        assert not answer or re.match(rb"HTTP/1\.1 [1-5]\d\d [^\r\n]*\r\n", answer), answer[:200]

    example()
    server.check()


def fuzz(seconds: float, first: int) -> str:
    """Play rounds for *seconds*; return what there is to tell.

    Raises:
        AssertionError, TimeoutError: something was found.
    """
    with tempfile.TemporaryDirectory() as temporary, serving(Path(temporary)) as server:
        began = time.monotonic()
        early: int | None = None
        rounds = 0
        while (passed := time.monotonic() - began) < seconds:
            play(server, first + rounds)
            rounds += 1
            if early is None and passed > seconds / 4:
                early = server.size()
        late = server.size()
        grown = "memory was not measured"
        if early is not None and late is not None:
            assert late - early < GROWTH, f"memory grew from {early} to {late} bytes"
            grown = f"memory {early / 2**20:.1f} -> {late / 2**20:.1f} MiB"
        return f"{rounds * ROUND} connections in {time.monotonic() - began:.0f} s, nothing found, {grown}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, help="the first round's; by default another each time")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else time.time_ns() // 1000 % 10**9
    print(f"seed {first}", flush=True)
    print(fuzz(options.seconds, first))


if __name__ == "__main__":
    main()
