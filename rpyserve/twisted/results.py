"""What is wrong with the result of a genuine render method, in words for its author."""

from __future__ import annotations

import inspect
from typing import Any

from rpyserve.http.errors import WrongResult
from rpyserve.http.request import Request
from rpyserve.resources.rendering import (
    ALLOWED_RESULTS,
    describe_wrong_result,
    render_method,
)
from rpyserve.resources.resource import ForeignResource

_LATER = (
    "returned a {what}. A method of Twisted's returns bytes, or NOT_DONE_YET and answers later: "
    "{how}"
)
_ALLOWED = "A method of Twisted's returns bytes, str, or NOT_DONE_YET."
_DEFERRED = (
    "write d.addCallback(self._answer, request), return NOT_DONE_YET, and call request.write() "
    "and request.finish() in _answer."
)
_COROUTINE = (
    "write Deferred.fromCoroutine(self._answer(request)), return NOT_DONE_YET, and call "
    "request.write() and request.finish() in _answer, an `async def`."
)


def refuse_result(result: Any, request: Request, resource: Any) -> WrongResult:
    """Return what to raise for *result*, which the genuine *resource* returned."""
    foreign = ForeignResource(resource)
    message = describe_wrong_result(result, request, foreign)
    method = message.partition(" ")[0]
    if inspect.iscoroutine(result):
        message = f"{method} {_LATER.format(what='coroutine', how=_COROUTINE)}"
    elif type(result).__name__ == "Deferred":
        message = f"{method} {_LATER.format(what='Deferred', how=_DEFERRED)}"
    elif isinstance(result, (dict, list)):
        kind = type(result).__name__
        message = f"{method} returned a {kind}. Write return json.dumps(...).encode()."
    message = message.replace(ALLOWED_RESULTS, _ALLOWED)
    return WrongResult(message, render_method(request, foreign), is_nothing=result is None)
