"""From the text after ``--session-store`` to what keeps a site's sessions.

Each kind of store is imported only if it is asked for. Nothing is opened here: what is wrong with
the text is bad usage, what is wrong with the store is found when the server starts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rpyserve.stores.keys import key_beside, read_keys
from rpyserve.stores.store import Store, StoreError

__all__ = ["SQLiteAddress", "StoreError", "open_store", "parse_store", "persistence_of"]

if TYPE_CHECKING:
    from rpyserve.stores.codec import Codec
    from rpyserve.stores.persistence import Persistence
    from rpyserve.stores.redis_address import RedisSettings

DEFAULT_PATH: Final = ".rpyserve/sessions.db"
"""Where SQLite keeps sessions unless a path is given, below the site's directory."""

SECRET_FILE: Final = "RPYSERVE_SECRET_FILE"
"""The environment variable with the path of the secrets that records are signed with."""

_REDIS: Final = ("redis", "rediss", "unix", "redis+unix")
_USAGE: Final = "write sqlite, sqlite:PATH, sqlite:PATH?sync=full, or redis://HOST"
_SYNC: Final = {"": False, "sync=normal": False, "sync=full": True}


@dataclass(frozen=True, slots=True)
class SQLiteAddress:
    """A file of SQLite.

    Attributes:
        path: as an absolute path; None for the default one below the site.
        name: how it was written.
        full_sync: whether each commit waits until the disk has it.
    """

    path: Path | None = None
    name: str = DEFAULT_PATH
    full_sync: bool = False


def parse_store(text: str) -> SQLiteAddress | RedisSettings:
    """Return where *text* says that sessions are kept; a relative path begins in this directory.

    Raises:
        ValueError: it names no store.
    """
    scheme, _, rest = text.partition(":")
    if scheme in _REDIS:
        from rpyserve.stores.redis_address import parse_redis_url

        return parse_redis_url(text)
    if scheme.partition("?")[0] != "sqlite":
        raise ValueError(f"{scheme!r} is no kind of store: {_USAGE}")
    name, _, option = (rest or scheme.removeprefix("sqlite")).partition("?")
    if option not in _SYNC:
        raise ValueError(f"{option!r} is no option of sqlite: {_USAGE}")
    path = Path(name).expanduser().absolute() if name else None
    return SQLiteAddress(path, name or DEFAULT_PATH, _SYNC[option])


def open_store(address: SQLiteAddress | RedisSettings, directory: Path) -> Store:
    """Return the store at *address*.

    Args:
        address: what `parse_store` has returned.
        directory: that of the site.
    """
    if not isinstance(address, SQLiteAddress):
        from rpyserve.stores.redis import RedisStore

        return RedisStore(address)
    from rpyserve.stores.sqlite import SQLiteStore

    path = _path_of(address, directory)
    return SQLiteStore(path, name=address.name, full_sync=address.full_sync)


def _path_of(address: SQLiteAddress, directory: Path) -> Path:
    return directory / DEFAULT_PATH if address.path is None else address.path


def _refuse_watched(path: Path, root: object) -> None:
    """Check that the file at *path* is none that a site with this *root* watches.

    Raises:
        StoreError: it is.
    """
    directory = getattr(root, "path", None)  # of a `Directory`
    if not isinstance(directory, Path):
        return
    path, directory = Path(os.path.realpath(path)), Path(os.path.realpath(directory))
    inside = path.relative_to(directory).parts[:-1] if path.is_relative_to(directory) else None
    if inside is not None and not any(part.startswith(".") for part in inside):
        raise StoreError(
            f"{path.name} would be a file of the site, which is watched: name one below "
            ".rpyserve/, or outside of the site"
        )


def persistence_of(
    site: Any, address: SQLiteAddress | RedisSettings, directory: Path
) -> Persistence:
    """Return what keeps the sessions of *site* at *address*.

    Args:
        site: the `Site`.
        address: what `parse_store` has returned.
        directory: that of the site.

    Raises:
        StoreError: there is no secret to sign with, or a file cannot be there.
    """
    from rpyserve.stores.codec import Codec

    if isinstance(address, SQLiteAddress):
        _refuse_watched(_path_of(address, directory), site.root)
    store = open_store(address, directory)
    return make_persistence(site, store, Codec(site, _keys(address, directory)))


def make_persistence(site: Any, store: Any, codec: Codec) -> Persistence:
    """Return what keeps the sessions of *site* in *store*, be that shared or not."""
    if store.is_shared:
        from rpyserve.stores.shared import SharedPersistence

        return SharedPersistence(site, store, codec)
    from rpyserve.stores.sole import SolePersistence

    return SolePersistence(site, store, codec)


def _keys(address: SQLiteAddress | RedisSettings, directory: Path) -> list[bytes]:
    secret_file = os.environ.get(SECRET_FILE)
    if secret_file:
        return read_keys(secret_file)
    if isinstance(address, SQLiteAddress):
        return key_beside(_path_of(address, directory))
    raise StoreError(
        f"Redis needs a secret that its workers share: write {SECRET_FILE}=PATH. The file can be "
        "made with: python -c 'import secrets; print(secrets.token_hex())' > PATH"
    )
