"""What the tests of genuine Twisted resources share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def site(tmp_path: Path) -> Any:
    from tests.support.genuine import TwistedSite

    return TwistedSite(tmp_path)
