"""``registerAdapter`` of Twisted's, for scripts that are executed again and again.

Twisted keeps adapters by class, for ever, and refuses a second one; a script that was edited, or
that runs for each request, defines its classes anew. So what a script registers is kept by our own
`registerAdapter`, by name. What anybody else registers is Twisted's.
"""

from __future__ import annotations

import sys
from functools import wraps
from typing import Any

from rpyserve.scripts.execution import execution_in, execution_name_of
from rpyserve.sessions import adapters


def adopt(module: Any) -> None:
    """Have scripts that use *module*, ``twisted.python.components``, register with us."""
    genuine = module.registerAdapter

    @wraps(genuine)
    def registerAdapter(adapterFactory: Any, origInterface: Any, *interfaceClasses: Any) -> None:
        given = (adapterFactory, origInterface, *interfaceClasses)
        is_scripts = execution_in(sys._getframe(1).f_globals) is not None
        if is_scripts or any(execution_name_of(each) is not None for each in given):
            adapters.registerAdapter(*given)
        else:
            genuine(*given)

    module.registerAdapter = registerAdapter
