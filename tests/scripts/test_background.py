"""Tasks that scripts start: they end with their response, or with their script's version."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve import (
    NOT_DONE_YET,
    Directory,
    HTTPError,
    NameVirtualHost,
    Redirect,
    Request,
    Site,
    current_job,
)
from tests.support.edited_site import Editing
from tests.support.in_process import Visitor, ask


async def test_a_task_answers_later(autojump_clock: Any) -> None:
    async def tick(request: Request, count: int) -> None:
        for number in range(count):
            request.write(f"{number} ")
            await trio.sleep(1)
        request.finish()

    def resource(request: Request) -> Any:
        request.start_soon(tick, request, 3)
        return NOT_DONE_YET

    async with Site(resource).running() as site:
        assert (await ask(site, "/")).text == "0 1 2 "
        assert trio.current_time() >= 3


async def test_a_task_ends_with_the_response(autojump_clock: Any) -> None:
    ended = []

    async def forever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async def resource(request: Request) -> str:
        request.start_soon(forever)
        await trio.sleep(2)
        assert not ended
        return "done"

    async with Site(resource).running() as site:
        assert (await ask(site, "/")).text == "done"
        await trio.testing.wait_all_tasks_blocked()
        assert len(ended) == 1


async def test_what_a_task_raises_is_the_answer_of_a_response_that_waits(
    autojump_clock: Any,
) -> None:
    async def fail(exc: Exception, request: Request) -> None:
        await trio.sleep(1)
        raise exc

    def waiting(exc: Exception) -> Any:
        def resource(request: Request) -> Any:
            request.start_soon(fail, exc, request)
            return NOT_DONE_YET

        return resource

    async with Site(waiting(ValueError("too late"))).running() as site:
        answer = await ask(site, "/")
        assert answer.status == 500 and "ValueError: too late" in answer.text
    async with Site(waiting(HTTPError(404))).running() as site:
        assert (await ask(site, "/")).status == 404


async def test_a_failure_before_the_answer_waits_is_not_lost(autojump_clock: Any) -> None:
    async def fail() -> None:
        raise ValueError("early")

    async def resource(request: Request) -> Any:
        request.start_soon(fail)
        await trio.sleep(1)
        return NOT_DONE_YET

    async with Site(resource).running() as site:
        assert "ValueError: early" in (await ask(site, "/")).text


async def test_other_failures_are_told_and_stop_nothing(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ValueError("oops")

    async def resource(request: Request) -> str:
        request.start_soon(fail)
        await trio.sleep(1)
        return "fine"

    async with Site(resource).running() as site:
        assert (await ask(site, "/")).text == "fine"
        assert (await ask(site, "/")).text == "fine"
    assert caplog.text.count("GET / failed: ValueError: oops") == 1, "the second is the same"


@pytest.mark.parametrize("name", ["start_soon", "background"])
async def test_what_is_no_function(name: str) -> None:
    async def work() -> None: ...

    def plain() -> None: ...

    async with Site(lambda request: "").running() as site:
        request = Request("GET", "/")
        request.site = site
        start = getattr(request if name == "start_soon" else site, name)
        if name == "start_soon":
            with pytest.raises(
                TypeError, match=r"start_soon\(\) takes an async function: write `async def`"
            ):
                start(plain)
        with pytest.raises(TypeError, match=rf"{name}\(\) takes a function, not 'work'"):
            start("work")
        with pytest.raises(TypeError, match=r"without f's own \(\)"):
            start(work())
        request.close()
        with pytest.raises(RuntimeError, match="the response has ended"):
            request.start_soon(work)


LOG: list[str] = []

SCRIPT = """
import trio
from tests.scripts.test_background import LOG

async def tick():
    LOG.append("start {version}")
    try:
        await trio.sleep_forever()
    finally:
        LOG.append("end {version}")

def resource(request):
    {call}
    return "{version}"
