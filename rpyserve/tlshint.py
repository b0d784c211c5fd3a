"""Says on the console, now and then, that somebody spoke TLS to a server that does not.

A browser shows its visitor nothing but "secure connection failed", so the site's author has to be told. It tries
again at once and several times, so it is told once a minute at most.
"""

from __future__ import annotations

import logging
import math
from time import monotonic
from typing import Final

from rpyserve.request import Address

__all__ = ["tell_of_tls"]

AGAIN: Final = 60.0
"""Seconds."""

log = logging.getLogger("rpyserve")
_last = -math.inf


def tell_of_tls(server: Address) -> None:
    """Tell of a client that spoke TLS to *server*, our own address and port."""
    global _last
    now = monotonic()
    if now < _last + AGAIN:
        return
    _last = now
    host, port = server
    host = f"[{host}]" if ":" in host else host
    log.warning("Someone asked for https://, which is not spoken here. The page is at http://%s:%d/", host, port)
