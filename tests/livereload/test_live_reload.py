"""From a save to the pages that follow; the watch is played by the test."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from rpyserve import BasicAuth, Directory, NameVirtualHost, Resource, Site, cors
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.livereload.change_feed import MAX_CONNECTIONS
from rpyserve.livereload.change_feed import Answer as PageAnswer
from rpyserve.livereload.changes import NOTHING, PageChange
from rpyserve.livereload.live_reload import (
    ADDED,
    CHANGED,
    DELETED,
    FULL_TIMEOUT,
    MAX_PAUSES,
    SHOWING_TIMEOUT,
    TRIAL_PAUSE,
    LiveReload,
    directories_in,
    reload_line,
    seconds_since_save,
)
from rpyserve.livereload.snapshot import Snapshot
from rpyserve.livereload.write_loops import MAX_RELOADS
from tests.support.in_process import Answer, read

Said = Callable[[], Awaitable[list[str]]]


class Play:
    """A site that is being followed, and an author who saves."""

    def __init__(
        self, root: Path, live_reload: LiveReload, respond: Callable[[Request], Any]
    ) -> None:
        self.root = root
        self.live_reload = live_reload
        self.respond = respond
        self.tell: Callable[[Any], object] = lambda batch: None
        self.snapshot = Snapshot([str(root)])
        self.snapshot.scan()
        self.cursor = live_reload.feed.cursor
        self.answer: PageAnswer | None = None

    def write(self, name: str, text: str = "x") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def noticed(self) -> PageChange:
        """Have the watch notice what was saved; return what pages are told."""
        self.tell(self.snapshot.scan())
        return self.told()

    def told(self) -> PageChange:
        """What pages are told that they have not been told before."""
        if self.answer:
            self.live_reload.feed.take_answer("tab", self.live_reload.feed.cursor, self.answer)
        changes, self.cursor = (
            self.live_reload.feed.since(self.cursor),
            self.live_reload.feed.cursor,
        )
        assert changes is not None and changes.keys() <= {str(self.root)}
        return changes.get(str(self.root), NOTHING)

    def save(self, name: str, text: str = "x") -> PageChange:
        self.write(name, text)
        return self.noticed()

    async def get(self, target: str, **headers: str) -> Answer:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        request = Request("GET", target, raw)
        try:
            return await read(await self.respond(request))
        finally:
            request.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = Path(os.path.realpath(tmp_path))
    (path / "a.rpy").write_text("cache()\nimport words\nresource = lambda request: words.WORD\n")
    (path / "words.py").write_text("WORD = 'one'\n")
    (path / "style.css").write_text("p {}")
    return path


@pytest.fixture
async def play(
    root: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Play]:
    async def watch(
        roots: list[str], tell: Any, *, task_status: trio.TaskStatus[None], **options: Any
    ) -> None:
        assert roots == [str(root)]
        play.tell = tell
        task_status.started()
        await trio.sleep_forever()

    monkeypatch.setattr("rpyserve.livereload.watcher.watch", watch)
    site = Site(Directory(root))
    live_reload = LiveReload(site)
    play = Play(root, live_reload, live_reload.wrap(site.respond))
    async with site.running():
        await nursery.start(live_reload.run)
        yield play


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    caplog.set_level(logging.INFO, "rpyserve")

    async def said() -> list[str]:
        await trio.testing.wait_all_tasks_blocked()
        lines = [re.sub(r"\(\d+ ms\)", "(n ms)", record.getMessage()) for record in caplog.records]
        caplog.clear()
        return lines

    return said


@pytest.fixture
def page(play: Play) -> Iterator[None]:
    """A page that listens, and says at once that it shows each change."""
    play.answer = PageAnswer(shown=1)
    with play.live_reload.feed.subscribed("browser", name="tab", shared=True):
        yield


async def test_the_code_is_fresh_before_pages_are_told(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    scripts = play.live_reload._directories[0].scripts
    monkeypatch.setattr(scripts, "refresh", lambda: order.append("refresh"))
    publish = play.live_reload.feed.publish
    monkeypatch.setattr(
        play.live_reload.feed, "publish", lambda *args: order.append("publish") or publish(*args)
    )
    play.save("a.rpy")
    assert order == ["refresh", "publish"]


async def test_after_each_kind_of_save_a_request_gets_the_new(play: Play) -> None:
    assert (await play.get("/a")).text == "one"
    assert play.save("words.py", "WORD = 'two'\n") == PageChange(all=True)
    assert (await play.get("/a")).text == "two"
    assert play.save("a.rpy", "cache()\nresource = lambda request: 'three'\n") == PageChange(
        frozenset({"/a.rpy"})
    )
    assert (await play.get("/a")).text == "three"
    assert play.save("style.css", "b {}") == PageChange(frozenset({"/style.css"}), data=True)
    assert (await play.get("/style.css")).text == "b {}"


async def test_each_saved_file_is_classified_once(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    kind_of = play.live_reload._mounts.kind_of
    monkeypatch.setattr(
        play.live_reload._mounts, "kind_of", lambda path: asked.append(path) or kind_of(path)
    )
    for name in ("a.rpy", "words.py", "new.css", "a.rpy~"):
        play.write(name)
    play.noticed()
    assert sorted(Path(path).name for path in asked) == ["a.rpy", "a.rpy~", "new.css", "words.py"]


async def test_what_a_page_is_told_fits_its_tag(play: Play) -> None:
    answer = await play.get("/a", sec_fetch_dest="document")
    match = re.search(r'data-rpyserve="(.*?)" data-sources="(.*?)"', answer.text)
    assert match
    assert match[1] == play.cursor
    assert play.save("a.rpy").urls == {match[2]} == {"/a.rpy"}


async def test_the_line_for_each_reload(play: Play, page: None, said: Said) -> None:
    await play.get("/a")
    await said()
    play.save("a.rpy")
    play.save("words.py", "WORD = 1")
    play.save("style.css", "i {}")
    play.save("new.rpy")
    (play.root / "style.css").unlink()
    play.noticed()
    assert await said() == [
        "a.rpy changed, 1 page updated (n ms)",
        "words.py changed, all scripts run again, 1 page updated (n ms)",
        "style.css changed, 1 page updated (n ms)",
        "new.rpy added, 1 page updated (n ms)",
        "style.css deleted, 1 page updated (n ms)",
    ]


async def test_a_hundred_files_are_one_line(play: Play, page: None, said: Said) -> None:
    for n in range(100):
        play.write(f"f{n:02}.css")
    change = play.noticed()
    assert len(change.urls) == 101 and "/" in change.urls
    assert await said() == ["f00.css, f01.css, f02.css and 97 more added, 1 page updated (n ms)"]


async def test_a_directory_that_is_renamed_is_named_itself(
    play: Play, page: None, said: Said
) -> None:
    play.write("pics/a.png")
    play.write("pics/b.png")
    play.noticed()
    await said()
    (play.root / "pics").rename(play.root / "images")
    change = play.noticed()
    assert change.urls == {
        "/", "/pics/", "/images/", "/pics/a.png", "/pics/b.png", "/images/a.png", "/images/b.png",
    }  # fmt: skip
    assert await said() == ["images/, pics/ changed, 1 page updated (n ms)"]


async def test_without_pages_only_code_is_worth_a_line(play: Play, said: Said) -> None:
    play.save("a.rpy")
    play.save("style.css", "i {}")
    assert await said() == ["a.rpy changed (n ms)"]


@pytest.mark.parametrize(
    "name",
    [".a.rpy.swp", "a.rpy~", "#a.rpy#", "x.tmp", "x.pyc", "site.db-journal", "visits.log", ".env"],
)
async def test_what_is_none_of_the_sites_is_told_to_nobody(
    play: Play, page: None, said: Said, name: str
) -> None:
    assert not play.save(name)
    assert not await said() and play.live_reload.feed.number == 0


COUNT = """\
from pathlib import Path
def resource(request):
    path = Path({path!r})
    path.write_text(str(int(path.read_text()) + 1))
    return path.read_text()