"""


@pytest.fixture
async def site(tmp_path: Path) -> Any:
    LOG.clear()
    async with Site(Directory(tmp_path)).running() as site:
        yield site


async def visited(site: Site, target: str = "/a") -> list[str]:
    await ask(site, target)
    await trio.testing.wait_all_tasks_blocked()
    return LOG


@pytest.mark.parametrize("first", ["", "cache()\n"])
@pytest.mark.parametrize("call", ["request.site.background(tick)", "background"])
async def test_background_runs_once_for_each_version(
    site: Site, tmp_path: Path, first: str, call: str
) -> None:
    def save(version: int, call: str) -> None:
        text = first + SCRIPT.format(version=version, call=call if call != "background" else "pass")
        if call == "background":
            text = text.replace("async def tick", "@background\nasync def tick")
            text = "from rpyserve import background\n" + text
        (tmp_path / "a.rpy").write_text(text, encoding="utf-8")

    save(1, call)
    for _ in range(3):
        assert await visited(site) == ["start 1"]
    save(2, call)
    assert await visited(site) == ["start 1", "end 1", "start 2"]
    assert len(await visited(site)) == 3
    save(3, "pass")
    assert sorted(await visited(site)) == ["end 1", "end 2", "start 1", "start 2"]


async def test_a_new_version_waits_until_the_old_one_has_cleaned_up(
    site: Site, tmp_path: Path, autojump_clock: Any
) -> None:
    text = SCRIPT.format(version="N", call="request.site.background(tick)")
    text = text.replace(
        "finally:\n",
        "finally:\n        with trio.CancelScope(shield=True):\n            await trio.sleep(1)\n",
    )
    for version in "123":
        (tmp_path / "a.rpy").write_text(text.replace("N", version), encoding="utf-8")
        await ask(site, "/a")
        await trio.sleep(0.1)
        assert LOG == ["start 1"]
    await trio.sleep(5)
    assert LOG == ["start 1", "end 1", "start 3"], "the second has not even begun"


async def test_a_failing_version_leaves_the_old_one_at_work(site: Site, tmp_path: Path) -> None:
    text = SCRIPT.format(version=1, call="request.site.background(tick)")
    (tmp_path / "a.rpy").write_text(text, encoding="utf-8")
    assert await visited(site) == ["start 1"]
    (tmp_path / "a.rpy").write_text(text + "\n1 / 0\n", encoding="utf-8")
    assert await visited(site) == ["start 1"]


async def test_a_helper_that_changes_restarts_its_task(site: Site, tmp_path: Path) -> None:
    helper = (
        "import trio\nfrom tests.scripts.test_background import LOG\n"
        "from rpyserve import background\n\n"
    )
    helper += (
        "@background\nasync def tick():\n    LOG.append('start {}')\n"
        "    await trio.sleep_forever()\n"
    )
    (tmp_path / "helper.py").write_text(helper.format(1), encoding="utf-8")
    for name in ("a.rpy", "b.rpy"):
        text = "import helper\n\ndef resource(request):\n    return ''\n"
        (tmp_path / name).write_text(text, encoding="utf-8")
    await visited(site)
    assert await visited(site, "/b") == ["start 1"]
    (tmp_path / "helper.py").write_text(helper.format(2), encoding="utf-8")
    assert await visited(site) == ["start 1", "start 2"]
    assert [source.name for source in site.tasks.origins()] == ["helper"]
    (tmp_path / "helper.py").unlink()
    await visited(site)
    assert not site.tasks.origins()


async def test_a_script_that_is_deleted_takes_its_task_along(site: Site, tmp_path: Path) -> None:
    script = tmp_path / "a.rpy"
    script.write_text(
        SCRIPT.format(version=1, call="request.site.background(tick)"), encoding="utf-8"
    )
    await visited(site)
    script.unlink()
    site.root.scripts.refresh()  # type: ignore[attr-defined]
    await trio.testing.wait_all_tasks_blocked()
    assert LOG == ["start 1", "end 1"]


async def test_background_ends_with_the_site_and_its_failure_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended = []

    async def forever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    async def fail() -> None:
        raise ValueError("oops")

    site = Site(lambda request: "fine")
    site.background(forever)  # before it runs: it waits for that
    async with site.running():
        site.background(fail)
        await trio.testing.wait_all_tasks_blocked()
        assert (await Visitor(site).get("/")).text == "fine" and not ended
    assert ended
    assert "The background task" in caplog.text and "fail failed: ValueError: oops" in caplog.text


async def test_a_function_that_each_request_defines_anew_runs_once() -> None:
    LOG.clear()

    def resource(request: Request) -> str:
        async def tick() -> None:
            LOG.append("start")
            await trio.sleep_forever()

        request.site.background(tick)
        return ""

    async with Site(resource).running() as site:
        await visited(site, "/")
        assert await visited(site, "/") == ["start"]


class Feed:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self) -> None:
        LOG.append(f"start {self.name}")
        await trio.sleep_forever()


async def follow(name: str) -> None:
    await Feed(name)()


async def test_tasks_of_an_ordinary_module_run_beside_each_other(site: Site) -> None:
    for start in (Feed, partial(partial, follow)):
        LOG.clear()
        tasks = [start(name) for name in "ab"]
        for task in tasks * 2:
            site.background(task)
            await trio.testing.wait_all_tasks_blocked()
        assert LOG == ["start a", "start b"]


async def test_a_function_with_its_arguments_runs_once(site: Site, tmp_path: Path) -> None:
    text = "from functools import partial\n" + SCRIPT.replace("tick()", "tick(*numbers)")
    call = "for n in (1, 2): request.site.background(partial(tick, n))"
    (tmp_path / "a.rpy").write_text(text.format(version=1, call=call), encoding="utf-8")
    await visited(site)
    assert await visited(site) == ["start 1", "start 1"]


async def test_modules_of_one_name_of_two_sites_have_their_own_tasks(tmp_path: Path) -> None:
    LOG.clear()
    hosts = NameVirtualHost()
    for name in ("a.localhost", "b.localhost"):
        (tmp_path / name).mkdir()
        helper = SCRIPT.format(version=name, call="pass").replace(
            "async def tick", "@background\nasync def tick"
        )
        text = "from rpyserve import background\n" + helper
        (tmp_path / name / "helper.py").write_text(text, encoding="utf-8")
        (tmp_path / name / "index.rpy").write_text(
            "import helper\nresource = helper.resource\n", encoding="utf-8"
        )
        hosts.addHost(name, Directory(tmp_path / name))
    async with Site(hosts).running() as site:
        for name in ("a.localhost", "b.localhost"):
            await ask(site, "/", headers=[("Host", name)])
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(LOG) == ["start a.localhost", "start b.localhost"]


@pytest.mark.parametrize("call", ["import helper", "site.background(tick)"])
async def test_a_task_that_a_thread_starts(site: Site, tmp_path: Path, call: str) -> None:
    helper = SCRIPT.replace("async def tick", "@background\nasync def tick")
    helper = f"from rpyserve import background\n{helper}"
    script = f"""
