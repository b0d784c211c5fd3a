"""Cross-origin resource sharing: what pages of other origins may read.

This is the "CORS protocol" of the Fetch standard. A browser lets no page read what another origin
answers unless that origin says so; this says so, for chosen origins only. It is not access control:
clients other than browsers ignore it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rpyserve._names import public
from rpyserve.http.request import Request
from rpyserve.http.response import Response
from rpyserve.resources.resource import Resource, Wrapper, as_list

_ANY: Final = "*"
_ORIGIN: Final = re.compile(r".+?://[^/]+")


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
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is not an origin: "
                "write scheme, host and port, such as 'http://localhost:5173'"
            )
    shared = {
        "Access-Control-Allow-Credentials": "true" if credentials else "",
        "Access-Control-Expose-Headers": ", ".join(as_list(expose)),
    }
    preflight = {
        "Access-Control-Allow-Methods": ", ".join(as_list(methods)),
        "Access-Control-Allow-Headers": ", ".join(as_list(headers)),
        "Access-Control-Max-Age": str(max_age),
    }
    return _SharedResource(resource, named, _without_blanks(shared), _without_blanks(preflight))


def _without_blanks(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if value}


class _SharedResource(Wrapper):
    """What `cors` returns.

    Args:
        resource: what is inside.
        origins: those whose pages may read it.
        shared: headers of all answers to them.
        preflight: headers of the answers to preflights.
    """

    def __init__(
        self,
        resource: Any,
        origins: frozenset[str],
        shared: Mapping[str, str],
        preflight: Mapping[str, str],
    ) -> None:
        super().__init__(resource)
        self._origins = origins
        self._shared = shared
        self._preflight = preflight

    def enter(self, request: Request) -> Resource | None:
        """Say who may read the answer; a preflight is answered here."""
        is_for_any = _ANY in self._origins
        if not is_for_any:
            request.addHeader("Vary", "Origin")
        origin = request.getHeader("origin")
        if origin is None:
            return None
        if is_for_any or origin in self._origins:
            request.setHeader("Access-Control-Allow-Origin", _ANY if is_for_any else origin)
            for name, value in self._shared.items():
                request.setHeader(name, value)
        method = request.getHeader("access-control-request-method")
        if request.method != "OPTIONS" or not method:
            return None
        headers = request.raw_headers.text(b"access-control-request-headers")
        asked = {
            "Access-Control-Allow-Methods": method,
            "Access-Control-Allow-Headers": headers,
        }
        return _Preflight({**_without_blanks(asked), **self._preflight})


class _Preflight(Resource):
    isLeaf = True
    _wants_body = False

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def render(self, request: Request) -> Response:
        return Response(b"", 204, self._headers)
