"""Numbers of changes, and those who wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from rpyserve.livereload.change_feed import (
    EXTRA_STREAMS,
    MAX_CHANGES,
    MAX_STREAMS,
    ChangeFeed,
    FeedStatistics,
    Subscriber,
)
from rpyserve.livereload.changes import Changes, PageChange


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
    assert feed.publish(change("/a")) == 1
    middle = feed.cursor
    assert feed.publish(change("/b", data=True)) == 2
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


async def test_nobody_waits_for_what_has_happened(feed: ChangeFeed, subscriber: Subscriber) -> None:
    feed.publish(change("/a"))
    await feed.wait_change(0, subscriber)
    feed.close()
    await feed.wait_change(1, subscriber)


def test_a_browser_that_closes_none_loses_its_oldest(feed: ChangeFeed) -> None:
    with ExitStack() as open_streams:
        subscribers = [
            open_streams.enter_context(feed.subscribed("this"))
            for _ in range(MAX_STREAMS + EXTRA_STREAMS)
        ]
        assert not any(subscriber.displaced for subscriber in subscribers)
        subscribers += [open_streams.enter_context(feed.subscribed("this")) for _ in range(2)]
        assert [subscriber.displaced for subscriber in subscribers] == [True, True] + [False] * (
            MAX_STREAMS + EXTRA_STREAMS
        )


def test_too_many_streams_of_one_browser(feed: ChangeFeed) -> None:
    with ExitStack() as open_streams:
        subscribers = [
            open_streams.enter_context(feed.subscribed("this")) for _ in range(MAX_STREAMS)
        ]
        other = open_streams.enter_context(feed.subscribed("other"))
        assert not any(subscriber.crowded for subscriber in subscribers)
        subscribers.append(open_streams.enter_context(feed.subscribed("this")))
        assert all(subscriber.crowded for subscriber in subscribers) and not other.crowded
        assert feed.statistics().subscribers == MAX_STREAMS + 2
    assert feed.statistics().subscribers == 0
