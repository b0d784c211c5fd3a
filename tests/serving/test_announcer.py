"""What is announced about a script, and how often."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from rpyserve import Directory, Site, serve
from rpyserve.http.request import Request
from rpyserve.serving.notices import FindingAnnouncer
from tests.support.script_site import ScriptSite

COUNTING = "n = 0\ndef resource(request):\n    global n\n    n += 1\n    return str(n)\n"


@pytest.fixture
def site(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ScriptSite]:
    caplog.set_level(logging.INFO, "rpyserve")
    monkeypatch.chdir(tmp_path)  # paths are shown relative to the current directory
    site = ScriptSite(tmp_path)
    site.scripts.modules.on_source = FindingAnnouncer()
    yield site
    site.scripts.close()


def announced(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if ".rpy:" in message or ".py:" in message]


def test_a_loss_is_announced_once_per_version(
    site: ScriptSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.write("sub/a.rpy", COUNTING)
    for _ in range(3):
        site.load("sub/a.rpy")
    (line,) = announced(caplog)
    assert line.replace("\\", "/").startswith("sub/a.rpy:4: `n` is lost after each request")
    assert 'session["n"]' in line and "\n" not in line
    site.write("sub/a.rpy", COUNTING)  # which has it compiled again
    site.load("sub/a.rpy")
    assert len(announced(caplog)) == 1
    site.write("sub/a.rpy", "\n" + COUNTING)
    site.load("sub/a.rpy")
    assert [":5: " in line for line in announced(caplog)] == [False, True]


def test_what_is_not_escaped_is_announced(
    site: ScriptSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.write(
        "a.rpy",
        "from rpyserve import html\n"
        "def resource(request):\n    return html(f\"<p>{request.field('a', '')}</p>\")\n",
    )
    for _ in range(2):
        site.load()
    (line,) = announced(caplog)
    assert line.startswith("a.rpy:3: This text has its values in it before `html` sees it")
    assert line.endswith("""Write: html("<p>{}</p>", request.field('a', ''))""")


def test_a_module_is_announced_as_well(site: ScriptSite, caplog: pytest.LogCaptureFixture) -> None:
    site.write("store.py", "users = []\ndef add(user):\n    users.append(user)\n")
    site.write("other.py", "")
    site.write(
        "a.rpy", "import store, other\ndef resource(request):\n    store.add(1)\n    return ''\n"
    )
    site.load()
    site.write("other.py", "x = 1")
    site.load()  # which loads all modules anew
    (line,) = announced(caplog)
    assert line.startswith(
        "store.py:3: `users` is shared by all visitors, but lost when this file is edited. "
    )


def test_nothing_is_announced_on_a_quiet_console(
    site: ScriptSite, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "rpyserve")
    site.write("a.rpy", COUNTING)
    site.load()
    assert announced(caplog) == []


def test_what_loses_nothing_is_not_mentioned(
    site: ScriptSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.write(
        "a.rpy", "def resource(request):\n    request.getSession()['n'] = 1\n    return ''\n"
    )
    site.load()
    assert caplog.messages == []


async def test_a_server_announces(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    caplog.set_level(logging.INFO, "rpyserve")
    (tmp_path / "a.rpy").write_text(COUNTING)
    site = Site(Directory(tmp_path))
    await nursery.start(partial(serve, site, port=0, reload=False))
    await site.respond(Request("GET", "/a"))
    (line,) = announced(caplog)
    assert line.startswith(f"{tmp_path / 'a.rpy'}:4: `n` is lost after each request")
