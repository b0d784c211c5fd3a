"""Two of the things that people build first, from beginning to end with the real command: a tool whose
work takes longer than a request, and the tour, while the tests run in another terminal.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.real_process import program, serving

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent.parent
LIMIT = 30
"""Seconds: far more than anything here takes."""

# A tool that a click starts. Each step waits for a file, so that the test decides how far it is.
TOOL = """\
import time
from pathlib import Path

from rpyserve import Redirect, Resource, current_job, html

STEPS = Path("steps")


def convert(name, count):
    for number in range(count):
        while not (STEPS / f"{name}-{number}").exists():
            time.sleep(0.005)
        current_job().progress = (number + 1) / count
    return f"{name}: {count} pages"


class Tool(Resource):
    def render_POST(self, request):
        jobs = request.getSession().setdefault("jobs", [])
        name, count = request.field("name"), request.field("count", type=int)
        jobs.append(request.site.background(convert, name, count))
        return Redirect("/tool")

    def render_GET(self, request):
        jobs = request.getSession().get("jobs", [])
        rows = [html("<li>{} {} {}</li>", j.state, j.progress, j.result or j.error) for j in jobs]
        return html("<h1>Jobs</h1>") + html("").join(rows)


resource = Tool()
"""
EVENTS = """\
import trio

from rpyserve import Response


async def events(jobs):
    told = None
    while told != (now := [job.progress for job in jobs]) or not all(job.ended for job in jobs):
        if told != now:
            yield f"data: {now}\\n\\n"
        told = now
        await trio.sleep(0.005)
    yield f"event: end\\ndata: {[job.state for job in jobs]}\\n\\n"


def resource(request):
    jobs = request.getSession()["jobs"]
    return Response(events(jobs), headers={"Content-Type": "text/event-stream"})
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_tool_with_jobs_and_their_progress(tmp_path: Path) -> None:
    """Clicks start jobs, which go on through edits; the page and a stream of events follow them."""
    site, steps = tmp_path / "site", tmp_path / "site" / "steps"
    steps.mkdir(parents=True)
    (site / "tool.rpy").write_text(TOOL)
    (site / "events.rpy").write_text(EVENTS)
    with (
        serving(site, tmp_path, "--no-reload") as server,
        httpx.Client(base_url=server.url, timeout=LIMIT, follow_redirects=True) as visitor,
        httpx.Client(base_url=server.url, timeout=LIMIT) as stranger,
    ):

        def rows() -> list[str]:
            return re.findall("<li>(.*?)</li>", visitor.get("/tool").text)

        for name, count in (("letters", "2"), ("bills", "4"), ("broken", "1")):
            assert visitor.post("/tool", data={"name": name, "count": count}).status_code == 200
        assert visitor.post("/tool", data={"name": "x", "count": "many"}).status_code == 400
        until(lambda: rows() == ["running None None"] * 3)

        # Each runs by itself, and an edit disturbs none.
        (steps / "bills-0").touch()
        until(lambda: rows()[1] == "running 0.25 None")
        assert rows()[0] == rows()[2] == "running None None"
        edited = TOOL.replace("<h1>Jobs</h1>", "<h1>Work</h1>").replace(
            'return f"{name}: {count} pages"', 'return "of the new version"'
        )
        (site / "tool.rpy").write_text(edited)
        until(lambda: "<h1>Work</h1>" in visitor.get("/tool").text)
        (steps / "letters-0").touch()
        (steps / "letters-1").touch()
        until(lambda: rows()[:2] == ["done 1.0 letters: 2 pages", "running 0.25 None"])

        # The stream tells each step, and others do not see the jobs.
        with visitor.stream("GET", "/events") as stream:
            lines = (line for line in stream.iter_lines() if line)
            assert next(lines) == "data: [1.0, 0.25, None]"
            for number in (1, 2, 3):
                (steps / f"bills-{number}").touch()
                assert next(lines) == f"data: [1.0, {(number + 1) / 4}, None]"
            (steps / "broken-0").touch()
            assert next(lines) == "data: [1.0, 1.0, 1.0]"
            assert [*lines] == ["event: end", "data: ['done', 'done', 'done']"]
        assert "<li>" not in stranger.get("/tool").text
        assert rows() == ["done 1.0 letters: 2 pages", "done 1.0 bills: 4 pages", "done 1.0 broken: 1 pages"]  # fmt: skip

        # The next job is of the new version.
        visitor.post("/tool", data={"name": "letters", "count": "1"})
        until(lambda: rows()[3] == "done 1.0 of the new version")


OF_THE_TOUR = ["tests/docs/test_sample_site.py", "tests/test_cli.py"]
"""Tests that visit each page of the tour."""


def commands_of_readme() -> tuple[str, str]:
    """What the README says to run in one terminal, and in the other: the ends of its two commands."""
    readme = (ROOT / "README.md").read_text("utf-8")
    tour, tests = (
        re.findall(rf"^## {title}\n+```sh\n(.*?)\n```", readme, re.MULTILINE | re.DOTALL)[0]
        for title in ("Try it", "Run the tests")
    )
    return tour.rpartition("&& ")[2], tests.rpartition("&& ")[2]


@pytest.mark.skipif(os.name == "nt", reason="run files are of POSIX")
def test_both_commands_of_the_readme_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tour is served at its own port while tests run that visit all of it, as in a second terminal;
    they do not notice each other. The tour's command, once more, says where it is.
    """
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))  # somebody may be at the tour
    tour, tests = commands_of_readme()
    assert tests.split() == [".venv/bin/python", "-m", "pytest"]
    name, *arguments = tour.split()
    assert name == ".venv/bin/rpyserve"
    command = [sys.executable, "-m", "rpyserve", *arguments]
    with program(command, tmp_path / "console", ROOT) as server:
        url = server.wait_for(r"http://[^/\s]+:\d+/")[0]
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
        assert (again.returncode, again.stdout.strip()) == (3, url)
        with httpx.Client(base_url=url) as visitor:
            assert "Visit #1 for you!" in visitor.get("/counter").text
            server.wait_for("GET /counter 200")
            before = server.output()
            tested = subprocess.run(
                [sys.executable, *tests.split()[1:], "-q", "-p", "no:cacheprovider", *OF_THE_TOUR],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            assert tested.returncode == 0, tested.stdout
            assert " passed" in tested.stdout
            rest = server.output().removeprefix(before)
            assert not re.search("GET|POST|changed", rest), rest
            assert "for you!" in visitor.get("/counter").text
