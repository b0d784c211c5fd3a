"""What a reverse proxy changes in the header fields of requests and responses. Pure functions.

Fields that belong to one connection are left out (RFC 9110, section 7.6.1), the client is named
(RFC 7239), and what the upstream server says of its own addresses, in ``Location`` and in cookies,
becomes what leads there through the proxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from rpyserve.http.request import Address, Request
from rpyserve.http.response import Headers
from rpyserve.resources.resource import raw_path_segments
from rpyserve.resources.websocket import asks_for_websocket

HeaderList = list[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Fields that are forwarded even if ``Connection`` names them.
_NEVER_HOP_BY_HOP: Final = frozenset({b"host", b"content-length"})

_SET_BY_PROXY: Final = re.compile(rb"expect|forwarded|via|x-forwarded-.*")
_PROTECTED: Final = _HOP_BY_HOP | _NEVER_HOP_BY_HOP
_PATH_SEPARATORS: Final = re.compile(r"[/\\;]")
_WITH_ADDRESS: Final = frozenset({b"location", b"content-location", b"refresh"})
# More than one of these at the start of an address: browsers take them for ``//host``.
_HOST_MARK: Final = re.compile(r"\A[/\\\t]+")
# A ``Refresh``: the seconds and all else before the address, and the address.
_REFRESH: Final = re.compile(rb"([\d.]*\s*[;,]?\s*(?:url\s*=\s*)?['\"]?)(.*)", re.I | re.S)
_COOKIE_PATH: Final = re.compile(rb"(;[ \t]*path[ \t]*=[ \t]*)([^;]*)", re.I)
_COOKIE_DOMAIN: Final = re.compile(rb";[ \t]*domain[ \t]*=[^;]*", re.I)


@dataclass(frozen=True, slots=True)
class Mount:
    """Where in our paths an upstream server is, and where its own begin.

    Args:
        prefix: our path that leads to the proxy, percent-encoded, without a slash at its end.
        origin: the server, such as ``"http://127.0.0.1:5000"``.
        base: the path below which requests go to the server, without a slash at its end.
        rest: what follows the prefix in the request's path, as it was sent.
    """

    prefix: str
    origin: str
    base: str
    rest: str

    @classmethod
    def of(cls, request: Request, origin: str, base: str) -> Mount:
        """Return the mount that *request* has been led to."""
        mounted_at, left_over = raw_path_segments(request)
        below = "".join("/" + segment for segment in mounted_at)
        prefix = _on_this_host(request.root_path + below)
        rest = "".join("/" + segment for segment in left_over)
        return cls(prefix, origin, base, rest)

    def target(self, request: Request) -> bytes:
        """Return the request target for the upstream server."""
        path = self.base + self.rest or "/"
        _, mark, query = request.uri.partition("?")
        return f"{path}{mark}{query}".encode("latin-1")

    def climbs(self) -> bool:
        """Whether the path contains ``..``, however it is written: it could lead out of `base`."""
        segments = (unquote(segment) for segment in self.rest.split("/"))
        return any(".." in _PATH_SEPARATORS.split(segment) for segment in segments)

    def translate(self, address: str) -> str:
        """Return what *address*, of the upstream server, is here; others' are left as they are."""
        server = rf"(?:{re.escape(self.origin)}|(?=/(?!/)))"  # by its name, or as a path of its own
        found = re.fullmatch(rf"{server}{re.escape(self.base)}([/?#].*)?", address, re.DOTALL)
        return address if found is None else _on_this_host(self.prefix + (found[1] or "") or "/")


def upstream_headers(
    request: Request, mount: Mount, pseudonym: str, *, keep_host: bool
) -> HeaderList:
    """Return the header fields of *request* as the upstream server gets them.

    Args:
        pseudonym: what the proxy calls itself in ``Via``.
        keep_host: whether ``Host`` stays as the client sent it.
    """
    fields = [pair for pair in _end_to_end(request.raw_headers) if _may_forward(pair[0])]
    host, peer = request.authority or "", request._proxy or request.client
    if not keep_host:
        upstream_host = mount.origin.partition("://")[2]
        others = [pair for pair in fields if pair[0] != b"host"]
        fields = [(b"host", upstream_host.encode("latin-1")), *others]
    added = {
        "x-forwarded-for": _append(request, "x-forwarded-for", _node(peer[0])),
        "x-forwarded-host": request.getHeader("x-forwarded-host") or host,
        "x-forwarded-proto": request.getHeader("x-forwarded-proto") or request.scheme,
        "x-forwarded-prefix": mount.prefix,
        "forwarded": _append(request, "forwarded", _forwarded(request, peer, host)),
        "via": _append(request, "via", f"{request.http_version} {pseudonym}"),
    }
    if request.id:  # the logs of both shall have one name for it
        fields = [pair for pair in fields if pair[0] != b"x-request-id"]
        added["x-request-id"] = request.id
    fields += [(name.encode(), value.encode("latin-1")) for name, value in added.items() if value]
    if asks_for_websocket(request):
        fields += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    return fields


def downstream_headers(fields: Iterable[tuple[bytes, bytes]], mount: Mount) -> Headers:
    """Return the header fields of an upstream server's response as the client gets them."""
    fields = list(fields)
    upgrade = [pair for pair in fields if pair[0].lower() == b"upgrade"]
    kept = [(name, _translate(name.lower(), value, mount)) for name, value in _end_to_end(fields)]
    return (*kept, *upgrade)


def _end_to_end(fields: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """Return *fields* without those of this connection, which ``Connection`` may name too."""
    fields = list(fields)
    dropped = {
        option.strip().lower()
        for name, value in fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    dropped = (dropped - _NEVER_HOP_BY_HOP) | _HOP_BY_HOP
    return [pair for pair in fields if pair[0].lower() not in dropped]


def _may_forward(name: bytes) -> bool:
    if _SET_BY_PROXY.fullmatch(name):
        return False
    # Servers that take "_" for "-", as those of WSGI and CGI do, would take it for one of ours.
    plain = name.replace(b"_", b"-")
    return plain == name or not (_SET_BY_PROXY.fullmatch(plain) or plain in _PROTECTED)


def _append(request: Request, name: str, value: str) -> str:
    before = request.getHeader(name)
    return f"{before}, {value}" if before else value


def _node(address: str) -> str:
    """Return *address* as other proxies read it; a Unix socket is none."""
    return "unknown" if not address or address.startswith("unix:") else address


def _forwarded(request: Request, peer: Address, host: str) -> str:
    """Return this hop as RFC 7239, section 4, has it."""
    address = _node(peer[0])
    node = f'"[{address}]"' if ":" in address else address
    return f'for={node};host="{host}";proto={request.scheme}'


def _translate(name: bytes, value: bytes, mount: Mount) -> bytes:
    if name == b"set-cookie":
        value = _COOKIE_DOMAIN.sub(b"", value)
        return _COOKIE_PATH.sub(lambda match: match[1] + _cookie_path(match[2], mount), value)
    if name not in _WITH_ADDRESS:
        return value
    before = b""
    if name == b"refresh" and (match := _REFRESH.fullmatch(value)):
        before, value = match.groups()
    return before + mount.translate(value.decode("latin-1")).encode("latin-1")


def _on_this_host(path: str) -> str:
    """Return *path* so that it begins with one slash, and names no other host."""
    return _HOST_MARK.sub("/", path)


def _cookie_path(path: bytes, mount: Mount) -> bytes:
    text = path.strip().decode("latin-1")
    if text == "/":
        return path  # wide enough as it is
    return mount.translate(text).encode("latin-1")
