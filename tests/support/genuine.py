"""Sites with scripts for Twisted. A test module that imports this is skipped where it is absent."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rpyserve.testing.client import Client

pytest.importorskip("twisted")

TWISTED = tuple(map(int, version("twisted").split(".")[:2]))


class TwistedSite:
    """A directory of scripts, and its visitors."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text, encoding="utf-8")

    def client(self, **options: Any) -> Client:
        return Client(str(self.root), **options)
