"""What a reverse proxy changes in heads on their way to the backend and back. Pure.

Fields that belong to one connection are left out (RFC 9110, section 7.6.1), who asked is added (RFC 7239), and what the
backend says of its own addresses, in ``Location`` and in cookies, becomes what leads there through the proxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from rpyserve.http.request import Request, authority_of
from rpyserve.http.response import Headers

__all__ = ["Mount", "downstream_headers", "upstream_headers"]

Fields = list[tuple[bytes, bytes]]

_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings",
    }
)  # fmt: skip
_OURS: Final = re.compile(rb"expect|forwarded|via|x-forwarded-.*")
_PROTECTED: Final = _HOP | {b"host", b"content-length"}
_SEPARATORS: Final = re.compile(r"[/\\;]")
_ADDRESSES: Final = frozenset({b"location", b"content-location", b"refresh"})
_COOKIE_PATH: Final = re.compile(rb"(;[ \t]*path[ \t]*=[ \t]*)([^;]*)", re.I)
_COOKIE_DOMAIN: Final = re.compile(rb";[ \t]*domain[ \t]*=[^;]*", re.I)


@dataclass(frozen=True, slots=True)
class Mount:
    """Where in our paths a backend is, and where its own begin.

    Args:
        prefix: our path that leads to the proxy, percent-encoded, without a slash at its end.
        origin: the backend's, such as ``"http://127.0.0.1:5000"``.
        base: the path below which the backend is asked, without a slash at its end.
        rest: what follows the prefix in the request's path, as it was sent.
    """

    prefix: str
    origin: str
    base: str
    rest: str

    @classmethod
    def of(cls, request: Request, origin: str, base: str) -> Mount:
        """Return the mount that *request* has been led to."""
        segments = request.raw_path.split("/")[1:]
        count = len(request.prepath) - (
            request.prepath[-1:] == [""]
        )  # the slash of a directory is the backend's
        prefix, rest = (
            "".join("/" + segment for segment in part)
            for part in (segments[:count], segments[count:])
        )
        return cls(prefix, origin, base, rest)

    def target(self, request: Request) -> bytes:
        """Return the request target for the backend."""
        query = request.uri.partition("?")
        return f"{self.base}{self.rest or ('' if self.base else '/')}{query[1]}{query[2]}".encode(
            "latin-1"
        )

    def climbs(self) -> bool:
        """Whether the path has a ``..`` in it, however it is written: it could lead out of `base` at the backend."""
        return any(".." in _SEPARATORS.split(unquote(segment)) for segment in self.rest.split("/"))

    def ours(self, address: str) -> str:
        """Return what *address*, in the backend's words, is here; other servers' are left as they are."""
        path = address.removeprefix(self.origin)
        if path == address and (not address.startswith("/") or address.startswith("//")):
            return address  # of another server, or relative
        if path and not path.startswith(("/", "?", "#")):
            return address  # http://backend.example is no part of http://backend.example.com
        inside = path.removeprefix(self.base)
        if path and (not path.startswith(self.base) or not (not inside or inside[0] in "/?#")):
            return address  # on the same server, but not below the proxy
        return (self.prefix + inside) or "/"


def upstream_headers(request: Request, mount: Mount, pseudonym: str, *, keep_host: bool) -> Fields:
    """Return the header fields of *request* as the backend gets them.

    Args:
        pseudonym: what the proxy calls itself in ``Via``.
        keep_host: whether ``Host`` stays as the client sent it.
    """
    upgrade = (request.getHeader("upgrade") or "").strip().lower() == "websocket"
    fields = [
        (name, value)
        for name, value in _end_to_end(request.raw_headers)
        if not _OURS.fullmatch(name) and not _is_disguised(name)
    ]
    host = authority_of(request) or ""
    if not keep_host:
        own = mount.origin.partition("://")[2].rpartition("@")[2]
        fields = [
            (b"host", own.encode("latin-1")),
            *(pair for pair in fields if pair[0] != b"host"),
        ]
    said = {
        "x-forwarded-for": _appended(request, "x-forwarded-for", request.client[0]),
        "x-forwarded-host": request.getHeader("x-forwarded-host") or host,
        "x-forwarded-proto": request.getHeader("x-forwarded-proto") or request.scheme,
        "x-forwarded-prefix": mount.prefix,
        "forwarded": _appended(request, "forwarded", _forwarded(request, host)),
        "via": _appended(request, "via", f"{request.http_version} {pseudonym}"),
    }
    fields += [(name.encode(), value.encode("latin-1")) for name, value in said.items() if value]
    return [*fields, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")] if upgrade else fields


def downstream_headers(fields: Iterable[tuple[bytes, bytes]], mount: Mount) -> Headers:
    """Return the header fields of a backend's answer as the client gets them."""
    fields = list(fields)
    upgrade = [pair for pair in fields if pair[0].lower() == b"upgrade"]
    kept = [(name, _rewritten(name.lower(), value, mount)) for name, value in _end_to_end(fields)]
    return (*kept, *upgrade)


def _end_to_end(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """*fields* without those of this connection only, the ones that ``Connection`` names among them."""
    fields = list(fields)
    named = {
        option.strip().lower()
        for name, value in fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    return [
        pair
        for pair in fields
        if pair[0].lower() not in _HOP | (named - {b"host", b"content-length"})
    ]


def _is_disguised(name: bytes) -> bool:
    """Whether a backend that takes ``_`` for ``-``, as those of WSGI and CGI do, would take it for one of ours."""
    plain = name.replace(b"_", b"-")
    return plain != name and (_OURS.fullmatch(plain) is not None or plain in _PROTECTED)


def _appended(request: Request, name: str, value: str) -> str:
    before = request.getHeader(name)
    return f"{before}, {value}" if before else value


def _forwarded(request: Request, host: str) -> str:
    """RFC 7239, section 4."""
    address = request.client[0]
    node = f'"[{address}]"' if ":" in address else address or "unknown"
    return f'for={node};host="{host}";proto={request.scheme}'


def _rewritten(name: bytes, value: bytes, mount: Mount) -> bytes:
    if name in _ADDRESSES:
        before, url, address = (
            value.rpartition(b"url=") if name == b"refresh" else (b"", b"", value)
        )
        return before + url + mount.ours(address.decode("latin-1")).encode("latin-1")
    if name == b"set-cookie":
        return _COOKIE_PATH.sub(
            lambda found: found[1] + _cookie_path(found[2], mount), _COOKIE_DOMAIN.sub(b"", value)
        )
    return value


def _cookie_path(path: bytes, mount: Mount) -> bytes:
    text = path.strip().decode("latin-1")
    return (
        path if text == "/" else mount.ours(text).encode("latin-1")
    )  # "/" is wide enough as it is
