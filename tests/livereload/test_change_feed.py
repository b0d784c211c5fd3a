"""Numbers of changes, and those who wait for them."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from rpyserve.http.request import Request
from rpyserve.livereload.change_feed import (
    AT_ONCE,
    MAX_CHANGES,
    MAX_CONNECTIONS,
    MAX_STREAMS,
    Answer,
    ChangeFeed,
    FeedStatistics,
    Subscriber,
)
from rpyserve.livereload.changes import Changes, PageChange
from rpyserve.livereload.write_loops import RequestSpan


def change(*urls: str, data: bool = False, of: str = "/srv") -> Changes:
    return {of: PageChange(frozenset(urls), data=data)}


@pytest.fixture
def feed() -> ChangeFeed:
    return ChangeFeed()


@pytest.fixture
def subscriber(feed: ChangeFeed) -> Iterator[Subscriber]:
    with feed.subscribed("browser") as subscriber:
        yield subscriber


def test_what_has_changed_since(feed: ChangeFeed) -> None:
    start = feed.cursor
    assert feed.publish(change("/a")).number == 1
    middle = feed.cursor
    assert feed.publish(change("/b", data=True)).number == 2
    assert feed.since(start) == change("/a", "/b", data=True)
    assert feed.since(middle) == change("/b", data=True)
    assert feed.since(feed.cursor) == {}


def test_each_directory_has_changes_of_its_own(feed: ChangeFeed) -> None:
    start = feed.cursor
    feed.publish(change("/a"))
    feed.publish(change("/b", of="/other"))
    feed.publish({**change("/c"), **change("/d", of="/other")})
    assert feed.since(start) == {**change("/a", "/c"), **change("/b", "/d", of="/other")}


@pytest.mark.parametrize(
    "cursor",
    ["", "1", "x-1", "-", "{token}-", "{token}-9", "{token}--1", "{token}-²", "{token}-1e3"],
)
def test_a_cursor_that_means_nothing_here(feed: ChangeFeed, cursor: str) -> None:
    feed.publish(change("/a"))
    assert feed.since(cursor.format(token=feed.token)) is None


def test_two_feeds_differ() -> None:
    assert ChangeFeed().cursor != ChangeFeed().cursor


def test_what_is_kept_is_bounded(feed: ChangeFeed) -> None:
    start = feed.cursor
    for n in range(3 * MAX_CHANGES):
        feed.publish(change(f"/{n % 7}"))
    assert feed.statistics() == FeedStatistics(
        number=3 * MAX_CHANGES, kept=MAX_CHANGES, subscribers=0
    )
    assert feed.since(start) is None
    since = feed.since(f"{feed.token}-{2 * MAX_CHANGES}")
    assert since == change(*(f"/{n}" for n in range(7)))


async def test_waiting_for_a_change(
    feed: ChangeFeed, subscriber: Subscriber, autojump_clock: object
) -> None:
    heard: list[int] = []

    async def listen() -> None:
        number = feed.number
        while not feed.closed:
            await feed.wait_change(number, subscriber)
            number = feed.number
            heard.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        feed.publish(change("/a"))
        await trio.testing.wait_all_tasks_blocked()
        feed.publish(change("/b"))
        feed.publish(change("/c"))  # before the subscriber has looked: both at once
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [1, 3]
        feed.close()


@pytest.mark.parametrize("leaving", [0, 1, AT_ONCE, 150, 199])
async def test_of_many_some_are_told_at_once_and_all_in_the_end(
    leaving: int, feed: ChangeFeed, nursery: trio.Nursery
) -> None:
    told: list[int] = []
    scopes: dict[int, trio.CancelScope] = {}

    async def follow(number: int) -> None:
        with (
            trio.CancelScope() as scope,
            feed.subscribed(f"browser {number}", shared=True) as subscriber,
        ):
            scopes[number] = scope
            known = 0
            while True:
                await feed.wait_change(known, subscriber)
                known = feed.number
                told.append(number)
                await trio.lowlevel.checkpoint()

    for number in range(200):
        nursery.start_soon(follow, number)
    await trio.testing.wait_all_tasks_blocked()
    told_before, most = 0, 0
    feed.publish(change("/a"))
    feed.publish(change("/b"))  # is told together with the other one
    for number in range(leaving):
        scopes[number].cancel()
    for _ in range(400):
        await trio.lowlevel.checkpoint()  # one turn of the loop
        most, told_before = max(most, len(told) - told_before), len(told)
    assert most <= 2 * AT_ONCE
    assert set(range(leaving, 200)) <= set(told)
    assert len(told) == len(set(told))
    feed.publish(change("/c"))
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(told[told_before:]) == list(range(leaving, 200))
    nursery.cancel_scope.cancel()


async def test_those_who_leave_while_others_are_told_cost_nobody_the_next_change(
    feed: ChangeFeed, nursery: trio.Nursery
) -> None:
    told: list[int] = []
    scopes: dict[int, trio.CancelScope] = {}
    has_sent = trio.Event()

    async def follow(number: int) -> None:
        with (
            trio.CancelScope() as scope,
            feed.subscribed(f"browser {number}", shared=True) as subscriber,
        ):
            scopes[number] = scope
            for known in range(2):
                await feed.wait_change(known, subscriber)
                told.append(number)
                await has_sent.wait()  # it takes a while until what it is told is sent

    for number in range(3 * AT_ONCE):
        nursery.start_soon(follow, number)
    await trio.testing.wait_all_tasks_blocked()
    feed.publish(change("/a"))
    stay = range(AT_ONCE)
    for number in set(scopes) - set(stay):
        scopes[number].cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert set(told) >= set(stay)
    has_sent.set()
    await trio.testing.wait_all_tasks_blocked()
    told.clear()
    feed.publish(change("/b"))
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(told) == list(stay)


async def test_all_go_at_once_when_it_is_closed(feed: ChangeFeed) -> None:
    gone: list[int] = []

    async def wait(number: int) -> None:
        with feed.subscribed(f"browser {number}", shared=True) as subscriber:
            await feed.wait_change(feed.number, subscriber)
            gone.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(10 * AT_ONCE):
            nursery.start_soon(wait, number)
        await trio.testing.wait_all_tasks_blocked()
        feed.close()
        for _ in range(2):  # turns of the loop: the first one has an order of chance
            await trio.lowlevel.checkpoint()
        assert len(gone) == 10 * AT_ONCE


async def test_nobody_waits_for_what_has_happened(feed: ChangeFeed, subscriber: Subscriber) -> None:
    feed.publish(change("/a"))
    await feed.wait_change(0, subscriber)
    feed.close()
    await feed.wait_change(1, subscriber)


@pytest.fixture
def open_streams() -> Iterator[ExitStack]:
    with ExitStack() as streams:
        yield streams


def test_a_browser_with_too_many_loses_its_oldest(
    feed: ChangeFeed, open_streams: ExitStack
) -> None:
    def lone(client: str) -> Subscriber:
        return open_streams.enter_context(feed.subscribed(client))

    other = lone("other")
    subscribers = [lone("this") for _ in range(MAX_STREAMS)]
    assert not any(subscriber.displaced for subscriber in subscribers)
    assert not feed.has_room("this") and feed.has_room("other")
    subscribers += [lone("this") for _ in range(2)]
    assert [subscriber.displaced for subscriber in subscribers] == [True] * 2 + [
        False
    ] * MAX_STREAMS
    assert not other.displaced
    assert feed.statistics().subscribers == MAX_STREAMS + 3


def test_many_browsers_at_one_address_leave_each_other_alone(
    feed: ChangeFeed, open_streams: ExitStack
) -> None:
    subscribers = [
        open_streams.enter_context(feed.subscribed("class", shared=True)) for _ in range(30)
    ]
    assert not any(subscriber.displaced for subscriber in subscribers)
    assert feed.has_room("class", shared=True)


def test_the_sites_own_streams_come_first(open_streams: ExitStack) -> None:
    full: list[Hashable] = []
    feed = ChangeFeed(full.append)
    subscriber = open_streams.enter_context(feed.subscribed("this", shared=True))
    other = open_streams.enter_context(feed.subscribed("other", shared=True))
    ends = [feed.occupy("this") for _ in range(MAX_STREAMS - 1)]
    assert feed.has_room("this", shared=True) and not subscriber.displaced
    ends.append(feed.occupy("this"))
    assert not feed.has_room("this", shared=True) and subscriber.displaced and not other.displaced
    late = open_streams.enter_context(feed.subscribed("this", shared=True))
    assert late.displaced
    while len(ends) < MAX_CONNECTIONS:
        assert not full
        ends.append(feed.occupy("this"))
    assert full == ["this"]
    for end in ends:
        end()
    assert feed.has_room("this", shared=True)
    assert not feed._site_streams


async def test_who_is_displaced_waits_no_more(feed: ChangeFeed, subscriber: Subscriber) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.wait_change, feed.number, subscriber)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(MAX_STREAMS):
            feed.occupy("browser")


# Answers


def test_nobody_is_waited_for_who_does_not_answer(feed: ChangeFeed, subscriber: Subscriber) -> None:
    showing = feed.publish(change("/a"))
    assert showing.settled.is_set() and showing.shown == 0


@pytest.fixture
def named(feed: ChangeFeed) -> Iterator[Subscriber]:
    with feed.subscribed("browser", name="one", shared=True) as subscriber:
        yield subscriber


def test_pages_say_that_they_show_a_change(feed: ChangeFeed, named: Subscriber) -> None:
    showing = feed.publish(change("/a"))
    feed.take_answer("one", feed.cursor, Answer(tabs=3, shown=1, unchanged=1))
    assert not showing.settled.is_set()
    feed.take_answer("one", feed.cursor, Answer(tabs=3, shown=1))
    assert showing.settled.is_set() and (showing.shown, showing.loading) == (2, 0)


def test_a_page_that_loads_itself_shows_it_when_it_is_there(
    feed: ChangeFeed, named: Subscriber
) -> None:
    showing = feed.publish(change("/a"))
    feed.take_answer("one", feed.cursor, Answer(loading=1))
    assert not showing.settled.is_set() and (showing.shown, showing.loading) == (0, 1)
    feed.take_arrival(feed.cursor)
    assert showing.settled.is_set() and (showing.shown, showing.loading) == (1, 0)


def test_the_page_with_the_stream_and_others_load_themselves(
    feed: ChangeFeed, named: Subscriber
) -> None:
    """Whoever comes after it speaks for the rest."""
    showing = feed.publish(change("/a"))
    feed.take_answer("one", feed.cursor, Answer(tabs=3, loading=1))
    feed.take_arrival(feed.cursor)
    feed.take_arrival(feed.cursor)
    assert not showing.settled.is_set()
    feed.take_answer("two", feed.cursor, Answer(tabs=3, shown=1))
    assert showing.settled.is_set() and showing.shown == 3


def test_a_stream_that_is_opened_anew_answers_for_the_one_before(feed: ChangeFeed) -> None:
    with feed.subscribed("browser", name="one", shared=True):
        pass
    showing = feed.publish(change("/a"))
    assert not showing.settled.is_set()
    with feed.subscribed("browser", name="two", shared=True):
        feed.take_answer("two", feed.cursor, Answer(tabs=2, shown=1))
        assert not showing.settled.is_set()
        feed.take_answer("two", feed.cursor, Answer(tabs=2, shown=1))
    assert showing.settled.is_set() and showing.shown == 2


@pytest.mark.parametrize("is_late", [False, True])
def test_a_page_that_was_left_for_another_is_not_waited_for(
    feed: ChangeFeed, is_late: bool
) -> None:
    """Whether its end is noticed before or after the next page is there."""
    left = ExitStack()
    left.enter_context(feed.subscribed("browser", name="one", shared=True))
    if not is_late:
        left.close()
    with feed.subscribed("browser", name="two", shared=True):
        left.close()
        showing = feed.publish(change("/a"))
        feed.take_answer("two", feed.cursor, Answer(shown=1))
        assert showing.settled.is_set() and showing.shown == 1


def test_an_answer_is_for_the_changes_that_the_page_knows(
    feed: ChangeFeed, named: Subscriber
) -> None:
    first = feed.publish(change("/a"))
    cursor = feed.cursor
    second = feed.publish(change("/b"))
    feed.take_answer("one", cursor, Answer(shown=1))
    assert first.settled.is_set() and not second.settled.is_set()
    feed.take_answer("one", "0123-9", Answer(shown=1))
    assert not second.settled.is_set()
    feed.forget(first)
    feed.take_answer("one", feed.cursor, Answer(shown=1))
    assert second.settled.is_set() and (first.shown, second.shown) == (1, 1)


# Causes


def test_what_requests_have_caused(feed: ChangeFeed) -> None:
    request = Request("POST", "/form")
    span = RequestSpan(request, False, time.time)
    start = feed.cursor
    feed.publish(change("/a"), (span,))
    assert feed.causes_since(start) == (span,)
    middle = feed.cursor
    feed.publish(change("/b"))
    assert feed.causes_since(start) == feed.causes_since(middle) == ()
    assert feed.causes_since("0123-1") == ()
    request.close()
