"""Several sites at one address: the request's ``Host`` decides which of them answers.

They share one `Site`, so one registry and one session store; but a browser keeps the cookies of
host names apart, so each visitor has a session for each name.
"""

from __future__ import annotations

from typing import Any

from rpyserve._names import public
from rpyserve.http.errors import HTTPError
from rpyserve.http.hosts import host_without_port
from rpyserve.http.request import Request
from rpyserve.resources.resource import Resource, Wrapper, as_resource


@public
class NameVirtualHost(Wrapper):
    """Answers with the resource that belongs to the host name of a request.

    If it is the root of a `Site`, requests for its names are accepted (see ``--allowed-host``).

    Attributes:
        hosts: the resources, by host name in lower case.
        default: what answers for all other names, and requests without one; None is a 404.

    The names are Twisted Web's (``twisted.web.vhost``). "Twisted Web in 60 seconds" does not have
    it.
    """

    def __init__(self, default: Any = None) -> None:
        self.hosts: dict[str, Resource] = {}
        self.default = None if default is None else as_resource(default)

    def addHost(self, name: str | bytes, resource: Any) -> None:
        """Have *resource*, such as a `Directory`, answer for the host *name*.

        Args:
            name: a host name without a port; letter case does not matter.
            resource: a `Resource` or a function of the request.
        """
        self.hosts[_normalize(name)] = as_resource(resource)

    def removeHost(self, name: str | bytes) -> None:
        """Have the default answer for *name* again.

        Raises:
            KeyError: there is no such host.
        """
        del self.hosts[_normalize(name)]

    def enter(self, request: Request) -> Resource:
        """Return the resource that answers for the host name of *request*.

        Raises:
            HTTPError: 404, there is none.
        """
        resource = self._resource_for(request)
        if resource is None:
            known = ", ".join(sorted(self.hosts)) or "none"
            raise HTTPError(404, private=f"No site has this host name. Known names: {known}.")
        return resource

    def inner(self) -> list[Resource]:
        found = [self.default, *self.hosts.values()]
        return [each for each in found if each is not None]

    def error_page(self, status: int, request: Request) -> Resource | None:
        resource = self._resource_for(request)
        return None if resource is None else resource.error_page(status, request)

    def _resource_for(self, request: Request) -> Resource | None:
        return self.hosts.get(host_without_port(request.authority or ""), self.default)


def _normalize(name: str | bytes) -> str:
    return host_without_port(name.decode("ascii") if isinstance(name, bytes) else name)
