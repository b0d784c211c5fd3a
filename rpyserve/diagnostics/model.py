"""A failure of a script, as values: exceptions, their frames, lines of source, variables. And whose code a file is.

`diagnosis` makes them; `errorpage`, `errortext` and `complaints` show them. Everything in here is text that has been
shortened and masked already. Nothing here decides who may see it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from rpyserve.util.author_code import PACKAGE_DIRECTORY

__all__ = ["ErrorReport", "ExceptionReport", "Frame", "Line", "Relation", "Variable"]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of source. *marked* is the piece at fault, in characters, where that is less than all of it."""

    number: int
    text: str
    failing: bool = False
    marked: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable and its value, both as text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A place that an exception passed.

    Args:
        file: the whole path.
        line: the number of the line; 0 if it is not known.
        column: from 1; 0 if it is not known.
        function: its name; empty for the place of a syntax error.
        own: whether it is the author's code.
        lines: source round the line; empty if it cannot be had.
        variables: their values, if they may be shown.
        skipped: how many calls were left out between the one before and this one, because they were like them.
        edition: of the source, a number that another source does not have; 0 if there is none.
    """

    file: str
    line: int
    column: int = 0
    function: str = ""
    own: bool = True
    lines: tuple[Line, ...] = ()
    variables: tuple[Variable, ...] = ()
    skipped: int = 0
    edition: int = field(default=0, repr=False)

    @property
    def source(self) -> Line | None:
        """The failing line."""
        return next((line for line in self.lines if line.failing), None)


class Relation(enum.Enum):
    """How an exception is related to the one that came out of it; the words that stand between them."""

    ITSELF = ""
    CAUSE = "The exception above was directly caused by this one:"
    CONTEXT = "The exception above occurred while this one was being handled:"


@dataclass(frozen=True, slots=True)
class ExceptionReport:
    """One exception.

    Args:
        title: its class and the first line of its message.
        text: the message, if it has more than that line.
        notes: what ``add_note`` added.
        frames: the places it passed, the innermost last.
        relation: to the fault before it in its chain.
        branches: of an exception group: the chain of each exception in it.
        left_out: exceptions of the group, or of the chain, that are one too many to be shown.
    """

    title: str
    text: str = ""
    notes: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    relation: Relation = Relation.ITSELF
    branches: tuple[tuple[ExceptionReport, ...], ...] = ()
    left_out: int = 0

    @property
    def own_frames(self) -> tuple[Frame, ...]:
        """The author's places; where there is none, the innermost one, unless it is rpyserve's."""
        innermost = tuple(
            frame for frame in self.frames[-1:] if not frame.file.startswith(PACKAGE_DIRECTORY)
        )
        return tuple(frame for frame in self.frames if frame.own) or innermost


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What went wrong, told to the author of a script.

    Args:
        title: one line: what went wrong.
        hint: what to do about it, in lines; may be empty.
        chain: the exceptions, what came out first, then what led to it. Empty if none was raised.
        script: the path of a script that is at fault as a whole; empty if the frames say more.
        kind: what such failures have in common, whatever their texts say.
    """

    title: str
    hint: str = ""
    chain: tuple[ExceptionReport, ...] = ()
    script: str = ""
    kind: tuple[str, ...] = ()

    @property
    def place(self) -> Frame | None:
        """The innermost of the author's places."""
        return next((fault.own_frames[-1] for fault in self.chain if fault.own_frames), None)
