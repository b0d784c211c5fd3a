"""Who may see what: HTTP authentication, and what a visitor may see of a site.

`BasicAuth` is a wrapper that asks for a name and a password (RFC 7617). It sends the password with
every request, readable to whoever can read the connection: use TLS on a network. Nothing here keeps
or logs a password, and how long a refusal takes does not show how wrong the password was.

`Gate` and `View` are the one place that decides what a visitor may see, for the server's own tools.
What is at ``/-/``, such as the stream of changes, is outside of the site's resource tree. It must
not tell a visitor more than the site does: what a guard, a virtual host or a part of the tree hides
stays hidden there, too. So each tool is behind a `Gate`, and asks a `View` before it tells of a
URL. Both take the way that a request of that visitor takes through the tree, past each `Wrapper`
and each ``getChild``, with the visitor's own address, headers and session. What they lead to is not
rendered.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hmac import compare_digest
from typing import Any, Protocol

from rpyserve._names import public
from rpyserve.http.browser import is_cross_origin
from rpyserve.http.errors import HTTPError, Redirect
from rpyserve.http.headers import encode_header
from rpyserve.http.request import Request, RequestSite
from rpyserve.resources.resource import Resource, Wrapper, check_path, child_of

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
            for name, password in users.items():
                if not isinstance(password, (str, bytes)):
                    raise TypeError(f"the password of {name!r} must be text: write it in quotes")
            self._check: PasswordCheck = partial(_is_password, users)
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


def _is_password(users: Mapping[str, str], name: str, password: str) -> bool:
    """Whether *users* has this password for *name*. For other names it takes as long."""
    expected = users.get(name)
    matches = compare_digest(_encode("" if expected is None else expected), _encode(password))
    return matches and expected is not None


def _encode(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


# What a visitor may see


class _RootedSite(RequestSite, Protocol):
    root: Resource


class Gate(Wrapper):
    """A tool of the server itself, for pages of *site* and for whoever may see its root.

    Args:
        resource: the tool.
        site: the site that it is about.
    """

    def __init__(self, resource: Any, site: _RootedSite) -> None:
        super().__init__(resource)
        self._site = site

    async def enter(self, request: Request) -> None:
        """Let *request* pass if the wrappers around the whole site do.

        Raises:
            HTTPError: what such a wrapper raises; 404 if it answers in another way; 403 for a page
                of another origin.
        """
        if is_cross_origin(request, allow_tls_proxy=True):
            raise HTTPError(403, "This is for pages of this server only.")
        try:
            await View(self._site, request).enter()
        except Redirect:
            raise HTTPError(404) from None


class View:
    """What the visitor who makes *request* sees of *site* at the moment.

    Make a new one for each answer: what a guard says may change. A password is checked only once,
    since that may take long.
    """

    def __init__(self, site: _RootedSite, request: Request) -> None:
        self._site = site
        self._request = request
        self._authenticated: dict[Wrapper, tuple[Resource, str | None] | Exception] = {}

    async def enter(self) -> None:
        """Go past the wrappers around the whole site.

        Raises:
            Exception: what they raise; `HTTPError` 404 if one of them answers itself.
        """
        resource = self._site.root
        with self._probe("/") as probe:
            while isinstance(resource, Wrapper):
                inner = await self._unwrap(resource, probe)
                if not _is_among(inner, resource.inner()):
                    raise HTTPError(404)
                resource = inner

    async def shows(self, url: str, targets: Iterable[Resource]) -> bool:
        """Whether a request for *url*, a percent-encoded path, gets as far as one of *targets*."""
        try:
            return await self._reaches(url, list(targets))
        except Exception:
            return False  # whoever asks for that URL gets the reason

    async def challenge(self, url: str, targets: Iterable[Resource]) -> None:
        """Ask for a password where a request for *url* is asked for one before it gets so far.

        A browser sends a password unasked only to URLs below that at which it was asked for it.

        Raises:
            HTTPError: 401.
        """
        try:
            await self._reaches(url, list(targets))
        except HTTPError as exc:
            if exc.status == 401:
                raise
        except Exception:
            pass

    async def _reaches(self, url: str, targets: list[Resource]) -> bool:
        resource = self._site.root
        if _is_among(resource, targets):
            return True
        with self._probe(url) as probe:
            check_path(probe)
            while not _is_among(resource, targets):
                if isinstance(resource, Wrapper):
                    resource = await self._unwrap(resource, probe)
                elif resource.isLeaf or not probe.postpath:
                    return False
                else:
                    resource = await child_of(resource, probe)
        return True

    async def _unwrap(self, wrapper: Wrapper, probe: Request) -> Resource:
        if type(wrapper).enter is not BasicAuth.enter:
            return await wrapper.unwrap(probe)
        if wrapper not in self._authenticated:
            try:
                self._authenticated[wrapper] = await wrapper.unwrap(probe), probe.user
            except Exception as exc:
                self._authenticated[wrapper] = exc
        outcome = self._authenticated[wrapper]
        if isinstance(outcome, Exception):
            raise outcome
        resource, probe.user = outcome
        return resource

    @contextmanager
    def _probe(self, url: str) -> Iterator[Request]:
        """The visitor's request for *url*, which is over when the block ends."""
        asked = self._request
        if not asked.uri.startswith("/"):  # the target names the host, which decides
            url = f"{asked.scheme}://{asked.authority}{url}"
        probe = Request(
            "GET",
            url,
            asked.raw_headers,
            http_version=asked.http_version,
            client=asked.client,
            server=asked.server,
            scheme=asked.scheme,
        )
        probe.site = self._site
        probe.root_path, probe._proxy = asked.root_path, asked._proxy
        probe._authority = asked._authority
        probe._session = asked._session
        probe._record, probe._observer = asked._record, asked._observer
        try:
            yield probe
        finally:
            asked._session = probe._session  # a guard that makes sessions makes one only
            probe.close()


def _is_among(resource: Resource, others: Iterable[Resource]) -> bool:
    return any(resource is other for other in others)
