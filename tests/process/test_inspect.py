"""`rpyserve --inspect` and the servers that it finds: real processes, and a site whose own pages
stand for views, as ``/-/`` is the site's without reload.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name == "nt", reason="run files are of POSIX"),
]

ROOT = Path(__file__).parent.parent.parent
SOON = 30
VIEW = "def resource(request):\n    return {'items': [{'n': 1, 'query': request.query}]}\n"
ACTION = """
from rpyserve import Resource

class Pass(Resource):
    def render_POST(self, request):
        return {"passed": request.json()["seconds"]}

resource = Pass()
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def where(tmp_path: Path) -> Path:
    (tmp_path / "runtime").mkdir(mode=0o700)
    views = tmp_path / "site" / "-"
    views.mkdir(parents=True)
    (views / "things.json.rpy").write_text(VIEW)
    (views / "pass.rpy").write_text(ACTION)
    (tmp_path / "site" / "a" / "b").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def start(where: Path) -> Iterator[Start]:
    """``start(*arguments)`` is a running command, killed at the end."""
    commands: list[subprocess.Popen[str]] = []

    def start(*arguments: str, cwd: str = ".") -> subprocess.Popen[str]:
        variables = {key: os.environ[key] for key in os.environ if not key.startswith("RPYSERVE_")}
        variables |= {"PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(where / "runtime")}
        commands.append(
            subprocess.Popen(
                [sys.executable, "-m", "rpyserve", *arguments], cwd=where / cwd, text=True,
                env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )  # fmt: skip
        return commands[-1]

    yield start
    for command in commands:
        command.kill()
        command.communicate()


def serve(start: Start, site: str = "site", *options: str) -> tuple[subprocess.Popen[str], str]:
    server = start(site, "--port", "0", "--no-reload", *options)
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


def told(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = command.communicate(timeout=SOON)
    return command.returncode, out, err


def test_as_text_and_json_from_wherever_one_is(start: Start) -> None:
    serve(start)
    status, out, err = told(start("site", "--inspect", "things?after=3"))
    assert (status, out) == (0, "\nitems:\nn  query\n1  after=3\n"), err
    for cwd, site in (("site", []), ("site/a/b", []), (".", ["site/a"])):
        status, out, err = told(start(*site, "--inspect", "things.json", cwd=cwd))
        assert status == 0 and json.loads(out)["items"] == [{"n": 1, "query": ""}], err


def test_an_action(start: Start) -> None:
    serve(start)
    status, out, err = told(start("site", "--inspect", "pass?seconds=15m"))
    assert (status, out) == (0, "passed  15m\n"), err


def test_with_none(start: Start) -> None:
    status, out, err = told(start("site", "--inspect", "things"))
    assert (status, out) == (1, "") and "is running. Start one" in err and err.count("\n") == 1


def test_bad_usage_and_bad_answers(start: Start) -> None:
    serve(start)
    status, _, err = told(start("site", "--inspect", "../things"))
    assert status == 2 and "is no view" in err
    status, _, err = told(start("site", "--inspect", "nothing"))
    assert status == 1 and err.startswith("Error: 404 ")
    assert told(start("site", "--inspect", "things", "--check"))[0] == 2
    assert told(start("nowhere", "--inspect", "things"))[0] == 1


def test_with_two(start: Start, where: Path) -> None:
    shutil.copytree(where / "site", where / "site" / "inner")
    _, url = serve(start)
    second, other = serve(start)
    serve(start, "site/inner")
    status, _, err = told(start("site", "--inspect", "things"))
    assert status == 1 and f"2 servers of this site are running, at {url} and {other}" in err
    port = url.rsplit(":", 1)[1].strip("/")
    assert told(start("site", "--inspect", "things", "--port", port))[0] == 0
    assert told(start("site/inner", "--inspect", "things"))[0] == 0
    second.send_signal(signal.SIGKILL)
    second.wait()
    assert told(start("site", "--inspect", "things"))[0] == 0


def test_the_second_is_found_when_the_first_has_ended(start: Start) -> None:
    first, _ = serve(start)
    serve(start)
    first.send_signal(signal.SIGTERM)
    first.wait(SOON)
    assert told(start("site", "--inspect", "things"))[0] == 0


def test_a_link_in_place_of_the_file_is_a_line(start: Start, where: Path) -> None:
    server, _ = serve(start)
    (path,) = (where / "runtime" / "rpyserve").iterdir()
    path.rename(where / "elsewhere")
    path.symlink_to(where / "elsewhere")
    status, _, err = told(start("site", "--inspect", "things"))
    assert status == 1 and "it is a link" in err and err.count("\n") == 1
    server.send_signal(signal.SIGTERM)
    server.wait(SOON)
    path.unlink(missing_ok=True)
    path.symlink_to(where / "elsewhere")
    another, url = serve(start)
    assert url.startswith("http://") and another.poll() is None
    another.send_signal(signal.SIGTERM)
    assert "cannot be written" in told(another)[2]


def test_the_file_is_never_served(start: Start, where: Path) -> None:
    import httpx

    _, url = serve(start, ".")
    (path,) = (where / "runtime" / "rpyserve").iterdir()
    response = httpx.get(f"{url}runtime/rpyserve/{path.name}")
    assert response.status_code in (403, 404) and url not in response.text
