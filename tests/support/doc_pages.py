"""A page of the documents, played: its files are written, its commands typed, and what they print
is compared.

The blocks of a page are taken in order:

- one with a title that is a file's name is that file: of the site, or beside it if it is a program
  or a test. Where a title comes a second time, the file is edited: the server, if it runs by then,
  has to notice;
- ``console`` has commands, each after a ``$``, and what they print. ``curl``, or ``python
  client.py``, asks the server on port 8080, which is started when it is first needed, or by
  ``rpyserve ./site --some-option``, by ``python program.py``, or by ``rpyserve program.py``;
- one with the title ``console`` is what the server's own console shows by then;
- any other must be JSON, TOML or Python that can be read, or have a comment above it that says why
  it is not run.

In what is printed, ``...`` stands for anything.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.support.real_process import Server, program

NOT_RUN = re.compile(r"<!-- not run: \w.*? -->\s*\Z", re.DOTALL)
BESIDE = re.compile(r"(test_\w+|conftest|program|client)\.py")
READERS = {"json": json.loads, "toml": tomllib.loads, "python": ast.parse}
ONCE = {"--inspect", "--get", "--check", "--version", "--help", "--example"}


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str
    line: int
    excused: bool


def blocks_of(page: str) -> Iterator[Block]:
    """The fenced blocks of *page*, those in lists and notes too."""
    fence = re.compile(
        r"^(?P<indent>[ ]*)```(?P<info>.*)\n(?P<body>(?:.*\n)*?)(?P=indent)```$", re.MULTILINE
    )
    for found in fence.finditer(page):
        language, _, more = found["info"].partition(" ")
        title = re.search(r'title="([^"]*)"', more)
        body = "".join(
            line.removeprefix(found["indent"]) for line in found["body"].splitlines(keepends=True)
        )
        line = page.count("\n", 0, found.start()) + 1
        excused = NOT_RUN.search(page, 0, found.start()) is not None
        yield Block(language, title[1] if title else "", body, line, excused)


def commands_of(console: str) -> Iterator[tuple[str, str]]:
    """Each command of a ``console`` block, and what it prints."""
    command, printed = "", ""
    for line in console.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, printed
            command, printed = line[2:].rstrip("\n"), ""
        elif command.endswith("\\"):
            command = command[:-1] + line.strip()
        else:
            printed += line
    assert command, "a console block begins with a command"
    yield command, printed


def pattern_of(expected: str) -> str:
    """The regular expression that *expected* means: a line of dots alone is any number of lines."""
    lines = [
        "(?:.*?\n)?" if line == "..." else r".*?".join(map(re.escape, line.split("..."))) + "\n"
        for line in expected.strip().splitlines()
    ]
    return "".join(lines)


def _whole(printed: str) -> str:
    """Without blank lines at its end, but with the end of its last line."""
    return printed.strip("\n") + "\n" if printed.strip() else ""


@dataclass
class Player:
    """Plays one page in the directory *where*, in which the site is ``site``."""

    where: Path
    closing: ExitStack
    server: Server | None = None
    seen: int = 0
    runs: int = 0

    def play(self, page: str) -> int:
        """Play *page*, and return how many blocks it had."""
        (self.where / "site").mkdir()
        blocks = list(blocks_of(page))
        for block in blocks:
            try:
                self._play(block)
            except AssertionError as exc:
                raise AssertionError(f"the block at line {block.line}: {exc}") from exc
        return len(blocks)

    def _play(self, block: Block) -> None:
        if block.excused:
            return
        if block.language == "console":
            for command, expected in commands_of(block.text):
                self._type(command, expected)
        elif block.title == "console":
            self._expect_on_console(block.text)
        elif block.title:
            self._write(block)
        else:
            assert block.language in READERS, (
                f"say how to run this block of {block.language or 'no language'}"
            )
            READERS[block.language](block.text)

    def _write(self, block: Block) -> None:
        name = PurePosixPath(block.title)
        path = self.where / name if BESIDE.fullmatch(name.name) else self.where / "site" / name
        assert "." in path.name and ".." not in name.parts, f"{block.title!r} is no name of a file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8", newline="\n")
        if self.server is not None:
            time.sleep(0.3)  # a reader of the page types the next command no sooner

    def _type(self, command: str, expected: str) -> None:
        words = shlex.split(command)
        serves = words[0] == "rpyserve" and not ONCE & set(words)
        if serves or words[:2] == ["python", "program.py"]:
            self._start(words)
            self._expect_on_console(expected)
            return
        if words[0] == "curl":
            printed = self._curl(words)
        elif words[:2] == ["python", "client.py"]:
            printed = self._ask([sys.executable, *words[1:]])
        elif words[0] == "rpyserve":
            printed = self._run([sys.executable, "-m", *words])
        elif words[0] == "pytest":
            printed = self._run([sys.executable, "-m", *words, "-p", "no:cacheprovider"])
        else:
            raise AssertionError(f"nobody has said how to run {words[0]!r}")
        assert re.fullmatch(pattern_of(expected), _whole(printed), re.DOTALL), (
            f"$ {command}\n{printed}"
        )

    def _run(self, words: list[str], statuses: tuple[int, ...] = (0, 1)) -> str:
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("RPYSERVE_", "PYTEST_"))
        }
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
        done = subprocess.run(
            words,
            cwd=self.where,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            env=environment,
            check=False,
        )
        assert done.returncode in statuses, (
            f"exit status {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        return done.stdout.replace("\r\n", "\n")

    def _curl(self, words: list[str]) -> str:
        stalled = (0, 28) if "--max-time" in words else (0,)
        quiet = ["curl", "--silent", "--show-error", "--noproxy", "*"]
        limit = [] if "--max-time" in words else ["--max-time", "30"]
        return self._ask([*quiet, *limit, *words[1:]], stalled)

    def _ask(self, words: list[str], statuses: tuple[int, ...] = (0,)) -> str:
        """What a client prints that asks the server, which is started if need be."""
        if self.server is None:
            self._start(["rpyserve", "./site"])
        assert self.server is not None
        here, there = "localhost:8080", f"localhost:{self.server.port}"
        assert any(here in word for word in words), "a client asks localhost:8080"
        asked = [os.devnull if word == "/dev/null" else word.replace(here, there) for word in words]
        return self._run(asked, statuses).replace(there, here)

    def _start(self, words: list[str]) -> None:
        self.closing.close()
        self.runs += 1
        if words[:2] == ["rpyserve", "program.py"]:
            path = self._on_any_port(self.where / words[1])
            command = [sys.executable, "-m", "rpyserve", path, *words[2:]]
        elif words[0] == "rpyserve":
            command = [sys.executable, "-m", *words, "--port", "0"]
        else:
            command = [sys.executable, self._on_any_port(self.where / words[1])]
        console = self.where.parent / f"console{self.runs}"
        self.server = self.closing.enter_context(program(command, console, self.where))
        self.server.scheme = "https" if "--tls" in words else "http"
        self.server.port = int(self.server.wait_for(rf"{self.server.scheme}://[^/\s]+:(\d+)")[1])
        self.seen = 0

    def _on_any_port(self, path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        port = re.compile(r"(port=|listenTCP\()8080")
        assert port.search(text), "a program says port=8080, or listenTCP(8080, site)"
        other = path.with_name("on_any_port.py")
        other.write_text(port.sub(r"\g<1>0", text), encoding="utf-8")
        return str(other)

    def _expect_on_console(self, expected: str) -> None:
        assert self.server is not None, "there is no server yet"
        if expected.strip():
            wanted = pattern_of(expected.replace(":8080", f":{self.server.port}"))
            self.seen = self.server.wait_for(rf"(?s)\A.{{{self.seen},}}?{wanted}").end()
