"""Whose code a file or a stack frame is: the site's author's, rpyserve's, trio's or Python's.

`innermost_author_frame` is called in a signal handler, too. It must be right there, so it allocates
next to nothing and calls nothing that could fail.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import trio

# Where rpyserve's own code lies, with a separator at the end.
PACKAGE_DIRECTORY: Final = str(Path(__file__).parent.parent) + os.sep

_TRIO_DIRECTORY: Final = os.path.dirname(trio.__file__) + os.sep
_SERVER_DIRECTORIES: Final = (_TRIO_DIRECTORY, PACKAGE_DIRECTORY)
_INSTALLED: Final = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


@functools.cache
def _python_directories() -> tuple[str, ...]:
    import sysconfig

    paths = sysconfig.get_paths()
    return tuple(str(Path(paths[kind])) + os.sep for kind in ("stdlib", "purelib", "platlib"))


@functools.lru_cache(maxsize=4096)
def is_author_code(filename: str) -> bool:
    """Whether *filename* is code of the site's author, not rpyserve's, Python's or a package's."""
    if filename.startswith(("<", PACKAGE_DIRECTORY, *_python_directories())):
        return False
    return not any(directory in filename for directory in _INSTALLED)


@functools.lru_cache(maxsize=4096)
def _is_trio_code(filename: str) -> bool:
    return filename.startswith(_TRIO_DIRECTORY)


@functools.lru_cache(maxsize=4096)
def _is_server_code(filename: str) -> bool:
    return filename.startswith(_SERVER_DIRECTORIES)


def innermost_author_frame(
    frame: FrameType | None, *, even_in_ours: bool = False
) -> FrameType | None:
    """Return the innermost frame of the author's code, if such code is blocking the loop just now.

    Args:
        frame: the innermost frame of the loop's thread.
        even_in_ours: find it as well if it has called something of rpyserve's that is at work.

    Returns:
        None if rpyserve or trio itself is at work: their frames end the search, those of Python's
        own and of installed modules do not.
    """
    ends_search = _is_trio_code if even_in_ours else _is_server_code
    while frame is not None and not ends_search(frame.f_code.co_filename):
        if is_author_code(frame.f_code.co_filename):
            return frame
        frame = frame.f_back
    return None


def outermost_author_frame(frame: FrameType | None) -> FrameType | None:
    """Return the outermost frame of the author's code in the task that runs just now.

    Args:
        frame: the innermost frame of the loop's thread.

    Returns:
        None if the author's code has no part in it. A program that runs the loop has none.
    """
    outermost = None
    while frame is not None and not _runs_tasks(frame.f_code):
        if is_author_code(frame.f_code.co_filename):
            outermost = frame
        frame = frame.f_back
    return outermost if frame is not None else None


def _runs_tasks(code: CodeType) -> bool:
    return code.co_name == "unrolled_run" and _is_trio_code(code.co_filename)


def frames_from(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield *frame* and all that have called it, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def display_path(filename: str) -> str:
    """Return *filename* relative to the current directory, or whole if it lies elsewhere."""
    here = working_directory()
    return filename.removeprefix(here + os.sep) if here else filename


def working_directory() -> str:
    """Return the current directory; empty if it has been removed, or may not be read."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def display_position(frame: FrameType) -> str:
    """Return the script and the line that *frame* is at, such as ``counter.rpy, line 3``."""
    return f"{display_path(frame.f_code.co_filename)}, line {frame.f_lineno}"


# What is not the author's


class ServerObject:
    """Base of classes whose objects an edit of the site leaves alone.

    When classes of the site have changed, what sessions and the registry hold is changed, too. An
    object of the site may refer to its session, its request or the `Site`: those are not looked
    into, as they lead to everything else.
    """

    __slots__ = ()


class CoroutineOrigins:
    """Has the coroutines of one thread remember the line that made them.

    So a call that nobody awaited can be named, however late Python finds it. It costs time with
    each coroutine, most of which are the server's: so it begins with the first code that may make
    one.
    """

    def __init__(self) -> None:
        self._thread = 0

    @contextmanager
    def remembered(self, *, at_once: bool) -> Iterator[None]:
        """While inside, this thread's coroutines remember it: at once, or from `want` on."""
        depth = sys.get_coroutine_origin_tracking_depth()
        self._thread = threading.get_ident()
        if at_once:
            self.want()
        try:
            yield
        finally:
            self._thread = 0
            sys.set_coroutine_origin_tracking_depth(depth)

    def want(self) -> None:
        """Have it begin. Other threads than that one do nothing."""
        if threading.get_ident() == self._thread:
            depth = sys.get_coroutine_origin_tracking_depth()
            sys.set_coroutine_origin_tracking_depth(max(1, depth))


# Those of the thread of the event loop.
coroutine_origins: Final = CoroutineOrigins()