import trio
from tests.scripts.test_background import LOG

async def tick():
    LOG.append("start {{version}}")
    await trio.sleep_forever()

def work(site):
    {call}

async def resource(request):
    await trio.to_thread.run_sync(work, request.site)
    return ""
"""
    for version in (1, 2):
        for name, text in (("helper.py", helper), ("a.rpy", script)):
            text = text.format(version=version, call="pass")
            (tmp_path / name).write_text(text, encoding="utf-8")
        assert (await ask(site, "/a")).status == 200
        await visited(site)
        assert [each for each in LOG if "start" in each] == [
            f"start {n + 1}" for n in range(version)
        ]
    if call == "import helper":
        assert sorted(LOG) == ["end 1", "start 1", "start 2"]


def test_background_outside_a_script() -> None:
    import rpyserve

    with pytest.raises(RuntimeError, match=r"request\.site\.background\(f\)"):
        rpyserve.background(logging.info)


# Tasks of one name

EVERY = """
import trio
from rpyserve import background
from tests.scripts.test_background import LOG

def every(seconds):
    def decorate(work):
        async def loop():
            while True:
                await work()
                await trio.sleep(seconds)
        background(loop)
        return work
    return decorate

@every(5)
async def feed():
    LOG.append("feed")

@every(10)
async def clean():
    LOG.append("clean")

