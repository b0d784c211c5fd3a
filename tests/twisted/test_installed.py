"""Twisted is there, is not, is broken, comes and goes: in a process whose packages are links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.genuine import TWISTED

assert TWISTED

PROLOGUE = """
import os, sys, sysconfig
from pathlib import Path

installed, packages, root = Path(sysconfig.get_path("purelib")), Path(sys.argv[1]), Path(sys.argv[2])
packages.mkdir(), root.mkdir()
for each in installed.iterdir():
    if not each.name.startswith("twisted"):
        (packages / each.name).symlink_to(each)
sys.path = [each for each in sys.path if Path(each) != installed] + [str(packages)]

def install(): (packages / "twisted").symlink_to(installed / "twisted")
def remove(): (packages / "twisted").unlink()
def write(text, name="a.rpy"): (root / name).write_text(text)

from rpyserve.scripts import twisted_names
from rpyserve.testing import Client

twisted_names.LOOK_INTERVAL = 0  # or the next request might not look

SCRIPT = '''
{cache}
from twisted.web.resource import Resource
class Page(Resource):
    def render_GET(self, request):
        return Resource.__module__
resource = Page()
'''
FILE = "from twisted.web.static import File\\nresource = File('.')\\n"
client = Client(str(root), raise_errors=False).__enter__()
get = lambda path="/a": client.get(path).text
"""


def run(program: str, tmp_path: Path) -> list[str]:
    """The lines that *program* prints."""
    script = tmp_path / "program.py"
    script.write_text(f"{PROLOGUE}\n{program}\nclient.__exit__(None, None, None)\n")
    arguments = [sys.executable, str(script), str(tmp_path / "packages"), str(tmp_path / "site")]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("cache", ["", "cache()"])
def test_it_comes_and_goes(tmp_path: Path, cache: str) -> None:
    program = f"""
write(SCRIPT.format(cache={cache!r}))
for _ in range(2):
    print(get())
    install()
    print(get())
    remove()
print(get())
"""
    ours, genuine = "rpyserve", "twisted.web.resource"
    assert run(program, tmp_path) == [ours, genuine, ours, genuine, ours]


def test_it_is_not_looked_for_with_each_request(tmp_path: Path) -> None:
    program = """
twisted_names.LOOK_INTERVAL = 60
write(SCRIPT.format(cache="cache()"))
get()
looks = []
signature = twisted_names._signature
twisted_names._signature = lambda path: looks.append(path) or signature(path)
for _ in range(20): get()
print(len(looks) <= len(sys.path))
"""
    assert run(program, tmp_path) == ["True"]


def test_a_name_that_only_twisted_has(tmp_path: Path) -> None:
    program = """
write(FILE)
print(get().splitlines()[0])
install()
print(get("/a/a.rpy").splitlines()[0])
"""
    before, after = run(program, tmp_path)
    assert "rpyserve has no twisted.web.static" in before
    assert f"{sys.executable} -m pip install twisted" in before
    assert after == "from twisted.web.static import File"


def test_a_broken_one_is_shown(tmp_path: Path) -> None:
    program = """
(packages / "hyperlink").unlink()
(packages / "incremental").unlink()
install()
write(SCRIPT.format(cache=""))
print(get())
"""
    text = "\n".join(run(program, tmp_path))
    assert "ModuleNotFoundError: No module named 'incremental'" in text
    assert "twisted/__init__.py" in text.replace(os.sep, "/")
    assert "rpyserve has no" not in text


def test_what_is_left_of_one_is_none(tmp_path: Path) -> None:
    program = """
(packages / "twisted" / "web").mkdir(parents=True)
write(SCRIPT.format(cache=""))
print(get())
"""
    assert run(program, tmp_path) == ["rpyserve"]


def test_nobody_loads_it_for_a_site_that_does_not_ask(tmp_path: Path) -> None:
    program = """
install()
write("def resource(request): return 'hello'")
print(get())
print(sorted(name for name in sys.modules if "twisted" in name))
"""
    assert run(program, tmp_path) == ["hello", "['rpyserve.scripts.twisted_names']"]


def test_a_library_that_scripts_import_may_ask_for_it(tmp_path: Path) -> None:
    program = """
(packages / "asks.py").write_text('''
try:
    import twisted.internet.defer as found
except ImportError:
    found = None
''')
write("import asks\\ndef resource(request): return str(asks.found and asks.found.__name__)")
install()
print(get())
"""
    assert run(program, tmp_path) == ["twisted.internet.defer"]
