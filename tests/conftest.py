"""Fixtures that more than one test file uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from wire import Client, Reply, Respond, connect_to, head


@pytest.fixture
def connect(nursery: trio.Nursery) -> Callable[..., Client]:
    """``connect(respond, **options of serve_connection)`` is the client's end of a new connection."""

    def connect(respond: Respond, **options: Any) -> Client:
        return connect_to(respond, nursery, **options)

    return connect


@pytest.fixture
def fetch(connect: Callable[..., Client]) -> Callable[..., Awaitable[Reply]]:
    """``await fetch(respond, target, *header_lines)`` is one response, on a connection of its own."""

    async def fetch(
        respond: Respond, target: str = "/", *fields: str, method: str = "GET", body: bytes = b"", **options: Any
    ) -> Reply:
        client = connect(respond, **options)
        length = [f"Content-Length: {len(body)}"] if body else []
        await client.send(head(method, target, *fields, *length) + body)
        reply = await client.reply(method)
        await client.aclose()
        return reply

    return fetch