"""


async def test_what_a_page_writes_itself(
    play: Play, page: None, said: Said, autojump_clock: object
) -> None:
    play.write("count.txt", "0")
    play.write("count.rpy", COUNT.format(path=str(play.root / "count.txt")))
    play.noticed()
    await said()
    await play.get("/count", sec_fetch_dest="document")
    assert play.noticed() == PageChange(frozenset({"/count.txt"}), data=True)
    rounds = 0
    while rounds < 20:  # two or three: so soon after the first request, it may also have been that
        await play.get("/count", rpyserve_follow="1")
        if not play.noticed():
            break
        rounds += 1
    assert rounds < 20
    await trio.sleep(2 * MAX_PAUSES * TRIAL_PAUSE)
    assert play.told() == PageChange(frozenset({"/count.txt"}), data=True), "on trial"
    lines = {line for line in await said() if line.startswith("count.txt")}
    assert lines == {"count.txt changed, 1 page updated (n ms)"}
    await play.get("/count", rpyserve_follow="1")
    assert not play.noticed()
    await play.get("/count", sec_fetch_dest="document")
    assert not play.noticed()
    await trio.sleep(2 * MAX_PAUSES * TRIAL_PAUSE)
    assert not play.told()
    assert [line for line in await said() if line.startswith("count.txt")] == [
        "count.txt changes whenever a page is loaded, so a script must be writing it. Live reload "
        "ignores it until you save it yourself. Scripts should write files outside the site.",
    ]


async def test_a_page_is_told_which_changes_its_requests_have_caused(play: Play) -> None:
    play.write("count.txt", "0")
    play.write("count.rpy", COUNT.format(path=str(play.root / "count.txt")))
    play.noticed()
    start = play.cursor
    await play.get("/count", user_agent="one")
    play.noticed()
    for agent, known in (("one", True), ("other", False)):
        answer = await play.get(f"/-/events?once&since={start}", user_agent=agent)
        assert ("by" in json.loads(answer.text)["change"]) is known
    start = play.cursor
    play.write("helper.py")
    await play.get("/count", user_agent="one")
    play.noticed()
    answer = await play.get(f"/-/events?once&since={start}", user_agent="one")
    assert "by" not in json.loads(answer.text)["change"], "an author has saved something as well"


async def test_a_page_that_reloads_because_of_its_own_requests_is_stopped(
    play: Play, page: None, said: Said
) -> None:
    play.write("count.txt", "0")
    play.write("count.rpy", COUNT.format(path=str(play.root / "count.txt")))
    play.noticed()
    await said()
    rounds = 0
    while rounds < 20:
        await play.get("/count")  # as its script fetches it
        if not play.noticed():
            break
        await play.get(f"/-/events?once&reloaded&page=/page&since={play.cursor}")
        rounds += 1
    assert rounds == MAX_RELOADS + 1
    warnings = [line for line in await said() if "whenever" in line]
    assert len(warnings) == 1 and warnings[0].startswith("count.txt changes")


# The line for each reload


async def test_the_line_waits_for_the_page_to_show_it(
    play: Play, page: None, said: Said, autojump_clock: object
) -> None:
    play.answer = None
    play.save("a.rpy")
    play.save("style.css", "i {}")
    assert await said() == []
    feed = play.live_reload.feed
    feed.take_answer("tab", feed.cursor, PageAnswer(loading=1))
    assert await said() == []
    await play.get(f"/-/events?once&reloaded&since={feed.cursor}")
    assert await said() == [
        "a.rpy changed, 1 page updated (n ms)",
        "style.css changed, 1 page updated (n ms)",
    ]


async def test_the_line_says_what_is_known_when_it_is_due(
    play: Play, page: None, said: Said, autojump_clock: object
) -> None:
    play.answer = None
    play.save("a.rpy")
    await trio.sleep(SHOWING_TIMEOUT + 0.1)
    assert await said() == ["a.rpy changed (n ms)"], "the page is frozen"
    play.answer = PageAnswer(tabs=2, shown=1, loading=1)
    play.save("a.rpy", "y")
    await trio.sleep(SHOWING_TIMEOUT + 0.1)
    assert await said() == ["a.rpy changed, 1 page updated, 1 page still loading (n ms)"]
    play.answer = PageAnswer(unchanged=1)
    play.save("a.rpy", "z")
    play.save("style.css", "b {}")
    assert await said() == ["a.rpy changed (n ms)"], "the page does not use the stylesheet"


STREAM = """\
from rpyserve import Response
import trio

