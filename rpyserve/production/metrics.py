"""Figures of a server for Prometheus, by prometheus_client (the extra ``metrics``).

Each process tells its own: whoever scrapes several workers asks each. Labels have few values, known
beforehand, whatever clients send. What the site or the server knows anyway is read when somebody
asks, so a request costs one counter and one histogram. Who may ask is not a matter of what a
request claims: this machine and the networks that are named, and nobody through a proxy.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import trio

from rpyserve._names import __version__
from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request, RequestRecord, Responder
from rpyserve.http.response import Response
from rpyserve.production.forwarded import UNIX
from rpyserve.resources.pages import error_page

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

PATH: Final = "/metrics"
"""Where the figures are on a port of their own."""

LAG_INTERVAL: Final = 1.0
"""Seconds between two measurements of the event loop's lag."""

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper limits of the histograms' buckets."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class NoMetrics(Exception):
    """There can be none; the text says what to do."""


def require_prometheus() -> None:
    """See whether there can be figures.

    Raises:
        NoMetrics: prometheus_client is not installed.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise NoMetrics(
            "--metrics needs prometheus_client, which is not installed. "
            "Install it: pip install prometheus_client"
        )


class Metrics:
    """The figures of one server.

    Args:
        site: its sessions are counted.
        connections: returns how many connections there are.

    Raises:
        ImportError: prometheus_client is not installed; see `require_prometheus`.
    """

    def __init__(self, site: Any, connections: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram, Info
        from prometheus_client.process_collector import ProcessCollector

        self._site, self._connections = site, connections
        self._began = trio.current_time()
        self._taken_up = self._over = 0
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "rpyserve_requests",
            "Requests that are over, by method and class of the status.",
            ["method", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "rpyserve_request_duration_seconds",
            "Seconds from the end of a request's head to the end of the response.",
            buckets=SECONDS,
            registry=registry,
        )
        self._lag = Histogram(
            "rpyserve_event_loop_lag_seconds",
            "Seconds by which the event loop was late, measured once a second.",
            buckets=SECONDS,
            registry=registry,
        )
        Info("rpyserve_build", "The versions.", registry=registry).info(
            {"version": __version__, "python": sys.version.partition(" ")[0]}
        )
        ProcessCollector(registry=registry)
        registry.register(_Collector(self))
        self._by_kind: dict[tuple[str, int], Any] = {}

    def counted(self, respond: Responder) -> Responder:
        """Wrap *respond* so that requests under way are counted."""

        def respond_counted(request: Request) -> Awaitable[Response]:
            self._taken_up += 1
            return respond(request)

        return respond_counted

    def observed(
        self, on_record: Callable[[RequestRecord], object]
    ) -> Callable[[RequestRecord], None]:
        """Return what counts a request that is over, and passes it on to *on_record*."""

        def observe(record: RequestRecord) -> None:
            self.observe(record)
            on_record(record)

        return observe

    def observe(self, record: RequestRecord) -> None:
        """Count a request that is over."""
        if record.request is not None:
            self._over += 1
        method = record.method if record.method in _METHODS else "other"
        kind = method, record.status // 100
        counter = self._by_kind.get(kind)
        if counter is None:
            counter = self._by_kind[kind] = self._requests.labels(method, f"{kind[1]}xx")
        counter.inc()
        self._seconds.observe(record.seconds or 0.0)

    async def measure_lag(self) -> None:
        """Look, until cancelled, how late the event loop is."""
        while True:
            due = trio.current_time() + LAG_INTERVAL
            await trio.sleep_until(due)
            self._lag.observe(trio.current_time() - due)

    def response(self, request: Request) -> Response:
        """Return the figures in the format that *request* accepts."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(request.getHeader("accept") or "")
        headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
        return Response(encode(self._registry), 200, headers)

    def present(self) -> Iterator[tuple[str, str, float]]:
        """Yield the name, the meaning and the value of each figure that is a state."""
        sessions = self._site.sessions.statistics()
        yield "rpyserve_requests_in_flight", "Requests under way.", self._taken_up - self._over
        yield "rpyserve_connections", "Open connections.", self._connections()
        yield "rpyserve_sessions", "Sessions that live in this process.", sessions.live
        uptime = trio.current_time() - self._began
        yield "rpyserve_uptime_seconds", "Seconds since the server listens.", uptime

    def sums(self) -> Iterator[tuple[str, str, dict[str, float]]]:
        """Yield the same of what only grows, each with its values by their reason, if any."""
        sessions = self._site.sessions.statistics()
        ended = {end.value: count for end, count in sessions.ended.items()}
        yield "rpyserve_sessions_made", "Sessions that were made.", {"": sessions.made}
        yield "rpyserve_sessions_ended", "Sessions that ended, by the reason.", ended
        persistence = getattr(self._site, "persistence", None)
        errors = getattr(persistence, "errors", 0)
        yield "rpyserve_store_errors", "Requests refused for the session store.", {"": errors}


class _Collector:
    """What is read when somebody asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        return []  # all names are ours, so none can be there twice

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, meaning, value in self._metrics.present():
            yield GaugeMetricFamily(name, meaning, value)
        for name, meaning, values in self._metrics.sums():
            labels = [] if "" in values else ["reason"]
            family = CounterMetricFamily(name, meaning, labels=labels)
            for reason, value in values.items():
                family.add_metric([reason] if labels else [], value)
            yield family


def metrics_site(metrics: Metrics, trusts: Callable[[Request], bool]) -> Responder:
    """Return what answers on a port that has nothing but the figures."""

    async def respond(request: Request) -> Response:
        if not _may_see(request, trusts):
            return error_page(request, HTTPError(403, "This is not for you."), trusted=False)
        if request.raw_path != PATH:
            return error_page(request, HTTPError(404), trusted=False)
        if request.method not in ("GET", "HEAD"):
            return error_page(
                request, HTTPError(405, headers={"Allow": "GET, HEAD"}), trusted=False
            )
        return metrics.response(request)

    return respond


def with_metrics(
    respond: Responder, metrics: Metrics, path: str, trusts: Callable[[Request], bool]
) -> Responder:
    """Wrap *respond* so that the figures are at *path*; for others there is nothing there."""

    def respond_with_metrics(request: Request) -> Awaitable[Response]:
        if request.raw_path != path:
            return respond(request)
        request._logged = False
        return _at_path(request, metrics, trusts)

    return respond_with_metrics


async def _at_path(
    request: Request, metrics: Metrics, trusts: Callable[[Request], bool]
) -> Response:
    if request.method not in ("GET", "HEAD") or not _may_see(request, trusts):
        return error_page(request, HTTPError(404), trusted=False)
    return metrics.response(request)


def _may_see(request: Request, trusts: Callable[[Request], bool]) -> bool:
    is_on_socket = request.client[0] == UNIX and request._proxy is None
    return is_on_socket or trusts(request)
