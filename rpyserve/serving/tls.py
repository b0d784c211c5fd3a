"""TLS: with certificates from files, or with a self-signed one made for this run.

Owns the contexts, and the answer to clients that speak plain HTTP to a port that expects TLS.
Serving a TLS stream is no different from serving any other. trustme, which makes certificates, is
an optional dependency.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import trio

from rpyserve.http.request import Address
from rpyserve.serving.console import url_of

SELF_SIGNED_NOTICE: Final = (
    "The certificate is self-signed for this run, so browsers show a warning: "
    'choose "Advanced" to continue. With curl, use --insecure.'
)

# The first byte of every TLS connection (RFC 8446, section 5.1: a handshake record).
_CLIENT_HELLO: Final = b"\x16"
_HOST: Final = re.compile(
    rb"^host:[ \t]*([A-Za-z0-9.\-]+|\[[0-9a-f:.]+\])(?::\d+)?[ \t]*\r?$", re.I | re.M
)
_PLAIN: Final = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    "Content-Length: {}\r\n\r\n{}"
)


class NoCertificate(Exception):
    """No certificate can be used; the text says why, and what to do."""


def from_files(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context for a certificate and its key in PEM files.

    Raises:
        NoCertificate: a file cannot be read, is not in PEM format, or the two do not belong
            together.
    """
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as exc:
            raise NoCertificate(f"{str(path)!r} cannot be read: {exc.strerror or exc}.") from None
    context = _context()
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except (ssl.SSLError, ValueError) as exc:
        why = getattr(exc, "reason", None) or str(exc)
        both = f"{str(certificate)!r} and {str(key)!r}"
        raise NoCertificate(
            f"{both} are not a certificate and its key in PEM format: {why}."
        ) from None
    return context


def self_signed(names: Iterable[str]) -> ssl.SSLContext:
    """Return the context for a certificate that is made now, for the host *names* and addresses.

    Raises:
        NoCertificate: trustme is not installed.
    """
    trustme = require_trustme()
    authority = trustme.CA(organization_name="rpyserve", organization_unit_name="for this run only")
    context = _context()
    authority.issue_cert(*dict.fromkeys(map(_plain, names))).configure_cert(context)
    return context


def require_trustme() -> Any:
    """Return the module that makes certificates.

    Raises:
        NoCertificate: it is not installed.
    """
    try:
        import trustme
    except ImportError:
        raise NoCertificate(
            "--tls without files makes a certificate with trustme, which is not installed. "
            "Install it: pip install trustme"
        ) from None
    return trustme


async def answer_plain_http(stream: trio.SSLStream[trio.SocketStream], server: Address) -> bool:
    """Answer a client that speaks plain HTTP with the right address.

    Waits for the first byte, which says what the client speaks, and leaves it to be read.

    Args:
        stream: before its first use.
        server: our own address and port.

    Returns:
        Whether the connection is done: the client was answered, or has gone.
    """
    plain = stream.transport_stream
    with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        first = await plain.socket.recv(1, socket.MSG_PEEK)
        if first == _CLIENT_HELLO:
            return False
        if first:
            await plain.send_all(_answer(await plain.receive_some(16 * 1024), server))
            await plain.send_eof()
            while await plain.receive_some(16 * 1024):
                pass  # or a reset would eat the answer
    return True


def _answer(request: bytes, server: Address) -> bytes:
    found = _HOST.search(request)
    host = found[1].decode("ascii").strip("[]") if found else server[0]
    text = f"This port speaks https. Use {url_of(host, server[1], 'https')}\n"
    return _PLAIN.format(len(text), text).encode()


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _refuse_password() -> str:
    raise ValueError("the key is encrypted; write a copy without a passphrase")


def _plain(name: str) -> str:
    """Return *name* as a certificate has it.

    An address has no zone; ``*.`` stands for all names below one.
    """
    if name.startswith("."):
        name = f"*{name}"
    try:
        return str(ip_address(name.partition("%")[0]))
    except ValueError:
        return name.lower().rstrip(".")
