"""Whole sites over a restart: scripts in a directory, SQLite, and the real codec."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rpyserve import Directory, Site
from rpyserve.stores.opening import SQLiteAddress, parse_store, persistence_of
from rpyserve.stores.store import StoreError
from tests.support.in_process import Visitor

NOTES = """
from rpyserve import Interface, Registry, implementer, registerAdapter, cache

cache()


class INotes(Interface):
    pass


@implementer(INotes)
class Notes:
    def __init__(self, registry):
        self.lines = []


registerAdapter(Notes, Registry, INotes)
notes = INotes(registry)


def resource(request):
    if request.path == "/notes":
        notes.lines.append("x")
    assert notes is INotes(request.site.registry)
    return str(len(notes.lines))
"""

COUNTER = """
from rpyserve import Interface, Session, implementer, registerAdapter, cache

cache()


class ICounter(Interface):
    pass


@implementer(ICounter)
class Counter:
    def __init__(self, session):
        self.value = 0


registerAdapter(Counter, Session, ICounter)


def resource(request):
    counter = ICounter(request.getSession())
    counter.value += 1
    return f"{type(counter).__module__} {counter.value}"
"""


@pytest.fixture
def site_directory(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    return site


@asynccontextmanager
async def life(directory: Path, text: str = "sqlite") -> AsyncIterator[Site]:
    site = Site(Directory(directory))
    site.persistence = persistence_of(site, parse_store(text), directory)
    async with site.running():
        yield site


def like(visitor: Visitor, site: Site) -> Visitor:
    other = Visitor(site)
    other.cookies = visitor.cookies
    return other


async def test_what_a_script_takes_from_the_registry_as_it_begins(
    site_directory: Path, autojump_clock: Any
) -> None:
    """The record of the registry needs a class of the script that asks for it just then."""
    (site_directory / "notes.rpy").write_text(NOTES)
    seen = []
    for _ in range(3):
        async with life(site_directory) as site:
            seen += [(await Visitor(site).get("/notes")).text for _ in range(2)]
    assert seen == ["1", "2", "3", "4", "5", "6"]


async def test_the_registry_of_a_script_that_another_one_comes_before(
    site_directory: Path, autojump_clock: Any
) -> None:
    (site_directory / "notes.rpy").write_text(NOTES)
    (site_directory / "first.rpy").write_text(
        "cache()\nvisits = registry.setdefault('visits', [])\n"
        "def resource(request):\n    visits.append(1)\n    return str(len(visits))\n"
    )
    async with life(site_directory) as site:
        assert (await Visitor(site).get("/notes")).text == "1"
        assert (await Visitor(site).get("/first")).text == "1"
    async with life(site_directory) as site:
        assert (await Visitor(site).get("/first")).text == "2"
        assert (await Visitor(site).get("/notes")).text == "2"
        assert (await Visitor(site).get("/first")).text == "3"
    async with life(site_directory) as site:
        assert (await Visitor(site).get("/notes")).text == "3"
        assert (await Visitor(site).get("/first")).text == "4"


async def test_a_component_is_of_the_scripts_class(
    site_directory: Path, autojump_clock: Any
) -> None:
    (site_directory / "counter.rpy").write_text(COUNTER)
    async with life(site_directory) as site:
        visitor = Visitor(site)
        assert (await visitor.get("/counter")).text == "rpysite.counter 1"
    async with life(site_directory) as site:
        assert (await like(visitor, site).get("/counter")).text == "rpysite.counter 2"
    edited = COUNTER.replace("self.value = 0", "self.value = 0\n        self.step = 10")
    (site_directory / "counter.rpy").write_text(edited.replace("+= 1", "+= counter.step"))
    async with life(site_directory) as site:
        assert (await like(visitor, site).get("/counter")).text == "rpysite.counter 12"


async def test_another_key_is_another_site(
    site_directory: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (site_directory / "counter.rpy").write_text(COUNTER)
    async with life(site_directory) as site:
        visitor = Visitor(site)
        await visitor.get("/counter")
        before = dict(visitor.cookies)
    (site_directory / ".rpyserve" / "key").unlink()
    async with life(site_directory) as site:
        assert (await like(visitor, site).get("/counter")).text.endswith(" 1")
        assert visitor.cookies != before
        assert [text for text in caplog.messages if "its visitor gets another" in text]


async def test_a_registry_that_cannot_be_loaded_is_left_as_it_is(
    site_directory: Path, autojump_clock: Any
) -> None:
    (site_directory / "notes.rpy").write_text(NOTES)
    async with life(site_directory) as site:
        await Visitor(site).get("/notes")
    key = (site_directory / ".rpyserve" / "key").read_bytes()
    (site_directory / ".rpyserve" / "key").unlink()
    async with life(site_directory) as site:
        for _ in range(2):
            assert (await Visitor(site).get("/notes")).status == 503
    (site_directory / ".rpyserve" / "key").write_bytes(key)
    async with life(site_directory) as site:
        assert (await Visitor(site).get("/notes")).text == "2"


async def test_an_open_file_is_named_by_its_path(
    site_directory: Path, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (site_directory / "jobs.py").write_text(
        "class Job:\n    def __init__(self):\n        self.file = open(__file__)\n"
    )
    (site_directory / "job.rpy").write_text(
        "from jobs import Job\n"
        "def resource(request):\n"
        "    session = request.getSession()\n"
        "    if 'job' not in session:\n"
        "        session['job'] = Job()\n"
        "    session['n'] = session.get('n', 0) + 1\n"
        "    return f\"{session['n']} {session['job'].file.closed}\"\n"
    )
    async with life(site_directory) as site:
        visitor = Visitor(site)
        assert [(await visitor.get("/job")).text for _ in range(3)] == [
            "1 False",
            "2 False",
            "3 False",
        ]
        named = [text for text in caplog.messages if 'session["job"].file' in text]
        assert len(named) == 1 and "lost when the server stops" in named[0]
        [session] = site.sessions
        session["job"].file.close()
    async with life(site_directory) as site:
        assert (await like(visitor, site).get("/job")).text == "4 False"
        [session] = site.sessions
        session["job"].file.close()


# What --session-store names


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_store("sqlite") == SQLiteAddress()
    assert parse_store("sqlite:") == SQLiteAddress()
    assert parse_store("sqlite?sync=full") == SQLiteAddress(full_sync=True)
    assert parse_store("sqlite:x/y.db?sync=full") == SQLiteAddress(
        tmp_path / "x" / "y.db", "x/y.db", True
    )
    for wrong in ("", "mysql://x", "sqlite:x?sync=often", "/x/y.db", "redis://h:port"):
        with pytest.raises(ValueError):
            parse_store(wrong)


def test_a_file_of_the_site_would_be_watched(site_directory: Path) -> None:
    site = Site(Directory(site_directory))
    with pytest.raises(StoreError, match="which is watched"):
        persistence_of(site, parse_store(f"sqlite:{site_directory / 'kept.db'}"), site_directory)
    for good in (site_directory / ".kept" / "x.db", site_directory.parent / "x.db"):
        persistence_of(site, parse_store(f"sqlite:{good}"), site_directory)


def test_redis_needs_a_secret_that_is_shared(
    site_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hiredis")
    monkeypatch.delenv("RPYSERVE_SECRET_FILE", raising=False)
    with pytest.raises(StoreError, match="RPYSERVE_SECRET_FILE"):
        persistence_of(Site(Directory(site_directory)), parse_store("redis://h"), site_directory)


async def test_a_program_keeps_sessions_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    monkeypatch.chdir(tmp_path)

    def page(request: Any) -> str:
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    cookies: dict[str, str] = {}
    for number in "123":
        site = Site(page, store="sqlite:kept.db")
        async with site.running():
            visitor = Visitor(site)
            visitor.cookies = cookies
            assert (await visitor.get("/")).text == number


def test_the_client_for_tests_keeps_sessions_too(tmp_path: Path) -> None:
    pytest.importorskip("httpx")
    from rpyserve.testing import Client

    def page(request: Any) -> str:
        session = request.getSession()
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    cookies: Any = None
    for number in "12":
        site = Site(page, store=f"sqlite:{tmp_path / 'kept.db'}", sessionTimeout=900)
        with Client(site, cookies=cookies) as client:
            assert client.get("/").text == number
            cookies = dict(client.cookies)
