"""The three programs of "Twisted Web in 60 seconds" about sessions, against real processes and real
time.

They are written as the series writes them, by Twisted's import lines, in the syntax of Python 3.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path

import httpx
import pytest
import trio

from tests.support import tutorial
from tests.support.real_process import RawClient, Server, free_port, program, serving

pytestmark = pytest.mark.process

COUNTER = (
    """
cache()

from zope.interface import Interface, Attribute, implementer
from twisted.python.components import registerAdapter
from twisted.web.server import Session
from twisted.web.resource import Resource
"""
    + tutorial.COUNTER
    + """

class CounterResource(Resource):
    def render_GET(self, request):
        session = request.getSession()
        counter = ICounter(session)
        counter.value += 1
        return "Visit #%d for you!" % (counter.value,)


resource = CounterResource()
"""
)

LOGGER = "from twisted.web.resource import Resource\n" + tutorial.EXPIRATION_LOGGER

CUSTOMISED = (
    """
import sys

import rpyserve

from twisted.web.server import Site, Session
"""
    + LOGGER
    + """

class ShortSession(Session):
    sessionTimeout = 5


rootResource = Resource()
rootResource.putChild(b"logme", ExpirationLogger())
factory = Site(rootResource)
factory.sessionFactory = ShortSession
rpyserve.run(factory, port=int(sys.argv[1]))
"""
)

FROM_A_SCRIPT = (
    "cache()\nfrom twisted.web.server import Session\n"
    + LOGGER
    + """

class ShortSession(Session):
    sessionTimeout = 5


class Shortening(ExpirationLogger):
    def render_GET(self, request):
        request.site.sessionFactory = ShortSession
        return ExpirationLogger.render_GET(self, request)


