"""Links that open a file in an editor."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Any

import pytest

from rpyserve.diagnostics.editor import NAMES, EditorLink, detect, parse_editor


def link(text: str, path: str = "/home/me/a b.rpy") -> str:
    return parse_editor(text).link(path, 3, 5)


@pytest.mark.skipif(os.name == "nt", reason="the paths are those of other systems")
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("vscode", "vscode://file/home/me/a%20b.rpy:3:5"),
        ("VSCode", "vscode://file/home/me/a%20b.rpy:3:5"),
        ("code", "vscode://file/home/me/a%20b.rpy:3:5"),
        ("vscode-insiders", "vscode-insiders://file/home/me/a%20b.rpy:3:5"),
        ("codium", "vscodium://file/home/me/a%20b.rpy:3:5"),
        ("cursor", "cursor://file/home/me/a%20b.rpy:3:5"),
        ("zed", "zed://file/home/me/a%20b.rpy:3:5"),
        ("pycharm", "pycharm://open?file=/home/me/a%20b.rpy&line=3&column=5"),
        ("idea", "idea://open?file=/home/me/a%20b.rpy&line=3&column=5"),
        ("sublime", "subl://open?url=file:///home/me/a%20b.rpy&line=3&column=5"),
        ("macvim", "mvim://open?url=file:///home/me/a%20b.rpy&line=3&column=5"),
        ("emacs", "emacs://open?url=file:///home/me/a%20b.rpy&line=3&column=5"),
        ("none", ""),
        ("x-mine://{path}#{line}", "x-mine:///home/me/a%20b.rpy#3"),
        (
            "http://localhost:63342/api/file/{path}:{line}",
            "http://localhost:63342/api/file/home/me/a%20b.rpy:3",
        ),
        ("vscode://file/host{path}:{line}", "vscode://file/host/home/me/a%20b.rpy:3"),
    ],
)
def test_links(name: str, url: str) -> None:
    assert link(name) == url


def test_paths_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import PureWindowsPath

    from rpyserve.diagnostics import editor

    monkeypatch.setattr(editor.os, "name", "nt")
    monkeypatch.setattr(editor, "PurePath", PureWindowsPath)
    path = "C:\\Users\\me\\a.rpy"
    assert link("vscode", path) == "vscode://file/C:/Users/me/a.rpy:3:5"
    assert link("pycharm", path) == "pycharm://open?file=C:/Users/me/a.rpy&line=3&column=5"
    assert link("sublime", path) == "subl://open?url=file:///C:/Users/me/a.rpy&line=3&column=5"


def test_nothing_in_a_path_can_change_the_link(tmp_path: Any) -> None:
    url = parse_editor("vscode").link(str(tmp_path / "a{line}?&#\"'<\udc80.rpy"), 1)
    assert not set(url) & set("{}?#\"'<& ")
    assert url.isascii()


def test_lines_begin_with_one() -> None:
    assert (
        EditorLink("x:{path}:{line}:{column}").link(str(PurePosixPath("/a")), 0, 0).endswith(":1:1")
        or os.name == "nt"
    )
    assert parse_editor("vscode").link("relative.py", 1) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("notepad", "use one of vscode, "),
        ("", "use one of vscode, "),
        ("vscode://file/a", "use one of"),
        ("{path}", "use one of"),
        ("javascript:alert('{path}')", "does not open an editor"),
        ("DATA:text/html,{path}", "does not open an editor"),
        ("x://{path}:{row}", "{row} is not a placeholder"),
        ("x://{path}:{", "is not a placeholder"),
    ],
)
def test_what_is_no_editor(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("{", r"\{")):
        parse_editor(text)


def found(*installed: str, **environ: str) -> str:
    template = detect(environ, lambda command: command in installed).template
    return next((name for name, known in NAMES.items() if known == template), template)


def test_what_this_process_was_started_from() -> None:
    assert found(TERM_PROGRAM="vscode") == "vscode"
    assert found(TERM_PROGRAM="vscode", CURSOR_TRACE_ID="1") == "cursor"
    assert found(TERM_PROGRAM="vscode", TERM_PROGRAM_VERSION="1.9.0-insider") == "vscode-insiders"
    assert (
        found(TERM_PROGRAM="vscode", VSCODE_GIT_ASKPASS_MAIN="/opt/VSCodium/resources/x.js")
        == "codium"
    )
    assert found(ZED_TERM="true", EDITOR="code") == "zed"
    assert found(TERMINAL_EMULATOR="JetBrains-JediTerm") == "pycharm"


def test_what_the_user_says_they_edit_with() -> None:
    assert found(EDITOR="subl -w") == "sublime"
    assert found(VISUAL="/usr/bin/cursor --wait", EDITOR="vim") == "cursor"
    assert found("zed", EDITOR="vim") == "zed", "vim has no URLs"
    assert found(EDITOR="C:\\Programs\\Code.exe") == "vscode"


def test_what_is_installed() -> None:
    assert found("charm", "subl") == "pycharm"
    assert found() == "vscode"


def test_files_of_a_linux_inside_windows() -> None:
    template = found(TERM_PROGRAM="vscode", WSL_DISTRO_NAME="Ubuntu 24")
    assert template == "vscode://vscode-remote/wsl+Ubuntu%2024/{path}:{line}:{column}"
    assert found(EDITOR="pycharm", WSL_DISTRO_NAME="Ubuntu") == "pycharm"
