"""What a coding agent does, from a shell: start the server or find it, edit, ask, read, check."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.real_process import program

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent.parent
SOON = 20
"""Seconds: far more than anything here takes."""

HELLO = "def resource(request):\n    print('asked by', request.field('name', 'nobody'))\n    return 'hello'\n"
ALREADY = (
    r"This site is already running at (\S+), pid (\d+), since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\."
)
posix_only = pytest.mark.skipif(os.name == "nt", reason="run files and SIGHUP are of POSIX")

Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """The directory in which the commands run; the site is in ``site``."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "hello.rpy").write_text(HELLO)
    return tmp_path


@pytest.fixture
def run(where: Path) -> Iterator[Run]:
    """``run(*arguments, **environment)`` is a running ``rpyserve``, killed at the end."""
    commands: list[subprocess.Popen[str]] = []

    def run(
        *arguments: str, code: str = "", preexec_fn: Any = None, **environment: str
    ) -> subprocess.Popen[str]:
        variables = {key: os.environ[key] for key in os.environ if not key.startswith("RPYSERVE_")}
        variables |= {"PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(where / "runtime")}
        commands.append(
            subprocess.Popen(
                [sys.executable, *(["-c", code] if code else ["-m", "rpyserve"]), *arguments], cwd=where, text=True,
                env=variables | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=os.name != "nt",  # no terminal
                preexec_fn=preexec_fn,
            )
        )  # fmt: skip
        return commands[-1]

    yield run
    for command in commands:
        command.kill()
        command.communicate()


def first_line(command: subprocess.Popen[str]) -> str:
    assert command.stdout is not None
    return command.stdout.readline().strip()


def end(command: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status, and stderr, of one that has ended, or is told to."""
    _, err = command.communicate(timeout=SOON)
    return command.returncode, err


def wait_for(pattern: str, path: Path) -> re.Match[str]:
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        if found := re.search(pattern, path.read_text("utf-8") if path.exists() else "", re.M):
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {pattern!r} in {path.read_text('utf-8')!r}")


# One server a site


@posix_only
def test_the_second_server_says_where_the_first_is(run: Run, where: Path) -> None:
    first = run("site")
    url = first_line(first)
    for arguments in (
        ["site", "--log-file", "server.log"],
        ["./site/"],
        ["--host", "0.0.0.0", "site"],
    ):
        second = run(*arguments)
        assert first_line(second) == url
        status, err = end(second)
        assert status == 3
        found = re.match(ALREADY, err)
        assert found and (found[1], int(found[2])) == (url, first.pid)
        assert err.count("\n") == 1
    assert not (where / "server.log").exists()
    assert httpx.get(f"{url}hello").text == "hello"
    first.send_signal(signal.SIGTERM)
    assert end(first)[0] == 0
    assert not list((where / "runtime" / "rpyserve").iterdir())


@posix_only
def test_with_a_port_there_may_be_several(run: Run, where: Path) -> None:
    urls = {first_line(run("site")), first_line(run("site", "-p", "0"))}
    urls |= {first_line(run("site", RPYSERVE_PORT="0"))}
    urls |= {first_line(run("site", "--bind", f"unix:{where}/socket"))}
    assert len(urls) == 4


@posix_only
def test_another_site_has_a_server_of_its_own(run: Run, where: Path) -> None:
    shutil.copytree(where / "site", where / "other")
    assert first_line(run("site")) != first_line(run("other"))


@posix_only
def test_one_with_a_port_is_found_too(run: Run) -> None:
    url = first_line(run("site", "--port", "0"))
    second = run("site")
    assert (first_line(second), end(second)[0]) == (url, 3)


@posix_only
def test_of_two_that_start_at_once_one_serves(run: Run) -> None:
    commands = [run("site") for _ in range(4)]
    assert len({first_line(command) for command in commands}) == 1
    deadline = time.monotonic() + SOON
    while [each.poll() for each in commands].count(None) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(command.poll() or 0 for command in commands) == [0, 3, 3, 3]


@posix_only
def test_one_that_was_killed_is_none(run: Run) -> None:
    first = run("site")
    first_line(first)
    first.kill()
    first.wait()
    second = run("site")
    assert first_line(second).startswith("http://127.0.0.1:")
    assert second.poll() is None


@posix_only
def test_a_worker_that_outlives_its_server_is_none(run: Run, where: Path) -> None:
    """A process that a script forks holds no lock."""
    (where / "site" / "fork.rpy").write_text(
        "import os, time\n\n\ndef resource(request):\n    child = os.fork()\n    if not child:\n"
        "        time.sleep(600)\n    return str(child)\n"
    )
    first = run("site")
    child = int(httpx.get(f"{first_line(first)}fork").text)
    try:
        first.kill()
        first.wait()
        second = run("site")
        assert first_line(second).startswith("http://127.0.0.1:")
        assert second.poll() is None
    finally:
        os.kill(child, signal.SIGKILL)


NO_PLACE = """
from rpyserve.serving import run_file
run_file._place = lambda: None
from rpyserve.cli import main
main(["site"])
"""


def test_where_there_is_no_place_for_run_files_each_serves(run: Run) -> None:
    urls = {first_line(run(code=NO_PLACE)) for _ in range(2)}
    assert len(urls) == 2 and all(url.startswith("http://127.0.0.1:") for url in urls)


# The log file


def serve_with_log(run: Run, where: Path, *options: str) -> tuple[subprocess.Popen[str], str, Path]:
    command = run("site", "--port", "0", "--log-file", "server.log", *options)
    return command, first_line(command), where / "server.log"


@posix_only
def test_the_log_file_has_what_the_console_has(run: Run, where: Path) -> None:
    (where / "server.log").write_text("of the last run\n")
    (where / "site" / "broken.rpy").write_text("def resource(request):\n    return 1 / 0\n")
    command, url, path = serve_with_log(run, where)
    httpx.get(f"{url}hello?name=Ada")
    httpx.get(f"{url}broken")
    wait_for("GET /broken 500", path)
    command.send_signal(signal.SIGTERM)
    status, err = end(command)
    assert status == 0
    text = path.read_text()
    assert text.startswith("of the last run\n")
    dated = r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    for line in (f"rpyserve begins, pid {command.pid}\\.", re.escape(url), "asked by Ada",
                 "GET /hello\\?name=Ada 200 5 B", "GET /broken: ZeroDivisionError: division by zero",
                 "GET /broken 500", "Stopped\\. 0 sessions ended"):  # fmt: skip
        assert len(re.findall(dated + line, text)) == 1, (line, text)
    assert "\n  broken.rpy:2 in resource\n    return 1 / 0" in text.replace("\n      ", "\n    ")
    assert "\x1b" not in text and "asked by Ada" not in err


@posix_only
@pytest.mark.parametrize("signalled", [False, True])
def test_the_log_file_is_rotated(run: Run, where: Path, signalled: bool) -> None:
    command, url, path = serve_with_log(run, where)
    httpx.get(f"{url}hello?name=Ada")
    wait_for("GET /hello.name=Ada 200", path)
    path.rename(where / "server.log.1")
    if signalled:
        command.send_signal(signal.SIGHUP)
        wait_for("SIGHUP: the log file is opened again", path)
    httpx.get(f"{url}hello?name=Grace")
    wait_for("GET /hello.name=Grace 200", path)
    assert "Ada" not in path.read_text()
    assert "Grace" not in (where / "server.log.1").read_text()
    assert command.poll() is None


@posix_only
def test_without_a_log_file_a_hang_up_ends_it(run: Run) -> None:
    command = run("site", "--port", "0")
    first_line(command)
    command.send_signal(signal.SIGHUP)
    assert end(command)[0] == 0


@posix_only
@pytest.mark.parametrize("has_log", [False, True])
def test_a_terminal_that_is_closed_ends_it(run: Run, where: Path, has_log: bool) -> None:
    import fcntl
    import pty
    import termios

    ours, its = pty.openpty()
    log = ["--log-file", "server.log"] if has_log else []

    def take_terminal() -> None:
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    command = run("site", "--port", "0", *log, preexec_fn=take_terminal)
    first_line(command)
    os.close(its)
    if has_log:
        command.send_signal(signal.SIGHUP)  # the terminal is still there
        wait_for("SIGHUP: the log file is opened again", where / "server.log")
    os.close(ours)
    assert end(command)[0] == 0


@posix_only
def test_a_log_file_that_fails_later_changes_nothing_for_visitors(run: Run, where: Path) -> None:
    (where / "logs").mkdir()
    command = run("site", "--port", "0", "--log-file", "logs/server.log")
    url = first_line(command)
    (where / "logs").rename(where / "away")
    for number in range(20):
        assert httpx.get(f"{url}hello?name={number}").text == "hello"
    (where / "away").rename(where / "logs")
    wait_for("asked by 19", where / "logs" / "server.log")
    command.send_signal(signal.SIGTERM)
    assert end(command)[0] == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere/server.log", "No such file"),
        ("site", "would be a file of the site"),
        ("site/log.txt", "would be a file of the site"),
        ("site/log.rpy", "would be a file of the site"),
        ("runtime", "Is a directory"),
        pytest.param("/dev/full", "No space left", marks=posix_only),
    ],
)
def test_a_log_file_that_cannot_be_written(run: Run, where: Path, name: str, why: str) -> None:
    status, err = end(run("site", "--port", "0", "--log-file", name))
    assert status == 1
    assert err.startswith("Error: The log file ") and why in err
    assert err.count("\n") == 1


def test_a_log_file_in_the_site_is_sent_to_nobody(run: Run, where: Path) -> None:
    command = run("site", "--port", "0", "--log-file", "site/server.log")
    url = first_line(command)
    assert httpx.get(f"{url}server.log").status_code == 404
    cursor = httpx.get(f"{url}-/events?once").json()["cursor"]
    for _ in range(3):
        httpx.get(f"{url}hello")
        wait_for("GET /hello", where / "site" / "server.log")
    change = httpx.get(f"{url}-/events", params={"once": "", "since": cursor}).json()["change"]
    assert not change["urls"] and not change["all"]
    assert command.poll() is None


@pytest.mark.parametrize("layout", ["json", "combined"])
def test_lines_with_dates_of_their_own_stay(run: Run, where: Path, layout: str) -> None:
    _, url, path = serve_with_log(run, where, "--access-log", layout)
    httpx.get(f"{url}hello")
    line = wait_for(r"^.*GET.*hello.*$", path)[0]
    if layout == "json":
        assert json.loads(line)["target"] == "/hello"
    else:
        assert line.startswith("127.0.0.1 - - [")


def test_a_program_has_a_log_file_too(where: Path) -> None:
    (where / "program.py").write_text(
        "from rpyserve import Resource, Site\nfrom twisted.internet import reactor\n\n\n"
        "class Page(Resource):\n    isLeaf = True\n\n    def render_GET(self, request):\n"
        "        print('asked')\n        return b'hello'\n\n\n"
        "reactor.listenTCP(0, Site(Page()))\nreactor.run()\n"
    )
    command = [sys.executable, "-m", "rpyserve", "program.py", "--log-file", "server.log"]
    with program(command, where / "console", where) as server:
        url = server.wait_for(r"http://\S+")[0]
        httpx.get(url)
        wait_for(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d asked$", where / "server.log")


# All the way


def test_an_agent_at_work(run: Run, where: Path) -> None:
    """Start, read an error, check, mend, ask, log in, and see what pages were told."""
    site = where / "site"
    _, url, log = serve_with_log(run, where)

    def ask(path: str) -> Any:
        return httpx.get(f"{url}{path}", headers={"Accept": "application/json"})

    # It writes a script with a mistake, and is told which, where, and what to write.
    (site / "prices.py").write_text("PRICES = {'tea': 2}\n")
    script = "from prices import PRICES\n\n\ndef resource(request):\n    return str({}['tea'])\n"
    (site / "total.rpy").write_text(script.format("PRICE"))
    answer = ask("total")
    assert answer.status_code == 500
    error = answer.json()["error"]
    place = error["chain"][0]["frames"][-1]
    assert (error["kind"], place["line"], place["function"]) == ("NameError", 5, "resource")
    assert place["path"] == str((site / "total.rpy").resolve())
    assert "PRICES" in error["hint"]
    assert ask("totle").json()["status"] == 404

    checked = run("site", "--check", "--format", "json")
    out, _ = checked.communicate(timeout=SOON)
    (finding,) = json.loads(out)["findings"]
    assert checked.returncode == 1
    assert (finding["path"], finding["line"], finding["rule"]) == (
        os.path.join("site", "total.rpy"), 5, "undefined-name",
    )  # fmt: skip

    # Each edit is there with the next request, that of a module too.
    cursor = ask("-/events?once").json()["cursor"]
    (site / "total.rpy").write_text(script.format("PRICES"))
    assert ask("total").text == "2"
    for price in range(3, 8):
        (site / "prices.py").write_text(f"PRICES = {{'tea': {price * 1111}}}\n")
        assert ask("total").text == str(price * 1111)
    wait_for("prices.py changed", log)
    deadline = time.monotonic() + SOON
    while not (told := ask(f"-/events?once&since={cursor}").json()["change"])["all"]:
        assert time.monotonic() < deadline, told
        time.sleep(0.02)

    got = run("site", "--get", "/total", "-H", "Accept: application/json")
    assert got.communicate(timeout=SOON)[0].strip() == "7777" and got.returncode == 0
    wait_for(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d GET /total: NameError", log)


def test_the_example_has_notes_for_agents(run: Run, where: Path) -> None:
    made = run("--example", "tour")
    assert end(made)[0] == 0
    notes = (where / "tour" / "AGENTS.md").read_text("utf-8")
    url = first_line(run("tour", "--port", "0"))
    assert httpx.get(f"{url}AGENTS.md").status_code == 404
    assert "AGENTS.md" not in httpx.get(url).text
    checked = run("tour", "--check", "--format", "json")
    assert "AGENTS.md" not in checked.communicate(timeout=SOON)[0]
    help_text = run("--help").communicate(timeout=SOON)[0]
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", notes)):
        assert option in help_text
    for command in re.findall(r"`rpyserve (\. [^`]*)`", notes):
        if "--log-file" in command:
            continue  # it serves
        asked = run(*command.replace(". ", "tour ", 1).split())
        asked.communicate(timeout=SOON)
        assert asked.returncode == 0, command