resource = Shortening()
"""
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    (site / "counter.rpy").write_text(COUNTER)
    (site / "uncached.rpy").write_text(COUNTER.replace("cache()\n", "", 1))
    (site / "logme.rpy").write_text("cache()\n" + LOGGER + "\n\nresource = ExpirationLogger()\n")
    return site


# The counter


def test_the_counter_counts_for_each_visitor(site: Path, tmp_path: Path) -> None:
    with (
        serving(site, tmp_path) as server,
        httpx.Client(base_url=server.url) as ada,
        httpx.Client() as ben,
    ):
        assert [ada.get("/counter").text for _ in range(3)] == [
            f"Visit #{n} for you!" for n in (1, 2, 3)
        ]
        assert [ben.get(f"{server.url}/counter").text for _ in range(2)] == [
            f"Visit #{n} for you!" for n in (1, 2)
        ]
        assert ada.get("/counter.rpy").text == "Visit #4 for you!"
        assert {ada.get("/uncached").text for _ in range(3)} == {"Visit #1 for you!"}
        assert ada.get("/counter").text == "Visit #5 for you!"


def test_the_counter_goes_on_after_an_edit(site: Path, tmp_path: Path) -> None:
    edited = COUNTER.replace(
        "self.value = 0", "self.value = 0\n        self.colour = 'red'"
    ).replace(
        '"Visit #%d for you!" % (counter.value,)',
        '"%d, and still %s" % (counter.value, counter.colour)',
    )
    with serving(site, tmp_path) as server, httpx.Client(base_url=server.url) as ada:
        assert [ada.get("/counter").text for _ in range(2)] == [
            "Visit #1 for you!",
            "Visit #2 for you!",
        ]
        (site / "counter.rpy").write_text(edited)
        assert ada.get("/counter").text == "3, and still red"
        server.wait_for(
            "counter.rpy: objects of the class Counter from before the edit got colour from a "
            "new one"
        )
        (site / "counter.rpy").write_text("cache(")
        assert ada.get("/counter").status_code == 500
        (site / "counter.rpy").write_text("")
        assert ada.get("/counter").status_code == 500
        (site / "counter.rpy").write_text(COUNTER)
        assert ada.get("/counter").text == "Visit #4 for you!"


def test_the_logger_prints_one_line_after_an_edit(site: Path, tmp_path: Path) -> None:
    logger = (site / "logme.rpy").read_text()
    with (
        serving(site, tmp_path, "--session-timeout", "1") as server,
        httpx.Client(base_url=server.url) as ada,
    ):
        ada.get("/logme")
        (site / "logme.rpy").write_text(logger.replace("has expired", "is over"))
        ada.get("/logme")
        server.wait_for(r"Session \S+ is over\.")
        assert "has expired" not in server.output()


def test_the_counter_with_curl(site: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        assert not (os.environ.get("CI") and sys.platform == "linux"), "CI on Linux must have curl"
        pytest.skip("no curl here")
    with serving(site, tmp_path) as server:
        jar = str(tmp_path / "jar")
        options = ["--silent", "--fail", "--max-time", "10", "-b", jar, "-c", jar]
        visit = ["curl", *options, f"{server.url}/counter"]
        seen = [subprocess.run(visit, capture_output=True, check=True).stdout for _ in range(3)]
        assert seen == [b"Visit #1 for you!", b"Visit #2 for you!", b"Visit #3 for you!"]


async def test_a_hundred_visitors_at_once_miss_no_number(site: Path, tmp_path: Path) -> None:
    """Each visitor comes once, then by three connections at the same time."""
    visits: dict[int, list[int]] = {visitor: [] for visitor in range(100)}

    async def come(visitor: int, client: RawClient, times: int) -> None:
        for _ in range(times):
            text = await client.get("/counter")
            visits[visitor].append(int(text.removeprefix("Visit #").removesuffix(" for you!")))

    async def visit(visitor: int, port: int) -> None:
        async with RawClient.connect(port) as first:
            await come(visitor, first, 1)
            same = partial(RawClient.connect, port, first.cookies)
            async with same() as second, same() as third, trio.open_nursery() as connections:
                for client in (first, second, third):
                    connections.start_soon(come, visitor, client, 33)

    with serving(site, tmp_path, "--quiet") as server:
        async with trio.open_nursery() as nursery:
            for visitor in visits:
                nursery.start_soon(visit, visitor, server.port)
    for numbers in visits.values():
        assert sorted(numbers) == list(range(1, 101))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_uncached_requests_leave_memory_where_it_was(site: Path, tmp_path: Path) -> None:
    def resident(server: Server) -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    with serving(site, tmp_path, "--quiet") as server:
        async with RawClient.connect(server.port) as client:
            assert {await client.get("/uncached") for _ in range(2_000)} == {"Visit #1 for you!"}
            before = resident(server)
            assert {await client.get("/uncached") for _ in range(20_000)} == {"Visit #1 for you!"}
            # In kB: 0.1 a request would be as much as one object kept.
            assert resident(server) - before < 2_000


# The end of sessions, in real time


async def keep_visiting(port: int, *, visits: int, console: Server) -> str:
    """Visit every 2 seconds, then see the line appear after 5 seconds and before 6. Returns the
    line.
    """
    async with RawClient.connect(port) as client:
        for visit in range(visits):
            if visit:
                await trio.sleep(2)
            await client.get("/logme")
            assert len(client.cookies) == 1
        last = trio.current_time()
    (uid,) = client.cookies.values()
    line = f"Session {uid} has expired."
    while line not in console.output():
        await trio.sleep(0.02)
        assert trio.current_time() - last < 6
    # Not 5: *last* is when the answer was here, which is a little later than the visit.
    assert trio.current_time() - last > 4.9
    return line


async def test_sessions_end_five_seconds_after_the_last_visit(site: Path, tmp_path: Path) -> None:
    """By --session-timeout, by a program's Site, and by a script that sets sessionFactory."""
    short, built = tmp_path / "short", tmp_path / "built"
    for directory in (short, built):
        directory.mkdir()
    (short / "logme.rpy").write_text(FROM_A_SCRIPT)
    (built / "customised.py").write_text(CUSTOMISED)
    port = free_port()
    run_program = program(
        [sys.executable, str(built / "customised.py"), str(port)], built / "console"
    )
    with (
        serving(site, tmp_path, "--session-timeout", "5") as by_option,
        serving(short, short) as by_script,
        run_program as by_program,
    ):
        await answers(port)
        lines: list[tuple[Server, str]] = []

        async def watch(server: Server, port: int, visits: int) -> None:
            lines.append((server, await keep_visiting(port, visits=visits, console=server)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, by_option, by_option.port, 4)
            nursery.start_soon(watch, by_script, by_script.port, 2)
            nursery.start_soon(watch, by_program, port, 2)
        await trio.sleep(0.5)
        for server, line in lines:
            assert server.output().count(line) == 1


async def answers(port: int) -> None:
    """Wait until something listens at *port*."""
    with trio.fail_after(20):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                return
            except OSError:
                await trio.sleep(0.05)


# What is not covered


@pytest.mark.skipif(any(metadata.distributions(name="twisted")), reason="Twisted is installed")
def test_other_names_of_twisted_say_what_is_covered(site: Path, tmp_path: Path) -> None:
    (site / "other.rpy").write_text("from twisted.internet import reactor\n")
    with serving(site, tmp_path) as server:
        answer = httpx.get(f"{server.url}/other")
        assert (
            answer.status_code == 500
            and "twisted.internet" in answer.text
            and "pip install twisted" in answer.text
        )
        assert httpx.get(f"{server.url}/counter").text == "Visit #1 for you!"
