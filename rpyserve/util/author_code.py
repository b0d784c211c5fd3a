"""Whose code a frame or a file is: the site's author's, rpyserve's, trio's or Python's."""

from __future__ import annotations

import functools
import linecache
import os
from pathlib import Path
from types import FrameType
from typing import Final

import trio

__all__ = [
    "display_path",
    "display_position",
    "innermost_author_frame",
    "is_author_code",
    "source_line",
]


_HERE = str(Path(__file__).parent.parent) + os.sep


_INSTALLED: Final = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


@functools.cache
def _foreign() -> tuple[str, ...]:
    import sysconfig

    kinds = {"stdlib", "purelib", "platlib"}
    return tuple(
        str(Path(path)) + os.sep for key, path in sysconfig.get_paths().items() if key in kinds
    )


@functools.lru_cache(maxsize=4096)
def is_author_code(filename: str) -> bool:
    """Whether *filename* is code of the site's author: neither rpyserve's, Python's nor an installed package's."""
    if filename.startswith(("<", _HERE, *_foreign())):
        return False
    return not any(part in filename for part in _INSTALLED)


def display_path(filename: str) -> str:
    """Return *filename* relative to the current directory, which is the site, or whole if it lies elsewhere."""
    return filename.removeprefix(os.getcwd() + os.sep)


_TRIO: Final = os.path.dirname(trio.__file__) + os.sep


_OURS: Final = (_TRIO, os.path.dirname(os.path.dirname(__file__)) + os.sep)


@functools.lru_cache(maxsize=4096)
def _is_ours(filename: str) -> bool:
    return filename.startswith(_OURS)


@functools.lru_cache(maxsize=4096)
def _is_trios(filename: str) -> bool:
    return filename.startswith(_TRIO)


def innermost_author_frame(
    frame: FrameType | None, *, even_in_ours: bool = False
) -> FrameType | None:
    """Return the innermost frame of the author's code, if such code is running synchronously in the loop.

    Args:
        frame: the innermost frame of the loop's thread.
        even_in_ours: find it as well if it has called something of rpyserve's that is at work just now.

    Returns:
        None if rpyserve or trio itself is at work: their frames end the search, those of Python's own and of
        installed modules do not.
    """
    ends = _is_trios if even_in_ours else _is_ours
    while frame is not None and not ends(frame.f_code.co_filename):
        if is_author_code(frame.f_code.co_filename):
            return frame
        frame = frame.f_back
    return None


def display_position(frame: FrameType) -> str:
    """Say where *frame* is: the script, relative to the site where it lies in there, and the line's number."""
    return f"{display_path(frame.f_code.co_filename)}, line {frame.f_lineno}"


def source_line(frame: FrameType) -> str:
    """Return the line of source that *frame* is at, or an empty text."""
    filename = frame.f_code.co_filename
    linecache.checkcache(filename)
    return linecache.getline(filename, frame.f_lineno).strip()
