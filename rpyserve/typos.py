"""Names that are nearly right: what Python itself suggests on a terminal, and the names of a script's own things.

Looks names up without calling anything of the author's. A name of two letters is never taken for a slip.
"""

from __future__ import annotations

import builtins
import difflib
import sys
from collections.abc import Iterable
from typing import Any

from rpyserve.asynchints import innermost

__all__ = ["for_attribute", "for_import", "for_name", "near"]


def near(name: str, names: Iterable[str], cutoff: float = 0.7) -> str:
    """Return the one of *names* that *name* may stand for; empty if there is none."""
    known = [each for each in names if isinstance(each, str) and each != name]
    if len(name) < 3 or len(name) > 80:
        return ""
    same = [each for each in known if each.replace("_", "").lower() == name.replace("_", "").lower()]
    return next(iter(same or difflib.get_close_matches(name, known, 1, cutoff)), "")


def for_name(exc: NameError, name: str) -> str:
    """Return the hint for an unknown *name*: one of the method's own object, or one that is nearly the same."""
    frame, _ = innermost(exc)
    if frame is None:
        return ""
    this = frame.f_locals.get("self")
    members = set(_members(this)) if this is not None else set()
    if name in members:
        return f"{name} belongs to the object. Write:\nself.{name}"
    if found := near(name, [*frame.f_locals, *frame.f_globals, *dir(builtins)]):
        return f"Did you mean this?\n{found}"
    found = near(name, members)
    return f"Did you mean this?\nself.{found}" if found else ""


def for_attribute(thing: object, name: str) -> str:
    """Return the hint for an attribute *name* that *thing* lacks."""
    found = near(name, [each for each in _members(thing) if not each.startswith("_") or name.startswith("_")])
    return f"Did you mean this?\n.{found}" if found else ""


def for_import(module: str, name: str) -> str:
    """Return the hint for a *name* that *module*, which has been imported, lacks."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return ""
    names = getattr(loaded, "__all__", None) or [each for each in vars(loaded) if not each.startswith("_")]
    found = near(name, names)
    if not found:
        return ""
    relative = module.startswith("rpydir")  # a name of ours, that nobody can write
    return f"Did you mean this?\n{found if relative else f'from {module} import {found}'}"


def _members(thing: Any) -> list[str]:
    found = [name for kind in type.__dict__["__mro__"].__get__(type(thing)) for name in vars(kind)]
    try:
        own = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        own = {}
    return [*found, *(own if isinstance(own, dict) else ())]
