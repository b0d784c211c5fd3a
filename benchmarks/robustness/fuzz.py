"""Bytes made by hypothesis against the real command: no crash, no hang, no traceback, memory flat.

``python -m benchmarks.robustness.fuzz --seconds 60``. Each example is one connection: the bytes, in
pieces, and the end of the client's side. The server must answer with HTTP/1.1 or not at all, and
close in time. The bytes are those of the rules of `conformance`, changed, cut and spliced, and
anything at all. What fails is reduced as far as it can be; give it a name and a test.
"""

from __future__ import annotations

import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.common.options import option_parser
from benchmarks.common.server_process import ServerProcess, serving
from benchmarks.conformance.pages import RPYSERVE
from benchmarks.conformance.rules import RULES, raw

HANG = 10.0
"""Seconds in which a server must have closed a connection whose client has."""
ROUND = 300
"""Examples between two looks at the server."""
MOST_GROWTH = 16 * 1024**2
"""Bytes that the server may grow by after a quarter of the time, when all its code has been
used."""
COMPLAINTS = "Traceback|A connection failed|no response:|clean-up failed|access log failed"
"""What must not be on the console."""

SEEDS = [raw(rule.sent) for rule in RULES if len(raw(rule.sent)) < 1000]
BYTES = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b";", b","),
    *(b"\x00", b"\xff", b"0", b"5", b"-"),
]
WORDS = [
    *(b"chunked", b"HTTP/1.1", b"x" * 300, b"0\r\n\r\n"),
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
]
FRAMING = [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n"]
OTHER_FIELDS = [b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n"]
FRAGMENTS = (
    st.sampled_from(BYTES)
    | st.sampled_from(WORDS)
    | st.sampled_from(FRAMING)
    | st.sampled_from(OTHER_FIELDS)
    | st.binary(min_size=1, max_size=6)
)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """The bytes of a rule, with up to four places in it changed."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        removed = draw(st.sampled_from([0, 0, 1, 2, 8]))
        new = draw(st.just(b"") | FRAGMENTS | st.sampled_from(SEEDS))
        data = data[:start] + new + data[start + removed :]
    return data


ANYTHING = st.lists(changed() | st.binary(max_size=30), min_size=1, max_size=3).map(b"".join)


def exchange(server: ServerProcess, pieces: list[bytes]) -> bytes:
    """What comes back until the server closes the connection.

    Raises:
        TimeoutError: it does not.
    """
    with socket.create_connection(("127.0.0.1", server.port), HANG) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        response = b""
        try:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                response += data
        except TimeoutError:
            raise
        except OSError:
            pass
        return response


def check(server: ServerProcess) -> None:
    """See whether *server* still serves, and has not complained.

    Raises:
        AssertionError: it does not, or has.
    """
    output = server.output()[-5000:]
    assert server.process.poll() is None, f"the server has ended:\n{output}"
    response = exchange(server, [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
    assert re.fullmatch(rb"HTTP/1\.1 200 OK\r\n.*\r\n\r\nGET", response, re.DOTALL), response
    output = server.output()[-5000:]
    assert not re.search(COMPLAINTS, output), output


@contextmanager
def serving_pages(directory: Path) -> Iterator[ServerProcess]:
    """The command, on a site of the small pages of `conformance`."""
    site = directory / "site"
    site.mkdir()
    for name, code in RPYSERVE.items():
        if name != "split.rpy":  # its error page is a traceback
            (site / name).write_text(code, encoding="utf-8")
    with serving(site, directory / "console", "--quiet") as server:
        yield server


def play(server: ServerProcess, number: int) -> None:
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
        response = exchange(server, [*pieces, data])
        is_http = re.match(rb"HTTP/1\.1 [1-5]\d\d [^\r\n]*\r\n", response)
        assert not response or is_http, response[:200]

    example()
    check(server)


def fuzz(seconds: float, first: int) -> str:
    """Play rounds for *seconds*.

    Args:
        seconds: how long.
        first: the number of the first round.

    Returns:
        What there is to report.

    Raises:
        AssertionError, TimeoutError: something was found.
    """
    with (
        tempfile.TemporaryDirectory() as temporary,
        serving_pages(Path(temporary)) as server,
    ):
        began = time.monotonic()
        early = 0
        rounds = 0
        while (passed := time.monotonic() - began) < seconds:
            play(server, first + rounds)
            rounds += 1
            if not early and passed > seconds / 4:
                early = server.memory()
        memory = "memory was not measured"
        if early:
            late = server.memory()
            assert late - early < MOST_GROWTH, f"memory grew from {early} to {late} bytes"
            memory = f"memory {early / 2**20:.1f} -> {late / 2**20:.1f} MiB"
        took = time.monotonic() - began
        return f"{rounds * ROUND} connections in {took:.0f} s, nothing found, {memory}"


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, help="the first round's; by default another each time")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else time.time_ns() // 1000 % 10**9
    print(f"seed {first}", flush=True)
    print(fuzz(options.seconds, first))


if __name__ == "__main__":
    main()
