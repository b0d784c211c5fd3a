"""HTTP authentication: a wrapper that asks for a name and a password (RFC 7617).

Basic authentication sends the password with every request, readable to whoever can read the
connection: use TLS on a network. Nothing here keeps or logs a password, and how long a refusal
takes does not show how wrong the password was.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from typing import Any

from rpyserve._names import public
from rpyserve.http.errors import HTTPError
from rpyserve.http.headers import encode_header
from rpyserve.http.request import Request
from rpyserve.resources.resource import Wrapper

__all__ = ["BasicAuth"]

PasswordCheck = Callable[[str, str], object | Awaitable[object]]


@public
class BasicAuth(Wrapper):
    """A resource that asks for a name and a password, for itself and all that is below it.

    Args:
        resource: what is protected: a `Resource`, such as a `Directory`, or a function of the
            request.
        users: who may pass: a mapping from names to passwords, or a plain or async function of name
            and password that returns something true. The name is then ``request.user``.
        realm: what the browser calls the place when it asks.

    Raises:
        TypeError: *users* is neither, or a password is not text; or see `Wrapper`.
        ValueError: *realm* cannot be sent.

    "Twisted Web in 60 seconds": HTTP authentication.
    """

    def __init__(
        self, resource: Any, users: Mapping[str, str] | PasswordCheck, realm: str = "rpyserve"
    ) -> None:
        super().__init__(resource)
        if isinstance(users, Mapping):
            self._check: PasswordCheck = _Passwords(users)
        elif callable(users):
            self._check = users
        else:
            raise TypeError(
                'BasicAuth(resource, users) takes a mapping, such as {"ada": "secret"}, '
                f"or a function of name and password, not {type(users).__name__}"
            )
        encode_header("realm", realm)  # raises if it has a character that a header cannot hold
        quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
        self._challenge = {"WWW-Authenticate": f'Basic realm="{quoted}", charset="UTF-8"'}

    async def enter(self, request: Request) -> None:
        """Let *request* pass if its name and password are good.

        Raises:
            HTTPError: 401, with a challenge.
        """
        given = request.credentials
        if given is not None and await self._is_allowed(*given):
            request.user = given[0]
            return
        raise HTTPError(401, "This page requires a user name and a password.", self._challenge)

    async def _is_allowed(self, name: str, password: str) -> bool:
        allowed = self._check(name, password)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        return bool(allowed)


class _Passwords:
    """Checks the passwords of a mapping. It takes as long for a name that is not in it."""

    def __init__(self, users: Mapping[str, str]) -> None:
        for name, password in users.items():
            if not isinstance(password, (str, bytes)):
                raise TypeError(f"the password of {name!r} must be text: write it in quotes")
        self._users = users

    def __call__(self, name: str, password: str) -> bool:
        expected = self._users.get(name)
        matches = compare_digest(_encode("" if expected is None else expected), _encode(password))
        return matches and expected is not None


def _encode(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
