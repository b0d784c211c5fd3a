"""Scripts say why they were executed, and how that went."""

from __future__ import annotations

import pytest

from rpyserve.http.errors import ScriptError
from rpyserve.http.request import Request, RequestRecord
from rpyserve.scripts.loader import MOST_NOTES
from tests.support.script_site import ScriptSite

PAGE = "def resource(request): return 'page {}'\n"


def asked(site: ScriptSite, name: str = "a.rpy") -> RequestRecord:
    """The record of a request that *name* has answered, well or not."""
    request = Request("GET", "/")
    request._record = record = RequestRecord(request, "GET", "/", b"", ("", 0), 0.0)
    try:
        site.load(name, request)
    except ScriptError:
        pass
    finally:
        request.close()
    return record


def why(site: ScriptSite, name: str = "a.rpy") -> str | None:
    return asked(site, name).executed


def test_a_cached_script_is_executed_when_it_is_new_and_when_it_was_saved(site: ScriptSite) -> None:
    site.write("a.rpy", "cache()\n" + PAGE)
    first, second = asked(site), asked(site)
    assert (first.script, first.executed) == ("a.rpy", "first use")
    assert first.execute is not None and 0 < first.execute == first.held
    assert (second.script, second.executed, second.execute) == ("a.rpy", None, None)
    site.write("a.rpy", "cache()\n#\n" + PAGE)
    assert [why(site), why(site)] == ["saved", None]


def test_an_uncached_script_is_executed_each_time(site: ScriptSite) -> None:
    site.write("sub/a.rpy", PAGE)
    assert [why(site, "sub/a.rpy") for _ in range(3)] == ["first use", "not cached", "not cached"]
    site.write("sub/a.rpy", PAGE + "#\n")
    record = asked(site, "sub/a.rpy")
    assert (record.script, record.executed) == ("sub/a.rpy", "saved")


@pytest.mark.parametrize("first", ["cache()\n", ""])
def test_a_module_is_named(site: ScriptSite, first: str) -> None:
    site.write("tools/util.py", "x = 1\n")
    site.write("tools/__init__.py", "")
    site.write("a.rpy", f"{first}from tools import util\n{PAGE}")
    assert why(site) == "first use"
    site.write("tools/util.py", "x = 22\n")
    assert why(site) == "tools/util.py was saved"
    (site.root / "tools/util.py").unlink()
    assert why(site) == "tools/util.py was deleted"


@pytest.mark.parametrize("imports", ["", "import util\n"])
def test_a_file_that_cache_names_is_named(site: ScriptSite, imports: str) -> None:
    site.write("util.py", "")
    site.write("words.txt", "a")
    site.write("a.rpy", f"cache('words.txt')\n{imports}{PAGE}")
    assert [why(site), why(site)] == ["first use", None]
    site.write("words.txt", "ab")
    assert [why(site), why(site)] == ["words.txt was saved", None]
    (site.root / "words.txt").unlink()
    assert [why(site), why(site)] == ["words.txt was deleted", None]


def test_one_that_failed_is_tried_again(site: ScriptSite) -> None:
    site.write("a.rpy", "cache()\n1 / 0\n")
    assert [why(site), why(site)] == ["first use", "it failed before"]
    site.write("a.rpy", "cache()\n" + PAGE)
    assert why(site) == "saved"
    (found,) = site.scripts.statistics()
    assert [(each.why, each.failed) for each in found.executions] == [
        ("first use", True), ("it failed before", True), ("saved", False)
    ]  # fmt: skip


def test_what_cannot_be_compiled_is_not_executed(site: ScriptSite) -> None:
    site.write("a.rpy", "1 +\n")
    record = asked(site)
    assert (record.script, record.executed) == ("a.rpy", None)
    site.write("a.rpy", PAGE)
    assert why(site) == "first use"


def test_statistics_are_by_name_and_bounded(site: ScriptSite) -> None:
    site.write("b.rpy", "cache()\n" + PAGE)
    site.write("a.rpy", PAGE)
    asked(site, "b.rpy")
    for _ in range(MOST_NOTES + 5):
        asked(site)
    a, b = site.scripts.statistics()
    assert (a.script, a.cached, a.count, len(a.executions)) == ("a.rpy", False, 69, MOST_NOTES)
    assert (b.script, b.cached, b.count, len(b.executions)) == ("b.rpy", True, 1, 1)
    assert {each.why for each in a.executions} == {"not cached"}
