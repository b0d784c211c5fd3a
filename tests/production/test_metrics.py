"""Figures for Prometheus: right, few, and for those who may see them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from rpyserve import Request, Resource, Site, __version__
from rpyserve.http.hosts import TrustedClients
from rpyserve.http.request import RequestRecord
from rpyserve.production.metrics import Metrics, metrics_site, with_metrics
from rpyserve.production.sockets import TCPPort
from rpyserve.serving.access_log import AccessLog
from rpyserve.serving.listen import CannotListen, Settings, open_endpoint
from rpyserve.serving.run import _serve_until
from tests.support.in_process import ask
from tests.support.records import finished_record

parser = pytest.importorskip("prometheus_client.parser")
openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser")


ROOT = Path(__file__).parent.parent.parent


class Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> str:
        request.getSession()
        return "page"


def record(method: str = "GET", status: int = 200, seconds: float = 0.003) -> RequestRecord:
    request = Request(method, "/")
    return finished_record(request, method, status=status, seconds=seconds)


async def figures(metrics: Metrics) -> dict[str, float]:
    """All samples, by name and labels as text."""
    response = metrics.response(Request("GET", "/metrics"))
    assert isinstance(response.body, bytes)
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(response.body.decode())
        for sample in family.samples
    }


async def test_requests_are_counted_by_method_and_class() -> None:
    metrics = Metrics(Site(Page()), lambda: 3)
    for each in (record(), record(), record("POST", 303), record("GET", 404), record("GET", 499)):
        metrics.observe(each)
    found = await figures(metrics)
    assert found["rpyserve_requests_total method=GET status=2xx"] == 2
    assert found["rpyserve_requests_total method=POST status=3xx"] == 1
    assert found["rpyserve_requests_total method=GET status=4xx"] == 2
    assert found["rpyserve_request_duration_seconds_count"] == 5
    assert found["rpyserve_request_duration_seconds_sum"] == pytest.approx(0.015)
    assert found["rpyserve_request_duration_seconds_bucket le=0.0025"] == 0
    assert found["rpyserve_request_duration_seconds_bucket le=0.005"] == 5
    assert found["rpyserve_connections"] == 3


async def test_no_client_makes_a_series() -> None:
    metrics = Metrics(Site(Page()), lambda: 0)
    metrics.observe(record())
    metrics.observe(record("BREW"))
    before = len(await figures(metrics))
    for number in range(1000):
        metrics.observe(record(f"M{number}"))
    found = await figures(metrics)
    assert len(found) == before
    assert found["rpyserve_requests_total method=other status=2xx"] == 1001


async def test_the_state_of_a_server(nursery: trio.Nursery, mock_clock: Any) -> None:
    site = Site(Page())
    metrics = Metrics(site, lambda: 0)
    begun, leave = trio.Event(), trio.Event()

    async def respond(request: Request) -> Any:
        begun.set()
        await leave.wait()
        return await site.respond(request)

    counted, request = metrics.counted(respond), Request("GET", "/")
    observe = metrics.observed(lambda record: None)
    nursery.start_soon(counted, request)
    await begun.wait()
    assert (await figures(metrics))["rpyserve_requests_in_flight"] == 1
    leave.set()
    await trio.testing.wait_all_tasks_blocked()
    observe(finished_record(request))
    observe(finished_record(None, "", "", status=400))  # what was no request
    mock_clock.jump(5)
    found = await figures(metrics)
    assert found["rpyserve_requests_in_flight"] == 0
    assert found["rpyserve_sessions"] == 1
    assert found["rpyserve_sessions_made_total"] == 1
    assert found["rpyserve_sessions_ended_total reason=idle"] == 0
    assert found["rpyserve_store_errors_total"] == 0
    assert found["rpyserve_uptime_seconds"] == 5
    version = sys.version.partition(" ")[0]
    assert found[f"rpyserve_build_info python={version} version={__version__}"] == 1
    for session in site.sessions:
        session.expire()
    assert (await figures(metrics))["rpyserve_sessions_ended_total reason=expired"] == 1


async def test_the_lag_of_the_loop(nursery: trio.Nursery, mock_clock: Any) -> None:
    metrics = Metrics(Site(Page()), lambda: 0)
    nursery.start_soon(metrics.measure_lag)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(1.3)  # a script has held the loop for 0.3 s when it was due
    await trio.testing.wait_all_tasks_blocked()
    found = await figures(metrics)
    assert found["rpyserve_event_loop_lag_seconds_count"] == 1
    assert found["rpyserve_event_loop_lag_seconds_sum"] == pytest.approx(0.3)


async def test_both_formats_are_well_formed() -> None:
    metrics = Metrics(Site(Page()), lambda: 0)
    metrics.observe(record())
    for accept, parse in (
        ("text/plain", parser.text_string_to_metric_families),
        ("application/openmetrics-text; version=1.0.0", openmetrics.text_string_to_metric_families),
    ):
        answer = metrics.response(Request("GET", "/metrics", [(b"accept", accept.encode())]))
        assert isinstance(answer.body, bytes)
        assert dict(answer.headers)[b"Content-Type"].decode().startswith(accept.partition(";")[0])
        names = [family.name for family in parse(answer.body.decode())]
        assert len(names) == len(set(names)) and "rpyserve_sessions" in names


# Who may see them


class Wrapped:
    def __init__(self, respond: Any) -> None:
        self.respond = respond


async def seen_by(client: str, *headers: tuple[str, str]) -> int:
    """The status that *client* gets."""
    site = Site(Page())
    trusts = TrustedClients([ip_network("10.0.0.0/8")])
    wrapped = with_metrics(site.respond, Metrics(site, lambda: 0), "/metrics", trusts)
    raw = [(name.encode(), value.encode()) for name, value in headers]
    request = Request("GET", "/metrics", raw, client=(client, 1), server=("10.1.1.1", 80))
    return (await wrapped(request)).status


async def test_at_a_path_they_are_for_this_machine_and_named_networks() -> None:
    assert await seen_by("127.0.0.1") == 200
    assert await seen_by("10.2.3.4") == 200
    assert await seen_by("192.0.2.1") == 404
    assert await seen_by("127.0.0.1", ("x-forwarded-for", "127.0.0.1")) == 404
    assert await seen_by("127.0.0.1", ("origin", "http://evil.example")) == 404


async def test_nobody_sees_them_through_a_proxy() -> None:
    site = Site(Page())
    trusts = TrustedClients([ip_network("10.0.0.0/8")])
    wrapped = with_metrics(site.respond, Metrics(site, lambda: 0), "/metrics", trusts)
    request = Request("GET", "/metrics", client=("10.0.0.5", 1))
    request._proxy = ("10.0.0.1", 1)
    assert (await wrapped(request)).status == 404


async def test_on_a_port_of_their_own() -> None:
    respond = metrics_site(Metrics(Site(Page()), lambda: 0), TrustedClients())
    site = Wrapped(respond)
    assert "rpyserve_uptime_seconds" in (await ask(site, "/metrics")).text
    assert (await ask(site, "/")).status == 404
    assert (await ask(site, "/metrics", "POST")).status == 405
    request = Request("GET", "/metrics", client=("192.0.2.1", 1))
    assert (await respond(request)).status == 403
    request = Request("GET", "/metrics", client=("unix:", 0))
    assert (await respond(request)).status == 200


async def get(port: int, path: str) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode())
        return b"".join([chunk async for chunk in stream])


async def test_a_served_site_counts_itself(nursery: trio.Nursery) -> None:
    site, stop, ready = Site(Page()), trio.Event(), trio.Event()
    settings = Settings(port=0, metrics=TCPPort("127.0.0.1", 0))
    endpoint = await open_endpoint(site, settings)
    nursery.start_soon(
        partial(_serve_until, site, endpoint, settings, AccessLog(), stop, ready.set)
    )
    await ready.wait()
    port, own = (each[0].socket.getsockname()[1] for each in (endpoint.listeners, endpoint.metrics))
    for _ in range(3):
        await get(port, "/")
    text = (await get(own, "/metrics")).decode()
    assert 'rpyserve_requests_total{method="GET",status="2xx"} 3.0' in text
    assert "rpyserve_requests_in_flight 0.0" in text
    assert b" 200 " in await get(port, "/metrics")  # on the site's port it is the site's
    stop.set()


async def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(port=0, metrics=TCPPort("127.0.0.1", port))
        with pytest.raises(CannotListen, match=f"Port {port} of 127.0.0.1 is in use"):
            await open_endpoint(Site(Page()), settings)


# Without prometheus_client


def test_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import importlib.util; importlib.util.find_spec = lambda name, *rest: None\n"
        "from rpyserve.cli import main; main(['--metrics', '0', '--port', '0'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "Error: --metrics needs prometheus_client, which is not installed. "
        "Install it: pip install prometheus_client"
    )
