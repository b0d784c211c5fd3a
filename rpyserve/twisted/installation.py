"""Which reactor Twisted has: the one of the site that runs.

Completes two modules of Twisted's: ``twisted.internet.default``, which is asked for a reactor when
somebody first imports ``twisted.internet.reactor``, and ``twisted.internet.main``, which installs
whichever reactor a program has chosen. Where neither a site nor a program of ours runs, both do
what they always do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from rpyserve.scripts import background


def adopt(module: ModuleType) -> None:
    """Have *module*, one of the two, install our reactor, and no other."""
    if module.__name__ == "twisted.internet.default":
        module.install = partial(_install_default, module.install)  # type: ignore[attr-defined]
    else:
        module.installReactor = partial(  # type: ignore[attr-defined]
            _install, module.installReactor
        )


make_reactor: Callable[[], Any] | None = None
"""Makes the reactor of the program that runs; None if none does."""


def _install_default(install: Callable[[], None]) -> None:
    nursery = background.running_nursery()
    if make_reactor is None and nursery is None:
        install()
        return
    from twisted.internet.main import installReactor

    if make_reactor is not None:
        installReactor(make_reactor())
    elif nursery is not None:
        from rpyserve.twisted.reactor import SiteReactor

        reactor = SiteReactor()
        installReactor(reactor)
        background.on_open.append(reactor.attach)
        reactor.attach(nursery)


def _install(install: Callable[[Any], None], reactor: Any) -> None:
    from twisted.internet.error import ReactorAlreadyInstalledError

    from rpyserve.twisted.reactor import TrioReactor

    is_free = make_reactor is None and background.running_nursery() is None
    if is_free or isinstance(reactor, TrioReactor):
        install(reactor)
        return
    raise ReactorAlreadyInstalledError(
        f"{type(reactor).__name__} cannot run here: rpyserve runs Twisted's reactor itself, in "
        "trio's event loop. Leave its install() out, and import twisted.internet.reactor."
    )
