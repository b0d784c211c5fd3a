"""Edits while the server is down: a process that was killed, and another one after the edit."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from benchmarks.edits.rows import ROWS, Row
from tests.support.real_process import Server, serving

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent.parent
PAGE = """\
from rpyserve import cache

cache()
{definitions}


def resource(request):
    session = request.getSession()
    if "kept" not in session:
        session["kept"] = {make}
        return "made"
    kept = session["kept"]
    return "yes" if ({check}) else "no"
"""
OPTIONS = "--session-store", "sqlite", "--cookie-name", "visitor"


def save(site: Path, number: int, row: Row, definitions: str) -> None:
    """Save the definitions once in a script, and once in a module that another script imports."""
    (site / f"shop{number}.py").write_text(definitions)
    for name, own in (("script", definitions), ("module", f"from shop{number} import *\n")):
        text = PAGE.format(definitions=own, make=row.make, check=row.check)
        (site / f"{name}{number}.rpy").write_text(text)


def visit(server: Server, name: str, cookies: dict[str, str]) -> str:
    headers = {"Cookie": cookies[name]} if name in cookies else {}
    with urllib.request.urlopen(
        urllib.request.Request(f"{server.url}/{name}", headers=headers), timeout=30
    ) as answer:
        if answer.headers["Set-Cookie"]:
            cookies[name] = answer.headers["Set-Cookie"].partition(";")[0]
        return str(answer.read().decode())


def is_installed(row: Row) -> bool:
    libraries = re.findall(r"^import (attrs|pydantic)", row.before, re.M)
    return all(importlib.util.find_spec(library) for library in libraries)


def test_an_object_lives_through_a_kill_and_an_edit(tmp_path: Path) -> None:
    """Every row of the comparison of edits, each with the object of a visitor of its own."""
    site = tmp_path / "site"
    site.mkdir()
    rows = {number: row for number, row in enumerate(ROWS) if is_installed(row)}
    cookies: dict[str, str] = {}
    for number, row in rows.items():
        save(site, number, row, row.before)
    names = [f"{name}{number}" for number in rows for name in ("script", "module")]
    with serving(site, tmp_path, *OPTIONS, own_group=True) as server:
        assert {visit(server, name, cookies) for name in names} == {"made"}
        server.expected_code = None
        server.process.kill()
        server.process.wait()
    for number, row in rows.items():
        save(site, number, row, row.after)
    with serving(site, tmp_path, *OPTIONS) as server:
        wrong = [
            (name, rows[int(name[6:])].edit)
            for name in names
            if visit(server, name, cookies) != "yes"
        ]
        assert not wrong, server.output()


def test_processes_agree_on_what_a_class_is_like(tmp_path: Path) -> None:
    """Else a record that is only read would be written again by each of several workers."""
    (tmp_path / "shop.py").write_text(
        "import functools\n\nclass Cart:\n    def __init__(self, **options):\n"
        "        for name in {'a', 'b', 'c'} & options.keys():\n"
        "            setattr(self, name, name in {'d', 'e', ('f', 'g')})\n"
        "    @functools.cached_property\n    def kind(self):\n        return 1 in {2, 'h', 'i'}\n"
    )
    code = (
        "import sys; from rpyserve import Directory, Site; from rpyserve.stores.codec import *\n"
        "site = Site(Directory(sys.argv[1])); site.root.scripts.open(site); import shop\n"
        "site.registry['cart'] = shop.Cart(a=1)\n"
        "print(Codec(site, [bytes(32)]).dump_registry().blob.hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
    assert len(found.pop()) > 200
