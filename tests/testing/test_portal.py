"""A thread that runs trio, and the time in it."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import trio

from rpyserve.testing.portal import Portal
from rpyserve.util.exceptions import unwrap_group


@pytest.fixture
def portal():
    async def main(until_closed):
        await until_closed()

    portal = Portal(main)
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


def test_who_begins_badly_or_ends_badly_says_so() -> None:
    async def never_begins(until_closed):
        raise LookupError("at once")

    async def ends_badly(until_closed):
        await until_closed()
        raise LookupError("at the end")

    with pytest.raises(ExceptionGroup) as caught:
        Portal(never_begins)
    assert str(unwrap_group(caught.value)) == "at once"
    portal = Portal(ends_badly)
    with pytest.raises(ExceptionGroup) as caught:
        portal.close()
    assert str(unwrap_group(caught.value)) == "at the end"


def test_closed_is_closed(portal: Portal) -> None:
    portal.close()
    portal.close()
    with pytest.raises(RuntimeError, match="closed"):
        portal.call(trio.sleep, 1)
