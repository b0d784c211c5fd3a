"""What a proxy says of a request: who sent it, to which URL, and below which path the site is.

`behind_proxy` must be the outermost wrapper that looks at a request, because all others go by what
it finds out. Only a peer that is a known proxy is believed, and from the right: each proxy adds to
the end of a list, so what is to the left of the first unknown address may be anybody's invention.
Nothing here makes a client trusted: see `TrustedClients`.

A proxy that knows one of ``Forwarded`` and ``X-Forwarded-For`` passes the other on as it came. So
where both are there they must agree, and what cannot be read is refused: to ignore it would be to
take the client for the proxy.
"""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rpyserve.http.errors import HTTPError
from rpyserve.http.headers import HeaderFields
from rpyserve.http.hosts import Network, parse_address
from rpyserve.http.request import Address, Request, Responder
from rpyserve.http.response import Response
from rpyserve.util.text import escape_unprintable
from rpyserve.util.throttle import ThrottledLogger

log = logging.getLogger("rpyserve")

UNIX: Final = "unix:"
"""What stands for the address of a client on a Unix socket, as nginx has it."""

LONGEST: Final = 4096
"""How many characters a field may have: a hundred proxies, and more than anybody needs."""

_IGNORED: Final = (
    "%s sends the header fields of a proxy, such as X-Forwarded-For. They are ignored, because "
    "--behind-proxy does not name it."
)
_FIELDS: Final = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
)
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# RFC 7239, section 4. Unlike there, colons and brackets need no quotes: many proxies write none.
_PAIR: Final = re.compile(
    r"""([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:"((?:[^"\\]|\\.)*+)"|([^\s",;=\\]+))"""
)
_ESCAPED: Final = re.compile(r"\\(.)")
# Elements of a list may be empty (RFC 9110, section 5.6.1.2).
_SEPARATOR: Final = re.compile(r"[ \t]*[,;][ \t,;]*")
# An address, which may have a port; one of IPv6 is in brackets then.
_NODE: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}|_[\w.\-]+))?")
# What stands for an address that a proxy does not know, or does not tell (section 6.3).
_HIDDEN: Final = re.compile(r"unknown|_[A-Za-z0-9._\-]+")
_HOST: Final = re.compile(r"([A-Za-z0-9._~\-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~\-]+")


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies that are believed.

    Args:
        networks: their addresses.
        unix: whether whoever connects to a Unix socket of ours is one.
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False

    def __contains__(self, address: str) -> bool:
        if address == UNIX:
            return self.unix
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the proxies say of a request. What they leave unsaid is None or empty.

    Args:
        client: the address and port of the client that the first of our proxies saw.
        scheme: how the client reached that.
        host: the host name or address that the client asked for, without a port.
        port: the port that the client connected to.
        host_port: the port in what the client asked for.
        prefix: the path that the proxies have taken off the front.
    """

    client: Address | None = None
    scheme: str = ""
    host: str = ""
    port: int | None = None
    host_port: int | None = None
    prefix: str = ""


def behind_proxy(
    respond: Responder,
    proxies: TrustedProxies,
    refuse: Callable[[Request, HTTPError], Response],
    *,
    prefixes: bool = True,
) -> Responder:
    """Wrap *respond* so that requests are what the known *proxies* say they are.

    Args:
        respond: who answers them.
        proxies: who is believed.
        refuse: makes the page for what cannot be read.
        prefixes: whether to believe ``X-Forwarded-Prefix``.
    """
    read = functools.lru_cache(maxsize=256)(functools.partial(read_forwarded, proxies=proxies))
    unreadable, ignored = ThrottledLogger(log), ThrottledLogger(log, math.inf)

    def respond_behind_proxy(request: Request) -> Awaitable[Response]:
        fields = request.raw_headers.values
        values = tuple([fields.get(name, b"") for name in _FIELDS])
        if request.client[0] not in proxies:
            if any(values):
                ignored.warn(_IGNORED, request.client[0] or "A client")
            return respond(request)
        request._proxy = request.client
        try:
            apply(request, read(values), prefixes=prefixes)
        except ValueError as exc:
            unreadable.warn(
                "%s: the proxy says what cannot be believed: %s", request.client[0], exc
            )
            return _answer_with(
                refuse(request, HTTPError(400, "What the proxy says is not valid."))
            )
        return respond(request)

    return respond_behind_proxy


async def _answer_with(response: Response) -> Response:
    return response


def apply(request: Request, said: Forwarded, *, prefixes: bool = True) -> None:
    """Make *request* what the proxies say it is."""
    request.scheme = said.scheme or request.scheme
    if request._record is not None:
        request._record.scheme = request.scheme
    own_host, own_port = _split_host(request.authority or "")
    port = said.host_port or said.port
    if not (port or said.host):
        port = own_port  # which belongs to our own host only
    port = port or _DEFAULT_PORTS[request.scheme]
    host = said.host or own_host
    if host and (said.host or said.port):
        _set_authority(request, host, port)
    if said.client is not None:
        request.client = said.client
    request.server = (request.server[0], port)
    if prefixes and said.prefix:
        request.root_path = said.prefix


def _set_authority(request: Request, host: str, port: int) -> None:
    is_default = port == _DEFAULT_PORTS[request.scheme]
    authority = request._authority = host if is_default else f"{host}:{port}"
    fields = (pair for pair in request.raw_headers if pair[0] != b"host")
    request.raw_headers = HeaderFields([(b"host", authority.encode("latin-1")), *fields])


# What the fields say


def read_forwarded(values: Sequence[bytes], proxies: TrustedProxies) -> Forwarded:
    """Return what the header fields *values*, in the order of `_FIELDS`, say.

    Raises:
        ValueError: it cannot be read, or does not agree.
    """
    if any(len(value) > LONGEST for value in values):
        raise ValueError(f"a field has more than {LONGEST} characters")
    forwarded, addresses, *others = (value.decode("latin-1") for value in values)
    elements, nodes = list(_elements(forwarded)), _list(addresses)
    hop, hops = _client([element.get("for", "unknown") for element in elements], proxies)
    client, depth = _client(nodes, proxies)
    if elements and nodes and _address(hop) != _address(client):
        raise ValueError("Forwarded and X-Forwarded-For do not agree")
    if not nodes:
        client, depth = hop, hops
    proto, host, port, prefix = map(_list, others)
    element = elements[-hops] if elements else {}
    host_name, host_port = _split_host(element.get("host") or _of(host, depth))
    return Forwarded(
        client,
        _scheme(element.get("proto") or _of(proto, depth)),
        host_name,
        _port(_of(port, depth)),
        host_port,
        "".join(map(parse_root_path, prefix[-depth:])),
    )


def _list(text: str) -> list[str]:
    return list(filter(None, (part.strip(" \t") for part in text.split(","))))


def _of(values: list[str], depth: int) -> str:
    """Return what the proxy that is *depth* proxies away has put into a list, or set alone."""
    return values[-min(depth, len(values))] if values else ""


def _elements(text: str) -> Iterator[dict[str, str]]:
    """Yield the parameters of each element of a ``Forwarded`` (RFC 7239, section 4).

    Raises:
        ValueError: it is malformed.
    """
    text = text.strip(" \t,;")
    position, element = 0, dict[str, str]()
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise ValueError(f"Forwarded is malformed: {_shown(text[position:])}")
        name = pair[1].lower()
        if name in element:
            raise ValueError(f"Forwarded has {name!r} twice in one element")
        element[name] = pair[3] if pair[2] is None else _ESCAPED.sub(r"\1", pair[2])
        position = pair.end()
        separator = _SEPARATOR.match(text, position)
        if separator is None:
            break
        position = separator.end()
        if "," in separator[0]:
            yield element
            element = {}
    if position < len(text):
        raise ValueError(f"Forwarded is malformed: {_shown(text[position:])}")
    if element:
        yield element


def _client(nodes: list[str], proxies: TrustedProxies) -> tuple[Address | None, int]:
    """Return the last of *nodes* that is no known proxy, and how many proxies away it is.

    If all are known, it is the first one: a proxy that sends a request of its own.
    """
    client: Address | None = None
    depth = 0
    for node in reversed(nodes):
        client, depth = _node(node), depth + 1
        if client[0] not in proxies:
            break
    return client, max(depth, 1)


def _node(text: str) -> Address:
    """Return the address and port in *text*; a client without an address has port 0.

    Raises:
        ValueError: it is neither an address nor one of the words that stand for one.
    """
    if text == UNIX or _HIDDEN.fullmatch(text):
        return text, 0
    if parse_address(text) is not None:
        return _normal(text), 0
    found = _NODE.fullmatch(text)
    address = (found[1] or found[2]) if found else ""
    port = _port(found[3]) if found and found[3] and found[3].isdigit() else None
    if parse_address(address) is not None:
        return _normal(address), port or 0
    if not _HIDDEN.fullmatch(address):
        raise ValueError(f"{_shown(text)} is not an address")
    return address, 0


def _normal(address: str) -> str:
    return str(parse_address(address))


def _address(client: Address | None) -> str:
    return "" if client is None else client[0]


def _scheme(text: str) -> str:
    if text and text.lower() not in _SCHEMES:
        raise ValueError(f"{_shown(text)} is not a scheme")
    return _SCHEMES.get(text.lower(), "")


def _split_host(text: str) -> tuple[str, int | None]:
    found = _HOST.fullmatch(text)
    if text and found is None:
        raise ValueError(f"{_shown(text)} is not a host")
    return (found[1], _port(found[2] or "")) if found else ("", None)


def _port(text: str) -> int | None:
    if text and not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"{_shown(text)} is not a port")
    return int(text) if text else None


def _shown(text: str) -> str:
    return f"{escape_unprintable(text[:60])!r}"


# The path below which a site is


def parse_root_path(text: str) -> str:
    """Return *text* without a slash at its end: ``/app``; empty for the root of a host.

    Raises:
        ValueError: it is no such path, as it stands or as a browser would read it.
    """
    path = text.strip().removesuffix("/")
    if not path:
        return ""
    if not path.startswith("/"):
        raise ValueError(f"{_shown(text)} does not begin with a slash: write /app")
    segments = path.split("/")[1:]
    if not all(map(_SEGMENT.fullmatch, segments)) or {".", ".."} & set(segments):
        raise ValueError(
            f"{_shown(text)} is not a path such as /app or /tools/app: letters, digits and -._~"
        )
    return path


def below_root_path(respond: Responder, root_path: str) -> Responder:
    """Wrap *respond*, a site's, so that the site is below *root_path* of its host.

    A proxy may have taken that off the front of the path or not: it is taken off if it is there.

    Args:
        respond: who answers.
        root_path: see `parse_root_path`; not empty.
    """
    below = root_path + "/"

    def respond_below(request: Request) -> Awaitable[Response]:
        request.root_path = root_path
        if request.raw_path.startswith(below):
            request._set_path(request.raw_path[len(root_path) :])
        elif request.raw_path == root_path:
            return _answer_with(_with_slash(request, below))
        return respond(request)

    return respond_below


def _with_slash(request: Request, path: str) -> Response:
    """The response that leads to the root of the site, where relative links work."""
    status = 302 if request.method in ("GET", "HEAD") else 307
    query = f"?{request.query}" if request.query else ""
    return Response(b"", status, [("Location", path + query)])
