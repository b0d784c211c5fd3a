"""Says on the console, now and then, that somebody spoke TLS to a server that does not.

A browser shows its visitor nothing but "secure connection failed", so the site's author has to be told. One teller for
all connections of a trio run, as a browser tries again at once and several times.
"""

from __future__ import annotations

import logging

import trio

from rpyserve.http.request import Address
from rpyserve.util.throttle import Seldom

__all__ = ["tell_of_tls"]

log = logging.getLogger("rpyserve")
_teller: trio.lowlevel.RunVar[Seldom] = trio.lowlevel.RunVar("rpyserve TLS")


def tell_of_tls(server: Address) -> None:
    """Tell of a client that spoke TLS to *server*, our own address and port."""
    try:
        teller = _teller.get()
    except LookupError:
        teller = Seldom(log)
        _teller.set(teller)
    host, port = server
    host = f"[{host}]" if ":" in host else host
    teller.warn("Someone asked for https://, which takes --tls. The page is at http://%s:%d/", host, port)
