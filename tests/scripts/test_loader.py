"""Scripts: executing, cache(), freshness as a visitor meets it, and that nothing is left behind."""

from __future__ import annotations

import gc
import linecache
import logging
import os
import pickle
import sys
import traceback
from pathlib import Path
from types import ModuleType

import pytest
import trio
import trio.testing

import rpyserve
from rpyserve.http.errors import HTTPError, Redirect, ScriptError
from rpyserve.http.request import Request
from rpyserve.resources.resource import FunctionResource
from rpyserve.scripts import definitions
from rpyserve.scripts.execution import ExecutionName, cache, current
from rpyserve.scripts.loader import ScriptLoader
from rpyserve.sessions.adapters import registerAdapter
from rpyserve.sessions.session import Registry, Session
from rpyserve.site import Site
from tests.support.script_site import ScriptSite, set_back

COUNTING = (
    "runs = registry['runs'] = registry.get('runs', 0) + 1\ndef resource(request):\n"
    "    return runs, {text!r}\n"
)


def counting(text: str = "", *, first: str = "") -> str:
    return first + COUNTING.format(text=text)


# The namespace


def test_what_a_script_finds(site: ScriptSite) -> None:
    path = site.write(
        "sub/counter.rpy",
        "found = dict(file=__file__, name=__name__, package=__package__, main=__name__ == "
        "'__main__', cache=cache,\n"
        "             registry=registry)\ndef resource(request): return found\n",
    )
    found = site.get("sub/counter.rpy")
    assert found["file"] == str(path) and type(found["file"]) is str
    assert found["name"] == "rpysite.sub.counter"
    assert isinstance(found["name"], ExecutionName)
    assert not found["main"]
    assert found["cache"] is cache
    assert isinstance(found["registry"], Registry)


def test_the_imported_cache_and_registry_are_the_running_scripts(site: ScriptSite) -> None:
    site.write(
        "a.rpy",
        "mine = registry\nfrom rpyserve import cache, registry\ncache()\nassert mine is registry\n"
        + counting(),
    )
    assert [site.get()[0] for _ in range(3)] == [1, 1, 1]


async def test_registry_is_the_sites(site: ScriptSite) -> None:
    site.write("a.rpy", "def resource(request): return registry is request.site.registry\n")
    request = Request("GET", "/")
    request.site = Site(FunctionResource(lambda request: ""))
    assert site.load(request=request).render(request) is True
    request.site.close()
    assert "rpydir" not in sys.modules  # the scripts were closed with their site


def test_the_name_knows_its_execution_while_it_lives(site: ScriptSite) -> None:
    site.write("a.rpy", "class Thing: pass\ndef resource(request): return Thing\n")
    kind = site.get()
    execution = kind.__module__.execution
    assert execution.path == site.root / "a.rpy"
    assert not execution.running
    assert not execution.cached
    del execution
    name = kind.__module__
    del kind
    gc.collect()
    assert name.execution is None


def test_nothing_runs_outside_an_execution(site: ScriptSite) -> None:
    site.write("a.rpy", "def resource(request): return 1\n")
    site.load()
    assert current() is None
    with pytest.raises(RuntimeError, match="write it as the first line"):
        cache()
    with pytest.raises(AttributeError):
        _ = rpyserve.registry


def test_two_scripts_may_both_define_icounter(site: ScriptSite) -> None:
    text = (
        "cache()\nfrom rpyserve import *\nclass ICounter(Interface): pass\n"
        "@implementer(ICounter)\nclass Counter:\n"
        "    def __init__(self, session): self.value = 0\n"
        "registerAdapter(Counter, Session, ICounter)\n"
        "def resource(request):\n    c = ICounter(request.thing)\n    c.value += 1\n"
        "    return c.value, type(c)\n"
    )
    site.write("a.rpy", text)
    site.write("b.rpy", text)
    session = Session(None, None)

    def visit(name: str) -> tuple[int, type]:
        request = Request("GET", "/")
        request.thing = session  # type: ignore[attr-defined]
        return site.load(name, request).render(request)

    assert [visit("a.rpy")[0] for _ in range(3)] == [1, 2, 3]
    assert visit("b.rpy")[0] == 1
    assert visit("a.rpy")[0] == 4
    assert visit("a.rpy")[1] is not visit("b.rpy")[1]


