"""Tells the console what a script or module will lose, once for each version of it, when that is first executed.

A version is the bytes of a file: an edit that is taken back is told again, a mere touch is not. Nothing here may stop
a script from running.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import os
from typing import Final

__all__ = ["StateLossAnnouncer"]

log = logging.getLogger("rpyserve")

_SIGNS: Final = (b"global", b"nonlocal", b".", b"[", b"@", b"next", b"heap", b"insort")
"""Without any of these nothing can be assigned, or changed, that would be lost."""


class StateLossAnnouncer:
    """What was told of the site at *root*: for each file, the version that it was about."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._versions: dict[str, bytes] = {}

    def announce(self, path: str, data: bytes, tree: ast.Module, *, module: bool = False) -> None:
        """Tell what the file at *path* will lose, unless that was told of these contents already.

        Args:
            data: its contents, and *tree* what they parse to.
            module: it is a module of the site, not a script.
        """
        if not log.isEnabledFor(logging.INFO) or not any(sign in data for sign in _SIGNS):
            return
        version = hashlib.blake2b(data, digest_size=16).digest()
        if self._versions.get(path) == version:
            return
        self._versions[path] = version
        from rpyserve.check import state_loss

        for loss in state_loss.find(tree, module=module):
            log.info("%s:%d: %s", os.path.relpath(path, self._root), loss.line, loss.brief)
