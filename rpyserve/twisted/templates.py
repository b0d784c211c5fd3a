"""Templates of Twisted's: an element that fails is a failure of the page, with the page for that.

Twisted itself sends a sentence in place of the element, with the status 200.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from twisted.web.server import NOT_DONE_YET


def adopt(module: Any) -> None:
    """Have ``renderElement`` of *module*, ``twisted.web.template``, tell us of failures."""
    genuine = module.renderElement

    @wraps(genuine)
    def renderElement(
        request: Any, element: Any, doctype: bytes | None = b"<!DOCTYPE html>", *args: Any
    ) -> Any:
        if not hasattr(request, "fail"):
            return genuine(request, element, doctype, *args)
        if doctype is not None:
            request.write(doctype + b"\n")
        flattened = module.flatten(request, element, request.write)
        flattened.addCallback(lambda result: request.finish())
        flattened.addErrback(request.processingFailed)
        flattened.addErrback(lambda failure: None)  # its page has been made
        return NOT_DONE_YET

    module.renderElement = renderElement
