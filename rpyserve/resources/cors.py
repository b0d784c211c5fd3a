"""Cross-origin resource sharing: what pages of other origins may read.

This is the "CORS protocol" of the Fetch standard. A browser lets no page read what another origin
answers unless that origin says so; this says so, for chosen origins only. It is not access control:
clients other than browsers ignore it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rpyserve._names import public
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.resources.resource import Resource, Wrapper, as_list

__all__ = ["cors"]

_ANY: Final = "*"


@public
def cors(
    resource: Any,
    origins: str | Iterable[str] = _ANY,
    *,
    methods: str | Iterable[str] = (),
    headers: str | Iterable[str] = (),
    expose: str | Iterable[str] = (),
    credentials: bool = False,
    max_age: int = 600,
) -> Resource:
    """Return *resource* so that pages of other origins may read what is there and below it.

    Args:
        resource: a `Resource`, such as a `Directory`, or a function of the request.
        origins: one or more, such as ``"http://localhost:5173"``; ``"*"`` is all of them.
        methods: those that a preflight allows; by default whichever it asks for.
        headers: request headers that a preflight allows; by default whichever it asks for.
        expose: response headers that a page may read, besides the few that it always may.
        credentials: whether requests may carry cookies. Then *origins* must be named.
        max_age: seconds that a browser may remember a preflight.

    Raises:
        ValueError: *credentials* with ``"*"``: any page on the internet could act for the visitor;
            or an origin that is not valid, such as one with a path.
    """
    named = frozenset(origin.lower() for origin in as_list(origins))  # as browsers send them
    if credentials and _ANY in named:
        raise ValueError(
            'cors(credentials=True) needs named origins, such as origins="http://localhost:5173"'
        )
    for origin in named - {_ANY}:
        if not _is_origin(origin):
            raise ValueError(
                f"{origin!r} is not an origin: "
                "write scheme, host and port, such as 'http://localhost:5173'"
            )
    policy = _Policy(
        origins=named,
        methods=", ".join(as_list(methods)),
        headers=", ".join(as_list(headers)),
        expose=", ".join(as_list(expose)),
        credentials=credentials,
        max_age=max_age,
    )
    return _SharedResource(resource, policy)


def _is_origin(text: str) -> bool:
    scheme, separator, host = text.partition("://")
    return bool(scheme and separator and host) and "/" not in host


@dataclass(frozen=True, slots=True)
class _Policy:
    """The arguments of `cors`, the lists joined by commas as headers have them."""

    origins: frozenset[str]
    methods: str
    headers: str
    expose: str
    credentials: bool
    max_age: int

    def response_headers(self, origin: str) -> dict[str, str]:
        """What the answer to a page of *origin* says."""
        any_origin = _ANY in self.origins
        if not any_origin and origin not in self.origins:
            return {}
        headers = {"Access-Control-Allow-Origin": _ANY if any_origin else origin}
        if self.credentials:
            headers["Access-Control-Allow-Credentials"] = "true"
        if self.expose:
            headers["Access-Control-Expose-Headers"] = self.expose
        return headers

    def preflight_headers(self, method: str, headers: str) -> dict[str, str]:
        """What the answer to a preflight says that asks for *method* and *headers*."""
        allowed = {
            "Access-Control-Allow-Methods": self.methods or method,
            "Access-Control-Max-Age": str(self.max_age),
        }
        if self.headers or headers:
            allowed["Access-Control-Allow-Headers"] = self.headers or headers
        return allowed


class _SharedResource(Wrapper):
    def __init__(self, resource: Any, policy: _Policy) -> None:
        super().__init__(resource)
        self._policy = policy

    def enter(self, request: Request) -> Resource | None:
        """Say who may read the answer; a preflight is answered here."""
        if _ANY not in self._policy.origins:
            request.addHeader("Vary", "Origin")
        origin = request.getHeader("origin")
        if origin is None:
            return None
        for name, value in self._policy.response_headers(origin).items():
            request.setHeader(name, value)
        method = request.getHeader("access-control-request-method")
        if request.method != "OPTIONS" or not method:
            return None
        headers = request.getHeader("access-control-request-headers") or ""
        return _Preflight(self._policy.preflight_headers(method, headers))


class _Preflight(Resource):
    isLeaf = True
    _wants_body = False

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def render(self, request: Request) -> Response:
        return Response(b"", 204, self._headers)