async def events():
    yield "data: one\\n\\n"
    await trio.sleep_forever()

def resource(request):
    return Response(events(), headers={"Content-Type": "text/event-stream"})
"""


async def test_a_site_whose_streams_use_up_all_connections(
    play: Play, said: Said, autojump_clock: object
) -> None:
    play.save("chat.rpy", STREAM)
    await said()

    async def open_streams(number: int) -> list[Request]:
        requests = [Request("GET", "/chat", [(b"user-agent", b"one")]) for _ in range(number)]
        for request in requests:
            await play.respond(request)
        return requests

    async def has_room() -> bool:
        asked = await play.get("/-/events?once&shared", user_agent="one")
        return json.loads(asked.text)["room"] is True

    first = await open_streams(MAX_CONNECTIONS - 1)
    (replaced,) = await open_streams(1)
    replaced.close()
    await trio.sleep(2 * FULL_TIMEOUT)
    assert await said() == [] and not await has_room()
    more = await open_streams(2)
    await trio.sleep(2 * FULL_TIMEOUT)
    (warning,) = await said()
    assert warning.startswith("A browser has 6 event streams of this site open. ")
    for request in first + more:
        request.close()
    assert await has_room()


async def test_a_policy_is_told_of_once_a_page(play: Play, said: Said) -> None:
    play.save(
        "strict.rpy",
        "from rpyserve import Response\n"
        "headers = {'Content-Security-Policy': \"script-src 'none'\"}\n"
        "resource = lambda request: Response('x', headers=headers)\n",
    )
    await said()
    for _ in range(2):
        assert (await play.get("/strict", sec_fetch_dest="document")).text == "x"
    assert await said() == [
        "Live reload is off for /strict, because its Content-Security-Policy says "
        "\"script-src 'none'\". To turn it on, allow 'self' in script-src and connect-src."
    ]


async def test_ours_and_the_sites(play: Play) -> None:
    assert (await play.get("/-/follow.js")).status == 200
    assert (await play.get("/-/nothing")).status == 404
    play.live_reload.stop()
    assert (await play.get("/-/events", host="localhost", origin="http://localhost")).status == 200
    assert (await play.get("/-/events", host="localhost", origin="http://other")).status == 403


@pytest.mark.parametrize(
    "path", ["/", "/-", "/x/-/events", "/%2D/events", "/-x/events", "//-/events"]
)
async def test_all_else_is_the_sites(play: Play, path: str) -> None:
    async def respond(request: Request) -> Response:
        return Response("the site's")

    request = Request("GET", path)
    assert (await play.live_reload.wrap(respond)(request)).body == b"the site's"
    assert request._logged


async def test_what_is_ours_is_not_logged(play: Play) -> None:
    request = Request("HEAD", "/-/events?since=1")
    assert (await play.respond(request)).status == 200
    assert not request._logged


async def test_a_directory_of_our_name_is_told_of(
    root: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch(*args: Any, **options: Any) -> None:
        return

    monkeypatch.setattr("rpyserve.livereload.watcher.watch", watch)
    await LiveReload(Site(Directory(root))).run()
    assert not await said()
    os.mkdir(root / "-")
    await LiveReload(Site(Directory(root))).run()
    (line,) = await said()
    assert "--no-reload" in line


async def test_many_streams_end_with_the_server(play: Play, autojump_clock: object) -> None:
    ended = 0

    async def listen(browser: int) -> None:
        nonlocal ended
        await play.get("/-/events?since=x", user_agent=str(browser))
        ended += 1

    async with trio.open_nursery() as nursery:
        for browser in range(50):
            nursery.start_soon(listen, browser)
        await trio.testing.wait_all_tasks_blocked()
        assert play.live_reload.feed.statistics().subscribers == 50
        start = trio.current_time()
        play.live_reload.stop()
    assert ended == 50 and trio.current_time() == start


def test_directories_in_a_tree(tmp_path: Path) -> None:
    root, branch = Resource(), Resource()
    assert list(directories_in(root)) == []
    files = Directory(tmp_path)
    root.putChild("über uns", branch)
    branch.putChild("files", files)
    assert list(directories_in(root)) == [(files, "/%C3%BCber%20uns/files/")]
    assert list(directories_in(files)) == [(files, "/")]
    branch.putChild("round", root)
    assert len(list(directories_in(root))) == 1
    branch.putChild("again", files)
    assert {prefix for _, prefix in directories_in(branch)} == {"/files/", "/again/"}
    files.putChild("round", files)
    assert len(list(directories_in(branch))) == 3


def test_directories_inside_other_resources(tmp_path: Path) -> None:
    one, two, three = (Directory(tmp_path) for _ in range(3))
    hosts = NameVirtualHost(one)
    hosts.addHost("two.example", cors(two))
    hosts.addHost("three.example", BasicAuth(three, {"ada": "secret"}))
    assert {directory for directory, _ in directories_in(hosts)} == {one, two, three}
    assert {prefix for _, prefix in directories_in(hosts)} == {"/"}


async def test_a_page_of_another_run_is_told_that_it_may_be_another(play: Play) -> None:
    assert play.live_reload.feed.since("0123-4") is None


LOG: list[str] = []

TICKING = """from rpyserve import background
import trio
from tests.livereload.test_live_reload import LOG

