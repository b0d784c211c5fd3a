"""A resource around another one: asked first, for every request to it and to all that is below it.

What guards, and what adds headers, is a `Wrapper`. It takes no segment of the path for itself, and leaves the body
unread until it has let the request pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from rpyserve.http.request import Request
from rpyserve.resource import Around, Resource, as_resource

__all__ = ["Wrapper", "texts"]


class Wrapper(Around):
    """Override `enter`.

    Args:
        resource: what is inside: a `Resource`, such as a `Directory`, or a function of the request.

    Raises:
        TypeError: it can be none.
    """

    wants_body = False

    def __init__(self, resource: Any) -> None:
        self.wrapped = as_resource(resource)

    def enter(self, request: Request) -> Any:
        """Return None to let *request* pass, a `Resource` to have that answer instead, or raise. May be async."""
        raise NotImplementedError

    def error_page(self, status: int, request: Request) -> Resource | None:
        """The inner one's."""
        return self.wrapped.error_page(status, request)

    async def inside(self, request: Request) -> Resource:
        """Ask `enter`."""
        instead = self.enter(request)
        if inspect.isawaitable(instead):
            instead = await instead
        return self.wrapped if instead is None else instead

    async def render(self, request: Request) -> Any:
        """Answer with the inner one, for a resource that calls this itself instead of being walked through."""
        resource = await self.inside(request)
        if resource.wants_body and request.has_body:
            await request.load_body()
        result = resource.render(request)
        return await result if inspect.isawaitable(result) else result


def texts(given: str | Iterable[str]) -> list[str]:
    """Return one text, or several, as a list."""
    return [given] if isinstance(given, str) else list(given)