for room in ["hall", "attic"]:
    @background
    async def heat(room=room):
        LOG.append(room)

for bell in [object(), object()]:
    @background
    async def ring(bell=bell):
        LOG.append("ring")

def resource(request):
    return ""
"""


@pytest.mark.parametrize("first", ["", "cache()\n"])
async def test_each_task_of_a_decorator_factory_or_a_loop_runs(
    site: Site, tmp_path: Path, first: str, autojump_clock: Any
) -> None:
    (tmp_path / "a.rpy").write_text(first + EVERY, encoding="utf-8")
    for _ in range(3):
        assert sorted(await visited(site)) == ["attic", "clean", "feed", "hall", "ring", "ring"]
    await trio.sleep(7)
    assert LOG.count("feed") == 2 and LOG.count("clean") == 1
    LOG.clear()
    text = EVERY.replace('"clean")', '"scrub")')
    (tmp_path / "a.rpy").write_text(first + text, encoding="utf-8")
    assert sorted(await visited(site)) == ["attic", "feed", "hall", "ring", "ring", "scrub"]
    await trio.sleep(11)
    assert "clean" not in LOG and LOG.count("feed") == 3, "the old tasks have ended"


async def test_a_task_for_each_of_the_things_that_a_request_names(
    site: Site, tmp_path: Path
) -> None:
    text = """
import trio
from tests.scripts.test_background import LOG

class Game:
    def __init__(self, name):
        self.name = name

    async def clock(self):
        LOG.append(self.name)

def resource(request):
    name = request.field("name")
    games = {}
    game = registry.setdefault(name, Game(name))

    async def announce():
        LOG.append(f"{name} is on, {request.path} {games}")

    request.site.background(game.clock)
    request.site.background(announce)
    return ""
"""
    (tmp_path / "a.rpy").write_text("cache()\n" + text, encoding="utf-8")
    for name in ("chess", "go", "chess", "go"):
        await visited(site, f"/a?name={name}")
    assert sorted(LOG) == ["chess", "chess is on, /a {}", "go", "go is on, /a {}"]


async def test_what_an_uncached_script_makes_anew_is_no_other_task(
    site: Site, tmp_path: Path
) -> None:
    helper = """
from rpyserve import Resource
from tests.scripts.test_background import LOG

class Page(Resource):
    async def tick(self):
        LOG.append("start")

    def render_GET(self, request):
        request.site.background(self.tick)
        return ""
"""
    (tmp_path / "helper.py").write_text(helper, encoding="utf-8")
    text = "import helper\nfrom rpyserve import background\nresource = helper.Page()\n"
    text += "background(helper.Page().tick)\n"
    (tmp_path / "a.rpy").write_text(text, encoding="utf-8")
    await visited(site)
    both = list(LOG)
    assert await visited(site) == both
    assert await visited(site) == both


async def test_what_has_ended_is_remembered_beside_many_that_run(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpyserve.scripts.background.MOST_ENDED", 10)
    ended = []

    async def deliver(mail: int) -> None:
        if mail >= 5:
            await trio.sleep_forever()
        ended.append(mail)

    for _ in range(2):
        for mail in range(20):
            site.background(partial(deliver, mail))
            await trio.testing.wait_all_tasks_blocked()
    assert ended == [0, 1, 2, 3, 4]


async def test_tasks_that_have_ended_are_forgotten_some_day(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpyserve.scripts.background.MOST_ENDED", 10)

    async def deliver(mail: int) -> None: ...

    for mail in range(50):
        site.background(partial(deliver, mail))
        await trio.testing.wait_all_tasks_blocked()
    assert len(site.tasks._tasks) <= 11


async def test_a_task_of_the_version_that_a_late_event_announces_goes_on(
    site: Site, tmp_path: Path
) -> None:
    def save(version: int) -> None:
        head = "from rpyserve import background\n"
        task = SCRIPT.format(version=f"{version}", call="pass").replace(
            "async def", "@background\nasync def"
        )
        (tmp_path / "helper.py").write_text(head + task, encoding="utf-8")
        script = head + "import helper\ncache()\n" + task.replace(f" {version}", f" {version} too")
        (tmp_path / "a.rpy").write_text(script, encoding="utf-8")

    scripts = site.root.scripts  # type: ignore[attr-defined]
    save(1)
    await visited(site)
    save(2)
    await visited(site)
    before = list(LOG)
    assert sorted(before[-2:]) == ["start 2", "start 2 too"]
    scripts.refresh()  # the watcher's event comes after the request
    for origin in site.tasks.origins():
        scripts.renew(origin)
    assert await visited(site) == before


# Tasks that do not end

SWALLOWING = """
import trio
from rpyserve import background
from tests.scripts.test_background import LOG
cache()