{decorator}
async def tick():
    LOG.append("start {version}")
    try:
        await trio.sleep_forever()
    finally:
        LOG.append("end {version}")

def resource(request):
    {call}
    return ""
"""


def ticking(version: object, *, decorator: str = "@background", call: str = "pass") -> str:
    return TICKING.format(version=version, decorator=decorator, call=call)


async def logged() -> list[str]:
    await trio.testing.wait_all_tasks_blocked()
    lines = sorted(LOG)
    LOG.clear()
    return lines


@pytest.mark.parametrize("first", ["", "cache()\n"])
async def test_an_edit_restarts_background_tasks_without_a_visit(
    first: str, play: Play, said: Said
) -> None:
    LOG.clear()
    play.save("tick.rpy", first + ticking(1))
    assert await logged() == [], "nobody has asked for it yet"
    await play.get("/tick")
    assert await logged() == ["start 1"]
    play.save("tick.rpy", first + ticking(2))
    assert await logged() == ["end 1", "start 2"]
    play.save("style.css")
    await play.get("/tick")
    assert await logged() == []
    await said()
    play.save("tick.rpy", first + ticking(3) + "1 / 0\n")
    play.save("style.css", "i {}")
    assert await logged() == []
    told = [line for line in await said() if "ZeroDivisionError" in line]
    assert len(told) == 1 and told[0].startswith(
        "tick.rpy (its background task goes on unchanged): "
    )
    play.save("tick.rpy", first + ticking(3, decorator=""))
    assert await logged() == ["end 2"], "the edit has removed it"
    assert not play.live_reload._site.tasks.origins()


async def test_an_edit_of_a_module_restarts_its_tasks_and_those_of_its_importers(
    play: Play, said: Said
) -> None:
    LOG.clear()
    play.save("helper.py", ticking("helper 1"))
    play.save("tick.rpy", "import helper\n" + ticking("script"))
    await play.get("/tick")
    assert await logged() == ["start helper 1", "start script"]
    play.save("helper.py", ticking("helper 2"))
    assert await logged() == ["end helper 1", "end script", "start helper 2", "start script"]
    for kind in ("SystemExit", "GeneratorExit"):
        play.save("helper.py", f"raise {kind}")
        assert await logged() == []
        assert any([kind in line for line in await said()])
    (play.root / "helper.py").unlink()
    play.noticed()
    assert await logged() == ["end helper 2"]


async def test_an_edit_cancels_what_a_method_has_started_until_it_is_called_again(
    play: Play,
) -> None:
    LOG.clear()
    for version in (1, 2):
        play.save("tick.rpy", ticking(version, decorator="", call="request.site.background(tick)"))
        assert await logged() == ["end 1"][: version - 1]
        await play.get("/tick")
        assert await logged() == [f"start {version}"]


@pytest.mark.parametrize("first", ["", "cache()\n"])
@pytest.mark.parametrize("call", ["request.site.background(tick)", "pass"])
async def test_a_task_goes_on_if_a_request_comes_before_the_watch(
    first: str, call: str, play: Play
) -> None:
    LOG.clear()
    decorator = "@background" if call == "pass" else ""
    for version in (1, 2):
        play.write("tick.rpy", first + ticking(version, decorator=decorator, call=call))
        await play.get("/tick")
        assert await logged() == [*["end 1"][: version - 1], f"start {version}"]
        play.noticed()
        await play.get("/tick")
        assert await logged() == []


async def test_a_file_is_executed_once_for_each_save_if_a_request_comes_before_the_watch(
    play: Play,
) -> None:
    LOG.clear()
    executed = "from tests.livereload.test_live_reload import LOG\nLOG.append({!r})\n"
    script = "cache()\nimport helper\n{}resource = lambda request: ''\n"
    play.write("helper.py", executed.format("helper 1") + ticking("helper 1"))
    play.write("b.rpy", script.format(executed.format("script 1")))
    await play.get("/b")
    play.noticed()
    await play.get("/b")
    assert await logged() == ["helper 1", "script 1", "start helper 1"]
    play.write("b.rpy", script.format(executed.format("script 2")))
    await play.get("/b")
    play.noticed()
    await play.get("/b")
    assert await logged() == ["script 2"]
    play.write("helper.py", executed.format("helper 2") + ticking("helper 2"))
    await play.get("/b")
    play.noticed()
    await play.get("/b")
    assert await logged() == ["end helper 1", "helper 2", "script 2", "start helper 2"]


def line(
    files: dict[str, str], pages: int = 0, loading: int = 0, *, all_scripts: bool = False
) -> str:
    return reload_line(files, pages=pages, loading=loading, all_scripts=all_scripts, seconds=0.0084)


def test_one_file() -> None:
    assert line({"a.rpy": CHANGED}) == "a.rpy changed (8 ms)"
    assert line({"a.rpy": ADDED}) == "a.rpy added (8 ms)"
    assert line({"a.rpy": DELETED}) == "a.rpy deleted (8 ms)"


def test_how_many_pages_are_told() -> None:
    assert line({"a.rpy": CHANGED}, 1) == "a.rpy changed, 1 page updated (8 ms)"
    assert line({"a.rpy": CHANGED}, 2) == "a.rpy changed, 2 pages updated (8 ms)"
    assert line({"a.rpy": CHANGED}, 0, 2) == "a.rpy changed, 2 pages still loading (8 ms)"


def test_a_module() -> None:
    assert (
        line({"words.py": CHANGED}, all_scripts=True)
        == "words.py changed, all scripts run again (8 ms)"
    )
    assert line({"words.py": CHANGED}, 2, all_scripts=True) == (
        "words.py changed, all scripts run again, 2 pages updated (8 ms)"
    )


def test_many_files() -> None:
    assert line({"b": ADDED, "a": ADDED}) == "a, b added (8 ms)"
    assert line({"b": ADDED, "a": DELETED, "c": CHANGED}) == "a, b, c changed (8 ms)"
    assert (
        line({f"f{n:03}": CHANGED for n in range(100)})
        == "f000, f001, f002 and 97 more changed (8 ms)"
    )


@pytest.mark.parametrize(
    ("saved", "seconds"),
    [([99.9], 0.1), ([98.0, 99.8], 0.2), ([0], 0.01), ([], 0.01), ([50.0], 0.01), ([200.0], 0.01)],
    ids=["just now", "the last one", "unknown", "no file", "long ago", "another clock"],
)
def test_how_long_it_took(saved: list[float], seconds: float) -> None:
    assert seconds_since_save(saved, 99.99, 100.0) == pytest.approx(seconds)
