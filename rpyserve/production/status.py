"""``/-/health`` and ``/-/ready``: what a load balancer, or an orchestrator, asks.

Health is an answer: the event loop turns. Ready is more: the server is not about to stop, and what
the site depends on, such as its session store, can be reached. Everything else below ``/-/`` is a
404 in production. Both tell everybody the same, and nobody why.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request, Responder
from rpyserve.http.response import Response
from rpyserve.resources.pages import error_page
from rpyserve.util.throttle import ThrottledLogger

log = logging.getLogger("rpyserve")

PREFIX: Final = "/-/"
HEALTH: Final = "/-/health"
READY: Final = "/-/ready"

CHECK_TIMEOUT: Final = 1.0
"""Seconds that a check may take: load balancers wait for one or two."""

ReadyCheck = Callable[[], Awaitable[object]]


class Status:
    """What `with_status` answers.

    Args:
        checks: async functions that raise if the site cannot serve; the list may change.
        is_draining: whether the server is about to stop.
    """

    def __init__(self, checks: Sequence[ReadyCheck], is_draining: Callable[[], bool]) -> None:
        self._checks = checks
        self._is_draining = is_draining
        self._failures = ThrottledLogger(log)

    async def is_ready(self) -> bool:
        for check in tuple(self._checks):
            if self._is_draining() or not await self._passes(check):
                return False
        return not self._is_draining()

    async def _passes(self, check: ReadyCheck) -> bool:
        why = f"no answer within {CHECK_TIMEOUT:g} s"
        with trio.move_on_after(CHECK_TIMEOUT):
            try:
                await check()
                return True
            except Exception as exc:
                why = f"{type(exc).__name__}: {exc}"
        self._failures.warn("Not ready: %s", why)
        return False

    async def respond(self, request: Request) -> Response:
        """Answer a request for a path below ``/-/``."""
        if request.raw_path not in (HEALTH, READY):
            return error_page(request, HTTPError(404), trusted=False)
        request._logged = False
        if request.method not in ("GET", "HEAD"):
            return error_page(
                request, HTTPError(405, headers={"Allow": "GET, HEAD"}), trusted=False
            )
        is_good = request.raw_path == HEALTH or await self.is_ready()
        text = b"ok\n" if is_good else b"not ready\n"
        headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
        return Response(text, 200 if is_good else 503, headers)


def with_status(respond: Responder, status: Status) -> Responder:
    """Wrap *respond* so that what is below ``/-/`` is *status*'s."""

    def respond_with_status(request: Request) -> Awaitable[Response]:
        if request.raw_path.startswith(PREFIX):
            return status.respond(request)
        return respond(request)

    return respond_with_status
