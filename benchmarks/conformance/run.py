"""Send the bytes of every rule to this server and to others, and write docs/conformance.md.

``python -m benchmarks.conformance.run`` installs the others (uvicorn, Hypercorn, Flask, Twisted
from PyPI; php where Debian's ``php-cli`` is there) into an environment of its own, starts each on a
free port of this machine with the same small pages, and writes the table of their answers. It ends
with 1 if this server breaks a rule. A server that is not there is left out, and named.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from benchmarks.common.docs import DOCS, table
from benchmarks.common.server_process import ServerProcess
from benchmarks.common.servers import RPYSERVE, Server, install, start, version
from benchmarks.conformance.pages import PEERS
from benchmarks.conformance.probe import probe
from benchmarks.conformance.rules import RULES, Level, Rule, readable

DOCUMENT = DOCS / "conformance.md"
TIMEOUT = 2.5
CRASHED = "the server ends"

INTRODUCTION = """\
# What the RFCs ask of a server, and what servers do

Each row is a rule of [RFC 9110](https://www.rfc-editor.org/rfc/rfc9110) or
[RFC 9112](https://www.rfc-editor.org/rfc/rfc9112), the bytes that test it, and the answers of this
server and of others that run the same small pages. Written by
`python -m benchmarks.conformance.run`; a test holds our column to what the server does.

After the bytes shown, a plain `GET / HTTP/1.1` is sent, which shows whether a server still trusts
what follows. `200 GET` is a response and the text of its page, `closed` means that the server
closed the connection, `no answer` that nothing came in {timeout:g} seconds, `{crashed}` that
its process did. At `(answer)` the client waits for one before it sends the rest; in a row that says
*cut* it closes its side instead of sending another request. `✗` marks a MUST that is not kept, `~`
an answer that is not what the RFC recommends, or a message outside the grammar that was accepted,
as RFC 9110, section 2.4 allows.

Where the RFC leaves a choice between repairing and refusing, this server refuses. A line that ends
with LF alone is the plainest case: RFC 9112, section 2.2 lets a server accept it, but a proxy in
front may see one request where the server sees two. Characters that a URI may not have but that
browsers send unencoded (`[ ] {{ }} | ^` and the backquote, and a backslash in a query) are
accepted. Trailers are checked and dropped.
"""


@dataclass
class Results:
    """What was found.

    Args:
        answers: of each server, in the order of the rules.
        versions: of each server.
        absent: the names of the servers that are not there.
    """

    answers: dict[str, list[str]]
    versions: dict[str, str]
    absent: list[str]


# The document


def satisfies(answer: str, rule: Rule) -> bool:
    """Whether *answer* keeps *rule*. To close after a response is always allowed."""
    if re.fullmatch(rule.accepted, answer):
        return True
    going_on = answer.removesuffix("closed") + "200 GET"
    return answer.endswith("; closed") and bool(re.fullmatch(rule.accepted, going_on))


def answer_cell(answer: str, rule: Rule) -> str:
    if rule.level is Level.MAY or satisfies(answer, rule):
        return answer
    return f"{'✗' if rule.level is Level.MUST else '~'} {answer}"


def rule_cells(rule: Rule) -> list[str]:
    """The cells of a row before the answers."""
    sent = readable(rule.sent).replace("|", "\\|")
    return [rule.level.value, rule.text + (" *(cut)*" if rule.cut else ""), f"`{sent}`"]


def document(results: Results) -> str:
    columns = results.answers
    kept = []
    for level in (Level.MUST, Level.SHOULD, Level.GRAMMAR):
        counts = [count_kept(answers, level) for answers in columns.values()]
        kept.append([level.value, *(f"{count} of {total}" for count, total in counts)])
    versions = [results.versions.get(name, name) for name in columns]
    parts = [
        INTRODUCTION.format(timeout=TIMEOUT, crashed=CRASHED),
        table(["", *versions], kept),
    ]
    if results.absent:
        parts.append(f"\nNot there when this was written: {', '.join(results.absent)}.")
    for section in dict.fromkeys(rule.section for rule in RULES):
        rfc, number = section.split(" ")
        url = f"https://www.rfc-editor.org/rfc/rfc{rfc}#section-{number}"
        parts.append(f"\n## [RFC {rfc}, section {number}]({url})\n")
        rows = [
            [*rule_cells(rule), *(answer_cell(answers[n], rule) for answers in columns.values())]
            for n, rule in enumerate(RULES)
            if rule.section == section
        ]
        parts.append(table(["level", "rule", "request", *columns], rows))
    return "\n".join(parts) + "\n"


def count_kept(answers: list[str], level: Level) -> tuple[int, int]:
    """How many rules of *level* are kept, and how many there are."""
    pairs = zip(answers, RULES, strict=True)
    kept = [satisfies(answer, rule) for answer, rule in pairs if rule.level is level]
    return sum(kept), len(kept)


# The servers


class Peer:
    """A server that listens, and is started again when it has ended."""

    def __init__(
        self, server: Server, files: Mapping[str, str], directory: Path, commands: Path
    ) -> None:
        self._arguments = server, files, directory, commands
        self._process = self._start()

    def _start(self) -> ServerProcess:
        return start(*self._arguments)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self._process.port)

    async def restart(self) -> None:
        await trio.to_thread.run_sync(self._process.stop)
        self._process = await trio.to_thread.run_sync(self._start)

    def stop(self) -> None:
        self._process.stop()


async def probe_peer(peer: Peer, answers: list[str]) -> None:
    for rule in RULES:
        try:
            stream = await peer.connect()
        except OSError:
            answers[-1] = CRASHED
            await peer.restart()
            stream = await peer.connect()
        async with stream:
            answers.append(await probe(stream, rule, TIMEOUT))


async def probe_all(peers: dict[str, Peer]) -> dict[str, list[str]]:
    answers: dict[str, list[str]] = {name: [] for name in peers}
    async with trio.open_nursery() as nursery:
        for name, peer in peers.items():
            nursery.start_soon(probe_peer, peer, answers[name])
    return answers


def compare(environment: Path, scratch: Path) -> Results:
    commands = install(environment, PEERS)
    peers: dict[str, Peer] = {}
    versions: dict[str, str] = {}
    absent = []
    with ExitStack() as stack:
        for n, (server, files) in enumerate(PEERS.items()):
            try:
                versions[server.name] = version(server, commands)
                peer = Peer(server, files, scratch / f"peer{n}", commands)
            except (OSError, subprocess.CalledProcessError):
                absent.append(server.name)
            else:
                stack.callback(peer.stop)
                peers[server.name] = peer
        answers = trio.run(probe_all, peers)
    return Results(answers, versions, absent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--environment",
        type=Path,
        help="where the others are, or will be, installed (a temporary one)",
    )
    parser.add_argument(
        "--write", type=Path, default=DOCUMENT, metavar="FILE", help="where the table goes"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        environment = (options.environment or scratch / "environment").absolute()
        results = compare(environment, scratch)
    options.write.write_text(document(results), encoding="utf-8")
    for name, answers in results.answers.items():
        kept, total = count_kept(answers, Level.MUST)
        print(f"{results.versions[name]}: {kept} of {total} MUSTs kept")
    broken = [
        rule.key
        for rule, answer in zip(RULES, results.answers[RPYSERVE.name], strict=True)
        if not re.fullmatch(rule.accepted, answer) or answer == "no answer"
    ]
    for key in broken:
        print("  broken:", key)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
