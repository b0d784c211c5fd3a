"""Plays the rows with NiceGUI, whose server is started anew by an edit; its storage is kept."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.request import urlopen

from common import play_all, wait_true

START = 30.0
"""Seconds in which a server must have started."""
RESTART = 15.0
"""Seconds in which it must have started again after an edit."""
ERRORS = 6.0
"""Seconds in which errors are those of a server that is still starting."""
PAGE = """\
from nicegui import app, ui
{definitions}


@app.get("/make")
def make():
    app.storage.general["kept"] = {make}
    return {{"version": {version}}}


@app.get("/check")
def check():
    kept = app.storage.general.get("kept")
    return {{"version": {version}, "outcome": bool({check})}}


ui.run(host="127.0.0.1", port={port}, reload=True, show=False)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connected(port):
    socket.create_connection(("127.0.0.1", port), 1).close()
    return True


def ask(port, path):
    try:
        with urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as response:
            return json.load(response)
    except HTTPError as exc:
        return {"version": 0, "error": str(exc)}


def play(directory, number, row):
    site = directory / f"site{number}"
    site.mkdir()
    port = free_port()
    page = {"make": row["make"], "check": row["check"], "port": port}
    path = site / "main.py"
    path.write_text(PAGE.format(definitions=row["before"], version=1, **page))
    command = [sys.executable, path.name]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=site, start_new_session=True, **silent) as server:
        try:
            wait_true(lambda: connected(port), START)
            ask(port, "make")
            path.write_text(PAGE.format(definitions=row["after"], version=2, **page))
            began = time.monotonic()
            while time.monotonic() - began < RESTART:
                try:
                    answer = ask(port, "check")
                except OSError:
                    answer = {}
                if answer.get("version") == 2:
                    return answer["outcome"]
                if "error" in answer and time.monotonic() - began > ERRORS:
                    raise RuntimeError(answer["error"])
                time.sleep(0.1)
            return False
        finally:
            os.killpg(server.pid, signal.SIGKILL)


play_all(play)
