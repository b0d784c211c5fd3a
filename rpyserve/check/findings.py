"""The rules of the check, and a finding: one place that breaks a rule.

A *fault* does not work, does something else than its text says, or loses state sooner or later. A
*note* works, but its author may want to know. Only this module decides which rule is which;
``docs/check.md`` has a heading for each rule, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Rule(Enum):
    """What a finding is about; the value is the name that is printed."""

    SYNTAX_ERROR = "syntax-error"
    UNREADABLE = "unreadable"
    NO_RESOURCE = "no-resource"
    WRONG_RESOURCE = "wrong-resource"
    MISSPELLED_METHOD = "misspelled-method"
    WRONG_PARAMETERS = "wrong-parameters"
    WRONG_RESULT = "wrong-result"
    UNDEFINED_NAME = "undefined-name"
    UNKNOWN_ATTRIBUTE = "unknown-attribute"
    UNESCAPED = "unescaped"
    UNRESOLVED_IMPORT = "unresolved-import"
    SHADOWED_MODULE = "shadowed-module"
    SHADOWED_PAGE = "shadowed-page"
    NAME_COLLISION = "name-collision"
    WRONG_EXTENSION = "wrong-extension"
    UNREACHABLE = "unreachable"
    BAD_LINK = "bad-link"
    TRANSIENT_OBJECT = "transient-object"
    STATE_LOST_ON_REQUEST = "state-lost-on-request"
    STATE_LOST_ON_EDIT = "state-lost-on-edit"
    BACKUP = "backup"
    NEVER_SERVED = "never-served"
    USELESS_CACHE = "useless-cache"
    MISSING_CACHE_FILE = "missing-cache-file"
    PYTHON_WARNING = "python-warning"

    @property
    def is_note(self) -> bool:
        """Whether what breaks this rule works in spite of it."""
        return self in _NOTES


_NOTES: Final = frozenset({
    Rule.NEVER_SERVED, Rule.USELESS_CACHE, Rule.MISSING_CACHE_FILE, Rule.PYTHON_WARNING,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one place of a site.

    Args:
        line: the line in the file, from 1; 0 if the finding is about a file or directory as a
            whole.
        rule: the rule that is broken.
        message: what is wrong, as a sentence.
        hint: what to write or to do instead; may have several lines.
    """

    line: int
    rule: Rule
    message: str
    hint: str
