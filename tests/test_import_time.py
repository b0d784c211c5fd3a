"""What is imported when: so that ``--help`` and the first answer are there at once."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

NEVER_AT_FIRST = {
    "asyncio", "concurrent.futures", "email", "http.client", "httpx", "importlib.metadata", "jinja2", "json",
    "logging.config", "multipart", "multiprocessing", "sysconfig", "trustme", "unittest", "urllib.request",
    "watchfiles", "wsproto",
}  # fmt: skip
"""What the first answer does not need, by itself or through others."""

SERVE = """
import os, sys
from rpyserve import cli
from rpyserve.serving import access_log
first = access_log.AccessLog.__call__

def call(self, record):
    print(record.status, *sorted(sys.modules), flush=True)
    os._exit(0)

access_log.AccessLog.__call__ = call
cli.main(["--port", "0", "--no-reload"], prog_name="rpyserve")  # the watch gets ready in a thread, beside all this
"""


def imported_by(code: str, directory: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=directory
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_command_line_imports_click_and_little_else(tmp_path: Path) -> None:
    found = imported_by("import rpyserve.cli, sys; print(*sys.modules)", tmp_path)
    assert found & {"trio", "h11", "zope.interface", "logging", "shutil", *NEVER_AT_FIRST} == set()
    assert {name for name in found if name.startswith("rpyserve.")} == {
        "rpyserve._names", "rpyserve.cli", "rpyserve.util", "rpyserve.util.text",
    }  # fmt: skip


HELP = """
import atexit, sys
atexit.register(lambda: print(*sys.modules))
from rpyserve.cli import main
main(["--help"])
"""


def test_help_imports_no_more_than_that(tmp_path: Path) -> None:
    found = imported_by(HELP, tmp_path)
    assert "rpyserve.cli" in found
    assert found & {"trio", "h11", "zope.interface", "rpyserve.site", *NEVER_AT_FIRST} == set()


@pytest.mark.process
def test_the_first_answer_imports_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "index.rpy").write_text(
        "from rpyserve import Resource\n\ncache()\n\n\nclass Hello(Resource):\n"
        "    def render_GET(self, request):\n        return 'Hello, world!'\n\n\n"
        "resource = Hello()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status, *found = process.stdout.readline().split()
    assert status == "200"
    assert NEVER_AT_FIRST & set(found) == set()
    later = {
        "check.checker",
        "check.state_loss",
        "diagnostics.advice",
        "diagnostics.describe",
        "diagnostics.error_page",
        "diagnostics.model",
        "files.static_file",
        "resources.pages",
        "resources.proxy",
        "serving.tls",
        "sessions.migration",
        "sessions.transient",
    }
    assert {f"rpyserve.{name}" for name in later} & set(found) == set()
    assert not [name for name in found if name.startswith("rpyserve.production")]
    assert len([name for name in found if name.startswith("rpyserve.")]) < 90
