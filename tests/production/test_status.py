"""What a load balancer asks, and what a server says that is about to stop."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from rpyserve import Request, Resource, Site
from rpyserve.production.status import CHECK_TIMEOUT, Status, with_status
from tests.support.in_process import ask


class Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> str:
        return "page"


class Wrapped:
    """A site with what is below ``/-/``."""

    def __init__(self) -> None:
        self.site = Site(Page())
        self.draining = False
        status = Status(self.site.ready_checks, lambda: self.draining)
        self.respond = with_status(self.site.respond, status)


async def test_health_and_readiness() -> None:
    wrapped = Wrapped()
    for path in ("/-/health", "/-/ready"):
        answer = await ask(wrapped, path)
        assert (answer.status, answer.text) == (200, "ok\n")
        assert answer.header("cache-control") == "no-store"
        assert (await ask(wrapped, path, "HEAD")).status == 200
        assert (await ask(wrapped, path, "POST")).status == 405
    assert (await ask(wrapped, "/")).text == "page"


@pytest.mark.parametrize(
    "path",
    [
        "/-/",
        "/-/events",
        "/-/follow.js",
        "/-/sent?name=x",
        "/-/health/",
        "/-/health?x",
        "/-/%68ealth",
    ],
)
async def test_nothing_else_is_there(path: str) -> None:
    answer = await ask(Wrapped(), path)
    assert answer.status == (200 if path == "/-/health?x" else 404)


async def test_who_drains_is_healthy_and_not_ready() -> None:
    wrapped = Wrapped()
    wrapped.draining = True
    assert (await ask(wrapped, "/-/health")).status == 200
    answer = await ask(wrapped, "/-/ready")
    assert (answer.status, answer.text) == (503, "not ready\n")


async def test_a_check_that_fails_says_why_on_the_console_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrapped, is_down = Wrapped(), True

    async def ping() -> None:
        if is_down:
            raise OSError("redis://10.0.0.3 refused")

    wrapped.site.ready_checks.append(ping)
    answer = await ask(wrapped, "/-/ready")
    assert (answer.status, answer.text) == (503, "not ready\n")
    assert "Not ready: OSError: redis://10.0.0.3 refused" in caplog.text
    assert (await ask(wrapped, "/-/health")).status == 200
    is_down = False
    assert (await ask(wrapped, "/-/ready")).status == 200


async def test_a_check_that_takes_too_long(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped = Wrapped()
    wrapped.site.ready_checks.append(trio.sleep_forever)
    before = trio.current_time()
    assert (await ask(wrapped, "/-/ready")).status == 503
    assert trio.current_time() - before == pytest.approx(CHECK_TIMEOUT)
    assert "no answer within 1 s" in caplog.text


async def test_a_drain_in_the_middle_of_a_check() -> None:
    wrapped = Wrapped()

    async def check() -> None:
        wrapped.draining = True

    wrapped.site.ready_checks.append(check)
    assert (await ask(wrapped, "/-/ready")).status == 503


async def test_the_log_is_not_full_of_it() -> None:
    wrapped = Wrapped()
    request = Request("GET", "/-/ready")
    await wrapped.respond(request)
    assert not request._logged