def test_libraries_that_look_their_module_up(site: ScriptSite) -> None:
    site.write(
        "a.rpy",
        "from __future__ import annotations\nimport enum, pickle, typing\n"
        "from dataclasses import dataclass, field\n"
        "from typing import ClassVar, NamedTuple, get_type_hints\n"
        "@dataclass\nclass Point:\n    x: int\n    names: list[str] = field(default_factory=list)\n"
        "    n: ClassVar[int] = 7\n"
        "class Turn(enum.Enum):\n    X = 1\nclass Pair(NamedTuple):\n    left: Point\n"
        "    right: Turn\n"
        "def resource(request):\n"
        "    assert get_type_hints(Pair) == {'left': Point, 'right': Turn}\n"
        "    pair = Pair(Point(1), Turn.X)\n    return pickle.loads(pickle.dumps(pair)) == pair, "
        "Point(3).names\n",
    )
    assert site.get() == (True, [])
    site.write(
        "b.rpy",
        "cache()\n"
        + (site.root / "a.rpy").read_text().replace("from __future__ import annotations\n", ""),
    )
    assert site.get("b.rpy") == (True, [])
    assert isinstance(sys.modules["rpysite.b"], ModuleType)  # a cached script's module stays
    assert "rpysite.a" not in sys.modules


def test_a_pickle_of_a_cached_scripts_object_is_read_later(site: ScriptSite) -> None:
    site.write("a.rpy", "cache()\nclass Thing:\n    pass\ndef resource(request): return Thing()\n")
    data = pickle.dumps(site.get())
    assert type(pickle.loads(data)).__name__ == "Thing"


def test_an_uncached_module_is_there_until_its_request_ends(site: ScriptSite) -> None:
    site.write("a.rpy", "def resource(request): return 1\n")
    first, second = Request("GET", "/"), Request("GET", "/")
    site.load(request=first)
    one = sys.modules["rpysite.a"]
    site.load(request=second)
    two = sys.modules["rpysite.a"]
    assert one is not two
    first.close()
    assert sys.modules["rpysite.a"] is two
    second.close()
    assert "rpysite.a" not in sys.modules


def test_names_of_odd_files(site: ScriptSite) -> None:
    for name in ("v1.2/my page.rpy", "v1%2E2/my page.rpy", "a.b.rpy"):
        site.write(name, "def resource(request): return __name__\n")
    names = [site.get(name) for name in ("v1.2/my page.rpy", "v1%2E2/my page.rpy", "a.b.rpy")]
    assert names == ["rpysite.v1%2E2.my page", "rpysite.v1%252E2.my page", "rpysite.a%2Eb"]


