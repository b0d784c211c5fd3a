"""The source that code was compiled from, and the piece of it that an instruction comes from."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType

import pytest

from rpyserve.http.request import Request
from rpyserve.scripts.source import decode_lines, line_at, position_of, source_lines
from tests.support.script_site import ScriptSite


def failing(code: str, path: str = "x.py") -> TracebackType:
    """The traceback's last entry of what *code* raises."""
    try:
        exec(compile(code, path, "exec"), {})
    except Exception as exc:
        tb = exc.__traceback__
        while tb is not None and tb.tb_next is not None:
            tb = tb.tb_next
        assert tb is not None
        return tb
    raise AssertionError("it raises nothing")


def marked(code: str) -> str:
    """The piece of *code* that Python says is at fault."""
    tb = failing(code)
    lines = code.split("\n")
    found = position_of(tb.tb_frame.f_code, tb.tb_lasti, lines)
    assert found is not None
    return lines[found.line - 1][
        found.column : found.end_column if found.line == found.end_line else None
    ]


@pytest.mark.parametrize(
    ("code", "piece"),
    [
        ("a = {}\nb = 1 + a['x']['y'] + 2\n", "a['x']"),
        ("def f(n):\n    return n + (10 // n)\nf(0)\n", "10 // n"),
        ("ä = {}\nb = 'ööö' + ä['x']\n", "ä['x']"),
        ("x = (1 +\n     None)\n", "(1 +"[1:]),
    ],
)
def test_the_piece_at_fault(code: str, piece: str) -> None:
    assert marked(code) == piece


def test_a_script_is_shown_as_it_was_compiled(tmp_path: Path) -> None:
    site = ScriptSite(tmp_path)
    site.write("a.rpy", "cache()\ndef resource(request):\n    return 1 / 0  # first\n")
    resource = site.load()
    site.write("a.rpy", "# quite\n# another\n# file\n")
    with pytest.raises(ZeroDivisionError) as caught:
        resource.render(Request("GET", "/"))
    frame = caught.tb
    while frame.tb_next is not None:
        frame = frame.tb_next
    lines = source_lines(frame.tb_frame.f_code, frame.tb_frame.f_globals)
    site.scripts.close()
    assert lines is not None
    assert lines[frame.tb_lineno - 1] == "    return 1 / 0  # first"


def test_a_module_of_the_site_too(tmp_path: Path) -> None:
    site = ScriptSite(tmp_path)
    site.write("helper.py", "def f():\n    return 1 / 0\n")
    site.write("a.rpy", "cache()\nfrom helper import f\nresource = lambda request: f()\n")
    function = site.load().function.__globals__["f"]
    site.write("helper.py", "# edited\n")
    assert source_lines(function.__code__, function.__globals__) == [
        "def f():",
        "    return 1 / 0",
        "",
    ]
    site.scripts.close()


def test_a_file_that_was_saved_since_this_process_began_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "program.py"
    path.write_text("x = 1\n")
    os.utime(path, (1, 1))
    code = compile("x = 1\n", str(path), "exec")
    module = {"__name__": "sys"}
    assert source_lines(code, module) == ["x = 1"]
    os.utime(path, (time.time() + 10, time.time() + 10))
    assert source_lines(code, module) is None
    assert source_lines(code, {"__name__": "template"}) == ["x = 1"], (
        "a template is read again when it has changed"
    )
    path.unlink()
    assert source_lines(code, {}) is None


def test_the_lines_of_a_source_are_those_of_the_compiler() -> None:
    source = "# coding: latin-1\r\na = '\f'\rb = '\x85\u00a0'\nc = 1 / 0\n"
    lines = decode_lines(source.encode("latin-1"))
    tb = failing(source)
    assert lines[tb.tb_lineno - 1] == "c = 1 / 0"
    assert decode_lines(b"# coding: nonsense\n\xff") == ["# coding: nonsense", "�"]


def test_code_without_positions() -> None:
    assert position_of(compile("x", "x.py", "exec").replace(co_linetable=b""), 0, ["x"]) is None
    assert position_of(compile("x", "x.py", "exec"), -1, ["x"]) is None
    assert position_of(compile("x", "page.html.j2", "exec"), 0, ["x"]) is None


@pytest.mark.parametrize("text", ["x = " + "1+" * 20_000 + "1\n", "x = " + "-" * 50_000 + "1\n"])
def test_what_is_nested_too_deeply_for_python(site: ScriptSite, text: str) -> None:
    error = site.error(text)
    assert "nested deeper than Python can compile" in error.message
    assert "calls itself" not in error.message + (error.hint or "")
    site.write("helper.py", text)
    assert "nested deeper" in site.error("import helper\n").message


def test_the_line_at_which_a_frame_is() -> None:
    frame = sys._getframe()
    assert line_at(frame).startswith("assert line_at(frame)")
    tb = failing("1 / 0", "nowhere.py")
    assert line_at(tb.tb_frame) == ""
