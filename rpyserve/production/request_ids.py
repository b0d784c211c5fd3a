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
        given = request.raw_headers.values.get(name)
        own = secrets.token_hex(ID_BYTES)
        if given is None or proxies is None or request.client[0] not in proxies:
            request.id = own
        else:
            text = given.decode("latin-1")
            request.id = text if _ID.fullmatch(text) else own
        request._own_lines = f"{prefix}{request.id}\r\n".encode("ascii")
        return respond(request)

    return respond_with_id
