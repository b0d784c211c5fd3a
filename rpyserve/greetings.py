"""What a server in a process of its own says when it begins, while it stops, and at the end."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from rpyserve import __version__, console
from rpyserve.door import Settings, address_of
from rpyserve.site import Site

__all__ = ["announce", "explain_delay", "farewell"]


def announce(site: Site, listeners: Sequence[trio.SocketListener], settings: Settings) -> None:
    """Print the banner, and tell whoever waits for it the URL."""
    host, port = address_of(listeners[0])
    moved = settings.port not in (0, port)
    url = console.banner(
        f"rpyserve {__version__} serves {settings.title}",
        (settings.host if settings.host == "localhost" else host, port),
        timeout=site.sessions.timeout,
        scheme="http" if settings.tls is None else "https",
        quiet=settings.quiet,
        notes=[f"Port {settings.port} is not free, so this is port {port}:"] if moved else [],
    )
    settings.on_ready(url)


async def explain_delay(stop: trio.Event) -> None:
    """Say what goes on if stopping takes longer than a moment."""
    await stop.wait()
    await trio.sleep(0.5)
    console.say_over("Stopping. What is being answered has 5 seconds; Ctrl-C again ends it at once.")


def farewell(ended: int) -> str:
    """What is said at the end, when *ended* sessions have ended."""
    many = f"{ended} session{'' if ended == 1 else 's'}"
    return f"Stopped. {many} ended, and what `registry` held is gone."
