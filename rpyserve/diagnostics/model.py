"""An error of a script as plain values: exceptions, frames, lines of source, variables.

`describe` makes them; `error_page` and `reporter` show them. All text in here is shortened and
redacted already. Nothing here decides who may see it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from rpyserve.util.author_code import PACKAGE_DIRECTORY

TOKEN_KINDS: Final = ("keyword", "name", "string", "number", "comment")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of source.

    Args:
        number: counted from 1.
        text: without its line end.
        failing: whether it is the line that raised the exception.
        marked: the columns at fault, if they are less than the whole line. The end is exclusive.
        tokens: where each token begins that has a colour, and the kind of what begins there, one of
            `TOKEN_KINDS`; empty for text without a colour.
    """

    number: int
    text: str
    failing: bool = False
    marked: tuple[int, int] | None = None
    tokens: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable and its value, both as text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A place that an exception passed.

    Args:
        file: the absolute path.
        line: the number of the line; 0 if it is not known.
        column: counted from 1; 0 if it is not known.
        function: its qualified name; empty for top-level code and syntax errors.
        own: whether it is the author's code.
        lines: the source around the line; empty if it is not known.
        variables: their values, if they may be shown.
        skipped: how many similar calls were left out between the frame before and this one.
        source_hash: differs if the source differs.
    """

    file: str
    line: int
    column: int = 0
    function: str = ""
    own: bool = True
    lines: tuple[Line, ...] = ()
    variables: tuple[Variable, ...] = ()
    skipped: int = 0
    source_hash: int = field(default=0, repr=False)

    @property
    def failing_line(self) -> Line | None:
        return next((line for line in self.lines if line.failing), None)


class Relation(enum.Enum):
    """How an exception in a chain relates to the one shown above it, as a sentence."""

    ITSELF = ""
    CAUSE = "The exception above was directly caused by this one:"
    CONTEXT = "The exception above occurred while this one was being handled:"


@dataclass(frozen=True, slots=True)
class ExceptionReport:
    """One exception.

    Args:
        title: its class and the first line of its message.
        kind: the name of its class.
        text: the whole message, if it has more than that line.
        notes: what ``add_note`` added.
        frames: the places it passed, the innermost last.
        relation: how it relates to the exception before it in its chain.
        branches: of an exception group: the chain of each exception in it.
        left_out: how many exceptions of the group are not shown.
    """

    title: str
    text: str = ""
    notes: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    relation: Relation = Relation.ITSELF
    branches: tuple[tuple[ExceptionReport, ...], ...] = ()
    left_out: int = 0
    kind: str = ""

    @property
    def own_frames(self) -> tuple[Frame, ...]:
        """The author's frames. If there are none, the innermost one, unless it is rpyserve's."""
        own = tuple(frame for frame in self.frames if frame.own)
        last = self.frames[-1:]
        return own or tuple(each for each in last if not each.file.startswith(PACKAGE_DIRECTORY))


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What went wrong, for the author of a script.

    Args:
        title: what went wrong, in one line.
        hint: what to do about it, in lines; may be empty.
        chain: the exceptions: first the one that came out, then what led to it. May be empty.
        script: the path of a script that is at fault as a whole; empty if the frames say more.
    """

    title: str
    hint: str = ""
    chain: tuple[ExceptionReport, ...] = ()
    script: str = ""

    @property
    def place(self) -> Frame | None:
        """The innermost of the author's frames."""
        return next((each.own_frames[-1] for each in self.chain if each.own_frames), None)
