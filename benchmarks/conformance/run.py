"""Send the bytes of every rule to this server and to others, side by side, and write the table of their answers.

``python benchmarks/conformance.py`` installs the others (uvicorn, Hypercorn, Flask, Twisted from PyPI; php where
Debian's ``php-cli`` is there) into an environment of its own, starts each on a free port of this machine with the same
small pages, and writes ``docs/conformance.md``. It ends with 1 if this server breaks a rule. A peer that is not there
is left out, and named.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import trio

from benchmarks.conformance.pages import PEERS, Peer
from benchmarks.conformance.probe import told
from benchmarks.conformance.rules import MUSTS, Level, Must, shown_bytes
from benchmarks.performance.pages import Contestant

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "conformance.md"
PATIENCE = 2.5

INTRODUCTION = """\
# What the RFCs ask of a server, and what servers do

Each row is a rule of [RFC 9110](https://www.rfc-editor.org/rfc/rfc9110) or
[RFC 9112](https://www.rfc-editor.org/rfc/rfc9112), the bytes that try it, and the answers to them, of this server and
of others that run the same small pages. Written by `python benchmarks/conformance.py`; a test holds our column to
what the server does.

After the bytes shown comes a plain `GET / HTTP/1.1`, so that it shows whether a server still trusts what follows.
`200 GET` is a response and the text of its page, `closed` says that the server closed the connection, `no answer`
that nothing came in {patience:g} seconds, `the server ends` that its process did. `(answer)` waits for one before the
rest is sent; a row that says *cut* ends with the client closing its side instead. `✗` marks a MUST that is not
kept, `~` an answer that is not what the RFC recommends, or a message that the grammar does not have and that was
taken all the same, as RFC 9110, section 2.4 allows.

Where the RFC leaves a choice between mending and refusing, this server refuses. A line that ends with LF alone is
the plainest case: RFC 9112, section 2.2 lets a server take it, but a proxy in front may see one request where the
server sees two. Characters that a URI may not have but that browsers send unencoded (`[ ] {{ }} | ^` and the
backquote, and a backslash in a query) pass. Trailers are checked and dropped.
"""


# Judging


def keeps(must: Must, answer: str) -> bool:
    """Whether *answer* keeps the rule. To close after a response instead of going on is always allowed."""
    going_on = answer.removesuffix("closed") + "200 GET" if answer.endswith("; closed") else answer
    return bool(re.fullmatch(must.good, answer) or re.fullmatch(must.good, going_on))


def cell(must: Must, answer: str) -> str:
    if keeps(must, answer) or must.level is Level.MAY:
        return answer
    return f"{'✗' if must.level is Level.MUST else '~'} {answer}"


# The document


def row(must: Must, answers: list[str]) -> str:
    return f"| {' | '.join([*what(must), *(cell(must, answer) for answer in answers)])} |"


def what(must: Must) -> list[str]:
    """The cells of a row before the answers."""
    sent = shown_bytes(must.sent).replace("|", "\\|")
    return [must.level.value, must.rule + (" *(cut)*" if must.cut else ""), f"`{sent}`"]


def document(columns: dict[str, list[str]], versions: dict[str, str], absent: list[str]) -> str:
    """The whole document. *columns*: the answers of each server, in the order of the rules."""
    lines = [INTRODUCTION.format(patience=PATIENCE), "| | " + " | ".join(versions.get(n, n) for n in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for level in (Level.MUST, Level.SHOULD, Level.GRAMMAR):
        at = [n for n, must in enumerate(MUSTS) if must.level is level]
        kept = [sum(keeps(MUSTS[n], answers[n]) for n in at) for answers in columns.values()]
        lines.append(f"| {level.value} | " + " | ".join(f"{count} of {len(at)}" for count in kept) + " |")
    if absent:
        lines.append(f"\nNot there when this was written: {', '.join(absent)}.")
    for section in dict.fromkeys(must.section for must in MUSTS):
        rfc, number = section.split(" ")
        url = f"https://www.rfc-editor.org/rfc/rfc{rfc}#section-{number}"
        lines.append(f"\n## [RFC {rfc}, section {number}]({url})\n")
        lines.append("| asked | rule | request | " + " | ".join(columns) + " |")
        lines.append("|---" * (len(columns) + 3) + "|")
        at = [n for n, must in enumerate(MUSTS) if must.section == section]
        lines += [row(MUSTS[n], [answers[n] for answers in columns.values()]) for n in at]
    return "\n".join(lines) + "\n"


# Running them


def install(environment: Path, peers: Iterable[Peer | Contestant] = PEERS) -> Path:
    """Make an environment with all peers that come from PyPI; return the directory of its commands."""
    commands = environment / ("Scripts" if os.name == "nt" else "bin")
    if not commands.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    for peer in peers:
        if peer.packages:
            command = [commands / "python", "-m", "pip", "install", "--quiet", *peer.packages]
            if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
                print(f"{peer.name} could not be installed", file=sys.stderr)
    return commands


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Running:
    """*peer*, started on a free port, and again when it has ended.

    Raises:
        OSError, subprocess.CalledProcessError: it cannot be had.
    """

    def __init__(self, peer: Peer, commands: Path, directory: Path) -> None:
        self.port = free_port()
        self._peer = peer
        self._commands = commands
        self._directory = directory
        directory.mkdir()
        for name, code in peer.files.items():
            (directory / name).write_text(code, encoding="utf-8")
        told = subprocess.run(self._filled(peer.version), capture_output=True, text=True, check=True, cwd=ROOT)
        self.version = told.stdout.strip()
        self._process = self._start()

    def _filled(self, words: tuple[str, ...]) -> list[str]:
        return [word.format(bin=self._commands, python=sys.executable, port=self.port) for word in words]

    def _start(self) -> subprocess.Popen[bytes]:
        path = str(ROOT if self._peer.ours else self._directory)
        process = subprocess.Popen(
            self._filled(self._peer.command), cwd=self._directory, env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if not answers_at(self.port):
            process.kill()
            raise OSError(f"{self._peer.name} does not listen")
        return process

    async def again(self) -> None:
        """Start it once more, when it has ended."""
        await trio.to_thread.run_sync(self._process.wait)
        self._process = await trio.to_thread.run_sync(self._start)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def answers_at(port: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.1)
    return False


async def ask(server: Running, answers: list[str]) -> None:
    for must in MUSTS:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        except OSError:
            answers[-1] = "the server ends"
            await server.again()
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            answers.append(await told(stream, must, PATIENCE))


async def ask_all(servers: dict[str, Running]) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {name: [] for name in servers}
    async with trio.open_nursery() as nursery:
        for name, server in servers.items():
            nursery.start_soon(ask, server, columns[name])
    return columns


def compare(environment: Path, scratch: Path) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """The answers of each server, their versions, and the names of those that are not there."""
    commands = install(environment)
    servers: dict[str, Running] = {}
    absent = []
    with ExitStack() as stack:
        for n, peer in enumerate(PEERS):
            try:
                servers[peer.name] = Running(peer, commands, scratch / f"peer{n}")
                stack.callback(servers[peer.name].stop)
            except (OSError, subprocess.CalledProcessError):
                absent.append(peer.name)
        columns = trio.run(ask_all, servers)
    return columns, {name: server.version for name, server in servers.items()}, absent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--environment", type=Path, help="where the others are, or will be, installed (a temporary one)"
    )
    parser.add_argument("--write", type=Path, default=DOCUMENT, metavar="FILE", help="where the table goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        columns, versions, absent = compare((options.environment or scratch / "environment").absolute(), scratch)
    options.write.write_text(document(columns, versions, absent), encoding="utf-8")
    for name, answers in columns.items():
        kept = [keeps(must, answer) for must, answer in zip(MUSTS, answers, strict=True) if must.level is Level.MUST]
        print(f"{versions[name]}: {sum(kept)} of {len(kept)} MUSTs kept")
    ours = zip(MUSTS, columns["rpyserve"], strict=True)
    broken = [must.key for must, answer in ours if not re.fullmatch(must.good, answer) or answer == "no answer"]
    for key in broken:
        print("  broken:", key)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
