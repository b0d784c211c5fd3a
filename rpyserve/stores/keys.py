"""The secrets that records are signed with, and where they come from.

Records are pickles, and whoever can sign one can have the server execute anything. So a secret is
read from a file that the author names, with as many as there are for rotation, or it is made once,
beside the database, where only the owner of the process can read it.

Knows nothing of what is signed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from rpyserve.stores.store import StoreError

MIN_LENGTH: Final = 32
"""Characters that a secret has at least: 32 hexadecimal digits are 128 bits."""

_SIZE: Final = 32
_EXAMPLE: Final = 'python -c "import secrets; print(secrets.token_hex(32))"'


def read_keys(path: str | os.PathLike[str]) -> list[bytes]:
    """Read the keys from a file of secrets: ``RPYSERVE_SECRET_FILE``.

    Args:
        path: the file. Each line is one secret; empty lines and those that begin with ``#`` do not
            count. The first signs, and all verify: put a new one above the old one, and remove the
            old one when no session from before is left.

    Raises:
        StoreError: it cannot be read, has no secret, or one that is too short.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as exc:
        raise StoreError(f"The secret file {path} cannot be read: {_reason(exc)}.") from exc
    keys = list(_keys_in(lines, path))
    if not keys:
        raise StoreError(f"The secret file {path} is empty. Write a secret into it: {_EXAMPLE}")
    return keys


def key_beside(database: str | os.PathLike[str]) -> list[bytes]:
    """Return the key in the file ``key`` in the directory of *database*, made if there is none.

    Only the owner can read that file.

    Raises:
        StoreError: it can neither be read nor be made.
    """
    path = Path(database).parent / "key"
    try:
        if not path.exists():
            _make(path)
    except OSError as exc:
        raise StoreError(f"The key file {path} cannot be made: {_reason(exc)}.") from exc
    return read_keys(path)


def _keys_in(lines: list[str], path: str | os.PathLike[str]) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        secret = line.strip()
        if not secret or secret.startswith("#"):
            continue
        if len(secret) < MIN_LENGTH:
            raise StoreError(
                f"The secret in {path}, line {number}, has {len(secret)} characters; it must have "
                f"{MIN_LENGTH} at least: {_EXAMPLE}"
            )
        yield hashlib.blake2b(secret.encode(), digest_size=_SIZE, person=b"rpyserve key").digest()


def _make(path: Path) -> None:
    """Make the file as a whole: another process may look for it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_SIZE) + "\n")
            file.flush()
            os.fsync(descriptor)
        _put_in_place(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Give a file its name, unless another has it already."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(temporary, path)


def _reason(exc: OSError | ValueError) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
