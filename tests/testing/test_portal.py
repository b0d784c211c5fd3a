"""A thread that runs trio, and the time in it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import asynccontextmanager, contextmanager, nullcontext

import pytest
import trio

from rpyserve.testing.portal import Portal
from rpyserve.util.exceptions import unwrap_group


@pytest.fixture
def portal():
    portal = Portal(nullcontext())
    portal.start()
    yield portal
    portal.close()


async def timed(function, *args) -> float:
    before = trio.current_time()
    await function(*args)
    return trio.current_time() - before


def test_what_is_due_happens_in_its_order_and_takes_no_time(portal: Portal) -> None:
    happened = []

    async def each(seconds):
        await trio.sleep(seconds)
        happened.append(seconds)

    async def all_of_them():
        async with trio.open_nursery() as nursery:
            for seconds in (3000, 1, 200):
                nursery.start_soon(each, seconds)

    before = time.monotonic()
    assert portal.call(timed, all_of_them) == 3000
    assert happened == [1, 200, 3000]
    assert time.monotonic() - before < 60


def test_between_two_calls_no_time_passes(portal: Portal) -> None:
    async def now():
        return trio.current_time()

    before = portal.call(now)
    threading.Event().wait(0.05)
    assert portal.call(now) == before


def test_what_a_call_sets_off_goes_on_until_it_must_wait(portal: Portal) -> None:
    happened = []

    async def later():
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        happened.append("at once")
        await trio.sleep(1)
        happened.append("later")

    async def set_off():
        trio.lowlevel.spawn_system_task(later)

    portal.call(set_off)
    assert happened == ["at once"]
    portal.call(trio.sleep, 2)
    assert happened == ["at once", "later"]


def test_a_thread_is_waited_for_as_on_the_wall(portal: Portal) -> None:
    async def work():
        with trio.fail_after(3600):
            await trio.to_thread.run_sync(time.sleep, 0.05)

    assert portal.call(timed, work) < 60


def test_a_socket_is_waited_for_as_on_the_wall(portal: Portal) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        async def work():
            stream = trio.socket.from_stdlib_socket(ours)
            with trio.fail_after(3600):
                assert await stream.recv(1) == b"x"

        ours.setblocking(False)
        threading.Timer(0.05, theirs.send, [b"x"]).start()
        assert portal.call(timed, work) < 60


def test_a_sleep_beside_a_wait_for_the_world_outside_still_ends(portal: Portal) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)

        async def work():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.socket.from_stdlib_socket(ours).recv, 1)
                await trio.sleep(0.05)
                nursery.cancel_scope.cancel()

        assert portal.call(timed, work) >= 0.05


def test_what_is_raised_comes_out(portal: Portal) -> None:
    async def fails():
        raise LookupError("it")

    with pytest.raises(LookupError, match="it"):
        portal.call(fails)


def test_a_context_that_fails_says_so() -> None:
    @asynccontextmanager
    async def fails_at_once():
        raise LookupError("at once")
        yield

    @asynccontextmanager
    async def fails_at_the_end():
        yield
        raise LookupError("at the end")

    @asynccontextmanager
    async def fails_between():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_in_a_while)
            yield

    async def fails_in_a_while():
        await trio.sleep(1)
        raise LookupError("between")

    portal = Portal(fails_at_once())
    with pytest.raises(ExceptionGroup) as caught:
        portal.start()
    assert str(unwrap_group(caught.value)) == "at once"
    portal = Portal(fails_at_the_end())
    portal.start()
    with pytest.raises(ExceptionGroup) as caught:
        portal.close()
    assert str(unwrap_group(caught.value)) == "at the end"
    portal = Portal(fails_between())
    portal.start()
    with pytest.raises((trio.Cancelled, trio.RunFinishedError)):
        portal.call(trio.sleep, 2)
    with pytest.raises(ExceptionGroup) as caught:
        portal.close()
    assert str(unwrap_group(caught.value)) == "between"


def test_time_passes_for_the_context_too() -> None:
    passed = []

    @asynccontextmanager
    async def slow():
        before = trio.current_time()
        await trio.sleep(1000)
        yield
        await trio.sleep(1000)
        passed.append(trio.current_time() - before)

    portal = Portal(slow())
    portal.start()
    portal.close()
    assert passed == [2000]


def test_a_context_around_each_call(portal: Portal) -> None:
    seen = []

    @contextmanager
    def around():
        seen.append("in")
        yield
        seen.append("out")

    portal = Portal(nullcontext(), around)
    portal.start()
    portal.call(trio.sleep, 1)
    assert seen == ["in", "out"]
    portal.close()
    assert seen == ["in", "out"] * 2


def test_closed_is_closed(portal: Portal) -> None:
    portal.close()
    portal.close()
    with pytest.raises(RuntimeError, match="closed"):
        portal.call(trio.sleep, 1)
