"""What can be wrong with a site before anything of it runs, as values.

A *fault* does not work as it stands, does something else than its text says, or loses something sooner or later. A
*note* works; its author may want to know it all the same. Which kind is which is decided here alone, and
``docs/check.md`` has a heading for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["Finding", "Rule"]


class Rule(Enum):
    """What a finding is about, by the name that it is printed with."""

    SYNTAX = "syntax"
    UNREADABLE = "unreadable"
    NO_RESOURCE = "no-resource"
    WRONG_RESOURCE = "wrong-resource"
    NEVER_CALLED = "never-called"
    PARAMETERS = "parameters"
    IMPORT = "import"
    HIDDEN_MODULE = "hidden-module"
    HIDDEN_PAGE = "hidden-page"
    SAME_NAME = "same-name"
    MISNAMED = "misnamed"
    UNREACHABLE = "unreachable"
    LINK = "link"
    LOST_WITH_REQUEST = "lost-with-request"
    LOST_WITH_EDIT = "lost-with-edit"
    BACKUP = "backup"
    FORGOTTEN = "forgotten"
    WARNING = "warning"

    @property
    def is_note(self) -> bool:
        """Whether all works in spite of it."""
        return self in _NOTES


_NOTES: Final = frozenset({Rule.FORGOTTEN, Rule.WARNING})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to tell the author of a site about one of its files.

    Args:
        line: where in the file, from 1; 0 if it concerns the file, or a directory, as a whole.
        kind: what it is about.
        message: what is wrong, as a sentence.
        hint: what to write or to do instead, in lines.
    """

    line: int
    kind: Rule
    message: str
    hint: str
