"""A site of scripts in a temporary directory, without a server, for tests of scripts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rpyserve.diagnostics.describe import describe
from rpyserve.http.errors import ScriptError
from rpyserve.http.request import Request
from rpyserve.scripts.loader import ScriptLoader
from rpyserve.sessions.session import Registry


class ScriptSite:
    """Writes files below *root*, and executes scripts there.

    A request ends when it has been answered.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scripts = ScriptLoader(root, Registry())

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def load(self, name: str = "a.rpy", request: Request | None = None) -> Any:
        return self.scripts.load(self.root / name, request)

    def get(self, name: str = "a.rpy") -> Any:
        """What the script's GET returns."""
        request = Request("GET", "/")
        try:
            return self.load(name, request).render(request)
        finally:
            request.close()

    def error(self, text: str | bytes | None = None, name: str = "a.rpy") -> ScriptError:
        """What the script raises; its message and hint are those that its page shows."""
        if text is not None:
            self.write(name, text)
        with pytest.raises(ScriptError) as caught:
            self.load(name)
        error = caught.value
        assert error.path == self.root / name
        said = describe(error)
        error.message, error.hint = said.title, said.hint
        return error


def set_back(path: Path, text: str, stamp: int) -> None:
    """Write *text*, and make the file's mtime what it was."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(stamp, stamp))
