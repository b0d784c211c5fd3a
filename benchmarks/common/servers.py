"""The servers that rpyserve is compared with: how each is installed, started, and asked for its
version.

What each serves is in the ``pages`` of the benchmarks. Those that come from PyPI are installed into
an environment of their own; PHP and nginx are used where they are there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.common.docs import ROOT
from benchmarks.common.server_process import ServerProcess, free_port, is_listening


@dataclass(frozen=True, slots=True)
class Server:
    """One server.

    Args:
        name: what the tables call it.
        command: starts it in the directory with its files. In it, ``{bin}`` is the directory of the
            installed commands, ``{python}`` this Python, and ``{port}`` the port.
        version: prints its name and version.
        packages: what to install from PyPI.
        own: whether it belongs to this checkout, and needs no environment.
    """

    name: str
    command: tuple[str, ...]
    version: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    own: bool = False

    def with_options(self, *options: str, name: str | None = None) -> Server:
        """The same server, started with further options."""
        return replace(self, name=name or self.name, command=(*self.command, *options))


def _version_of(package: str) -> tuple[str, ...]:
    code = f"from importlib.metadata import version; print('{package}', version('{package}'))"
    return ("{bin}/python", "-c", code)


RPYSERVE = Server(
    "rpyserve",
    ("{python}", "-m", "rpyserve", ".", "--port", "{port}"),
    ("{python}", "-c", "import rpyserve; print('rpyserve', rpyserve.__version__)"),
    own=True,
)
BASELINE = Server(
    "baseline loop",
    ("{python}", "-m", "benchmarks.performance.baseline_loop", "{port}"),
    own=True,
)
UVICORN = Server(
    "uvicorn (h11)",
    (
        "{bin}/python", "-m", "uvicorn", "pages:app", "--http", "h11", "--loop", "asyncio",
        "--port", "{port}",
    ),
    _version_of("uvicorn"),
    ("uvicorn", "h11"),
)  # fmt: skip
HYPERCORN = Server(
    "Hypercorn (trio)",
    (
        "{bin}/python", "-m", "hypercorn", "pages:app", "--worker-class", "trio",
        "--bind", "127.0.0.1:{port}",
    ),
    _version_of("hypercorn"),
    ("hypercorn[trio]",),
)  # fmt: skip
TWISTED = Server(
    "Twisted Web",
    ("{bin}/python", "-m", "twisted", "web", "--listen", "tcp:{port}:interface=127.0.0.1"),
    _version_of("twisted"),
    ("twisted",),
)
"""Needs ``--path .`` for scripts, or ``--class`` for a resource."""
FLASK = Server(
    "Flask",
    ("{bin}/python", "pages.py", "{port}"),
    _version_of("flask"),
    ("flask",),
)
PHP = Server(
    "php -S",
    ("php", "-S", "127.0.0.1:{port}", "pages.php"),
    ("php", "-r", "echo 'php ', PHP_VERSION;"),
)
NGINX = Server("nginx", ("nginx", "-p", ".", "-c", "nginx.conf"))
HTTP_SERVER = Server(
    "http.server", ("{bin}/python", "-m", "http.server", "{port}", "--bind", "127.0.0.1")
)


def install(environment: Path, servers: Iterable[Server]) -> Path:
    """Make an environment with all *servers* that come from PyPI.

    Returns:
        The directory of its commands.
    """
    commands = environment / ("Scripts" if os.name == "nt" else "bin")
    if not commands.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    for packages in dict.fromkeys(server.packages for server in servers if server.packages):
        command = [str(commands / "python"), "-m", "pip", "install", "--quiet", *packages]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
            print(f"{' and '.join(packages)} could not be installed", file=sys.stderr)
    return commands


def start(
    server: Server, files: Mapping[str, str | bytes], directory: Path, commands: Path
) -> ServerProcess:
    """Start *server* in *directory*.

    Args:
        server: what to start.
        files: what it serves; ``{port}`` in text becomes the port.
        directory: is made if need be. What the server prints is in the file of that name with
            ``.log``.
        commands: the directory of the installed commands.

    Raises:
        OSError: it is not there, or does not listen.
    """
    port = free_port()
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content.replace("{port}", str(port)) if isinstance(content, str) else content
        (directory / name).write_bytes(text.encode() if isinstance(text, str) else text)
    console = directory.with_name(f"{directory.name}.log")
    with console.open("wb") as output:
        process = subprocess.Popen(
            _filled_in(server.command, commands, port),
            cwd=directory,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT if server.own else directory)},
        )
    if not is_listening(port):
        process.kill()
        process.wait()
        raise OSError(f"{server.name} does not listen")
    return ServerProcess(process, port, console)


def version(server: Server, commands: Path) -> str:
    """The name and version of *server*.

    Raises:
        OSError, subprocess.CalledProcessError: it is not there.
    """
    command = _filled_in(server.version, commands)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def _filled_in(words: Iterable[str], commands: Path, port: int = 0) -> list[str]:
    return [word.format(bin=commands, python=sys.executable, port=port) for word in words]
