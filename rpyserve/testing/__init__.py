"""Clients for tests of scripts, sites and resources: without a socket, with time that tests move.

Owns the clients, their transports, and the pytest plugin. Must not know the protocol or the serving
process. The names below are loaded when they are first used, because pytest imports this package
for its plugin wherever rpyserve is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rpyserve.testing.client import AsyncClient, Client, ClientOptions

__all__ = ["AsyncClient", "Client", "ClientOptions"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from rpyserve.testing import client
    except ModuleNotFoundError as exc:
        if exc.name != "httpx":
            raise
        raise ImportError(
            "rpyserve.testing needs httpx, which is not installed. Write: pip install httpx"
        ) from exc
    return getattr(client, name)
