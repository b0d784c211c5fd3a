"""Numbers of changes, and those who wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from rpyserve.livereload.change_feed import KEPT, MOST_STREAMS, ROOM, ChangeFeed, HubStatistics, Subscriber
from rpyserve.livereload.changes import ANYTHING, NOTHING, PageChange


def change(*urls: str, data: bool = False) -> PageChange:
    return PageChange(frozenset(urls), data=data)


@pytest.fixture
def hub() -> ChangeFeed:
    return ChangeFeed()


@pytest.fixture
def reader(hub: ChangeFeed) -> Iterator[Subscriber]:
    with hub.reading("browser") as reader:
        yield reader


def test_what_has_changed_since(hub: ChangeFeed) -> None:
    start = hub.cursor
    assert hub.announce(change("/a")) == 1
    middle = hub.cursor
    assert hub.announce(change("/b", data=True)) == 2
    assert hub.since(start) == change("/a", "/b", data=True)
    assert hub.since(middle) == change("/b", data=True)
    assert hub.since(hub.cursor) == NOTHING


@pytest.mark.parametrize("mark", ["", "1", "x-1", "-", "{boot}-", "{boot}-9", "{boot}--1", "{boot}-²", "{boot}-1e3"])
def test_a_mark_that_means_nothing_here(hub: ChangeFeed, mark: str) -> None:
    hub.announce(change("/a"))
    assert hub.since(mark.format(boot=hub.boot)) == ANYTHING


def test_two_hubs_differ() -> None:
    assert ChangeFeed().cursor != ChangeFeed().cursor


def test_what_is_kept_is_bounded(hub: ChangeFeed) -> None:
    start = hub.cursor
    for n in range(3 * KEPT):
        hub.announce(change(f"/{n % 7}"))
    assert hub.statistics() == HubStatistics(number=3 * KEPT, kept=KEPT, readers=0)
    assert hub.since(start) == ANYTHING
    assert hub.since(f"{hub.boot}-{2 * KEPT}").urls == {f"/{n}" for n in range(7)}


async def test_news(hub: ChangeFeed, reader: Subscriber, autojump_clock: object) -> None:
    heard: list[int] = []

    async def listen() -> None:
        number = hub.number
        while not hub.closed:
            await hub.wait_change(number, reader)
            number = hub.number
            heard.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        hub.announce(change("/a"))
        await trio.testing.wait_all_tasks_blocked()
        hub.announce(change("/b"))
        hub.announce(change("/c"))  # before the reader has looked: both at once
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [1, 3]
        hub.close()


async def test_nobody_waits_for_what_has_happened(hub: ChangeFeed, reader: Subscriber) -> None:
    hub.announce(change("/a"))
    await hub.wait_change(0, reader)
    hub.close()
    await hub.wait_change(1, reader)


def test_a_browser_that_closes_none_loses_its_oldest(hub: ChangeFeed) -> None:
    with ExitStack() as open_streams:
        readers = [open_streams.enter_context(hub.reading("this")) for _ in range(MOST_STREAMS + ROOM)]
        assert not any(reader.displaced for reader in readers)
        readers += [open_streams.enter_context(hub.reading("this")) for _ in range(2)]
        assert [reader.displaced for reader in readers] == [True, True] + [False] * (MOST_STREAMS + ROOM)


def test_too_many_streams_of_one_browser(hub: ChangeFeed) -> None:
    with ExitStack() as open_streams:
        readers = [open_streams.enter_context(hub.reading("this")) for _ in range(MOST_STREAMS)]
        other = open_streams.enter_context(hub.reading("other"))
        assert not any(reader.crowded for reader in readers)
        readers.append(open_streams.enter_context(hub.reading("this")))
        assert all(reader.crowded for reader in readers) and not other.crowded
        assert hub.statistics().readers == MOST_STREAMS + 2
    assert hub.statistics().readers == 0
