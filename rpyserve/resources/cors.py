"""Cross-origin resource sharing: what a page of another origin may read (the Fetch standard, "CORS protocol").

A browser lets no page read what another origin answers unless that says so; this says so, for chosen origins only.
It guards nothing: who is no browser reads anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.resources.resource import Resource, Wrapper, texts

__all__ = ["cors"]

_ANY: Final = "*"


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
    """Return *resource* so that pages of other origins may read what it, and all that is below it, answers.

    Args:
        resource: a `Resource`, such as a `Directory`, or a function of the request.
        origins: one or more, such as ``"http://localhost:5173"``; ``"*"`` is all of them.
        methods: those that a preflight allows; by default whichever it asks for.
        headers: likewise, request headers.
        expose: response headers that a page may read, besides the few that it always may.
        credentials: whether requests may carry cookies. Then *origins* must be named.
        max_age: seconds that a browser may remember a preflight.

    Raises:
        ValueError: *credentials* with ``"*"``: any page on the internet could act for the visitor; or an origin that
            is none, such as one with a path.
    """
    named = frozenset(map(str.lower, texts(origins)))  # as browsers send them
    if credentials and _ANY in named:
        raise ValueError(
            'cors(credentials=True) needs named origins, such as origins="http://localhost:5173"'
        )
    for origin in named - {_ANY}:
        scheme, separator, host = origin.partition("://")
        if not (scheme and separator and host) or "/" in host:
            raise ValueError(
                f"{origin!r} is no origin: write scheme, host and port, such as 'http://localhost:5173'"
            )
    said = {
        "Access-Control-Allow-Credentials": "true" if credentials else "",
        "Access-Control-Expose-Headers": ", ".join(texts(expose)),
    }
    return _Shared(
        resource, named, said, ", ".join(texts(methods)), ", ".join(texts(headers)), max_age
    )


class _Shared(Wrapper):
    def __init__(
        self,
        resource: Any,
        origins: frozenset[str],
        said: Mapping[str, str],
        methods: str,
        headers: str,
        max_age: int,
    ) -> None:
        super().__init__(resource)
        self._origins = origins
        self._said = {name: value for name, value in said.items() if value}
        self._methods = methods
        self._headers = headers
        self._max_age = max_age

    def enter(self, request: Request) -> Resource | None:
        """Say who may read the answer; a preflight is answered here."""
        origin = request.getHeader("origin")
        if _ANY not in self._origins:
            request.addHeader("Vary", "Origin")
        if origin is not None and (_ANY in self._origins or origin in self._origins):
            request.setHeader(
                "Access-Control-Allow-Origin", _ANY if _ANY in self._origins else origin
            )
            for name, value in self._said.items():
                request.setHeader(name, value)
        if (
            request.method == "OPTIONS"
            and origin is not None
            and request.getHeader("access-control-request-method")
        ):
            return _Preflight(self._allowed(request))
        return None

    def _allowed(self, request: Request) -> dict[str, str]:
        methods = self._methods or request.getHeader("access-control-request-method") or ""
        headers = self._headers or request.getHeader("access-control-request-headers") or ""
        allowed = {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Max-Age": str(self._max_age),
        }
        return {**allowed, "Access-Control-Allow-Headers": headers} if headers else allowed


class _Preflight(Resource):
    isLeaf = True
    wants_body = False

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def render(self, request: Request) -> Response:
        return Response(b"", 204, self._headers)
