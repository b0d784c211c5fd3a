"""Any edits in any order, as if on a file system whose stamps step by two seconds.

What is served is what a Python that has just been started sees: of scripts, their modules and data,
and of a static file that a browser asks for again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rpyserve import Directory, Site
from rpyserve.files import static_file
from rpyserve.http.errors import ScriptError
from rpyserve.scripts import file_state
from tests.support.in_process import Answer, ask
from tests.support.script_site import ScriptSite

STEP = 2 * 10**9
FILES = (
    "hh.py",
    "kk.py",
    "pp/__init__.py",
    "pp/mm.py",
    "qq/mm.py",
    "words.txt",
    "dd/one.txt",
    "dd/sub/two.txt",
    "s.css",
)
TEXTS = (
    "V = 1", "V = 2", "V = 3", "V = (", "from kk import V", "from pp.mm import "
                                                            "V", "from pp import V",
    "from .mm import V", "from . import mm; V = mm.V", "import importlib; V = "
                                                       "importlib.import_module('kk').V",
    "from qq.mm import V",
    "from pathlib import Path; V = Path('words.txt').read_text()",
)  # fmt: skip

KEPT = """
cache("words.txt", "dd")
import os
from pathlib import Path

try:
    from hh import V as H
except Exception as exc:
    H = type(exc).__name__
WORDS = os.path.exists("words.txt") and Path("words.txt").read_text()
TREE = [
    (name, Path(where, name).read_text()) for where, _, names in os.walk("dd") for name in names
]


def resource(request):
    try:
        import pp.mm

        late = pp.mm.V
    except Exception as exc:
        late = type(exc).__name__
    return repr((H, WORDS, sorted(TREE), late))
"""
PASSING = """
from hh import V


def resource(request):
    return repr(V)
"""
STARTED_ANEW = """
import json, pathlib, sys
sys.path.insert(0, "")
views = []
for name in ("kept.rpy", "passing.rpy"):
    namespace = {"__name__": "script", "cache": lambda *names: None}
    try:
        exec(pathlib.Path(name).read_text(), namespace)
        views.append(namespace["resource"](None))
    except Exception as exc:
        views.append(type(exc).__name__)
