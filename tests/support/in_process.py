"""Ask a site without a socket: the response with its body read to the end, as a client would see
it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import trio

from rpyserve.http.request import Request
from rpyserve.http.response import Response, start_body
from rpyserve.testing.transport import body_chunks


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} more than once: {values}"
        return values[0] if values else None


class Visitor:
    """A client of *site* that keeps its cookies.

    Args:
        site: what it asks.
        client: its address.
        server: the address and port that it seems to have connected to.
    """

    def __init__(
        self, site: Any, client: str = "127.0.0.1", server: tuple[str, int] = ("127.0.0.1", 8080)
    ) -> None:
        self.site = site
        self.client = client
        self.server = server
        self.cookies: dict[str, str] = {}

    async def get(self, target: str, **more: Any) -> Answer:
        return await self.ask("GET", target, **more)

    async def post(self, target: str, body: bytes | str = b"", **more: Any) -> Answer:
        return await self.ask("POST", target, body, **more)

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        wait_client_left: Callable[[], Awaitable[None]] = trio.sleep_forever,
    ) -> Answer:
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        if self.cookies:
            raw.append((b"cookie", "; ".join(f"{k}={v}" for k, v in self.cookies.items()).encode()))
        if isinstance(body, str):
            body = body.encode()
            raw.append((b"content-type", b"application/x-www-form-urlencoded"))
        chunks = None if body is None else body_chunks(body, 7)
        request = Request(
            method,
            target,
            raw,
            client=(self.client, 4321),
            server=self.server,
            body=chunks,
            wait_client_left=wait_client_left,
        )
        try:
            answer = await read(await self.site.respond(request))
        finally:
            request.close()
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        return answer


async def ask(site: Any, target: str, method: str = "GET", **more: Any) -> Answer:
    """One request by a new visitor."""
    return await Visitor(site).ask(method, target, **more)


async def read(response: Response) -> Answer:
    async with start_body(response) as body:
        content = b"".join([chunk async for chunk in body.chunks])
        headers = [
            (name.decode(), value.decode("latin-1")) for name, value in body.response.headers
        ]
        return Answer(body.response.status, headers, content)