@background
async def tick():
    LOG.append("start VERSION")
    while True:
        try:
            await trio.sleep(1)
        except:
            LOG.append("swallowed")

def resource(request):
    return "VERSION"
"""
SHIELDED = """
import trio
from rpyserve import background
from tests.scripts.test_background import LOG
cache()

@background
async def tick():
    LOG.append("start VERSION")
    try:
        with trio.CancelScope(shield=True):
            while True:
                await trio.sleep(1)
    finally:
        LOG.append("end VERSION")

def resource(request):
    return "VERSION"
"""


def save_version(tmp_path: Path, text: str, version: int) -> None:
    (tmp_path / "a.rpy").write_text(text.replace("VERSION", str(version)), encoding="utf-8")


async def save_while_it_runs(site: Site, tmp_path: Path, text: str) -> None:
    """Start the task of version 1 of the script *text*, then save version 2 and visit it."""
    save_version(tmp_path, text, 1)
    await visited(site)
    save_version(tmp_path, text, 2)
    await ask(site, "/a")


async def test_a_task_that_swallows_its_cancellation_is_stopped_and_named(
    site: Site, tmp_path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await save_while_it_runs(site, tmp_path, SWALLOWING)
    await trio.sleep(0.5)
    assert LOG[-1] == "start 2" and LOG.count("swallowed") < 200
    [line] = caplog.messages
    assert "The background task tick of a.rpy did not end when it was cancelled" in line
    assert "`except Exception:`" in line
    await trio.sleep(10)
    assert LOG[-1] == "start 2", "the old one is not resumed any more"


async def test_a_shielded_task_is_named_then_stopped(
    site: Site, tmp_path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await save_while_it_runs(site, tmp_path, SHIELDED)
    await trio.sleep(2.5)
    [line] = caplog.messages
    assert "tick of a.rpy was cancelled 2 seconds ago and goes on" in line
    assert LOG == ["start 1"]
    await trio.sleep(4)
    assert LOG == ["start 1", "end 1", "start 2"]


@pytest.mark.parametrize("text", [SWALLOWING, SHIELDED])
async def test_no_task_holds_the_stop_beyond_its_grace(
    tmp_path: Path, text: str, autojump_clock: Any
) -> None:
    save_version(tmp_path, text, 1)
    async with Site(Directory(tmp_path)).running() as site:
        await ask(site, "/a")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
    assert trio.current_time() - began <= 7


async def test_one_that_swallows_within_a_scope_is_stopped_as_well(
    tmp_path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    text = SWALLOWING.replace(
        "            await trio.sleep(1)",
        "            with trio.move_on_after(9):\n                await trio.sleep(1)",
    )
    save_version(tmp_path, text, 1)
    async with Site(Directory(tmp_path)).running() as site:
        await ask(site, "/a")
        await trio.testing.wait_all_tasks_blocked()
    [line] = caplog.messages
    assert "did not end when it was cancelled" in line


async def test_one_with_a_nursery_is_named_and_a_new_version_starts_beside_it(
    site: Site, tmp_path: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
import trio
from rpyserve import background
from tests.scripts.test_background import LOG
cache()

async def stubborn():
    with trio.CancelScope(shield=True):
        await trio.sleep(VERSION00)

@background
async def tick():
    LOG.append("start VERSION")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stubborn)

def resource(request):
    return "VERSION"
"""
    save_version(tmp_path, text, 1)
    await visited(site)
    save_version(tmp_path, text, 2)
    await ask(site, "/a")
    await trio.sleep(8)
    assert LOG == ["start 1", "start 2"]
    assert len(caplog.messages) == 1 and "goes on" in caplog.text


