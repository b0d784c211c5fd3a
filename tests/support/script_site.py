"""A site of scripts in a temporary directory, without a server: what tests of scripts and modules share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rpyserve.http.errors import ScriptError
from rpyserve.http.request import Request
from rpyserve.scripts.loader import ScriptLoader


class ScriptSite:
    """Writes files below *root*, and executes scripts there. A request ends when it has been answered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scripts = ScriptLoader(root)

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
        if text is not None:
            self.write(name, text)
        with pytest.raises(ScriptError) as caught:
            self.load(name)
        assert caught.value.path == self.root / name
        return caught.value


def set_back(path: Path, text: str, stamp: int) -> None:
    """Write *text*, and make the file's mtime what it was."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(stamp, stamp))
