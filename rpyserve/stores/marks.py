"""What stands in records for what pickle cannot name by itself.

A pickle refers to these functions by name. They are never called: whoever reads a record has its
own method for each, see `pickles.Reader`. Their names are part of the format of records.
"""

from __future__ import annotations

from typing import Any, NoReturn


def definition(*described: Any) -> NoReturn:
    """A class, a function or an interface of the site; see `references.Definition`."""
    _refuse()


def member(cls: Any, *names: Any) -> NoReturn:
    """A member of an enumeration of the site."""
    _refuse()


def method(function: Any, thing: Any) -> NoReturn:
    """A function of the site that is bound to an object."""
    _refuse()


def holder() -> NoReturn:
    """The session or registry whose record it is."""
    _refuse()


def site() -> NoReturn:
    """The site."""
    _refuse()


def registry() -> NoReturn:
    """The registry of the site."""
    _refuse()


def page(file: str, path: str) -> NoReturn:
    """A resource that the top-level code of a file has made."""
    _refuse()


def state(thing: Any, attributes: Any) -> NoReturn:
    """Gives an object its attributes, past what its class makes of that."""
    _refuse()


def struct(cls: Any, fields: Any) -> NoReturn:
    """One of msgspec's structs."""
    _refuse()


def missing(module: str, name: str) -> NoReturn:
    """A class of another package, which was not there when it was stored again."""
    _refuse()


def unloaded(record: bytes, position: int) -> NoReturn:
    """A value that could not be loaded, in the record that it came in."""
    _refuse()


def _refuse() -> NoReturn:
    raise RuntimeError("a record is read by rpyserve.stores.codec only")