async def test_a_task_of_a_request_that_swallows_its_cancellation_ends(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    turns = []

    async def spin() -> None:
        while True:
            try:
                await trio.sleep(1)
            except:  # noqa: E722
                turns.append(1)

    async def resource(request: Request) -> str:
        request.start_soon(spin)
        await trio.sleep(2)
        return "done"

    async with Site(resource).running() as site:
        assert (await ask(site, "/")).text == "done"
        await trio.sleep(1)
        assert len(turns) < 200
    assert "spin of GET / did not end" in caplog.text


SPINNER = """
import trio
from rpyserve import Request, Site


async def spin():
    while True:
        try:
            await trio.sleep(1)
        except:
            pass


def resource(request):
    request.start_soon(spin)
    return "done"


async def main():
    async with Site(resource).running() as site:
        request = Request("GET", "/")
        await site.respond(request)
        await trio.sleep(0.1)
        request.close()
        await trio.sleep(0.1)


trio.run(main)
print("over")
"""


def test_what_was_stopped_by_force_does_not_go_on_at_the_end_of_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPINNER], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
    assert "stopped by force" in done.stderr


async def test_a_decorator_factory_in_a_helper(
    site: Site, tmp_path: Path, autojump_clock: Any
) -> None:
    head = EVERY[: EVERY.index("@every(5)")]
    (tmp_path / "helper.py").write_text(head, encoding="utf-8")
    text = EVERY[EVERY.index("@every(5)") : EVERY.index("for room")] + "\nresource = str\n"
    text = "from helper import every, LOG\ncache()\n" + text
    text = text.replace("resource = str", "def resource(request):\n    return ''")
    (tmp_path / "a.rpy").write_text(text, encoding="utf-8")
    assert sorted(await visited(site)) == ["clean", "feed"]
    LOG.clear()
    (tmp_path / "a.rpy").write_text(text.replace('"clean")', '"scrub")'), encoding="utf-8")
    assert sorted(await visited(site)) == ["feed", "scrub"]
    await trio.sleep(11)
    assert sorted(LOG) == ["feed", "feed", "feed", "scrub", "scrub"]


async def test_the_page_of_a_helpers_class_has_its_task_anew_after_an_edit(
    site: Site, tmp_path: Path
) -> None:
    helper = SCRIPT.format(version="{self.text}", call="request.site.background(self.tick)")
    helper = helper.replace('"start', 'f"start').replace('"end', 'f"end').replace("()", "(self)", 1)
    at = helper.index("async def")
    body = helper[at:].replace("resource(", "render_GET(self, ").replace("\n", "\n    ")
    helper = helper[:at] + (
        "from rpyserve import Resource\n\nclass Page(Resource):\n"
        f"    def __init__(self, text):\n        self.text = text\n\n    {body}\n"
    )
    (tmp_path / "helper.py").write_text(helper, encoding="utf-8")
    for version in "12":
        text = f"import helper\ncache()\nresource = helper.Page('{version}')\n"
        (tmp_path / "a.rpy").write_text(text, encoding="utf-8")
        await visited(site)
        await visited(site)
    assert LOG == ["start 1", "end 1", "start 2"]


# Threads


