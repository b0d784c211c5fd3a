"""Records: a session or the registry as bytes, and back.

A record is signed, and nothing of it is looked at before its signature is right: unpickling is
executing. The key under which it is kept is signed with it, so that a record is good for one
visitor only.

What is in a record: see `records`. How the site's classes are called there: see `references`. What
becomes of their objects where they have changed since: see `former`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

from rpyserve.scripts import definitions
from rpyserve.sessions.components import Components, bring_up_to_date, is_outdated
from rpyserve.sessions.session import Session, restored
from rpyserve.stores.pickles import Reductions
from rpyserve.stores.records import FORMAT, LeftOut, RecordReader, RecordWriter, Unreadable
from rpyserve.stores.references import References
from rpyserve.stores.store import REGISTRY, StoreError

__all__ = [
    "BadSignature",
    "Codec",
    "Dumped",
    "LeftOut",
    "NewerFormat",
    "Unkeepable",
    "Unreadable",
    "key_of",
]

_SIGNATURE_SIZE: Final = 16


class BadSignature(Exception):
    """A record was not written by this site, not under this key, or it is damaged."""


class NewerFormat(StoreError):
    """A record was written by a later version of rpyserve."""


class Unkeepable(Exception):
    """A session holds what cannot be stored, where all must be.

    Args:
        left_out: all that cannot be.
    """

    def __init__(self, left_out: Sequence[LeftOut]) -> None:
        super().__init__("; ".join(map(str, left_out)))
        self.left_out = tuple(left_out)


@dataclass(slots=True)
class Dumped:
    """What became of a session or the registry.

    Attributes:
        blob: the record. It is the same as before if nothing has changed.
        left_out: what is not in it.
        callbacks: those that are not in it: they are closures, or bound to what cannot be kept,
            and live in this process only.
    """

    blob: bytes
    left_out: tuple[LeftOut, ...] = ()
    callbacks: tuple[Callable[[], Any], ...] = ()

    def require_whole(self) -> bytes:
        """Return the record.

        Raises:
            Unkeepable: something is left out. Callbacks do not count.
        """
        if self.left_out:
            raise Unkeepable(self.left_out)
        return self.blob


def key_of(uid: str) -> bytes:
    """Return the key under which the session *uid* is kept: nobody can tell the id from it."""
    return hashlib.blake2b(uid.encode(), digest_size=32, person=b"rpyserve id").digest()


def _mac(secret: bytes) -> Any:
    return hashlib.blake2b(key=secret, digest_size=_SIGNATURE_SIZE, person=b"rpyserve record")


class Codec:
    """Makes records of the sessions and the registry of one site, and brings them back.

    Args:
        site: the `Site`.
        keys: secrets. The first signs; a record that was signed with any of them is good.
    """

    def __init__(self, site: Any, keys: Sequence[bytes]) -> None:
        self._site = site
        self._references = References(site)
        self._reductions = Reductions()
        self._as_of = (0, 0, 0)
        self._macs = [_mac(key) for key in keys]
        # Those that held something that could not be kept, the last time.
        self._partly_kept: WeakSet[Components] = WeakSet()

    def dump(self, session: Session, key: bytes) -> Dumped:
        """Return the record of *session*. This is no access.

        Args:
            session: what to store.
            key: under which it will be kept; see `key_of`.
        """
        return self._dump(session, key)

    def load(self, uid: str | None, key: bytes, blob: bytes) -> Session:
        """Return the session of a record, brought up to the present definitions.

        It belongs to no `SessionStore` yet.

        Args:
            uid: its id; None if it is only to end.
            key: under which the record was kept.
            blob: the record.

        Raises:
            BadSignature: it was not written by this site under this key; nothing was executed.
            NewerFormat: a later version of rpyserve has written it.
            Unreadable: there is no way to read it.
        """
        session: Session = self._load(
            key, blob, lambda cls: restored(cls or Session, self._site, uid)
        )
        return session

    def dump_registry(self) -> Dumped:
        """Return the record of the site's registry."""
        return self._dump(self._site.registry, REGISTRY)

    def load_registry(self, blob: bytes) -> None:
        """Have the site's registry hold what *blob* keeps, and nothing else.

        No script is executed for that: scripts use the registry. Where that would be needed, it is
        brought up to date when it is first used.

        Raises:
            BadSignature, NewerFormat, Unreadable: as for `load`.
        """
        self._load(REGISTRY, blob, lambda cls: self._site.registry, may_execute=False)

    # The signature

    def _sign(self, mac: Any, key: bytes, payload: bytes) -> bytes:
        mac = mac.copy()
        mac.update(len(key).to_bytes(4, "big") + key)
        mac.update(payload)
        signature: bytes = mac.digest()
        return signature

    def _verified(self, key: bytes, blob: bytes) -> bytes:
        signature, payload = blob[:_SIGNATURE_SIZE], blob[_SIGNATURE_SIZE:]
        if not payload or not any(
            hmac.compare_digest(self._sign(mac, key, payload), signature) for mac in self._macs
        ):
            raise BadSignature("a record that this site has not signed for this key")
        if payload[:1] > FORMAT:
            raise NewerFormat(
                f"A later version of rpyserve has written this (format {payload[0]}), and this one "
                f"reads formats up to {FORMAT[0]}. Use that version, or begin anew with --forget."
            )
        return payload

    # Writing

    def _dump(self, holder: Components, key: bytes) -> Dumped:
        if is_outdated(holder):
            bring_up_to_date(holder)
        as_of = definitions.edits, definitions.remarks, self._references.adoptions
        if self._as_of != as_of:
            self._reductions.clear()
            self._as_of = as_of
        writer = RecordWriter(holder, self._references, self._reductions, self._site)
        was_partly_kept = bool(self._partly_kept) and holder in self._partly_kept
        written = writer.write(carefully=was_partly_kept)
        if written.left_out:
            self._partly_kept.add(holder)
        elif was_partly_kept:
            self._partly_kept.discard(holder)
        record = written.record
        signature = self._sign(self._macs[0], key, record)
        return Dumped(signature + record, written.left_out, written.callbacks)

    def _load(
        self,
        key: bytes,
        blob: bytes,
        make: Callable[[Any], Components],
        *,
        may_execute: bool = True,
    ) -> Any:
        record = self._verified(key, blob)
        return RecordReader(self._references, self._site).read(
            record, make, may_execute=may_execute
        )
