"""Fixtures that more than one test file uses."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings

from tests.support.http_client import Client, Reply, Respond, connect_to, head
from tests.support.script_site import ScriptSite

# How long an example takes says nothing: the machine may be busy.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """What a command in the tests' own process sets up for its console goes away with the test."""
    last_resort, basic_config = logging.lastResort, logging.basicConfig
    kept = [
        (logger, logger.level, logger.handlers[:], logger.propagate)
        for logger in (logging.getLogger("rpyserve"), logging.getLogger())
    ]
    yield
    for logger, level, handlers, propagate in kept:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate
    logging.lastResort, logging.basicConfig = last_resort, basic_config


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ScriptSite]:
    """A site of scripts, without a server."""
    made = ScriptSite(tmp_path)
    yield made
    made.scripts.close()


@pytest.fixture
def connect(nursery: trio.Nursery) -> Callable[..., Client]:
    """``connect(respond, **options of serve_connection)`` is the client's end of a
    new connection.
    """

    def connect(respond: Respond, **options: Any) -> Client:
        return connect_to(respond, nursery, **options)

    return connect


@pytest.fixture
def fetch(connect: Callable[..., Client]) -> Callable[..., Awaitable[Reply]]:
    """``await fetch(respond, target, *header_lines)`` is one response, on a
    connection of its own.
    """

    async def fetch(
        respond: Respond,
        target: str = "/",
        *fields: str,
        method: str = "GET",
        body: bytes = b"",
        **options: Any,
    ) -> Reply:
        client = connect(respond, **options)
        length = [f"Content-Length: {len(body)}"] if body else []
        await client.send(head(method, target, *fields, *length) + body)
        reply = await client.reply(method)
        await client.aclose()
        return reply

    return fetch


@pytest.fixture
def without_twisted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Twisted is not installed, as far as this process is concerned."""
    find = PathFinder.find_spec

    def find_others(name: str, *args: Any) -> Any:
        return None if name.partition(".")[0] == "twisted" else find(name, *args)

    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if is_twisted(name)}
    monkeypatch.setattr(PathFinder, "find_spec", find_others)
    yield
    for name in filter(is_twisted, list(sys.modules)):
        del sys.modules[name]
    sys.modules.update(hidden)


def is_twisted(name: str) -> bool:
    return name.partition(".")[0] == "twisted" or name.startswith("rpyserve.twisted")


@pytest.fixture(autouse=True)
def sites_are_closed() -> Iterator[None]:
    """A site that a test leaves open would change the names that the next test's scripts get."""
    before = _open_sites()
    yield
    assert _open_sites() == before, (
        "a site with scripts was left open: use `async with site.running()`"
    )


def _open_sites() -> set[str]:
    return {name for name in sys.modules if name.startswith("rpysite") and "." not in name}
