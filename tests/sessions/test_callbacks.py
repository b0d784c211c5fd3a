"""What is called at a session's end, and what is told when that fails."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.sessions import callbacks
from rpyserve.sessions.callbacks import CallbackTasks
from tests.support.edited_site import Editing


def sing() -> None:
    raise KeyError("la\x1b[31m\nla")


async def hum() -> None:
    await trio.sleep(1)
    raise ValueError("hm")


def test_a_failure_is_a_block_that_names_callback_place_and_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    CallbackTasks(ConsoleReporter()).call(sing, "abc123")
    first, place, source = caplog.messages[0].splitlines()
    assert first == r"session abc123: the expiry callback sing failed: KeyError: 'la\x1b[31m\nla'"
    assert place.startswith("  ") and "test_callbacks.py:" in place and place.endswith(" in sing")
    assert source.strip().startswith("raise KeyError(")
    assert caplog.records[0].name == "rpyserve" and caplog.records[0].levelno == logging.ERROR


def test_a_text_that_the_console_must_not_see_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    def shout() -> None:
        raise ValueError("a\x1b[31m\nb\u202e")

    CallbackTasks(ConsoleReporter()).call(shout, "")
    assert r"ValueError: a\x1b[31m" in caplog.messages[0]
    assert "\x1b" not in caplog.messages[0] and "\u202e" not in caplog.messages[0]


def test_the_same_failure_of_many_sessions_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    tasks = CallbackTasks(ConsoleReporter())
    for number in range(50):
        tasks.call(sing, f"session{number}")
    assert len(caplog.messages) == 1


def test_sys_exit_in_a_callback_is_a_failure_like_others(caplog: pytest.LogCaptureFixture) -> None:
    CallbackTasks(ConsoleReporter()).call(partial(exit, 3), "abc123")
    assert "failed: SystemExit: 3" in caplog.text


def test_an_interrupt_passes() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CallbackTasks().call(interrupted, "")


@pytest.mark.parametrize("wrong", [None, "bye", 3])
def test_what_cannot_be_called_is_told_at_once(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"write notifyOnExpire\(f\) without parentheses"):
        callbacks.check(wrong)


def test_a_called_async_function_is_told_at_once_and_closed() -> None:
    with pytest.raises(TypeError, match="not coroutine"):
        callbacks.check(hum())


async def test_an_async_failure_is_told_alike(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = CallbackTasks(ConsoleReporter())
    async with tasks.open():
        tasks.call(hum, "abc123")
    assert caplog.messages[0].startswith(
        "session abc123: the expiry callback hum failed: ValueError: hm\n"
    )


async def test_a_failure_in_a_nursery_is_told_as_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("deep")

    async def many() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)

    tasks = CallbackTasks(ConsoleReporter())
    async with tasks.open():
        tasks.call(many, "abc123")
    [line] = caplog.messages
    assert "failed: ValueError: deep\n" in line


async def test_a_plain_function_that_returns_a_coroutine_counts_as_async(
    autojump_clock: Any,
) -> None:
    done = []

    async def bye(uid: str) -> None:
        await trio.sleep(1)
        done.append(uid)

    tasks = CallbackTasks(ConsoleReporter())
    async with tasks.open():
        tasks.call(lambda: bye("x"), "abc123")
        assert done == []
    assert done == ["x"]


async def test_one_that_is_cut_off_is_told(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = CallbackTasks(ConsoleReporter())
    with trio.move_on_after(0.5) as scope:
        async with tasks.open():
            tasks.call(hum, "abc123")
    assert scope.cancelled_caught
    assert caplog.messages == ["session abc123: the expiry callback hum was cut off"]


async def test_where_nothing_is_open_it_is_told_and_not_left_unawaited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = CallbackTasks(ConsoleReporter())
    async with tasks.open():
        pass
    tasks.call(hum, "abc123")
    [line] = caplog.messages
    assert "callback hum is async, and did not run" in line


def test_of_many_that_cannot_run_one_is_told(caplog: pytest.LogCaptureFixture) -> None:
    tasks = CallbackTasks()
    for number in range(50):
        tasks.call(hum, f"session{number}")
    [line] = caplog.messages
    assert line.startswith("session session0: the expiry callback hum is async")


def test_without_a_site_the_log_has_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    CallbackTasks().call(sing, "abc123")
    [record] = caplog.records
    assert record.getMessage() == "session abc123: the expiry callback sing failed"
    assert record.exc_info is not None and record.exc_info[0] is KeyError


async def test_waiting_for_what_was_started_elsewhere(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    tasks = CallbackTasks(ConsoleReporter())
    await tasks.wait_all_finished()
    opened = trio.Event()

    async def hold() -> None:
        async with tasks.open():
            opened.set()
            await trio.sleep_forever()

    nursery.start_soon(hold)
    await opened.wait()
    for seconds in (3, 5):
        tasks.call(partial(trio.sleep, seconds), "abc123")
    await tasks.wait_all_finished()
    assert trio.current_time() == 5
    nursery.cancel_scope.cancel()


# After an edit: which callbacks are those of before

RESERVED = """
class Reserved:
    def __init__(self, name):
        self.name = name

    def release(self):
        registry["stock"][self.name] += 1
        # edited 0


