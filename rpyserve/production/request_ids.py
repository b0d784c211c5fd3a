"""An id for each request, which a proxy may give, for the logs of all who had a part in it.

It is in the response, in the access log as JSON, and in the report of an error on the console. Only
a known proxy's id is taken, and only if it is harmless in a log.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable
from typing import Final

from rpyserve.http.request import Request, Responder
from rpyserve.http.response import Response
from rpyserve.production.forwarded import TrustedProxies

HEADER: Final = "X-Request-ID"

ID_BYTES: Final = 8
"""How many random bytes one of our own has."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+/=:@\-]{0,127}")


def with_request_ids(respond: Responder, proxies: TrustedProxies | None) -> Responder:
    """Wrap *respond* so that each request has an id; outside of all that may refuse it.

    Args:
        respond: who answers.
        proxies: those whose ids are taken.
    """
    name, prefix = HEADER.lower().encode(), f"{HEADER}: "

    def respond_with_id(request: Request) -> Awaitable[Response]:
        given = request.raw_headers.values.get(name, b"").decode("latin-1")
        is_taken = _ID.fullmatch(given) and proxies is not None and request.client[0] in proxies
        request.id = given if is_taken else secrets.token_hex(ID_BYTES)
        request._own_lines = f"{prefix}{request.id}\r\n".encode("ascii")
        return respond(request)

    return respond_with_id
