"""A script that asks its own server is told so, instead of waiting for ever."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from rpyserve.serving.self_requests import connection_waiting, forbid_self_requests


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_a_blocking_connection_to_ourselves_is_refused(listener: socket.socket) -> None:
    bound = listener.getsockname()
    with (
        forbid_self_requests([bound]),
        socket.socket() as sock,
        pytest.raises(RuntimeError, match="sends a request to its own server"),
    ):
        sock.connect(bound)
    socket.create_connection(bound).close()


def test_others_may_be_asked(listener: socket.socket) -> None:
    bound = listener.getsockname()
    with forbid_self_requests([(bound[0], bound[1] - 1), ("127.0.0.9", bound[1])]):
        socket.create_connection(bound).close()


async def test_a_connection_that_does_not_block_is_fine(listener: socket.socket) -> None:
    bound = listener.getsockname()
    with forbid_self_requests([bound]):
        await (await trio.open_tcp_stream(*bound)).aclose()
        await trio.to_thread.run_sync(lambda: socket.create_connection(bound).close())


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "localhost"), ("0.0.0.0", "192.0.2.7"), ("::", "::1"),
     ("127.0.0.1", "0.0.0.0"), ("127.0.0.1", ""), ("192.0.2.7", "192.0.2.7"), ("fe80::1%eth0", "fe80::1%eth0")],
)  # fmt: skip
def test_addresses_that_are_ours(bound: str, asked: str) -> None:
    family = socket.AF_INET6 if ":" in asked else socket.AF_INET
    with (
        forbid_self_requests([(bound, 9)], ["192.0.2.7"]),
        socket.socket(family) as sock,
        pytest.raises(RuntimeError, match="own"),
    ):
        sock.connect((asked, 9))


def test_datagrams_are_no_question(listener: socket.socket) -> None:
    bound = listener.getsockname()
    with forbid_self_requests([bound]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(bound)


def test_whether_anyone_waits(listener: socket.socket) -> None:
    waiting = connection_waiting([listener.fileno()])
    assert not waiting()
    with socket.create_connection(listener.getsockname()):
        assert waiting()
    assert not connection_waiting([-1])()
