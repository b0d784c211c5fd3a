"""HTTP authentication: a guard round a resource that lets those pass who know a password (RFC 7617).

Basic sends the password with every request, readable to whoever can read the connection: over the network it wants
TLS. Nothing here keeps or logs a password, and how long a refusal takes says nothing about how wrong it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from typing import Any

from rpyserve.http.errors import HTTPError
from rpyserve.http.request import Request, credentials
from rpyserve.http.response import encode_header
from rpyserve.resources.resource import Wrapper

__all__ = ["BasicAuth"]

Check = Callable[[str, str], object | Awaitable[object]]





class BasicAuth(Wrapper):
    """A resource that asks for a name and a password before it answers, and so does all that is below it.

    Args:
        resource: what is guarded: a `Resource`, such as a `Directory`, or a function of the request.
        users: who may pass: a mapping from names to passwords, or a plain or async function of name and password
            that returns something true. The name is then ``request.user``.
        realm: what the browser calls the place when it asks.

    Raises:
        TypeError: *users* is neither, or a password no text; or see `Wrapper`.
        ValueError: *realm* cannot be sent.

    "Twisted Web in 60 seconds": HTTP authentication.
    """

    def __init__(
        self, resource: Any, users: Mapping[str, str] | Check, realm: str = "rpyserve"
    ) -> None:
        super().__init__(resource)
        if isinstance(users, Mapping):
            if odd := next(
                (
                    name
                    for name, password in users.items()
                    if not isinstance(password, (str, bytes))
                ),
                None,
            ):
                raise TypeError(f"the password of {odd!r} must be text: write it in quotes")
            users = _Mapping(users)
        elif not callable(users):
            raise TypeError(
                f'BasicAuth(resource, users) takes a mapping, such as {{"ada": "secret"}}, or a function of name and '
                f"password, not {type(users).__name__}"
            )
        self._check = users
        encode_header("realm", realm)  # says what it cannot hold
        quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
        self._challenge = {"WWW-Authenticate": f'Basic realm="{quoted}", charset="UTF-8"'}

    async def enter(self, request: Request) -> None:
        """Let those pass who may.

        Raises:
            HTTPError: 401, with a challenge.
        """
        sent = credentials(request)
        if sent is not None:
            passes = self._check(*sent)
            if inspect.isawaitable(passes):
                passes = await passes
            if passes:
                request.user = sent[0]
                return
        raise HTTPError(401, "This page needs a name and a password.", self._challenge)


class _Mapping:
    """Compares with the password of a mapping; takes as long for a name that is not in it."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = users

    def __call__(self, name: str, password: str) -> bool:
        expected = self._users.get(name)
        same = compare_digest(_bytes("" if expected is None else expected), _bytes(password))
        return same and expected is not None


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
