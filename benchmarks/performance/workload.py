"""What is measured: the requests, and the servers that take part in each.

People do not send the same bytes for ever. So each request has another query, the cookie of one of
`VISITORS` visitors, and the fields of a browser. One row sends one head again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.common import servers
from benchmarks.common.servers import Server
from benchmarks.performance import pages
from benchmarks.performance.load_generator import NUMBER

HELLO = b"Hello, world!"
STREAMED = b"x" * 16384 * 64
SMALL = b"0123456789abcde\n" * 64
LARGE = bytes(range(256)) * 40960
FILES = {"small.txt": SMALL, "large.bin": LARGE}
"""What each server has besides its pages."""
FORM = b"name=Ada&text=" + b"lorem+ipsum+" * 20
VISITORS = 200
COOKIE = "visitor={:032x}"
"""Of each visitor who has no session."""
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    "*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cache-Control": "max-age=0",
    "Sec-CH-UA": '"Chromium";v="130", "Not?A_Brand";v="99"',
    "Sec-CH-UA-Mobile": "?0",
    "Sec-CH-UA-Platform": '"Linux"',
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request.

    Args:
        key: what `Contestant.rows` has.
        title: what the table says.
        path: the URL's path.
        body: that of the response; None if each server words it as it likes.
        status: that of the response.
        form: what is posted.
        connections: how many clients ask at once.
        session: whether each visitor keeps the session of their first response.
        repeats: whether all requests are the same, with the fields that HTTP/1.1 requires.
    """

    key: str
    title: str
    path: str
    body: bytes | None = None
    status: int = 200
    form: bytes = b""
    connections: int = 16
    session: bool = False
    repeats: bool = False

    @property
    def is_page(self) -> bool:
        """Whether a script answers it."""
        return self.key not in ("small", "large", "404")


ROWS = [
    Row("hello", "hello, cached", "/hello", HELLO),
    Row("repeated", "the same, one head again and again", "/hello", HELLO, repeats=True),
    Row("one", "the same, 1 connection", "/hello", HELLO, connections=1),
    Row("many", "the same, 256 connections", "/hello", HELLO, connections=256),
    Row("counter", "counter in a session, cached", "/counter", session=True),
    Row("series", "the series' counter, cached", "/series", session=True),
    Row("uncached", "hello, uncached", "/uncached", HELLO),
    Row("json", "JSON", "/json"),
    Row("form", "form, posted", "/form", b"Hello, Ada!", form=FORM),
    Row("404", "nothing there", f"/nothing-{NUMBER}", status=404),
    Row("stream", "1 MiB, streamed", "/stream", STREAMED),
    Row("small", "file of 1 KiB", "/small.txt", SMALL),
    Row("large", "file of 10 MiB", "/large.bin", LARGE),
]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One server, set up in one way.

    Args:
        server: how it is started.
        rows: the keys of the rows that it takes part in.
        files: its pages.
        suffix: what the paths of its scripts end in.
    """

    server: Server
    rows: frozenset[str]
    files: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def is_baseline(self) -> bool:
        return self.server is servers.BASELINE


BASELINE = servers.BASELINE.name
OWN = servers.RPYSERVE.name
OWN_WITH_MODULES = f"{OWN}, 10 modules"

_PAGES = frozenset({"hello", "404", "json", "stream", "form"})
_REPEATED = frozenset({"repeated"})
_FILES = frozenset({"small", "large"})
_CONNECTIONS = frozenset({"one", "many"})
_HELLO = frozenset({"hello"})

CONTESTANTS = [
    Contestant(servers.BASELINE, frozenset(row.key for row in ROWS if row.status == 200)),
    Contestant(
        servers.RPYSERVE,
        _PAGES | _REPEATED | _FILES | _CONNECTIONS | {"counter", "series", "uncached"},
        pages.RPYSERVE,
    ),
    Contestant(
        servers.RPYSERVE.with_options("--quiet", name=f"{OWN}, log off"), _HELLO, pages.RPYSERVE
    ),
    Contestant(
        servers.RPYSERVE.with_options(name=OWN_WITH_MODULES),
        _HELLO | {"one"},
        pages.RPYSERVE_WITH_MODULES,
    ),
    Contestant(servers.UVICORN, _PAGES | _REPEATED | _CONNECTIONS, {"pages.py": pages.ASGI}),
    Contestant(
        servers.UVICORN.with_options("--no-access-log", name="uvicorn, log off"),
        _HELLO,
        {"pages.py": pages.ASGI},
    ),
    Contestant(servers.HYPERCORN, _HELLO | {"json", "stream"}, {"pages.py": pages.ASGI}),
    Contestant(
        servers.TWISTED.with_options("--path", "."),
        _PAGES | _REPEATED | _FILES | _CONNECTIONS | {"series", "uncached"},
        pages.TWISTED,
        suffix=".rpy",
    ),
    Contestant(servers.FLASK, _PAGES | {"counter"}, {"pages.py": pages.FLASK}),
    Contestant(servers.PHP, _PAGES | _FILES | {"counter", "uncached"}, {"pages.php": pages.PHP}),
    Contestant(servers.NGINX, _FILES, {"nginx.conf": pages.NGINX}),
    Contestant(servers.HTTP_SERVER, _FILES),
]
"""The baseline loop takes part in every row; it always answers as to ``/hello``."""
