"""Several sites behind one address: which of them is asked goes by the request's ``Host``.

They share one `Site`, so one registry and one store of sessions; but a browser keeps cookies apart by host name, so
each visitor has a session for each name.
"""

from __future__ import annotations

from typing import Any

from rpyserve.http.errors import HTTPError
from rpyserve.http.hosts import host_without_port
from rpyserve.http.request import Request, authority_of
from rpyserve.resources.resource import Resource, Wrapper, as_resource

__all__ = ["NameVirtualHost"]


class NameVirtualHost(Wrapper):
    """Answers with the resource that belongs to the host name of a request.

    As the root of a `Site`, its names are known ones: requests for them are not refused (see ``--allowed-host``).

    Attributes:
        hosts: the resources, by host name, in small letters.
        default: what answers for all other names, and requests without one; None is a 404.

    The names are Twisted Web's (``twisted.web.vhost``). "Twisted Web in 60 seconds" does not have it.
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
        self.hosts[_plain(name)] = as_resource(resource)

    def removeHost(self, name: str | bytes) -> None:
        """Have the default answer for *name* again.

        Raises:
            KeyError: there is no such host.
        """
        del self.hosts[_plain(name)]

    def enter(self, request: Request) -> Resource:
        """Choose."""
        resource = self.hosts.get(host_without_port(authority_of(request) or ""), self.default)
        if resource is None:
            known = ", ".join(sorted(self.hosts)) or "none"
            raise HTTPError(
                404, private=f"No site answers for this host name; those that do: {known}."
            )
        return resource

    def error_page(self, status: int, request: Request) -> Resource | None:
        """That of the chosen one."""
        resource = self.hosts.get(host_without_port(authority_of(request) or ""), self.default)
        return None if resource is None else resource.error_page(status, request)


def _plain(name: str | bytes) -> str:
    return host_without_port(name.decode("ascii") if isinstance(name, bytes) else name)
