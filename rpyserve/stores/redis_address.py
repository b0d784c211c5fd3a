"""Where a Redis is and how to get in: what a ``redis://`` URL says, as values.

Knows no network. The password leaves this module in one field only, and no text that is printed
has it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

PORT: Final = 6379
SCHEMES: Final = ("redis", "rediss", "unix", "redis+unix")
LEASE: Final = 30.0
"""Seconds that a worker may keep a session which others wait for."""

_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS: Final = ("db", "lease", "prefix", *_TLS_FILES)
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[^]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>\d+))?")


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Files in PEM format, by the names that redis-py has for them.

    Attributes:
        authorities: whose certificates are accepted; None for those of the system.
        certificate: of this client, if the server wants one.
        key: of that certificate, if it is in a file of its own.
    """

    authorities: str | None = None
    certificate: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context that verifies the server's certificate and name.

        Raises:
            OSError: a file cannot be read.
        """
        context = ssl.create_default_context(cafile=self.authorities)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One Redis. ``str()`` says where it is, and not how to get in.

    Attributes:
        host: the name or IP address; not used with a *path*.
        port: the TCP port.
        path: of a Unix socket.
        user: None for the user that Redis calls ``default``.
        password: None if none is asked for.
        database: its number.
        tls: None for a connection that is not encrypted.
    """

    host: str = "localhost"
    port: int = PORT
    path: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: TLSFiles | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """What one URL says.

    Attributes:
        shards: the servers that share the sessions.
        prefix: begins the name of each key, so that several sites can share a database.
        lease: seconds that a worker may keep a session which others wait for.
    """

    shards: tuple[RedisAddress, ...]
    prefix: str = "rpy"
    lease: float = LEASE


def parse_redis_url(url: str) -> RedisSettings:
    """Return what *url* says.

    Args:
        url: ``redis://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/DATABASE]``, ``rediss://``
            for TLS, or ``unix://[[USER]:PASSWORD@]/PATH``. After ``?`` may come ``db``,
            ``prefix``, ``lease``, and for TLS ``ssl_ca_certs``, ``ssl_certfile`` and
            ``ssl_keyfile``.

    Raises:
        ValueError: with a sentence that repeats no password.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(
            f"a URL of Redis begins with redis://, rediss:// or unix://, not {parts.scheme}:"
        )
    if parts.fragment:
        raise ValueError("a URL of Redis has no `#`: write %23 for one in a password")
    options = _options(parts)
    user, password, hosts = _split_credentials(parts.netloc)
    common = _Common(user, password, _database(parts, options), _tls_files(parts, options))
    is_socket = parts.scheme.endswith("unix")
    shards = (_socket(parts, hosts, common),) if is_socket else _servers(hosts, common)
    prefix = options.get("prefix", "rpy")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix={prefix!r}: up to 40 letters, digits, `_`, `.` or `-`")
    return RedisSettings(shards, prefix, _lease(options))


@dataclass(frozen=True, slots=True)
class _Common:
    """What holds for all shards of a URL."""

    user: str | None
    password: str | None
    database: int
    tls: TLSFiles | None

    def address(
        self, host: str = "localhost", port: int = PORT, path: str | None = None
    ) -> RedisAddress:
        return RedisAddress(host, port, path, self.user, self.password, self.database, self.tls)


def _options(parts: SplitResult) -> Mapping[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no option of Redis: {', '.join(_OPTIONS)}")
    return options


def _split_credentials(netloc: str) -> tuple[str | None, str | None, str]:
    credentials, at, hosts = netloc.rpartition("@")
    user, colon, password = credentials.partition(":")
    if at and not colon:
        raise ValueError("write USER:PASSWORD@HOST, or :PASSWORD@HOST for a password alone")
    return unquote(user) or None, unquote(password) if at else None, hosts


def _database(parts: SplitResult, options: Mapping[str, str]) -> int:
    in_path = "" if parts.scheme.endswith("unix") else parts.path.strip("/")
    number = options.get("db", in_path or "0")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"the database of Redis is a number, not {number!r}")
    return int(number)


def _tls_files(parts: SplitResult, options: Mapping[str, str]) -> TLSFiles | None:
    files = [options.get(name) for name in _TLS_FILES]
    if parts.scheme == "rediss":
        return TLSFiles(*files)
    if any(files):
        raise ValueError("options for TLS need rediss://")
    return None


def _lease(options: Mapping[str, str]) -> float:
    try:
        lease = float(options.get("lease", LEASE))
    except ValueError:
        lease = 0.0
    if not 1 <= lease <= 86400:
        raise ValueError(f"lease={options['lease']!r}: seconds, from 1 to 86400")
    return lease


def _socket(parts: SplitResult, hosts: str, common: _Common) -> RedisAddress:
    if hosts or not parts.path.strip("/"):
        raise ValueError("the path of a Unix socket begins with `/`: unix:///run/redis.sock")
    return common.address(path=unquote(parts.path))


def _servers(hosts: str, common: _Common) -> tuple[RedisAddress, ...]:
    shards = tuple(_server(host, common) for host in (hosts or "localhost").split(","))
    twice = [str(shard) for shard in shards if shards.count(shard) > 1]
    if twice:
        raise ValueError(f"{twice[0]} is named twice")
    return shards


def _server(host: str, common: _Common) -> RedisAddress:
    found = _HOST.fullmatch(host)
    port = int(found["port"] or PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(f"{host!r} is no HOST or HOST:PORT")
    return common.address(found["ipv6"] or unquote(found["name"]), port)
