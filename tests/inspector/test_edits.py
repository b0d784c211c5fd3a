"""Receipts of edits: what is put down to which, when one has settled, and what it says."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import math
import os
import re
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from rpyserve import Directory, Site
from rpyserve.http.request import Request
from rpyserve.inspector.edit import Edit
from rpyserve.inspector.edit_views import LONGEST_WAIT, MAX_ITEMS
from rpyserve.inspector.edits import MAX_RECEIPTS, Edits, Forgotten
from rpyserve.inspector.recorder import Recorder
from rpyserve.livereload.change_feed import Answer, ChangeFeed
from rpyserve.livereload.live_reload import LiveReload
from rpyserve.livereload.snapshot import Snapshot
from rpyserve.serving.notices import check_silently
from rpyserve.serving.run import _inspect
from tests.support.in_process import read

COUNTER = """\
cache()
class Counter:
    def __init__(self):
        self.value = 0
def resource(request):
    session = request.getSession()
    session["counter"] = session.get("counter") or Counter()
    session["counter"].value += 1
    return f"{session['counter'].value}"
"""


class Play:
    """A site with receipts, an author who saves, and visitors."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.site = Site(Directory(root))
        self.live_reload = LiveReload(self.site)
        self.edits = Edits(self.live_reload.roots, self.live_reload.name_of, check_silently)
        self.live_reload.edits = lambda: self.edits
        self.recorder = Recorder()
        self.askers = 0
        inspect = _inspect(
            self.site, self.recorder, ChangeFeed(), "a-token", dict, self, lambda: self.edits
        )
        self.respond = self.live_reload.wrap(self.site.respond, inspect)
        self.snapshot = Snapshot([str(root)])
        self.snapshot.scan()
        self.tell: Any = None
        self.cookie = ""
        self.tabs = 0

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def notice(self) -> None:
        if batch := self.snapshot.scan():
            self.tell(batch)

    async def wait_look(self, seconds: float) -> bool:
        self.notice()
        return True

    def answer(self, **counts: int) -> None:
        self.live_reload.feed.take_answer("tab", self.live_reload.feed.cursor, Answer(**counts))

    async def save(self, name: str, text: str) -> Edit:
        self.write(name, text)
        return await self.settled()

    async def settled(self) -> Edit:
        self.notice()
        await self.edits.wait_settled(self.edits.number, math.inf)
        return self.edits.get(self.edits.number)

    async def ask(self, target: str, client: tuple[str, int] = ("127.0.0.1", 1)) -> Any:
        fields = [(b"cookie", self.cookie.encode())] if self.cookie else []
        request = Request("GET", target, [(b"host", b"localhost"), *fields], client=client)
        try:
            return await read(await self.respond(request))
        finally:
            request.close()

    async def get(self, target: str) -> str:
        answer = await self.ask(target)
        self.cookie = (answer.header("set-cookie") or self.cookie).partition(";")[0]
        text: str = answer.text
        return text

    async def json(self, target: str) -> Any:
        return json.loads((await self.ask(target)).text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = Path(os.path.realpath(tmp_path))
    (path / "counter.rpy").write_text(COUNTER)
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
        play.tell = tell
        task_status.started()
        await trio.sleep_forever()

    monkeypatch.setattr("rpyserve.livereload.watcher.watch", watch)
    play = Play(root)
    async with play.site.running():
        play.edits.observe(play.site)
        await play.edits.read_baseline()
        await nursery.start(play.live_reload.run)
        yield play


# What is said of a save


async def test_a_save_that_nobody_has_run(play: Play) -> None:
    text = COUNTER.replace("+= 1", "+= 2")
    edit = await play.save("counter.rpy", text)
    assert edit.as_json()["files"] == [
        {
            "name": "counter.rpy",
            "event": "changed",
            "why": "a script",
            "compiles": True,
            "sha256": hashlib.sha256(text.encode()).hexdigest()[:16],
        }
    ]
    assert (edit.number, edit.verdict, edit.not_run) == (1, "not run", ["counter.rpy"])
    await play.get("/counter")
    assert (edit.verdict, dict(edit.executed)) == ("ok", {"counter.rpy": 1}), "it is added later"


@pytest.mark.parametrize("runs_first", [False, True])
async def test_what_a_request_executes_before_the_save_is_noticed(
    play: Play, runs_first: bool
) -> None:
    assert await play.get("/counter") == "1"
    play.write("counter.rpy", COUNTER.replace("+= 1", "+= 10"))
    if not runs_first:
        play.notice()
    assert await play.get("/counter") == "11"
    edit = await play.settled()
    assert (edit.verdict, dict(edit.executed)) == ("ok", {"counter.rpy": 1})
    assert edit.carried == {"Counter": 1}


async def test_the_same_content_once_more_is_an_edit_of_its_own(play: Play) -> None:
    for number in (1, 2):
        play.write("counter.rpy", COUNTER + "# again\n")
        await play.get("/counter")
        edit = await play.settled()
        assert (edit.number, edit.verdict) == (number, "ok")
        play.write("counter.rpy", COUNTER + "# other\n")
        await play.get("/counter")
        await play.settled()
        break
    assert play.edits.get(1).verdict == "ok"
    play.write("counter.rpy", COUNTER + "# again\n")
    await play.get("/counter")
    assert (await play.settled()).verdict == "ok"
    assert [each.verdict for each in play.edits.after(0)] == ["ok", "ok", "ok"]


async def test_code_that_does_not_compile(play: Play) -> None:
    edit = await play.save("counter.rpy", COUNTER + "def (\n")
    assert (edit.verdict, edit.files[0].compiles) == ("broken", False)
    (found,) = edit.as_json()["findings"]["new"]
    assert (found["rule"], found["line"]) == ("syntax-error", 10)
    mended = await play.save("counter.rpy", COUNTER)
    assert mended.verdict == "not run"
    (gone,) = mended.as_json()["findings"]["gone"]
    assert gone["rule"] == "syntax-error"


async def test_findings_are_new_only_if_they_were_not_there_before(play: Play) -> None:
    play.write("bad.rpy", "def resource(request):\n    return nmae\n")
    play.notice()
    await play.settled()
    moved = await play.save("bad.rpy", "\n\n\ndef resource(request):\n    return nmae\n")
    assert moved.findings_new == moved.findings_gone == []
    more = await play.save("bad.rpy", "def resource(request):\n    return nmae + othr\n")
    assert [each.message for _, each in more.findings_new] == ["othr is not defined."]


async def test_findings_that_were_there_before_the_first_edit(play: Play) -> None:
    play.write("old.rpy", "def resource(request):\n    return nmae\n")
    play.snapshot.scan()
    await play.edits.read_baseline()
    edit = await play.save("old.rpy", "def resource(request):\n    return nmae + othr\n")
    assert [each.message for _, each in edit.findings_new] == ["othr is not defined."]


async def test_a_receipt_is_of_what_was_noticed(play: Play) -> None:
    play.write("new.rpy", "def resource(:\n")
    play.notice()
    play.write("new.rpy", "def resource(request):\n    return 'new'\n")
    first, second = play.edits.get(1), await play.settled()
    assert [each.files[0].compiles for each in (first, second)] == [False, True]
    assert first.verdict == "broken" and second.verdict == "not run"


async def test_a_failure_is_new_then_the_same_then_mended(play: Play) -> None:
    await play.get("/counter")
    play.write("counter.rpy", COUNTER.replace("return f", "1 / 0; return f"))
    await play.settled()
    await play.get("/counter")
    edit = play.edits.get(1)
    told = edit.as_json()["failures"]
    assert edit.verdict == "broken"
    assert [each["title"] for each in told["new"]] == ["ZeroDivisionError: division by zero"]
    assert (told["new"][0]["page"], told["new"][0]["line"]) == ("/counter", 9)

    await play.save("counter.rpy", COUNTER.replace("return f", "\n    1 / 0; return f"))
    await play.get("/counter")
    told = play.edits.get(2).as_json()["failures"]
    assert [each["line"] for each in told["still"]] == [10] and not told["new"]

    await play.save("counter.rpy", COUNTER)
    await play.get("/counter")
    third = play.edits.get(3)
    assert (third.verdict, [*third.mended]) == ("ok", ["/counter"])
    assert [each.verdict for each in play.edits.after(0)] == ["broken", "broken", "ok"]


async def test_a_failure_of_another_script_is_not_put_down_to_an_edit(play: Play) -> None:
    await play.save("counter.rpy", COUNTER.replace("return f", "1 / 0; return f"))
    css = await play.save("style.css", "b {}")
    other = await play.save("a.rpy", "cache()\nresource = lambda request: 'x'\n")
    await play.get("/counter")
    await play.get("/a")
    assert play.edits.get(1).verdict == "broken"
    assert (css.verdict, other.verdict) == ("ok", "ok")


async def test_a_file_that_was_empty_while_it_was_saved(play: Play) -> None:
    play.write("counter.rpy", "")
    await play.get("/counter")
    play.write("counter.rpy", COUNTER + "# more\n")
    failure = next(iter(play.edits._failing.values()))[0]
    edit = await play.settled()
    await play.get("/counter")
    edit.failures[failure.key] = failure, True
    assert (edit.verdict, edit.as_json()["failures"]) == ("ok", {"new": [], "still": []})
    edit = await play.save("counter.rpy", "")
    await play.get("/counter")
    assert edit.verdict == "broken"


async def test_a_half_that_was_there_while_a_file_was_saved(play: Play) -> None:
    broken = await play.save("counter.rpy", COUNTER + "def f():\n")
    await play.get("/counter")
    assert broken.verdict == "broken"
    (failure,) = [failure for failure, _ in broken.failures.values()]
    assert failure.is_syntax
    edit = await play.save("counter.rpy", COUNTER + "def f():\n    pass\n")
    edit.failures[failure.key] = failure, True
    assert edit.verdict == "not run"


async def test_a_module_is_put_down_to_with_what_uses_it(play: Play) -> None:
    assert await play.get("/a") == "one"
    broken = await play.save("words.py", "WROD = 'two'\n")
    assert broken.as_json()["files"][0]["why"] == "a module: all scripts run again"
    await play.get("/a")
    assert broken.verdict == "broken"
    mended = await play.save("words.py", "WORD = 'two'\n")
    assert await play.get("/a") == "two"
    assert (mended.verdict, [*mended.mended]) == ("ok", ["/a"])
    assert mended.executed.keys() == {"words.py", "a.rpy"}


async def test_attributes_that_objects_get_and_lose(play: Play) -> None:
    await play.get("/counter")
    added = await play.save(
        "counter.rpy",
        COUNTER.replace("self.value = 0", "self.value = 0; self.step = 3").replace(
            "value += 1", "value += session['counter'].step"
        ),
    )
    assert await play.get("/counter") == "4"
    assert [*added.added] == ["Counter.step"]
    lost = await play.save(
        "counter.rpy",
        COUNTER.replace("(self):", "(self, name):")
        .replace("self.value = 0", "self.value = 0; self.name = name")
        .replace("value += 1", "value += len(session['counter'].name)")
        .replace("or Counter()", "or Counter('x')"),
    )
    await play.get("/counter")
    assert lost.verdict == "broken"
    assert any("name" in sentence for sentence in lost.lost)


async def test_a_deleted_script_and_a_new_one(root: Path, play: Play) -> None:
    (root / "counter.rpy").rename(root / "count.rpy")
    edit = await play.settled()
    events = {each.file.name: (each.file.event, each.compiles) for each in edit.files}
    assert events == {"counter.rpy": ("deleted", None), "count.rpy": ("added", True)}
    assert edit.not_run == ["count.rpy"]


# When it has settled


async def test_it_settles_when_the_pages_have_answered(play: Play) -> None:
    with play.live_reload.feed.subscribed("browser", name="tab", shared=True):
        play.write("counter.rpy", COUNTER + "\n")
        play.notice()
        edit = play.edits.get(1)
        while not edit.files[0].digest:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await trio.testing.wait_all_tasks_blocked()
        assert not edit.has_settled, "the page has said nothing yet"
        play.answer(tabs=2, shown=1, unchanged=1)
        await play.edits.wait_settled(1, math.inf)
    assert edit.pages == {"told": 2, "shown": 1, "loading": 0, "unchanged": 1, "silent": 0}


async def test_a_page_that_says_nothing_has_two_seconds(
    play: Play, autojump_clock: trio.testing.MockClock
) -> None:
    with play.live_reload.feed.subscribed("browser", name="tab", shared=True):
        play.write("counter.rpy", COUNTER + "\n")
        play.notice()
        start = trio.current_time()
        await play.edits.wait_settled(1, math.inf)
        assert trio.current_time() - start == pytest.approx(2)
    assert play.edits.get(1).pages["told"] == 1
    assert play.edits.get(1).pages["silent"] == 1


async def test_a_later_edit_does_not_wait_for_the_pages_of_an_earlier_one(play: Play) -> None:
    with play.live_reload.feed.subscribed("browser", name="tab", shared=True):
        play.write("counter.rpy", COUNTER + "\n")
        play.notice()
    play.live_reload.feed._departed.clear()
    edit = await play_one(play, "a.rpy")
    assert edit.number == 2 and edit.has_settled
    assert not play.edits.get(1).has_settled


async def play_one(play: Play, name: str) -> Edit:
    play.write(name, "cache()\nresource = lambda request: 'new'\n")
    play.notice()
    edit = play.edits.get(play.edits.number)
    while not edit.has_settled:
        await trio.testing.wait_all_tasks_blocked(0.001)
    return edit


# What is kept, and how it is said


async def test_the_last_are_kept(play: Play) -> None:
    for _ in range(MAX_RECEIPTS + 1):
        play.edits.begin([], 0, 0, {})
    with pytest.raises(Forgotten):
        play.edits.get(1)
    for number in (0, MAX_RECEIPTS + 2):
        with pytest.raises(KeyError) as raised:
            play.edits.get(number)
        assert raised.type is KeyError
    assert play.edits.get(2).number == 2 and len(play.edits.after(0)) == MAX_RECEIPTS


async def test_a_receipt_of_one_file_is_short_whatever_is_in_it(play: Play) -> None:
    names = [f"undefined_name_that_is_quite_long_{n}" for n in range(60)]
    text = "".join(f"def f{n}():\n    return {name}\n" for n, name in enumerate(names))
    script = "def resource(request):\n    raise ValueError('long ' * 500)\n"
    edit = await play.save("counter.rpy", text + script)
    await play.get("/counter")
    told = await play.json("/-/edits/1.json")
    assert len((await play.ask("/-/edits/1.json")).text) <= 1600
    assert told["verdict"] == "broken" and told["failures"]["new"]
    assert told["left_out"] == len(edit.findings_new) - len(told["findings"]["new"])


async def test_the_line_on_the_console(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rpyserve")
    await play.get("/counter")
    play.write("counter.rpy", COUNTER.replace("+= 1", "+= 2"))
    play.notice()
    await play.get("/counter")
    await play.settled()
    await play.save("counter.rpy", COUNTER + "def (\n")
    await trio.testing.wait_all_tasks_blocked()
    lines = [re.sub(r"\(\d+ ms\)", "(n ms)", each.getMessage()) for each in caplog.records]
    assert [line for line in lines if line.startswith("Edit")] == [
        "Edit 1: counter.rpy changed, 1 object carried over (n ms)",
        "Edit 2: counter.rpy changed, counter.rpy does not compile (n ms)",
    ]


# What programs ask


async def test_one_question_after_a_save(play: Play) -> None:
    play.write("a.rpy", "def (\n")
    told = await play.json("/-/edits.json?wait=30")
    assert (told["number"], told["next"], len(told["items"])) == (1, 1, 1)
    assert told["items"][0]["verdict"] == "broken" and told["items"][0]["settled"]
    [receipt] = told["items"]
    assert receipt.pop("url") == "/-/edits/1"
    for name in ("1", "latest"):
        one = await play.json(f"/-/edits/{name}.json?wait=30")
        assert {key: one[key] for key in receipt} == receipt
        assert one["boot"] == told["boot"] and one["at"] >= receipt["saved"]
    assert "broken" in (await play.ask("/-/edits")).text
    assert not play.recorder.is_watched, "a question for an edit makes no request record more"


async def test_a_question_before_the_save_waits_for_it(play: Play, nursery: trio.Nursery) -> None:
    found: list[Any] = []

    async def ask() -> None:
        found.append(await play.json("/-/edits.json?after=0&wait=30"))
        found.append(await play.json("/-/edits/2.json?wait=30"))
        assert found[-1]["at"] >= round(found[-1]["saved"] + found[-1]["seconds"], 2)

    nursery.start_soon(ask)
    for name in ("a.rpy", "counter.rpy"):
        await trio.testing.wait_all_tasks_blocked(0.01)
        play.write(name, "def (\n")
        play.notice()
        await play.edits.wait_settled(play.edits.number, math.inf)
    while len(found) < 2:
        await trio.testing.wait_all_tasks_blocked(0.001)
    assert [each["files"][0]["name"] for each in found[0]["items"]] == ["a.rpy"]
    assert found[1]["files"][0]["name"] == "counter.rpy"
    assert play.askers == 0


async def test_a_question_ends_when_the_time_is_over(
    play: Play, autojump_clock: trio.testing.MockClock
) -> None:
    for wait, seconds in (("20", 20), ("10s", 10), ("1h", LONGEST_WAIT)):
        start = trio.current_time()
        told = await play.json(f"/-/edits.json?after=0&wait={wait}")
        assert (told["items"], told["number"], told["next"]) == ([], 0, 0)
        assert trio.current_time() - start == seconds


async def test_questions_end_with_the_server(play: Play, nursery: trio.Nursery) -> None:
    async with trio.open_nursery() as asking:
        for target in ("edits.json?after=0", "edits/1.json?x=1", "timeline.json?after=0"):
            asking.start_soon(play.ask, f"/-/{target}&wait=30")
        await trio.testing.wait_all_tasks_blocked(0.01)
        play.edits.close()


async def test_many_edits_come_in_parts(play: Play) -> None:
    for _ in range(MAX_ITEMS + 5):
        play.edits.begin([], 0, 0, {})
    first = await play.json("/-/edits.json?after=0")
    assert [each["number"] for each in first["items"]] == [*range(1, MAX_ITEMS + 1)]
    rest = await play.json(f"/-/edits.json?after={first['next']}")
    assert len(rest["items"]) == 5


async def test_the_timeline_tells_of_the_outcome_of_a_save(play: Play) -> None:
    await play.get("/counter")
    number = play.edits.timeline.number
    play.write("counter.rpy", COUNTER.replace("return f", "1 / 0; return f"))
    await play.get("/counter")
    told = await play.json(f"/-/timeline.json?after={number}&wait=30")
    assert [each["kind"] for each in told["items"]] == ["executed", "failed", "saved"]
    last = told["items"][-1]
    assert (last["edit"], last["verdict"], last["files"]) == (1, "broken", ["counter.rpy"])
    kinds = {each["kind"] for each in (await play.json("/-/timeline.json"))["items"]}
    assert kinds == {"executed", "session made", "failed", "saved"}


@pytest.mark.parametrize(
    ("target", "status", "detail"),
    [
        ("edits/7.json", 404, "There has been no such edit yet."),
        ("edits/0.json", 404, "There has been no such edit yet."),
        ("edits/x.json", 400, "number is a whole number."),
        ("edits.json?wait=x", 400, "wait: 'x' is not a duration"),
        ("edits.json?wait=nan", 400, "wait: 'nan' is not a duration"),
        ("timeline.json?wait=-1", 400, "wait: '-1' is not a duration"),
        ("edits.json?after=x", 400, "after is a whole number."),
        ("timeline.json?after=-1", 400, "after is a whole number."),
    ],
)
async def test_bad_questions(play: Play, target: str, status: int, detail: str) -> None:
    answer = await play.ask(f"/-/{target}")
    told = json.loads(answer.text)
    assert answer.status == told["status"] == status
    assert told["detail"].startswith(detail)


async def test_a_forgotten_edit(play: Play) -> None:
    for _ in range(MAX_RECEIPTS + 1):
        play.edits.begin([], 0, 0, {})
    told = await play.json("/-/edits/1.json")
    assert told["detail"] == f"This edit is forgotten; the last {MAX_RECEIPTS} are kept."


@pytest.mark.parametrize("target", ["edits.json", "edits/1.json", "timeline.json", "edits/x.json"])
async def test_others_get_the_page_for_nothing(play: Play, target: str) -> None:
    assert (await play.ask(f"/-/{target}", ("192.0.2.1", 1))).status == 404


async def test_nothing_is_kept_of_what_was_executed(play: Play) -> None:
    await play.get("/counter")
    (session,) = play.site.sessions
    cls = weakref.ref(type(session["counter"]))
    for change in ("return 1 / 0, f", "return f"):
        await play.save("counter.rpy", COUNTER.replace("return f", change) + f"# {change}\n")
        await play.get("/counter")
    assert type(session["counter"]) is not cls()
    gc.collect()
    assert cls() is None
    assert [each.verdict for each in play.edits.after(0)] == ["broken", "ok"]