class Shop(Resource):
    def render_GET(self, request):
        session = request.getSession()
        registry.setdefault("stock", dict.fromkeys(["tea", "jam", "egg"], 0))
        for name in request.args.get("take", []):
            session.notifyOnExpire(Reserved(name).release)
        session.notifyOnExpire(self.closed)
        if request.args.get("end"):
            session.expire()
        return str(registry["stock"])

    def closed(self):
        registry["closed"] = registry.get("closed", 0) + 1
"""
PAGES = {
    "a name": "resource = Shop()",
    "a child": "resource = Resource()\nresource.putChild('', Shop())",
    "an attribute": """
class Root(Resource):
    def __init__(self):
        self.shop = Shop()
    def getChild(self, name, request):
        return self.shop
resource = Root()
""",
    "a dict": """
PAGES = {"": Shop()}
class Root(Resource):
    def getChild(self, name, request):
        return PAGES[name]
resource = Root()
""",
}


@pytest.mark.parametrize("made", PAGES)
@pytest.mark.parametrize("is_module", [False, True])
async def test_callbacks_of_other_objects_stay_after_an_edit(
    tmp_path: Path, made: str, is_module: bool
) -> None:
    async with Editing.at(tmp_path) as site:

        def save(version: int) -> None:
            text = RESERVED.replace("edited 0", f"edited {version}")
            if is_module:
                site.save("from rpyserve import Resource, registry\n" + text, "shop.py")
                text = "from shop import Shop\n"
            site.save(text + PAGES[made])

        where = "/a" if made == "a name" else "/a/"
        save(1)
        await site.get(where + "?take=tea&take=jam")
        save(2)
        await site.get(where + "?take=egg")
        assert await site.get(where + "?end=1") == "{'tea': 1, 'jam': 1, 'egg': 1}"
        # In each version the page registers its own with each request.
        assert site.site.registry["closed"] == 2


@pytest.mark.parametrize(
    "register",
    [
        "s.notifyOnExpire(lambda: ends.append(name))",
        "s.notifyOnExpire(lambda name=name: ends.append(name))",
        "s.notifyOnExpire(partial(add, name))",
        "s.notifyOnExpire(lambda: add(name))",
        "s.notifyOnExpire(reported(lambda: add(name)))",
        "s.notifyOnExpire(partial(add, Path(name)))",
        "s.notifyOnExpire(partial(add, (name, 1)))",
    ],
)
async def test_each_upload_is_removed_at_the_end(tmp_path: Path, register: str) -> None:
    text = f"""
from functools import partial
from pathlib import Path
from pathlib import Path

def add(name):
    registry["ends"].append(str(name))

def reported(work):
    def report():
        work()
    return report

def resource(request):
    s = request.getSession()
    for name in request.args.get("file", []):
        keep(s, name, registry.setdefault("ends", []))
    return "edited 0"

def keep(s, name, ends):
    {register}
"""
    async with Editing.at(tmp_path) as site:
        for version, files in enumerate(["file=a&file=b", "file=c", "file=c&file=d"]):
            site.save(text.replace("edited 0", f"edited {version}"))
            await site.get(f"/a?{files}")
    ends = [name.strip("()',1 ") for name in site.site.registry["ends"]]
    assert ends == ["a", "b", "c", "d"], "the one for c took the place of that from before"


async def test_an_edited_callback_of_the_same_object_takes_the_place_of_the_old(
    tmp_path: Path,
) -> None:
    text = """
class Cart:
    def bye(self):
        registry.setdefault("ends", []).append("version 0")

def resource(request):
    s = request.getSession()
    cart = s.setdefault("cart", Cart())
    s.notifyOnExpire(cart.bye)
    return ""
"""
    async with Editing.at(tmp_path) as site:
        for version in (1, 2):
            site.save(text.replace("version 0", f"version {version}"))
            await site.get()
    assert site.site.registry["ends"] == ["version 2"]


async def test_two_objects_at_top_level_are_not_taken_for_each_other(tmp_path: Path) -> None:
    text = """
class Bell:
    def __init__(self, name):
        self.name = name
    def ring(self):
        registry.setdefault("ends", []).append(self.name)

tea, jam = Bell("tea"), Bell("jam")

def resource(request):
    s = request.getSession()
    s.notifyOnExpire(globals()[request.field("bell")].ring)
    return "edited 0"
"""
    async with Editing.at(tmp_path) as site:
        for version, name in enumerate(["tea", "jam", "jam"]):
            site.save(text.replace("edited 0", f"edited {version}"))
            await site.get(f"/a?bell={name}")
    assert site.site.registry["ends"] == ["tea", "jam"]
