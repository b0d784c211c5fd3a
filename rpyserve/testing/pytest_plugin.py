"""The pytest plugin: fixtures that make clients.

pytest loads it wherever rpyserve is installed. So nothing else of rpyserve may be imported before a
fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rpyserve.testing import Client


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option that names the site for `site_client`."""
    parser.addini(
        "rpyserve_site", "the directory that the fixture site_client serves", default="site"
    )
    parser.addini(
        "rpyserve_copy",
        "whether it serves a copy of that, so that tests change no file of the site",
        type="bool",
        default=True,
    )


@pytest.fixture
def rpyserve_client() -> Iterator[Callable[..., Client]]:
    """Make clients as `rpyserve.testing.Client` does, and close them after the test."""
    from rpyserve.testing import Client

    with ExitStack() as closing:

        def make(site: Any, **options: Any) -> Client:
            return closing.enter_context(Client(site, **options))

        yield make


@pytest.fixture
def site_client(
    rpyserve_client: Callable[..., Client],
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Client:
    """A client of the project's site: the directory ``site``, or what ``rpyserve_site`` names.

    It serves a copy, so that the databases and uploads of the site stay as they are.
    """
    site = Path(pytestconfig.rootpath, str(pytestconfig.getini("rpyserve_site")))
    if not site.is_dir():
        pytest.fail(
            f"There is no site {site}. Say where it is: rpyserve_site = ... in pytest's settings",
            pytrace=False,
        )
    if pytestconfig.getini("rpyserve_copy"):
        from rpyserve.testing.transport import copy_site

        site = copy_site(site, tmp_path_factory.mktemp("site"))
    return rpyserve_client(site)
