"""Async functions that were called and not awaited."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from pathlib import Path

import pytest

from rpyserve import Site
from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.files.directory import Directory
from rpyserve.serving.notices import reporting_unawaited
from rpyserve.serving.one_shot import print_response
from tests.support.in_process import Visitor

SAVE = "async def save(n):\n    pass\n\n\n"


async def told(
    tmp_path: Path, source: str, caplog: pytest.LogCaptureFixture, times: int = 1
) -> list[str]:
    caplog.set_level(logging.ERROR)
    (tmp_path / "a.rpy").write_text(SAVE + source)
    site = Site(Directory(tmp_path))
    with reporting_unawaited(site.errors):
        for _ in range(times):
            await Visitor(site).get("/a")
            gc.collect()
    site.close()
    return caplog.messages


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
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    [message] = await told(tmp_path, source, caplog)
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
    [message] = await told(tmp_path, f"{source}    return ''\n", caplog)
    assert message.splitlines()[-1] == f"  await {call}"


async def test_once_for_many_requests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = "def resource(request):\n    save(1)\n    return ''\n"
    assert len(await told(tmp_path, source, caplog, times=10)) == 1


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
