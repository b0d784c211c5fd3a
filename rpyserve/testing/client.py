"""The clients: `Client` for plain test functions, `AsyncClient` for async ones.

Both are clients of httpx whose transport calls a site, and have what httpx cannot have: time that
passes when a test says so, the visitor's session, and more visitors of the same site. They work
without pytest, whose fixtures are in `pytest_plugin`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypedDict, TypeVar, TypeVarTuple, Unpack

import httpx
import trio

from rpyserve.sessions.session import Registry, Session
from rpyserve.site import Site
from rpyserve.testing.portal import Portal
from rpyserve.testing.transport import PortalTransport, SiteRunner, SiteTransport

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

_DEFAULTS: Final = {"base_url": "http://localhost:8080", "timeout": 600.0, "trust_env": False}
_NOT_HTTPX: Final = {"address", "raise_errors", "session_timeout"}


class ClientOptions(TypedDict, total=False):
    """What both clients take besides the site.

    Args:
        session_timeout: seconds that idle sessions live; used unless a `Site` is given.
        raise_errors: whether an exception that a script raises is raised in the test. That is the
            default; False gives the page that a visitor would get.
        address: the visitor's IP address, ``"127.0.0.1"`` by default.
        timeout: seconds, of the client's time, that may be waited for one response: 600 by default.
        base_url: the address of the site, ``"http://localhost:8080"`` by default.
        auth, cookies, default_encoding, event_hooks: as for `httpx.Client`.
        follow_redirects, headers, max_redirects, params: as for `httpx.Client`.
    """

    session_timeout: float | None
    raise_errors: bool
    address: str
    timeout: float | httpx.Timeout | None
    base_url: httpx.URL | str
    auth: Any
    cookies: Any
    default_encoding: Any
    event_hooks: Any
    follow_redirects: bool
    headers: Any
    max_redirects: int
    params: Any


_NOBODY: Final[ClientOptions] = {"auth": None, "cookies": None}


class _Visitor:
    """What both clients have besides what httpx gives them."""

    _runner: SiteRunner
    _options: ClientOptions

    @property
    def cookies(self) -> httpx.Cookies:
        raise NotImplementedError  # httpx's own comes first

    @property
    def site(self) -> Site:
        """The site."""
        return self._runner.site

    @property
    def registry(self) -> Registry:
        """What all visitors of the site share."""
        return self.site.registry

    @property
    def session(self) -> Session | None:
        """The visitor's live session, or None. Looking at it is no visit."""
        sessions = self.site.sessions
        ids = (cookie.value or "" for cookie in self.cookies.jar)
        return next((sessions[uid] for uid in ids if uid in sessions), None)

    def _transport_to_site(self) -> SiteTransport:
        options = self._options
        return SiteTransport(
            self._runner,
            address=options.get("address", "127.0.0.1"),
            raise_errors=options.get("raise_errors", True),
        )

    def _httpx_options(self) -> dict[str, Any]:
        given = {name: value for name, value in self._options.items() if name not in _NOT_HTTPX}
        return _DEFAULTS | given

    def _url(self, url: httpx.URL | str) -> httpx.URL | str:
        """An empty URL, or a query alone, is of the script that was given."""
        text = str(url)
        return self._runner.page + text if not text or text.startswith("?") else url


class AsyncClient(httpx.AsyncClient, _Visitor):
    """A visitor of a site, for async tests: ``async with AsyncClient("site") as client:``.

    It is an `httpx.AsyncClient`. Time is the test's own: with pytest-trio, the fixture
    ``autojump_clock`` moves it. While the client is entered, the site's directory is the current
    one.

    Args:
        site: a `Site`, a resource, a function of the request, or the path of a directory or a
            script. Given another client, this is a further visitor of its site.
        options: see `ClientOptions`.

    Raises:
        FileNotFoundError: there is no such directory or script.
        TypeError: what is given cannot be served.
    """

    def __init__(self, site: Any, **options: Unpack[ClientOptions]) -> None:
        self._options = options
        if isinstance(site, AsyncClient):
            self._runner = site._runner
        else:
            self._runner = SiteRunner(site, options.get("session_timeout"))
        super().__init__(transport=self._transport_to_site(), **self._httpx_options())

    def new_visitor(self, **options: Unpack[ClientOptions]) -> AsyncClient:
        """Return another visitor of the same site, with no cookies and no auth.

        Args:
            options: what differs otherwise from this client, such as the ``address``.
        """
        return AsyncClient(self, **(self._options | _NOBODY | options))

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass: sessions expire, background tasks go on."""
        await trio.sleep(seconds)

    async def get(self, url: httpx.URL | str = "", **options: Any) -> httpx.Response:
        """Send a GET request as httpx does; without *url*, to the script that was given."""
        return await super().get(url, **options)

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        return super().build_request(method, self._url(url), **options)


class Client(httpx.Client, _Visitor):
    """A visitor of a site, for plain tests: ``with Client("site") as client:``.

    It is an `httpx.Client`. Between two calls time stands still. Within one it passes as needed and
    takes none, also in ``client.sleep(900)``. While a call lasts, the site's directory is the
    current one. The site runs in a thread of its own until the client is closed.

    Arguments and exceptions are those of `AsyncClient`.
    """

    _portal: Portal

    def __init__(self, site: Any, **options: Unpack[ClientOptions]) -> None:
        self._options = options
        is_first = not isinstance(site, Client)
        if isinstance(site, Client):
            self._runner, self._portal = site._runner, site._portal
        else:
            self._runner = SiteRunner(site, options.get("session_timeout"))
            self._portal = Portal(self._runner.running(), self._runner.in_cwd)
        transport = PortalTransport(self._transport_to_site(), self._portal, closes_portal=is_first)
        super().__init__(transport=transport, **self._httpx_options())
        if is_first:
            self._portal.start()

    def new_visitor(self, **options: Unpack[ClientOptions]) -> Client:
        """Return another visitor of the same site. See `AsyncClient.new_visitor`."""
        return Client(self, **(self._options | _NOBODY | options))

    def sleep(self, seconds: float) -> None:
        """Let *seconds* pass, at once: sessions expire, background tasks go on."""
        self.run(trio.sleep, seconds)

    def run(self, function: Callable[[*Args], Awaitable[Result]], *args: *Args) -> Result:
        """Run an async function of the test's own where the site runs, and return its result."""
        return self._portal.call(function, *args)

    def get(self, url: httpx.URL | str = "", **options: Any) -> httpx.Response:
        """Send a GET request as httpx does; without *url*, to the script that was given."""
        return super().get(url, **options)

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        return super().build_request(method, self._url(url), **options)
