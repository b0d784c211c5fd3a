"""Modules of the site: what an import in a script finds, and when it is loaded anew."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rpyserve import Request
from rpyserve.scripts import file_state, importer
from rpyserve.scripts.execution import ExecutionName, execution_of
from tests.support.script_site import ScriptSite, set_back


def page(expression: str, imports: str = "", *, cached: bool = True) -> str:
    return (
        f"{'cache()' if cached else ''}\n{imports}\ndef resource(request):\n"
        f"    return {expression}\n"
    )


# What is found


def test_import_finds_the_root_and_from_dot_the_neighbour(site: ScriptSite) -> None:
    site.write("words.py", "text = 'root'")
    site.write("sub/words.py", "text = 'sub'")
    site.write("sub/only.py", "text = 'only'")
    site.write(
        "sub/a.rpy",
        page("words.text, near.text, only.text", "import words\nfrom . import words as near, only"),
    )
    assert site.get("sub/a.rpy") == ("root", "sub", "only")


def test_one_file_is_one_module(site: ScriptSite) -> None:
    site.write("words.py", "")
    site.write("sub/helper.py", "")
    site.write(
        "a.rpy",
        page(
            "words is near and helper is h2",
            "import words\nfrom . import words as near\nfrom sub import helper\n"
            "from .sub import helper as h2",
        ),
    )
    site.write(
        "sub/b.rpy",
        page(
            "(helper is h2, helper.__name__, up is words)",
            "from . import helper\nimport sub.helper as h2\nfrom .. import words as up\n"
            "import words",
        ),
    )
    assert site.get() is True
    assert site.get("sub/b.rpy") == (True, "sub.helper", True)


@pytest.mark.parametrize(
    "imports", ["from . import words\nimport words as w", "import words as w\nfrom . import words"]
)
def test_the_name_does_not_depend_on_who_came_first(site: ScriptSite, imports: str) -> None:
    site.write("words.py", "class Word: pass")
    site.write(
        "a.rpy",
        page("(words is w, words.__name__, words.Word.__module__, words.__spec__.name)", imports),
    )
    assert site.get() == (True, "words", "words", "words")


def test_names_out_of_a_neighbour(site: ScriptSite) -> None:
    site.write("sub/helper.py", "def f(): return 'f'\n")
    site.write("sub/a.rpy", page("f()", "from .helper import f"))
    assert site.get("sub/a.rpy") == "f"


def test_a_helper_of_the_scripts_own_name(site: ScriptSite) -> None:
    site.write("words.py", "text = 'helper'")
    site.write("words.rpy", page("words.text", "from . import words"))
    site.write("sub/x.py", "text = 'x'")
    site.write("sub.rpy", page("'the script'"))
    site.write("sub/a.rpy", page("x.text", "from . import x"))
    assert site.get("words.rpy") == "helper"
    assert site.get("sub.rpy") == "the script"
    assert site.get("sub/a.rpy") == "x"


def test_packages_with_and_without_init(site: ScriptSite) -> None:
    site.write("lib/__init__.py", "from .part import text\nfrom . import deep")
    site.write("lib/part.py", "text = 'part'")
    site.write("lib/deep/__init__.py", "from ..part import text as up")
    site.write("plain/thing.py", "text = 'thing'")
    site.write("a.rpy", page("lib.text, lib.deep.up, plain.thing.text", "import lib, plain.thing"))
    site.write("lib/b.rpy", page("text, part.text", "from . import text, part"))
    assert site.get() == ("part", "part", "thing")
    assert site.get("lib/b.rpy") == ("part", "part")


def test_relative_imports_in_odd_directories(site: ScriptSite) -> None:
    for directory in ("v1.2", "my dir", "test", "v1.2/json"):
        site.write(f"{directory}/helper.py", f"text = {directory!r}")
        site.write(f"{directory}/a.rpy", page("helper.text", "from . import helper"))
        assert site.get(f"{directory}/a.rpy") == directory
    import json

    assert hasattr(json, "dumps")


def test_modules_that_import_each_other(site: ScriptSite) -> None:
    site.write("one.py", "import two\ndef f(): return two.text\n")
    site.write("two.py", "from . import one\ntext = 'two'\n".replace("from . ", ""))
    site.write("a.rpy", page("one.f()", "from . import one"))
    assert site.get() == "two"


def test_python_and_installed_modules_win(site: ScriptSite) -> None:
    for name in ("calendar", "trio", "textwrap"):
        site.write(f"{name}.py", "mine = True")
    site.write(
        "a.rpy",
        page(
            "[hasattr(m, 'mine') for m in (calendar, trio, textwrap, near)]",
            "import calendar, trio, textwrap\nfrom . import calendar as near",
        ),
    )
    assert site.get() == [False, False, False, True]


def test_the_current_directory_does_not_win(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.root)
    monkeypatch.setattr(sys, "path", ["", str(site.root), *sys.path])
    sys.modules.pop("colorsys", None)
    site.write("colorsys.py", "mine = True")
    site.write("a.rpy", page("hasattr(colorsys, 'mine')", "import colorsys"))
    assert site.get() is False
    before = sys.path[:-1]
    site.scripts.close()
    assert sys.path == ["", str(site.root), *before]


def test_a_module_is_an_execution_that_lasts(site: ScriptSite) -> None:
    site.write("words.py", "from rpyserve import registry\nmine = registry\nclass Word: pass\n")
    site.write(
        "a.rpy",
        page("words.Word, words.__name__, words.mine is registry", "import words", cached=False),
    )
    kind, name, same = site.get()
    assert isinstance(name, ExecutionName)
    assert same
    execution = execution_of(kind)
    assert execution is not None
    assert execution.cached
    assert not execution.running


def test_cache_is_the_scripts_business(site: ScriptSite) -> None:
    site.write("words.py", "from rpyserve import cache\ncache()\n")
    assert "belongs into a script's top-level code" in site.error("import words\n").message


def test_input_in_a_module(site: ScriptSite) -> None:
    site.write("words.py", "name = input()")
    assert "Use a form" in site.error("import words\n").message


def test_a_module_first_imported_by_a_method(site: ScriptSite) -> None:
    site.write("late.py", "text = 'one'")
    site.write("a.rpy", "cache()\ndef resource(request):\n    import late\n    return late.text\n")
    assert site.get() == "one"
    site.write("late.py", "text = 'two'")
    assert site.get() == "two"


# When it is loaded anew


def test_an_edit_of_a_helper_reaches_every_script(site: ScriptSite) -> None:
    site.write("words.py", "text = '000'")
    site.write("a.rpy", page("words.text", "import words"))
    site.write("sub/b.rpy", page("words.text", "import words"))
    site.write("c.rpy", page("words.text", "import words", cached=False))
    for number in range(30):
        site.write("words.py", f"text = '{number:03}'")
        assert {site.get(name) for name in ("a.rpy", "sub/b.rpy", "c.rpy")} == {f"{number:03}"}


def test_edits_of_one_size_with_the_time_set_back(site: ScriptSite) -> None:
    stamp = 1_600_000_000_000_000_000
    path = site.write("words.py", "")
    site.write("a.rpy", page("words.text", "import words"))
    for number in range(500):
        set_back(path, f"text = '{number:03}'", stamp)
        assert site.get() == f"{number:03}"
    assert not (site.root / "__pycache__").exists()


def test_helpers_through_each_other(site: ScriptSite) -> None:
    site.write("one.py", "from two import text")
    site.write("two.py", "import pkg.three\ntext = pkg.three.text")
    site.write("pkg/__init__.py", "")
    site.write("pkg/three.py", "text = 'old'")
    site.write("a.rpy", page("text", "from one import text"))
    site.write("b.rpy", page("pkg.three.text", "import pkg.three"))
    assert (site.get(), site.get("b.rpy")) == ("old", "old")
    site.write("pkg/three.py", "text = 'new'")
    assert (site.get(), site.get("b.rpy")) == ("new", "new")


def test_a_helper_that_is_half_written(site: ScriptSite) -> None:
    site.write("words.py", "text = 'one'")
    site.write("a.rpy", page("words.text", "import words"))
    assert site.get() == "one"
    site.write("words.py", "text = 'on")
    error = site.error()
    assert isinstance(error.__cause__, SyntaxError)
    assert error.__cause__.filename == str(site.root / "words.py")
    site.write("words.py", "")
    with pytest.raises(AttributeError):
        site.get()
    site.write("words.py", "text = 'two'")
    assert site.get() == "two"


def test_a_failure_that_the_script_caught(site: ScriptSite) -> None:
    site.write("words.py", "1 / 0")
    site.write(
        "a.rpy",
        page(
            "words",
            "try:\n    from words import text as words\nexcept ZeroDivisionError:\n"
            "    words = None",
        ),
    )
    assert site.get() is None
    site.write("words.py", "text = 'mended'")
    assert site.get() == "mended"


def test_a_helper_that_comes_and_goes(site: ScriptSite) -> None:
    text = "try:\n    import words\nexcept ImportError:\n    words = None"
    site.write("a.rpy", page("words and words.text", text))
    assert site.get() is None
    site.write("words.py", "text = 'here'")
    assert site.get() == "here"
    (site.root / "words.py").unlink()
    assert site.get() is None


def test_a_missing_helper_heals(site: ScriptSite) -> None:
    site.write("sub/a.rpy", page("words.text", "from . import words"))
    site.error(name="sub/a.rpy")
    site.write("sub/words.py", "text = 'here'")
    assert site.get("sub/a.rpy") == "here"


def test_a_file_becomes_a_package(site: ScriptSite) -> None:
    site.write("lib.py", "text = 'file'")
    site.write("a.rpy", page("getattr(lib, 'text', None)", "import lib"))
    assert site.get() == "file"
    site.write("lib/__init__.py", "text = 'package'")
    assert site.get() == "package"


def test_a_namespace_gets_an_init(site: ScriptSite) -> None:
    site.write("lib/part.py", "")
    site.write("a.rpy", page("getattr(lib, 'text', None)", "import lib.part"))
    assert site.get() is None
    site.write("lib/__init__.py", "text = 'package'")
    assert site.get() == "package"


def test_other_new_files_execute_nothing(site: ScriptSite) -> None:
    site.write("words.py", "")
    site.write("a.rpy", page("1", "import words"))
    first = site.load()
    site.write("guests.txt", "one")
    site.write("other.py", "")
    (site.root / "uploads").mkdir()
    assert site.load() is first
    assert site.scripts.modules.generation == 0


def test_refresh_drops_modules_that_have_changed(site: ScriptSite) -> None:
    path = site.write("words.py", "")
    site.write("a.rpy", page("1", "import words"))
    first, module = site.load(), sys.modules["words"]
    site.write("nothing.py", "")
    site.scripts.refresh()
    assert sys.modules["words"] is module
    assert site.load() is first
    path.write_text("text = 'new'", encoding="utf-8")
    site.scripts.refresh()
    assert "words" not in sys.modules
    assert site.load() is not first
    assert sys.modules["words"] is not module


def test_what_was_loaded_before_is_not_touched(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("before_all.py", "text = 'one'")
    monkeypatch.syspath_prepend(str(site.root))
    import before_all  # type: ignore[import-not-found]

    site.write(
        "a.rpy",
        page(
            "before_all.text, near is before_all",
            "import before_all\nfrom . import before_all as near",
        ),
    )
    assert site.get() == ("one", True)
    site.write("before_all.py", "text = 'two'")
    assert site.get() == ("one", True)
    site.scripts.close()
    assert sys.modules.pop("before_all") is before_all


def test_the_rest_of_a_package_that_was_loaded_before(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("early/__init__.py", "")
    site.write("early/late.py", "text = 'one'")
    monkeypatch.syspath_prepend(str(site.root))
    import early  # type: ignore[import-not-found]

    site.write("a.rpy", page("early.late.text", "import early.late"))
    assert site.get() == "one"
    site.write("early/late.py", "text = 'two, longer'")
    assert site.get() == "one"
    assert type(sys.modules["early.late"].__name__) is str
    site.scripts.close()
    assert early is sys.modules.pop("early")
    assert sys.modules.pop("early.late")


@pytest.mark.parametrize("name", ["words", "sub/words"])
def test_edits_are_seen_after_a_look_at_the_directory_has_failed(
    site: ScriptSite, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat
    directory = (site.root / name).parent

    def failing(path: Any, **options: Any) -> os.stat_result:
        if path == str(directory):
            raise OSError(5, "Input/output error")
        return stat(path, **options)

    path = site.write(f"{name}.py", "text = 'one'")
    site.write("a.rpy", page("words.text", f"import {name.replace('/', '.')} as words"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", failing)
        assert site.get() == "one"
    path.write_text("text = 'two'")
    assert site.get() == "two"


def test_an_archive_on_the_path_is_pythons(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = site.root / "lib.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped.py", "text = 'zipped'")
    monkeypatch.setattr(sys, "path", [*sys.path, str(archive)])
    site.write("a.rpy", page("zipped.text", "import zipped"))
    try:
        assert site.get() == "zipped"
    finally:
        sys.modules.pop("zipped", None)


# What is none of the site's


@pytest.mark.parametrize("directory", ["env", "node_modules", "lib/site-packages", ".hidden"])
def test_foreign_directories_are_not_watched(
    site: ScriptSite, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("env/pyvenv.cfg", "")
    path = site.write(f"{directory}/installed.py", "text = 'one'")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site.root / directory)])
    site.write("a.rpy", page("installed.text", "import installed"))
    first = site.load()
    try:
        assert not isinstance(sys.modules["installed"].__name__, ExecutionName)
        path.write_text("text = 'two, longer'")
        assert site.load() is first
        assert not site.scripts.modules.watches(str(path))
    finally:
        sys.modules.pop("installed", None)
        sys.path_importer_cache.pop(str(site.root / directory), None)


def test_neighbours_with_the_same_prefix(tmp_path: Path) -> None:
    site = ScriptSite(tmp_path / "site")
    assert not site.scripts.modules.is_site_directory(str(tmp_path / "site-secret"))
    assert site.scripts.modules.relative(str(tmp_path / "site-secret" / "x.py")) is None
    assert site.scripts.modules.relative(str(tmp_path / "site" / "x.py")) == ("x.py",)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_site_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    site = ScriptSite(tmp_path / "link")
    try:
        site.write("sub/words.py", "text = 1")
        site.write(
            "sub/a.rpy",
            page("words.text, words is w", "from . import words\nimport sub.words as w"),
        )
        assert site.get("sub/a.rpy") == (1, True)
    finally:
        site.scripts.close()


# Hidden files


def test_a_hidden_file_is_named_once(site: ScriptSite, caplog: pytest.LogCaptureFixture) -> None:
    site.write("calendar.py", "")
    site.write("words.py", "import trio")
    site.write("trio.py", "")
    site.write("a.rpy", page("1", "import calendar, json"))
    site.write("sub/b.rpy", page("1", "from calendar import month\nimport words"))
    for name in ("a.rpy", "a.rpy", "sub/b.rpy"):
        site.get(name)
    site.write("a.rpy", page("2", "import calendar, json"))
    site.get()
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
        ("rpyserve", logging.WARNING, said)
        for said in (
            "a.rpy imports calendar and gets Python's own, not the site's calendar.py. "
            "Rename that file (my_calendar.py), or write `from . import calendar`.",
            "words.py imports trio and gets an installed module of that name, not the site's "
            "trio.py. "
            "Rename that file (my_trio.py), or write `from . import trio`.",
        )
    ]


def test_the_mend_for_a_script_further_down_works(
    site: ScriptSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.write("calendar.py", "mine = True")
    site.write("one/two/b.rpy", page("1", "import calendar"))
    site.get("one/two/b.rpy")
    assert "write `from ... import calendar`." in caplog.text
    site.write("one/two/b.rpy", page("calendar.mine", "from ... import calendar"))
    assert site.get("one/two/b.rpy") is True


def test_a_file_that_is_not_hidden_is_not_named(
    site: ScriptSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.write("words.py", "")
    site.write("calendar.py", "mine = 1")
    site.write(
        "a.rpy",
        page(
            "calendar.mine",
            "import words\nfrom . import calendar\nfrom .words import __name__ as n",
        ),
    )
    site.get()
    site.write("a.rpy", page("calendar.mine + 0", "import words\nfrom . import calendar"))
    site.get()
    assert not caplog.records


def test_two_sites_with_modules_of_one_name(
    site: ScriptSite, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = ScriptSite(tmp_path_factory.mktemp("other"))
    path = sys.path[:]
    script = "cache()\nimport words\nfrom . import words as same\n\n\ndef resource(request):\n"
    script += "    import words as late\n    return words.text + late.text + same.text\n"
    for each, text in ((site, "a"), (other, "b")):
        each.write("words.py", f"text = {text!r}\n")
        each.write("a.rpy", script)
    assert (site.get(), other.get(), site.get(), other.get()) == ("aaa", "bbb", "aaa", "bbb")
    other.write("words.py", "text = 'c'\n")
    assert (site.get(), other.get(), site.get(), other.get()) == ("aaa", "ccc", "aaa", "ccc")
    site.scripts.close()
    assert other.get() == "ccc"
    other.scripts.close()
    assert sys.path == path
    assert not [name for name in sys.modules if name.startswith(("words", "rpydir", "rpysite"))]


@pytest.mark.parametrize("edited", ["other.py", "pack/slow.py"])
def test_an_edit_while_a_thread_imports(
    site: ScriptSite, edited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = SimpleNamespace(begun=threading.Event(), opened=threading.Event())
    monkeypatch.setitem(sys.modules, "gate", cast(Any, gate))
    slow = "import gate\ngate.begun.set()\nassert gate.opened.wait(20)\n"
    site.write("pack/__init__.py", "")
    site.write("pack/slow.py", slow + "text = 'old'\n")
    site.write("other.py", "text = 'old'\n")
    site.write(
        "a.rpy",
        "cache()\ndef resource(request):\n    from pack.slow import text\n    return text\n",
    )
    site.write("b.rpy", page("other.text", "import other"))
    assert site.get("b.rpy") == "old"
    page_a = site.load("a.rpy")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: page_a.render(Request("GET", "/")))
        assert gate.begun.wait(20)
        site.write(edited, (slow if edited == "pack/slow.py" else "") + "text = 'new'\n")
        assert site.get("b.rpy") == ("new" if edited == "other.py" else "old")
        gate.opened.set()
        new = "new" if edited == "pack/slow.py" else "old"
        assert answer.result() == new
    assert site.get("a.rpy") == new
    site.write("pack/slow.py", "text = 'newest'\n")
    assert site.get("a.rpy") == "newest"


# Directories that scripts add to sys.path


@pytest.fixture
def path_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        "append('lib')",
        "insert(0, './lib')",
        "insert(0, os.path.join(os.path.dirname(__file__), '..', 'lib'))",
        "append(os.path.dirname(__file__) + '/../lib/')",
        "append(str(Path(__file__).parent.parent / 'lib'))",
        pytest.param(
            "append('link')",
            marks=pytest.mark.skipif(os.name == "nt", reason="links need a privilege there"),
        ),
    ],
)
@pytest.mark.usefixtures("path_as_it_was")
def test_a_helper_is_fresh_however_its_directory_is_spelled(
    tmp_path: Path, change: str, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = ScriptSite(tmp_path / "site")
    helper = site.write("lib/inner.py", "text = 'old'\n")
    monkeypatch.chdir(site.root)
    if "link" in change:
        (tmp_path / "link").symlink_to(site.root / "lib")
        change = f"append({str(tmp_path / 'link')!r})"
    imports = f"import os, sys\nfrom pathlib import Path\nsys.path.{change}\nimport inner"
    site.write("pages/a.rpy", page("inner.text", imports, cached=cached))
    assert site.get("pages/a.rpy") == "old"
    assert site.scripts.modules.watches(str(helper))
    set_back(helper, "text = 'new'\n", helper.stat().st_mtime_ns)
    assert site.get("pages/a.rpy") == "new"
    site.scripts.close()
    assert "inner" not in sys.modules
    assert not [
        finder
        for finder in sys.path_importer_cache.values()
        if isinstance(finder, importer.SiteFinder)
    ]


@pytest.mark.usefixtures("path_as_it_was")
def test_the_current_directory_as_an_entry(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.root)
    site.write("words.py", "text = 'old'\n")
    site.write("a.rpy", page("words.text", "import sys\nsys.path.insert(0, '.')\nimport words"))
    assert site.get() == "old"
    site.write("words.py", "text = 'new'\n")
    assert site.get() == "new"


@pytest.mark.usefixtures("path_as_it_was")
def test_a_script_that_adds_a_directory_each_time_adds_it_once(site: ScriptSite) -> None:
    site.write("lib/inner.py", "text = 1\n")
    site.write(
        "a.rpy",
        page(
            "len(sys.path)",
            "import os, sys\nsys.path.insert(0, os.path.dirname(__file__) + '/lib')\nimport inner",
            cached=False,
        ),
    )
    lengths = [site.get() for _ in range(6)]
    assert max(lengths) <= lengths[0] + 1


# Imports in threads


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_waiting_for(name: str) -> bool:
    """Whether a thread waits until another one has imported the module *name*."""
    return any(
        each.is_waiting and each.names[0] == name for each in importer.imports_under_way().values()
    )


def test_names_are_noted_while_others_are_looked_at(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("words.py", "text = 1\n")
    site.write("a.rpy", page("words.text", "import words"))
    site.load()
    answer = file_state.ImportLookups._answer

    def answer_and_add(self: Any, name: str) -> tuple[bool, bool]:
        if not name.startswith("more"):
            self._answers[f"more{len(self._answers)}"] = (False, False)
        return answer(self, name)

    monkeypatch.setattr(file_state.ImportLookups, "_answer", answer_and_add)
    site.write("other.txt", "")  # so that the directory has another signature
    assert site.get() == 1


def test_modules_that_a_thread_imports_again_are_all_new(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = SimpleNamespace(begun=threading.Event(), opened=threading.Event())
    monkeypatch.setitem(sys.modules, "gate", cast(Any, gate))
    site.write("pack/part.py", "text = 'old'\n")
    site.write(
        "pack/__init__.py",
        "from . import part\nimport gate\ngate.begun.set()\nassert gate.opened.wait(20)\n",
    )
    site.write("a.rpy", "def resource(request):\n    import pack\n    return pack.part.text\n")
    site.write("b.rpy", "cache()\ndef resource(request):\n    return 1\n")
    page_a = site.load("a.rpy")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: page_a.render(Request("GET", "/")))
        assert gate.begun.wait(20)
        site.write("pack/part.py", "text = 'new'\n")
        assert site.get("b.rpy") == 1
        gate.opened.set()
        assert answer.result() == "new"
    assert site.get("a.rpy") == "new"


def test_a_package_and_its_part_are_imported_by_two_threads(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = SimpleNamespace(begun=threading.Event(), opened=threading.Event())
    monkeypatch.setitem(sys.modules, "gate", cast(Any, gate))
    site.write(
        "pack/__init__.py",
        "import gate\ngate.begun.set()\nassert gate.opened.wait(20)\nfrom . import base, part\n",
    )
    site.write("pack/base.py", "text = 'whole'\n")
    site.write("pack/part.py", "from . import base\ntext = base.text\n")
    site.write("a.rpy", "def resource(request):\n    import pack\n    return pack.part.text\n")
    site.write("b.rpy", "def resource(request):\n    import pack.part as p\n    return p.text\n")
    pages = site.load("a.rpy"), site.load("b.rpy")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: pages[0].render(Request("GET", "/")))
        assert gate.begun.wait(20)
        second = pool.submit(lambda: pages[1].render(Request("GET", "/")))
        wait_until(lambda: any("pack.part" in n for n, _ in importer.imports_under_way().values()))
        gate.opened.set()
        assert (first.result(20), second.result(20)) == ("whole", "whole")


def test_a_part_waits_for_its_package_before_that_is_executed(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python calls that a deadlock: the package needs the part, too."""
    site.write("pack/__init__.py", "from .part import text\n")
    site.write("pack/part.py", "text = 'here'\n")
    site.write("a.rpy", "def resource(request):\n    import pack\n    return pack.text\n")
    site.write("b.rpy", "def resource(request):\n    import pack.part as p\n    return p.text\n")
    pages = site.load("a.rpy"), site.load("b.rpy")
    later: list[Future[Any]] = []

    def wait_for_package(self: Any, name: str) -> None:
        if name == "pack" and not later:
            later.append(pool.submit(lambda: pages[1].render(Request("GET", "/"))))
            wait_until(lambda: is_waiting_for("pack"))

    monkeypatch.setattr(importer.SiteModules, "wait_for_package", wait_for_package)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: pages[0].render(Request("GET", "/")))
        assert first.result(20) == "here"
        assert later[0].result(20) == "here"
    assert site.get("a.rpy") == site.get("b.rpy") == "here"


@pytest.mark.skipif(os.name == "nt", reason="Windows does not remove a current directory")
def test_a_relative_entry_where_the_current_directory_is_gone(
    site: ScriptSite, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path_factory.mktemp("gone")
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", [*sys.path])
    site.write("lib/inner_of_lib.py", "WORD = 'imported'\n")
    site.write(
        "a.rpy",
        "import sys\nsys.path.append('lib')\nfrom inner_of_lib import WORD\n"
        "def resource(request):\n    return WORD\n",
    )
    assert site.get() == "imported"
