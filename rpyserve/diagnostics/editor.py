"""Links that open a file in the author's editor: URLs for the browser, never for this server.

An editor is a URL template with ``{path}``, ``{line}`` and ``{column}``. It is chosen by
``--editor``; else it is the editor that this process was started from (its terminal, ``$VISUAL``,
``$EDITOR``), else one that is installed, else VS Code.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final
from urllib.parse import quote

_LIKE_CODE: Final = "://file/{path}:{line}:{column}"
_JETBRAINS: Final = "://open?file={path}&line={line}&column={column}"
_TEXTMATE: Final = "://open?url=file://{path}&line={line}&column={column}"

# The names that ``--editor`` knows, and their URL templates.
NAMES: Final = {
    "vscode": "vscode" + _LIKE_CODE,
    "vscode-insiders": "vscode-insiders" + _LIKE_CODE,
    "codium": "vscodium" + _LIKE_CODE,
    "cursor": "cursor" + _LIKE_CODE,
    "windsurf": "windsurf" + _LIKE_CODE,
    "zed": "zed" + _LIKE_CODE,
    "pycharm": "pycharm" + _JETBRAINS,
    "idea": "idea" + _JETBRAINS,
    "sublime": "subl" + _TEXTMATE,
    "textmate": "txmt" + _TEXTMATE,
    "macvim": "mvim" + _TEXTMATE,
    "emacs": "emacs" + _TEXTMATE,
    "none": "",
}

# The commands that start an editor, and its name; those to look for on this machine come first, in
# order of preference.
_COMMANDS: Final = {
    "code": "vscode", "cursor": "cursor", "windsurf": "windsurf", "codium": "codium", "zed": "zed",
    "zeditor": "zed", "pycharm": "pycharm", "charm": "pycharm", "subl": "sublime",
    "code-insiders": "vscode-insiders", "vscodium": "codium", "idea": "idea",
    "sublime_text": "sublime", "mate": "textmate", "mvim": "macvim",
}  # fmt: skip

# Variables that an editor's own terminal sets, and the words in their names and values that tell
# which editor it is. Those that are made from VS Code set its variables too, so they come first.
_TERMINAL_VARIABLES: Final = (
    "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERMINAL_EMULATOR", "CURSOR_TRACE_ID", "ZED_TERM",
    "VSCODE_GIT_ASKPASS_MAIN", "__CFBundleIdentifier",
)  # fmt: skip
_TERMINAL_WORDS: Final = {
    "cursor": "cursor", "windsurf": "windsurf", "codium": "codium", "insider": "vscode-insiders",
    "vscode": "vscode", "zed": "zed", "jetbrains": "pycharm",
}  # fmt: skip

_DANGEROUS_SCHEMES: Final = frozenset({"javascript", "data", "vbscript", "blob", "about"})


@dataclass(frozen=True, slots=True)
class EditorLink:
    """How to open a file.

    Args:
        template: a URL with placeholders; empty for no links.
    """

    template: str = ""

    def link(self, path: str, line: int = 1, column: int = 1) -> str:
        """Return the URL that opens *path*; empty if there is none.

        Args:
            path: absolute.
            line: counted from 1.
            column: counted from 1.
        """
        if not self.template or not PurePath(path).is_absolute():
            return ""
        quoted = quote(PurePath(path).as_posix(), safe="/:", errors="surrogateescape")
        # A path begins with one slash: after "x://" it must stay, after "host/" it must go.
        before = self.template.partition("{path}")[0]
        if before.endswith("://"):
            quoted = "/" + quoted.lstrip("/")
        elif before.endswith("/"):
            quoted = quoted.lstrip("/")
        values = {"path": quoted, "line": str(max(line, 1)), "column": str(max(column, 1))}
        return re.sub(r"\{(path|line|column)\}", lambda found: values[found[1]], self.template)


def parse_editor(text: str) -> EditorLink:
    """Return the editor that *text* names: one of `NAMES`, a command, or a URL with ``{path}``.

    Raises:
        ValueError: it is none of these; the text says what to write instead.
    """
    text = text.strip()
    name = text.lower()
    template = NAMES.get(_COMMANDS.get(name, name))
    if template is not None:
        return EditorLink(template)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme is None or "{path}" not in text:
        raise ValueError(
            f"unknown editor {text!r}: use one of {', '.join(NAMES)}, or a URL such as "
            "'myeditor://open?file={path}&line={line}'"
        )
    if scheme[1].lower() in _DANGEROUS_SCHEMES:
        raise ValueError(f"a link with {scheme[1]}: does not open an editor")
    if wrong := re.search(r"\{(?!path\}|line\}|column\})[^}]*\}?", text):
        raise ValueError(f"{wrong[0]} is not a placeholder: use {{path}}, {{line}} and {{column}}")
    return EditorLink(text)


@functools.cache
def detected() -> EditorLink:
    """Return the editor of this machine's user, as far as it can be detected."""
    return detect(os.environ, lambda command: shutil.which(command) is not None)


def detect(environ: Mapping[str, str], is_installed: Callable[[str], bool]) -> EditorLink:
    """Return the editor that *environ* names, else one that *is_installed*, else VS Code."""
    name = _editor_of_terminal(environ) or _editor_of_variables(environ)
    name = name or _COMMANDS[next(filter(is_installed, _COMMANDS), "code")]
    template = NAMES[name]
    distribution = environ.get("WSL_DISTRO_NAME")
    if distribution and template.endswith(_LIKE_CODE) and name != "zed":
        # The browser and the editor run in Windows, which knows the files of Linux by other names.
        template = template.replace("://file/", f"://vscode-remote/wsl+{quote(distribution)}/")
    return EditorLink(template)


def _editor_of_terminal(environ: Mapping[str, str]) -> str:
    found = [f"{name}={environ[name]}" for name in _TERMINAL_VARIABLES if name in environ]
    traces = " ".join(found).lower()
    return next((name for word, name in _TERMINAL_WORDS.items() if word in traces), "")


def _editor_of_variables(environ: Mapping[str, str]) -> str:
    for variable in ("VISUAL", "EDITOR"):
        path = environ.get(variable, "").replace("\\", "/").partition(" ")[0]
        command = Path(path).name.lower().removesuffix(".exe").removesuffix(".cmd")
        if command in _COMMANDS:
            return _COMMANDS[command]
    return ""