def test_two_sites_in_one_process(
    site: ScriptSite, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = ScriptSite(tmp_path_factory.mktemp("other"))
    for each in (site, other):
        each.write("a.rpy", "cache()\nclass Thing: pass\ndef resource(request): return Thing\n")
    first = site.get()
    try:
        assert first.__module__ != other.get().__module__
        assert sys.modules[first.__module__].Thing is first
    finally:
        other.scripts.close()


# Decoding


@pytest.mark.parametrize(
    "data",
    [
        b"# -*- coding: latin-1 -*-\ntext = '\xe9'\n",
        "\ufefftext = 'é'\n".encode(),
        "text = 'é'\r\n".encode(),
        "text = 'é'\r".encode(),
    ],
)
def test_encodings(site: ScriptSite, data: bytes) -> None:
    site.write("a.rpy", data + b"def resource(request):\n    return text\n")
    assert site.get() == "é"


@pytest.mark.parametrize(
    ("data", "message", "line"),
    [
        (b"x = 1\ny = 'a\0b'\n", "there is a NUL byte in this file, so it is no text", 2),
        (b"x = 1\n\n\ny = '\xe9'\n", "line 4 is not UTF-8 (byte 0xe9); save the file as UTF-8", 4),
        ("resource = 1".encode("utf-16"), "this file is saved as UTF-16; save it as UTF-8", 1),
        (b"# coding: klingon\n", "unknown encoding", 1),
    ],
)
def test_what_is_no_text(site: ScriptSite, data: bytes, message: str, line: int) -> None:
    error = site.error(data)
    assert message in error.message
    assert isinstance(error.__cause__, SyntaxError)
    assert error.__cause__.lineno == line


def test_the_future_of_rpyserve_is_not_inherited(site: ScriptSite) -> None:
    site.write(
        "a.rpy", "def f(x: int): pass\ndef resource(request): return f.__annotations__['x']\n"
    )
    assert site.get() is int


def test_tracebacks_show_the_lines_of_now(site: ScriptSite) -> None:
    stamp = 1_600_000_000_000_000_000
    path = site.write("a.rpy", "def resource(request):\n    1 / 0  # one\n")
    for text in ("one", "two"):
        set_back(path, f"def resource(request):\n    1 / 0  # {text}\n", stamp)
        with pytest.raises(ZeroDivisionError) as caught:
            site.get()
        assert traceback.extract_tb(caught.value.__traceback__)[-1].line == f"1 / 0  # {text}"
    assert linecache.getline(str(path), 2).endswith("two\n")


# cache()


def test_without_cache_it_is_executed_each_time(site: ScriptSite) -> None:
    site.write("a.rpy", counting())
    assert [site.get()[0] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("place", ["first", "last", "twice", "in a function"])
def test_with_cache_it_is_executed_once(site: ScriptSite, place: str) -> None:
    text = {
        "first": counting(first="cache()\n"),
        "last": counting() + "cache()\n",
        "twice": counting(first="cache()\n") + "cache()\n",
        "in a function": counting(first="def setup():\n    cache()\nsetup()\n"),
    }[place]
    site.write("a.rpy", text)
    assert [site.get()[0] for _ in range(3)] == [1, 1, 1]
    assert site.load() is site.load()


def test_code_is_compiled_once(site: ScriptSite, monkeypatch: pytest.MonkeyPatch) -> None:
    from rpyserve.scripts import importer

    compiled: list[str] = []
    real = importer.compile_source
    monkeypatch.setattr(
        importer, "compile_source", lambda data, path: compiled.append(path) or real(data, path)
    )
    site.write("a.rpy", counting())
    for _ in range(5):
        site.get()
    assert len(compiled) == 1


def test_memory_of_code_is_bounded(site: ScriptSite, monkeypatch: pytest.MonkeyPatch) -> None:
    from rpyserve.scripts import loader

    monkeypatch.setattr(loader, "MOST_COMPILED", 3)
    for number in range(6):
        site.write(f"{number}.rpy", "def resource(request): return 1\n")
        site.get(f"{number}.rpy")
    assert [os.path.basename(path) for path in site.scripts._codes._compiled] == [
        "3.rpy",
        "4.rpy",
        "5.rpy",
    ]


@pytest.mark.parametrize("cached", ["", "cache()\n"])
def test_an_edit_is_seen_at_once(site: ScriptSite, cached: str) -> None:
    for number in range(50):
        site.write("a.rpy", counting(f"{number:03}", first=cached))
        assert site.get() == (number + 1, f"{number:03}")


@pytest.mark.parametrize("cached", ["", "cache()\n"])
def test_edits_of_one_size_with_the_time_set_back(site: ScriptSite, cached: str) -> None:
    stamp = 1_600_000_000_000_000_000
    path = site.write("a.rpy", "")
    for number in range(500):
        set_back(path, counting(f"{number:03}", first=cached), stamp)
        assert site.get()[1] == f"{number:03}"


def test_a_file_replaced_by_renaming(site: ScriptSite) -> None:
    site.write("a.rpy", counting("one", first="cache()\n"))
    assert site.get() == (1, "one")
    os.replace(site.write("tmp", counting("two", first="cache()\n")), site.root / "a.rpy")
    assert site.get() == (2, "two")


def test_cache_taken_out_and_put_in(site: ScriptSite) -> None:
    site.write("a.rpy", counting(first="cache()\n"))
    assert [site.get()[0] for _ in range(2)] == [1, 1]
    site.write("a.rpy", counting())
    assert [site.get()[0] for _ in range(2)] == [2, 3]
    assert "rpysite.a" not in sys.modules
    site.write("a.rpy", counting(first="cache()\n"))
    assert [site.get()[0] for _ in range(2)] == [4, 4]


def test_a_failure_is_never_cached(site: ScriptSite) -> None:
    text = (
        "cache()\nruns = registry['runs'] = registry.get('runs', 0) + 1\n"
        "if runs < 3: raise ValueError(runs)\n"
    )
    site.write("a.rpy", text + "def resource(request): return runs\n")
    assert site.error().message == "ValueError: 1"
    assert site.error().message == "ValueError: 2"
    assert [site.get() for _ in range(2)] == [3, 3]


def test_a_save_that_is_seen_half_way_makes_nothing_forget(site: ScriptSite) -> None:
    text = (
        "cache()\nfrom rpyserve import *\nclass ICounter(Interface): pass\nclass Counter:\n"
        "    def __init__(self, session): self.value = 0\n"
        "registerAdapter(Counter, Session, ICounter)\n"
        "def resource(request):\n    c = ICounter(session)\n    c.value += 1\n    return c.value\n"
        "session = registry['session']\n"
    )
    registry = Registry()
    registry["session"] = Session(None, None)
    site.scripts.registry = registry
    site.write("a.rpy", text)
    assert [site.get() for _ in range(2)] == [1, 2]
    assert "script is empty" in site.error("").message
    site.error("cache()\nclass ICou")
    site.write("a.rpy", text)
    assert [site.get() for _ in range(2)] == [3, 4]


def test_the_old_module_stays_while_the_new_one_fails(site: ScriptSite) -> None:
    site.write("a.rpy", "cache()\nclass Thing: pass\ndef resource(request): return Thing\n")
    kind = site.get()
    site.error("cache()\n1 / 0")
    assert sys.modules["rpysite.a"].Thing is kind


def test_deleted_and_put_back(site: ScriptSite) -> None:
    path = site.write("a.rpy", counting(first="cache()\n"))
    assert site.get()[0] == 1
    text = path.read_text()
    path.unlink()
    for _ in range(2):
        with pytest.raises(HTTPError) as caught:
            site.get()
        assert caught.value.status == 404
    path.write_text(text)
    assert site.get()[0] == 2


def test_a_data_file_named_in_cache(site: ScriptSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write("words.txt", "one")
    site.write(
        "sub/a.rpy",
        "from pathlib import Path\ncache('words.txt')\ntext = Path('words.txt').read_text()\n"
        "def resource(request): return text\n",
    )
    monkeypatch.chdir(site.root)
    assert site.get("sub/a.rpy") == "one"
    assert site.load("sub/a.rpy") is site.load("sub/a.rpy")
    site.write("words.txt", "two")
    assert site.get("sub/a.rpy") == "two"
    (site.root / "words.txt").unlink()
    assert "FileNotFoundError" in site.error(name="sub/a.rpy").message
    site.write("words.txt", "three")
    assert site.get("sub/a.rpy") == "three"


def test_a_module_reads_the_file_that_the_script_names(site: ScriptSite) -> None:
    words = site.write("words.txt", "one")
    site.write("words.py", f"from pathlib import Path\ntext = Path({str(words)!r}).read_text()\n")
    site.write(
        "a.rpy",
        'cache("words.txt")\nimport words\n\n\ndef resource(request):\n    return words.text\n',
    )
    site.write(
        "sub/b.rpy",
        'cache("words.txt")\ndef resource(request):\n    from words import text\n    return text\n',
    )
    for text in ("one", "two", "six"):
        words.write_text(text)
        assert site.get("a.rpy") == text
        assert site.get("sub/b.rpy") == text


def test_a_file_that_one_script_names_is_not_anothers_business(site: ScriptSite) -> None:
    site.write("words.txt", "one")
    site.write("words.py", "")
    site.write("a.rpy", 'cache("words.txt")\nimport os\ndef resource(request): return ""\n')
    runs = (
        "cache()\nimport words\nfrom rpyserve import registry\n"
        "registry['n'] = registry.get('n', 0) + 1\n"
    )
    site.write(
        "b.rpy",
        runs
        + "def resource(request): return str(registry['n'])\n".replace("registry", "request.n"),
    )
    site.write("b.rpy", runs + "N = registry['n']\ndef resource(request): return str(N)\n")
    assert (site.get("a.rpy"), site.get("b.rpy")) == ("", "1")
    site.write("words.txt", "two")
    assert (site.get("a.rpy"), site.get("b.rpy")) == ("", "1")


def test_a_directory_named_in_cache(site: ScriptSite) -> None:
    site.write("templates/sub/a.html", "one")
    site.write(
        "a.rpy",
        counting(first="cache('templates/', Path('missing.txt'))\n").replace(
            "cache", "from pathlib import Path\ncache", 1
        ),
    )
    assert [site.get()[0] for _ in range(2)] == [1, 1]
    site.write("templates/sub/a.html", "two")
    assert [site.get()[0] for _ in range(2)] == [2, 2]
    site.write("templates/b.html", "new")
    assert [site.get()[0] for _ in range(2)] == [3, 3]
    (site.root / "templates/b.html").unlink()
    assert [site.get()[0] for _ in range(2)] == [4, 4]
    site.write("missing.txt", "now here")
    assert [site.get()[0] for _ in range(2)] == [5, 5]


def test_cache_as_decorator_is_explained(site: ScriptSite) -> None:
    error = site.error("@cache\ndef f(x): return x\ndef resource(request): return f(1)\n")
    assert "write `from functools import cache` and @cache" in error.message


def test_cache_too_late(site: ScriptSite) -> None:
    site.write("a.rpy", "def resource(request):\n    cache()\n")
    with pytest.raises(RuntimeError, match="cache\\(\\) belongs into a script's top-level code"):
        site.get()


def test_refresh_leaves_what_is_fresh(site: ScriptSite) -> None:
    path = site.write("a.rpy", counting("one", first="cache()\n"))
    assert site.get()[0] == 1
    site.scripts.refresh()
    assert site.get() == (1, "one")
    path.write_text(counting("two", first="cache()\n"), encoding="utf-8")
    site.scripts.refresh()
    assert [site.get() for _ in range(2)] == [(2, "two")] * 2


# Failures


def test_an_exception_is_the_cause(site: ScriptSite) -> None:
    error = site.error("def f():\n    raise ValueError('no')\nf()\n")
    assert error.message == "ValueError: no"
    assert isinstance(error.__cause__, ValueError)
    assert traceback.extract_tb(error.__cause__.__traceback__)[-1].lineno == 2


def test_the_error_itself_says_what_its_cause_says(site: ScriptSite) -> None:
    site.write("a.rpy", "1 / 0")
    with pytest.raises(ScriptError, match=r"^ZeroDivisionError: division by zero$"):
        site.load()


def test_others_go_on(site: ScriptSite) -> None:
    site.error("1 / 0", "bad.rpy")
    site.write("a.rpy", counting())
    assert site.get()[0] == 1


@pytest.mark.parametrize(
    ("text", "kind"), [("raise HTTPError(404)", HTTPError), ("raise Redirect('/x')", Redirect)]
)
def test_answers_that_are_raised_pass(site: ScriptSite, text: str, kind: type[Exception]) -> None:
    site.write("a.rpy", f"from rpyserve import HTTPError, Redirect\n{text}\n")
    with pytest.raises(kind):
        site.load()
    assert "rpysite.a" not in sys.modules


def test_what_interrupts_passes(site: ScriptSite) -> None:
    site.write("a.rpy", "class Interrupted(BaseException): pass\nraise registry['kind']()\n")
    site.scripts.registry = Registry()
    for kind in (KeyboardInterrupt, type("Interrupted", (BaseException,), {})):
        site.scripts.registry["kind"] = kind
        with pytest.raises(kind):
            site.load()
        assert "rpysite.a" not in sys.modules
        assert current() is None


def test_sys_exit(site: ScriptSite) -> None:
    for text in ("import sys\nsys.exit('bye')", "raise SystemExit", "exit()"):
        error = site.error(text)
        assert error.message == "The script ended itself with sys.exit()."
        assert "this one is the server" in error.hint


def test_endless_recursion(site: ScriptSite) -> None:
    error = site.error("def walk(n):\n    return walk(n + 1)\nwalk(0)\n")
    assert error.message.startswith("RecursionError")
    assert error.hint == "A function calls itself without end. Give it a case in which it does not."


def test_what_is_nested_too_deep_to_compile(site: ScriptSite) -> None:
    assert site.error("x = " + "(" * 5000 + ")" * 5000).message


def test_input_is_refused_in_scripts_only(site: ScriptSite) -> None:
    before = input
    error = site.error("name = input('Your name? ')\n")
    assert "Use a form" in error.message
    assert 'request.field("answer")' in error.message
    site.write("a.rpy", "import builtins\ndef resource(request): return builtins.input\n")
    assert site.get() is before


def test_a_directory_is_no_script(site: ScriptSite) -> None:
    (site.root / "x.rpy").mkdir()
    assert "cannot be read" in site.error(name="x.rpy").message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no FIFOs")
def test_a_fifo_is_not_waited_for(site: ScriptSite) -> None:
    os.mkfifo(site.root / "x.rpy")
    assert "no regular file" in site.error(name="x.rpy").message


def test_a_resource_that_is_wrong_only_now_and_then(site: ScriptSite) -> None:
    site.write("a.rpy", counting() + "if runs % 2 == 0:\n    resource = None\n")
    assert site.get()[0] == 1
    assert isinstance(site.error(), ScriptError)
    assert site.get()[0] == 3


def test_a_slow_uncached_script_is_named(
    site: ScriptSite, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rpyserve.util.slow_calls import slow_call_log

    monkeypatch.setattr(slow_call_log, "threshold", 0.0)
    site.write("sub/a.rpy", counting())
    for _ in range(4):  # the first may be slow for its imports
        site.get("sub/a.rpy")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert f"Executing {os.path.join('sub', 'a.rpy')} took" in said[0]
    assert "cache() as its first line" in said[0]


# Nothing is left behind


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def test_uncached_executions_leave_nothing(site: ScriptSite) -> None:
    site.write("helper.py", "from rpyserve import Interface\nclass IShared(Interface): pass\n")
    site.write(
        "a.rpy",
        "import logging\nfrom dataclasses import dataclass\nimport helper\nfrom rpyserve import *\n"
        "log = logging.getLogger(__name__)\nclass ICounter(Interface):\n"
        "    value = Attribute('n')\n"
        "@implementer(ICounter, helper.IShared)\nclass Counter:\n"
        "    def __init__(self, session): self.value = 0\n"
        "@dataclass\nclass Point:\n    x: int = 1\n"
        "registerAdapter(Counter, Session, ICounter)\n"
        "class Page(Resource):\n    def render_GET(self, request):\n"
        "        counter = ICounter(registry['session'])\n"
        "        counter.value += 1\n        return str(counter.value)\nresource = Page()\n",
    )
    site.scripts.registry = Registry()
    site.scripts.registry["session"] = Session(None, None)
    assert {site.get() for _ in range(50)} == {"1"}
    before, loggers, modules = objects(), len(logging.root.manager.loggerDict), len(sys.modules)
    assert {site.get() for _ in range(3000)} == {"1"}
    assert objects() <= before + 20
    assert len(logging.root.manager.loggerDict) == loggers
    assert len(sys.modules) == modules


def test_edits_of_a_cached_script_leave_nothing(site: ScriptSite) -> None:
    def edit(number: int) -> None:
        site.write("a.rpy", counting(f"{number:04}", first="cache()\nclass Thing: pass\n"))
        assert site.get()[1] == f"{number:04}"

    for number in range(20):
        edit(number)
    before = objects()
    for number in range(300):
        edit(number)
    assert objects() <= before + 20


def test_failing_executions_leave_nothing(site: ScriptSite) -> None:
    site.write("a.rpy", "class Thing: pass\nraise ValueError(Thing())\n")
    for _ in range(20):
        site.error()
    before = objects()
    for _ in range(300):
        site.error()
    assert objects() <= before + 20


@pytest.mark.usefixtures("without_twisted")
def test_close_undoes_all(tmp_path: Path) -> None:
    before = list(sys.path), list(sys.meta_path), list(sys.path_hooks), set(sys.modules)
    site = ScriptSite(tmp_path)
    site.write("sub/helper.py", "")
    site.write("words.py", "")
    site.write(
        "sub/a.rpy",
        "cache()\nfrom . import helper\nimport words\nfrom twisted.web.resource import Resource\n"
        + counting(),
    )
    site.get("sub/a.rpy")
    site.scripts.close()
    site.scripts.close()
    assert (list(sys.path), list(sys.meta_path), list(sys.path_hooks), set(sys.modules)) == before
    assert site.get("sub/a.rpy")[0] == 2  # and opens again when it is used again
    site.scripts.close()
    assert set(sys.modules) == before[3]


def test_making_scripts_touches_nothing(tmp_path: Path) -> None:
    before = list(sys.path), list(sys.meta_path), list(sys.path_hooks)
    ScriptLoader(tmp_path)
    assert (list(sys.path), list(sys.meta_path), list(sys.path_hooks)) == before


def test_adapters_of_ordinary_modules_still_work(site: ScriptSite) -> None:
    assert callable(registerAdapter)
    site.write(
        "a.rpy",
        "from rpyserve.sessions.adapters import registerAdapter as r\n"
        "def resource(request): return r\n",
    )
    assert site.get() is registerAdapter


def test_a_pattern_in_cache(site: ScriptSite) -> None:
    site.write("notes/a.md", "a")
    site.write("notes/a.txt", "a")
    text = counting(first="cache('notes/*.md', 'deep/**/*.css')\n")
    site.write("a.rpy", text)
    runs = [site.get()[0]]
    changes = [("notes/a.md", "b"), ("notes/b.md", ""), ("deep/x/y.css", ""), ("notes/c.txt", "")]
    for name, contents in changes:
        site.write(name, contents)
        runs.append(site.get()[0])
    (site.root / "notes/b.md").unlink()
    runs.append(site.get()[0])
    assert runs == [1, 2, 3, 4, 4, 5]


def test_a_name_in_cache_that_is_not_there_is_told_once(
    site: ScriptSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.write("words.txt", "")
    site.write("notes/a.md", "")
    for edit in range(3):
        first = "cache('wrods.txt', 'words.txt', 'notes', 'notes/*.md', 'x/*.md')\n"
        site.write("a.rpy", counting(str(edit), first=first))
        site.get()
    assert [record.getMessage() for record in caplog.records] == [
        f"a.rpy calls cache({name!r}), but there is no such file or directory. The script runs "
        "again as soon as there is one."
        for name in ("wrods.txt", "x/*.md")
    ]
    site.write("wrods.txt", "")
    assert site.get()[0] == 4


def test_overlapping_requests_find_their_script_in_sys_modules(site: ScriptSite) -> None:
    site.write(
        "a.rpy",
        "from __future__ import annotations\nimport inspect, typing\n"
        "class Part: pass\nclass Item:\n    part: Part\n"
        "def resource(request):\n"
        "    return typing.get_type_hints(Item)['part'].__name__, inspect.getsource(Item)\n",
    )
    requests = [Request("GET", "/") for _ in range(3)]
    pages = [site.load(request=request) for request in requests]
    expected = "Part", "class Item:\n    part: Part\n"
    for last in (2, 0):
        requests[last].close()
        assert pages[1].render(requests[1]) == expected
    requests[1].close()
    assert "rpysite.a" not in sys.modules


PICKLING = """\
import pickle, trio
class Item:
    def __init__(self, n): self.n = n
def work(n): return pickle.loads(pickle.dumps([Item(n)]))[0]
async def resource(request):
    n = int(request.field("n"))
    await trio.sleep(1 / n)
    in_thread = await trio.to_thread.run_sync(work, n)
    await trio.sleep(n)
    return [isinstance(each, Item) and each.n for each in (in_thread, work(n))]
"""


async def test_overlapping_requests_pickle_what_their_script_defines(
    site: ScriptSite, autojump_clock: trio.testing.MockClock
) -> None:
    site.write("a.rpy", PICKLING)
    answers = {}

    async def visit(n: int) -> None:
        request = Request("GET", f"/?n={n}")
        answers[n] = await site.load(request=request).render(request)
        request.close()

    async with trio.open_nursery() as nursery:
        for n in range(1, 6):
            nursery.start_soon(visit, n)
    assert answers == {n: [n, n] for n in range(1, 6)}
    assert "rpysite.a" not in sys.modules


# A script that is executed again because of a file that ``cache()`` names

GUESTBOOK = """\
from pathlib import Path
cache("book.txt")
entries = Path(__file__).with_name("book.txt").read_text().split()
def page(): return list(entries)
def resource(request): return page()
"""


@pytest.mark.parametrize(
    ("added", "is_edit"),
    [
        ("", False),
        ("import functools\n@functools.cache\ndef more(): return 1\n", True),
        ("registry['page'] = page\n", True),
        ("registry.setdefault('list', []).append(page)\n", True),
        ("registry['page'] = lambda: page()\n", False),  # what is nested in others stays anyway
        ("class Entry:\n    pass\n", True),
        ("from rpyserve import Resource\nclass Page(Resource):\n    pass\n", True),
        ("from rpyserve import Interface\nclass IEntry(Interface):\n    pass\n", True),
        ("from collections import namedtuple\nEntry = namedtuple('Entry', 'a b')\n", True),
    ],
)
def test_what_nobody_can_have_is_not_looked_for(
    site: ScriptSite, added: str, is_edit: bool
) -> None:
    site.write("book.txt", "ada")
    site.write("a.rpy", GUESTBOOK + added)
    for entries in (["ada"], ["ada", "bob"], ["ada", "bob", "eve"]):
        site.write("book.txt", " ".join(entries))
        before = definitions.generation
        assert site.get() == entries
        is_first = len(entries) == 1
        assert (definitions.generation > before) is (is_edit and not is_first)
    before = definitions.generation
    site.write("a.rpy", GUESTBOOK + added + "# edited\n")
    assert site.get() == ["ada", "bob", "eve"]
    assert definitions.generation > before


def test_a_function_that_somebody_took_from_it_becomes_the_present_one(site: ScriptSite) -> None:
    site.write("book.txt", "ada")
    site.write("a.rpy", GUESTBOOK.replace("page()\n", "page\n"))
    site.scripts.registry["it"] = {"page": site.get()}
    site.write("book.txt", "ada bob")
    site.get()
    assert site.scripts.registry["it"]["page"]() == ["ada", "bob"]