@pytest.mark.parametrize("first", ["", "cache()\n"])
@pytest.mark.parametrize("is_module", [False, True])
async def test_threads_that_multiply_are_named_once_for_each_version(
    site: Site, tmp_path: Path, first: str, is_module: bool, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
import threading
from rpyserve import registry

def poll(end):
    end.wait()

end = threading.Event()
registry.setdefault("ends", []).append(end)
threading.Thread(target=poll, args=[end]).start()
edited = 0
"""
    page = "def resource(request):\n    return ''\n"
    try:
        for version in range(3):
            code = text.replace("edited = 0", f"edited = {version}")
            if is_module:
                (tmp_path / "helper.py").write_text(code, encoding="utf-8")
                code = "import helper\n"
            (tmp_path / "a.rpy").write_text(first + code + page, encoding="utf-8")
            await visited(site)
            await visited(site)
    finally:
        for end in site.registry["ends"]:
            end.set()
    lines = [message for message in caplog.messages if "started threads again" in message]
    uncached = not first and not is_module
    assert len(lines) == (3 if uncached else 2)
    assert "(poll)" in lines[0] and "@background" in lines[0]
    assert lines[0].startswith("helper.py was" if is_module else "a.rpy was")


async def test_threads_that_multiply_while_another_one_ends(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
import threading
if "other" in registry:
    registry["end"].set()
    registry["other"].join()
threading.Thread(target=registry["last"].wait, name="mine").start()

def resource(request):
    return ""
"""
    (tmp_path / "a.rpy").write_text(text, encoding="utf-8")
    end, last = site.registry["end"], site.registry["last"] = threading.Event(), threading.Event()
    await visited(site)
    other = site.registry["other"] = threading.Thread(target=end.wait)
    other.start()
    await visited(site)
    last.set()
    assert "while those of earlier executions still run: mine." in caplog.text


async def test_a_thread_that_is_started_once_is_not_named(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
import threading
cache()
if "end" not in registry:
    registry["end"] = threading.Event()
    threading.Thread(target=registry["end"].wait).start()

def resource(request):
    return "0"
"""
    for version in range(3):
        (tmp_path / "a.rpy").write_text(text.replace("0", str(version)), encoding="utf-8")
        await visited(site)
    site.registry["end"].set()
    assert not caplog.messages


# Jobs


async def test_each_call_with_arguments_is_a_job(autojump_clock: Any) -> None:
    async def double(number: int) -> int:
        current_job().progress = 0.5
        await trio.sleep(1)
        return 2 * number

    async with Site(lambda request: "").running() as site:
        jobs = [site.background(double, number) for number in (1, 1, 2)]
        assert {job.state for job in jobs} == {"waiting"}
        await trio.sleep(0.5)
        assert [(job.state, job.progress, job.result) for job in jobs] == [
            ("running", 0.5, None)
        ] * 3
        assert [await job for job in jobs] == [2, 2, 4]
        assert {(job.state, job.ended) for job in jobs} == {("done", True)}
        assert repr(jobs[0]).endswith("double, done>")
        assert not site.tasks._jobs


async def test_a_plain_function_is_a_job_in_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    begun = threading.Event()

    def work(number: int) -> str:
        current_job().progress = number
        begun.set()
        return threading.current_thread().name

    def fail(message: str) -> None:
        raise ValueError(message)

    async with Site(lambda request: "").running() as site:
        job = site.background(work, 7)
        assert await job != threading.current_thread().name
        assert job.progress == 7
        failed = site.background(fail, "oops")
        await failed.wait()
        assert (failed.state, repr(failed.error)) == ("failed", "ValueError('oops')")
        with pytest.raises(ValueError, match="oops"):
            await failed
    assert "fail failed: ValueError: oops" in caplog.text


@pytest.mark.parametrize("kind", ["async", "plain", "waiting"])
async def test_a_job_that_is_cancelled(kind: str) -> None:
    begun, cleaned = threading.Event(), []

    async def sleep(forever: bool) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    def loop(forever: bool) -> None:
        begun.set()
        while forever:
            pass

    def work(forever: bool) -> None:
        try:
            loop(forever)  # CPython 3.13 takes the jump of a loop for outside of a `try` around it
        finally:
            cleaned.append(True)

    async with Site(lambda request: "").running() as site:
        job = site.background(sleep if kind == "async" else work, True)
        if kind == "waiting":
            job.cancel()
        else:
            await trio.to_thread.run_sync(begun.wait)
            await trio.to_thread.run_sync(job.cancel)  # from anywhere
        await job.wait()
        assert job.state == "cancelled"
        assert cleaned == [True] * (kind != "waiting")
        with pytest.raises(RuntimeError, match="was cancelled"):
            await job


async def test_jobs_end_with_the_site() -> None:
    async with Site(lambda request: "").running() as site:
        job = site.background(trio.sleep, 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert job.state == "running"
    assert job.state == "cancelled"


def test_no_job_here() -> None:
    with pytest.raises(RuntimeError, match=r"site\.background\(\) runs"):
        current_job()


async def test_a_job_cannot_be_pickled() -> None:
    async with Site(lambda request: "").running() as site:
        job = site.background(trio.sleep, 0)
        with pytest.raises(TypeError, match="keep its result"):
            pickle.dumps(job)


async def test_without_arguments_the_job_is_that_of_this_version(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> str:
        return "done"

    async with Site(lambda request: "").running() as site:
        first = site.background(work)
        assert site.background(work) is first
        assert not caplog.records
        assert await first == "done"
        assert site.background(work) is first
        assert site.background(work) is first
    (line,) = [record.getMessage() for record in caplog.records]
    assert "work has run already, so calling site.background(" in line
    assert "work, x), and each call starts it." in line


JOB = """
import trio
from tests.scripts.test_background import LOG

async def work(number):
    LOG.append(f"start {{number}} of {version}")
    await trio.sleep(1)
    LOG.append(f"end {{number}} of {version}")

def resource(request):
    registry["job"] = request.site.background(work, int(request.field("n")))
    return ""
"""


@pytest.mark.parametrize("first", ["", "cache()\n"])
async def test_an_edit_does_not_disturb_jobs_and_deleting_the_script_ends_them(
    site: Site, tmp_path: Path, first: str, autojump_clock: Any
) -> None:
    script = tmp_path / "a.rpy"
    script.write_text(first + JOB.format(version=1), encoding="utf-8")
    await ask(site, "/a?n=1")
    await ask(site, "/a?n=1")
    await trio.sleep(0.1)
    script.write_text(first + JOB.format(version=2), encoding="utf-8")
    await ask(site, "/a?n=2")
    await trio.sleep(2)
    starts = ["start 1 of 1", "start 1 of 1", "start 2 of 2"]
    assert [*starts, *(line.replace("start", "end") for line in starts)] == LOG
    await ask(site, "/a?n=3")
    await trio.sleep(0.1)
    script.unlink()
    site.root.scripts.refresh()  # type: ignore[attr-defined]
    await trio.sleep(2)
    assert LOG[6:] == ["start 3 of 2"]
    assert site.registry["job"].state == "cancelled"


async def test_the_result_of_a_job_is_brought_up_to_date(tmp_path: Path) -> None:
    page = (
        "async def work(kind):\n    return kind()\n"
        "async def resource(request):\n    s = request.getSession()\n"
        "    if 'job' not in s: s['job'] = request.site.background(work, Thing)\n"
        "    return str((await s['job']).text())\n"
    )
    async with Editing.at(tmp_path) as editing:
        for version in "12":
            editing.save(f"class Thing:\n    def text(self): return {version}\n{page}")
            assert await editing.get() == version


async def test_a_task_that_a_redirect_ends_is_told(
    caplog: pytest.LogCaptureFixture, autojump_clock: Any
) -> None:
    ended = []

    async def work() -> None:
        try:
            await trio.sleep(1)
        finally:
            ended.append(trio.current_time())

    def resource(request: Request) -> Any:
        request.start_soon(work)
        return Redirect("/elsewhere")

    async with Site(resource).running() as site:
        for _ in range(2):
            assert (await ask(site, "/", method="POST")).status == 303
            await trio.testing.wait_all_tasks_blocked()
    assert len([line for line in caplog.messages if "that was a redirect" in line]) == 1
