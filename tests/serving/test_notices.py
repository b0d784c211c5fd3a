"""Async functions that were called and not awaited."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from pathlib import Path

import pytest
from trio.testing import wait_all_tasks_blocked

from rpyserve import Site
from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.files.directory import Directory
from rpyserve.serving.notices import reporting_unawaited
from rpyserve.serving.one_shot import print_response
from tests.support.in_process import Visitor

SAVE = "async def save(n):\n    pass\n\n\n"


async def told(
    tmp_path: Path,
    source: str,
    caplog: pytest.LogCaptureFixture,
    times: int = 1,
    at_once: bool = False,
) -> list[str]:
    caplog.set_level(logging.ERROR)
    (tmp_path / "a.rpy").write_text(source)
    site = Site(Directory(tmp_path))
    with reporting_unawaited(site.errors, at_once=at_once):
        for _ in range(times):
            await Visitor(site).get("/a")
            gc.collect()
    site.close()
    return caplog.messages


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "source",
    [
        "def resource(request):\n    save(1)\n    return ''\n",
        "async def resource(request):\n    save(1)\n    return ''\n",
        "def resource(request):\n    kept = save(1)\n    return ''\n",
        "async def resource(request):\n    kept = [save(1)]\n    kept.append(kept)\n"
        "    return ''\n",
    ],
)
async def test_the_call_is_named(
    tmp_path: Path,
    source: str,
    at_once: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    [message] = await told(tmp_path, SAVE + source, caplog, at_once=at_once)
    assert message.splitlines() == [
        "a.rpy, line 6: save() was called without `await`, so it never ran.",
        "  a.rpy:6",
        f"    {source.splitlines()[1].strip()}",
        "  Write:",
        "  await save(1)",
    ]


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("trio.sleep(0.5)", "trio.sleep(0.5)"),
        ("trio.sleep(", "sleep(...)"),
        ("wait()", "trio.sleep(1)"),
    ],
)
async def test_the_line_to_write(
    tmp_path: Path, line: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    rest = "\n        1)" if line.endswith("(") else ""
    source = (
        f"import trio\nwait = lambda: trio.sleep(1)\ndef resource(request):\n    {line}{rest}\n"
    )
    [message] = await told(tmp_path, f"{SAVE}{source}    return ''\n", caplog)
    assert message.splitlines()[-1] == f"  await {call}"


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("import trio", "trio.sleep(1)"),
        ("from trio import sleep as later", "later(1)"),
        ("import saving", "saving.save(1)"),
        ("from package.saving import save", "save(1)"),
        ("from rpyserve import in_thread", "in_thread(lambda: 1)()"),
    ],
)
async def test_a_dropped_call_is_named_though_the_script_has_no_async_function(
    tmp_path: Path, imports: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "package").mkdir()
    for place in (tmp_path, tmp_path / "package"):
        (place / "saving.py").write_text(SAVE)
    source = f"{imports}\n\ndef resource(request):\n    kept = [{call}]\n    return ''\n"
    [message] = await told(tmp_path, source, caplog)
    assert "a.rpy, line 4" in message


async def test_a_module_that_is_imported_in_a_thread_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "saving.py").write_text(SAVE)
    (tmp_path / "first.rpy").write_text(
        "import threading\n\ndef work():\n    import saving\n\ndef resource(request):\n"
        "    thread = threading.Thread(target=work)\n    thread.start()\n    thread.join()\n"
        "    return 'imported'\n"
    )
    site = Site(Directory(tmp_path))
    with reporting_unawaited(site.errors, at_once=False):
        assert sys.get_coroutine_origin_tracking_depth() == 0
        async with site.running():
            assert (await Visitor(site).get("/first")).text == "imported"
            await wait_all_tasks_blocked()
            assert sys.get_coroutine_origin_tracking_depth() == 1
    site.close()


async def test_coroutines_of_a_site_without_async_code_remember_nothing(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import json\nNAME = 'Ada'\n")
    (tmp_path / "a.rpy").write_text(
        "from beside import NAME\nfrom rpyserve import Resource\n\n"
        "class Page(Resource):\n    def render_GET(self, request):\n        return NAME\n\n"
        "resource = Page()\n"
    )
    site = Site(Directory(tmp_path))
    with reporting_unawaited(site.errors, at_once=False):
        assert (await Visitor(site).get("/a")).text == "Ada"
        assert sys.get_coroutine_origin_tracking_depth() == 0
    site.close()


async def test_once_for_many_requests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = "def resource(request):\n    save(1)\n    return ''\n"
    assert len(await told(tmp_path, SAVE + source, caplog, times=10)) == 1


def test_other_warnings_go_where_they_went(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with reporting_unawaited(ConsoleReporter()):
            warnings.warn("mind the gap", RuntimeWarning, stacklevel=1)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [str(each.message) for each in seen] == ["mind the gap", "old"]
    assert not caplog.messages


def test_everything_is_as_it_was_afterwards() -> None:
    before = sys.get_coroutine_origin_tracking_depth(), warnings.showwarning, warnings.filters[:]
    with reporting_unawaited(ConsoleReporter()):
        assert sys.get_coroutine_origin_tracking_depth() >= 1
    assert (
        sys.get_coroutine_origin_tracking_depth(),
        warnings.showwarning,
        warnings.filters[:],
    ) == before


def test_the_command_tells_it_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "a.rpy").write_text(
        SAVE + "def resource(request):\n    save(1)\n    return 'page'\n"
    )
    assert print_response(Site(Directory(tmp_path)), "/a") == 0
    assert "save() was called without `await`" in caplog.text
