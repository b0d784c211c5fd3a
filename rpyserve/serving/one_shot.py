"""One response without a socket, for ``--get``.

The body goes to stdout as bytes, status and headers to stderr. The request is one that curl on this
machine would send: no cookie, any media type accepted. The site runs as it does on the network,
sessions and their end included.
"""

from __future__ import annotations

import sys
from urllib.parse import quote

import trio

from rpyserve.http.headers import reason_phrase
from rpyserve.http.request import Request
from rpyserve.http.response import Response, start_body
from rpyserve.serving import notices
from rpyserve.serving.console_writer import write
from rpyserve.serving.signals import Signals, is_interruption
from rpyserve.site import Site
from rpyserve.util.exceptions import unwrap_group


def print_response(site: Site, path: str, *, verbose: bool = False) -> int:
    """Print *site*'s response for *path*; return 1 if its status is 400 or more, else 0.

    Args:
        path: as in a URL, a query included; the first slash may be left out, and what is no ASCII
            need not be encoded.
        verbose: whether to show the status and the headers as well.
    """
    if site.on_source is None:
        site.on_source = notices.FindingAnnouncer()
    request = Request("GET", target_of(path), [(b"host", b"localhost"), (b"accept", b"*/*")])
    signals = Signals()
    status = 0

    async def main() -> None:
        nonlocal status
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop, signals, nursery.cancel_scope)
            async with site.running():
                status = await _answer(site, request, verbose)
            nursery.cancel_scope.cancel()

    with signals.installed(), notices.reporting_unawaited(site.errors):
        try:
            trio.run(main, restrict_keyboard_interrupt_to_checkpoints=False)
        except BaseException as exc:
            # A script was interrupted, or whoever reads our stdout has had enough.
            if not (is_interruption(exc) or isinstance(unwrap_group(exc), BrokenPipeError)):
                raise
    return int(status >= 400 or status == 0)


def target_of(path: str) -> str:
    """Return the request target that *path*, as typed, means."""
    return "/" + quote(path.removeprefix("/"), safe="/?&=%:@!$'()*+,;~[]")


async def _stop(signals: Signals, scope: trio.CancelScope) -> None:
    await signals.run()
    scope.cancel()


async def _answer(site: Site, request: Request, verbose: bool) -> int:
    try:
        response = await site.respond(request)
        async with start_body(response) as body:
            if verbose:
                write(_head(body.response))
            async for chunk in body.chunks:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
    except Exception as exc:
        if isinstance(unwrap_group(exc), BrokenPipeError):
            raise
        return 0  # a body that fails half-way: the site has told why
    finally:
        request.close()
    return body.response.status


def _head(response: Response) -> str:
    lines = [f"{response.status} {reason_phrase(response.status)}".rstrip()]
    lines += [
        f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in response.headers
    ]
    return "\n".join(lines) + "\n\n"