print(json.dumps(views))
"""


class Edits(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 10**18
        self.stamps: dict[int, list[int]] = {}
        self.back = os.getcwd()
        self.root = Path(tempfile.mkdtemp())
        os.chdir(self.root)
        self.site = ScriptSite(self.root)
        self.files = Site(Directory(self.root))
        self.held: Answer | None = None
        self.site.write("kept.rpy", KEPT)
        self.site.write("passing.rpy", PASSING)
        for name in FILES:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        self.real = (
            file_state.FILE_SYSTEM.stat,
            file_state.FILE_SYSTEM.now,
            static_file.open_checked,
            static_file.time,
        )
        self.see(
            self.stat,
            lambda: self.now / 10**9,
            self.open_judged,
            SimpleNamespace(time_ns=lambda: self.now),
        )

    def teardown(self) -> None:
        self.see(*self.real)
        self.site.scripts.close()
        os.chdir(self.back)
        shutil.rmtree(self.root)

    # The file system whose stamps step

    def see(self, stat: Any, now: Any, open_judged: Any, time: Any) -> None:
        object.__setattr__(file_state.FILE_SYSTEM, "stat", stat)
        object.__setattr__(file_state.FILE_SYSTEM, "now", now)
        static_file.open_checked, static_file.time = open_judged, time

    def stat(self, path: str) -> Any:
        return self.blunt(os.stat(path))

    def open_judged(self, *args: Any) -> Any:
        file, found = self.real[2](*args)
        return file, self.blunt(found)

    def blunt(self, found: os.stat_result) -> Any:
        mtime, ctime = self.stamps.get(found.st_ino, (0, 0))
        return SimpleNamespace(
            st_mode=found.st_mode,
            st_size=found.st_size,
            st_ino=found.st_ino,
            st_mtime_ns=mtime,
            st_ctime_ns=ctime,
        )

    def stamp(self, path: Path, *, kept: int | None = None) -> None:
        stamp = self.now // STEP * STEP
        self.stamps[os.stat(path).st_ino] = [stamp if kept is None else kept, stamp]

    def moved(self, path: Path) -> None:
        """*path* has another name now, which changes its ctime only, and the directory."""
        if not path.is_symlink():  # the time stamps are those of what it leads to, if anything
            self.stamp(path, kept=self.stamps[os.stat(path).st_ino][0])
        self.stamp(path.parent)

    def there(self) -> list[Path]:
        return [self.root / name for name in FILES if (self.root / name).is_file()]

    # The edits

    @rule(
        name=st.sampled_from(FILES),
        text=st.sampled_from(TEXTS),
        way=st.sampled_from(["", "restore", "rename"]),
    )
    def write(self, name: str, text: str, way: str) -> None:
        path = self.root / name
        made = [each for each in path.parents if not each.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        for directory in made:
            self.stamp(directory)
            self.stamp(directory.parent)
        content = text.ljust(60)  # all of one size
        if way == "rename":
            temporary = self.root / "temporary~"
            temporary.write_text(content)
            self.stamp(temporary)
            temporary.replace(path)
            self.moved(path)
            return
        new = not path.exists()
        kept = self.stamps[os.stat(path).st_ino][0] if way == "restore" and not new else None
        path.write_text(content)
        self.stamp(path, kept=kept)
        if new:
            self.stamp(path.parent)

    @precondition(lambda self: self.there())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self.there()))
        path.unlink()
        self.stamp(path.parent)

    @precondition(lambda self: len(self.there()) > 1)
    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        one, other = data.draw(st.permutations(self.there()))[:2]
        one.rename(self.root / "temporary~")
        other.rename(one)
        (self.root / "temporary~").rename(other)
        self.moved(one)
        self.moved(other)

    @rule(names=st.permutations(["pp", "qq", "dd"]))
    def swap_directories(self, names: list[str]) -> None:
        one, other = self.root / names[0], self.root / names[1]
        if one.exists():
            one.rename(self.root / "temporary~")
        if other.exists():
            other.rename(one)
        if (self.root / "temporary~").exists():
            (self.root / "temporary~").rename(other)
        for path in (one, other):
            if path.exists():
                self.stamps.setdefault(os.stat(path).st_ino, [0, 0])
                self.moved(path)

    @precondition(lambda self: os.name != "nt")
    @rule(name=st.sampled_from(FILES), other=st.sampled_from(FILES))
    def link(self, name: str, other: str) -> None:
        path = self.root / name
        if name != other and path.parent.is_dir() and (self.root / other).is_file():
            (self.root / "temporary~").symlink_to((self.root / other).resolve())
            (self.root / "temporary~").replace(path)
            self.stamp(path.parent)

    @rule(seconds=st.floats(0.05, 5))
    def wait(self, seconds: float) -> None:
        self.now += int(seconds * 10**9)

    # The views

    def served(self, name: str) -> str:
        try:
            return str(self.site.get(name))
        except ScriptError as exc:
            return type(exc.__cause__).__name__

    @invariant()
    def scripts_are_fresh(self) -> None:
        command = [sys.executable, "-I", "-S", "-B", "-c", STARTED_ANEW]
        expected = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert [self.served("kept.rpy"), self.served("passing.rpy")] == expected

    @invariant()
    def files_are_fresh(self) -> None:
        path = self.root / "s.css"
        # A link to a module of the site is never served.
        now = path.read_bytes() if path.is_file() and path.resolve().suffix != ".py" else None
        whole = trio.run(ask, self.files, "/s.css")
        assert (whole.body if whole.status == 200 else None) == now
        if self.held is not None:
            for header, validator in (
                ("If-None-Match", "etag"),
                ("If-Modified-Since", "last-modified"),
            ):
                value = self.held.header(validator)
                if value is not None:
                    again = trio.run(
                        lambda h=header, v=value: ask(self.files, "/s.css", headers=[(h, v)])
                    )
                    assert again.status in (200, 304, 404)
                    assert again.status != 304 or self.held.body == now
        if whole.status == 200:
            self.held = whole


TestEdits = Edits.TestCase
TestEdits.settings = settings(max_examples=10, stateful_step_count=10)
