"""What a server and those who answer its requests agree on: a signature, and a record.

Values and types only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from rpyserve.http.request import Address, Request
from rpyserve.http.response import Response

# What makes a response of a request: a site, or a wrapper of one.
Responder = Callable[[Request], Awaitable[Response]]


class RequestRecord(NamedTuple):
    """One request and its response, when it is over.

    Args:
        request: the request; None if what came was none.
        method: the method as it was sent; empty if it could not be read.
        target: the request target as it was sent; empty if it could not be read.
        client: the client's IP address and port.
        status: the status that was sent; 499 if the client left, or the server stopped, before
            there was one.
        sent: bytes of body that were sent, without chunked framing.
        seconds: from the end of the request's head to the end of the response.
        complete: whether the whole response went out. A stream of events ends with its client.
    """

    request: Request | None
    method: str
    target: str
    client: Address
    status: int
    sent: int
    seconds: float
    complete: bool
