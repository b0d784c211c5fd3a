"""Who speaks TLS to a plain port is answered as well as can be; now and then the console says so."""

from __future__ import annotations

from typing import Any

import trio

from rpyserve.protocol import connection
from tests.support.http_client import answering

HELLO = bytes.fromhex("16030100f8010000f40303")
SAID = "Someone asked for https://, which takes --tls. The page is at http://127.0.0.1:8080/"


async def test_console_says_where_the_page_is(
    connect: Any, autojump_clock: Any, caplog: Any
) -> None:
    async def speak() -> None:
        client = connect(answering("never"))
        await client.send(HELLO)
        assert b"This port speaks http://, not https://." in await client.rest()

    for _ in range(3):
        await speak()
    assert [record.getMessage() for record in caplog.records] == [SAID]
    await trio.sleep(61)
    await speak()
    assert caplog.records[-1].getMessage() == f"{SAID} (2 more since the last such line)"


async def test_address_of_ipv6_is_in_brackets(caplog: Any) -> None:
    connection.warn_of_tls_client(("::1", 80))
    assert caplog.records[0].getMessage().endswith("http://[::1]:80/")
