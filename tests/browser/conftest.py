"""Each browser test runs in each engine, unless its mark ``not_in`` says why not.

The environment variable ``BROWSERS`` may name the engines to run, such as ``firefox,webkit``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browsers import ENGINES
from tests.support.real_process import Server, serving


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "browser" not in metafunc.fixturenames:
        return
    reasons = {
        engine: mark.kwargs["reason"]
        for mark in metafunc.definition.iter_markers("not_in")
        for engine in mark.args
    }
    engines = [
        pytest.param(
            engine, marks=pytest.mark.skip(reason=reasons[engine]) if engine in reasons else ()
        )
        for engine in os.environ.get("BROWSERS", ",".join(ENGINES)).split(",")
    ]
    metafunc.parametrize("browser", engines, indirect=True, scope="module")


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """One browser for the tests of a module: Playwright needs an event loop of asyncio, which other
    tests would notice.
    """
    engine = ENGINES[request.param]
    if engine.installed() is None:
        assert not (os.environ.get("CI") and sys.platform == "linux"), (
            f"CI on Linux must have all browsers: {engine.lacking}"
        )
        pytest.skip(engine.lacking)
    with engine.start() as browser:
        yield browser


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A browser of its own, as far as cookies go."""
    context = browser.new_context(viewport={"width": 800, "height": 600})
    yield context
    context.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of the site."""
    root = tmp_path / "site"
    root.mkdir()
    return root


@pytest.fixture
def server(root: Path, tmp_path: Path) -> Iterator[Server]:
    """One that serves *root*."""
    with serving(root, tmp_path) as server:
        yield server
