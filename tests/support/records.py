"""Records of requests that are over, for what reads them."""

from __future__ import annotations

from typing import Any

from rpyserve.http.request import Address, RequestRecord


def finished_record(
    request: Any = None,
    method: str = "GET",
    target: str = "/",
    client: Address = ("192.0.2.1", 1),
    status: int = 200,
    sent: int = 5,
    seconds: float = 0.1,
    complete: bool = True,
) -> RequestRecord:
    record = RequestRecord(request, method, target, b"", client, 0.0)
    record.status, record.sent = status, sent
    record.seconds, record.complete = seconds, complete
    return record
