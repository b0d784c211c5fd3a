"""Logs what a script or module will lose or leaves unescaped, when a version is first executed.

A version is the contents of a file: an edit that is taken back is announced again, a mere touch is
not. `serving` registers the announcer as the observer of a site's sources. Nothing here may stop a
script from running.
"""

from __future__ import annotations

import ast
import logging
from typing import Final

from rpyserve.util.author_code import display_path

log = logging.getLogger("rpyserve")

# Code about which there is something to announce contains one of these. For other code, nothing of
# the check is imported before the first answer.
_NEEDED: Final = (b"global", b"nonlocal", b".", b"[", b"@", b"next", b"heap", b"insort", b"html(")


class FindingAnnouncer:
    """Announces state losses and unescaped values, once for each version of a file."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}

    def __call__(self, path: str, data: bytes, tree: ast.Module, kind: str) -> None:
        """Announce what is found in a source, unless that was done for these contents already.

        Args:
            path: the file.
            data: its contents.
            tree: their syntax tree.
            kind: ``"script"`` or ``"module"``.
        """
        is_wanted = log.isEnabledFor(logging.INFO) and any(part in data for part in _NEEDED)
        if not is_wanted or self._versions.get(path) == hash(data):
            return
        self._versions[path] = hash(data)
        from rpyserve.check.bindings import ModuleBindings
        from rpyserve.check.escaping import find_unescaped
        from rpyserve.check.state_loss import find_state_losses

        bindings = ModuleBindings(tree)
        losses = find_state_losses(bindings, is_module=kind == "module")
        shown = display_path(path)
        for finding in (*losses, *find_unescaped(bindings)):
            hint = finding.hint.replace("\n", " ")
            log.info("%s:%d: %s %s", shown, finding.line, finding.message, hint)
