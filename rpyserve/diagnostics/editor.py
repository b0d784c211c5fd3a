"""Links that open a file in the author's editor: URLs that the browser follows, never a request to this server.

An editor is a URL with ``{path}``, ``{line}`` and ``{column}`` in it. Which one it is says ``--editor``; else what this
process was started from (an editor's terminal, ``$VISUAL``, ``$EDITOR``), else what is installed, else VS Code.
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

__all__ = ["NAMES", "EditorLink", "detected", "parse_editor"]

_LIKE_CODE: Final = "://file/{path}:{line}:{column}"
_JETBRAINS: Final = "://open?file={path}&line={line}&column={column}"
_TEXTMATE: Final = "://open?url=file://{path}&line={line}&column={column}"

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
"""The names that ``--editor`` knows, and their URLs."""

_COMMANDS: Final = {
    "code": "vscode", "code-insiders": "vscode-insiders", "codium": "codium", "vscodium": "codium",
    "cursor": "cursor", "windsurf": "windsurf", "zed": "zed", "zeditor": "zed",
    "pycharm": "pycharm", "charm": "pycharm", "idea": "idea", "subl": "sublime", "sublime_text": "sublime",
    "mate": "textmate", "mvim": "macvim",
}  # fmt: skip
"""What the editors' commands are called."""
_INSTALLED: Final = (
    "code",
    "cursor",
    "windsurf",
    "codium",
    "zed",
    "zeditor",
    "pycharm",
    "charm",
    "subl",
)
_DANGEROUS: Final = frozenset({"javascript", "data", "vbscript", "blob", "about"})


@dataclass(frozen=True, slots=True)
class EditorLink:
    """How to open a file. *template* is a URL, or empty for no links."""

    template: str = ""

    def link(self, path: str, line: int = 1, column: int = 1) -> str:
        """Return the URL that opens *path*; empty if there is none.

        Args:
            path: absolute.
            line, column: counted from 1.
        """
        if not self.template or not PurePath(path).is_absolute():
            return ""
        slashed = quote(
            path.replace("\\", "/") if os.name == "nt" else path,
            safe="/:",
            errors="surrogateescape",
        )
        before = self.template.partition("{path}")[0]
        if before.endswith("://"):
            slashed = "/" + slashed.lstrip("/")
        elif before.endswith("/"):
            slashed = slashed.lstrip("/")
        places = {"path": slashed, "line": str(max(line, 1)), "column": str(max(column, 1))}
        return re.sub(r"\{(path|line|column)\}", lambda found: places[found[1]], self.template)


def parse_editor(text: str) -> EditorLink:
    """Return the editor that *text* means: one of `NAMES`, or a URL with ``{path}`` in it.

    Raises:
        ValueError: it is neither, with what to write instead.
    """
    text = text.strip()
    name = text.lower()
    if name in NAMES or name in _COMMANDS:
        return EditorLink(NAMES[_COMMANDS.get(name, name)])
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme is None or "{path}" not in text:
        raise ValueError(
            f"{text!r} is not a known editor: use one of {', '.join(NAMES)}, or a URL such as 'myeditor://open?file={{path}}"
            "&line={line}'"
        )
    if scheme[1].lower() in _DANGEROUS:
        raise ValueError(f"a link with {scheme[1]}: opens no editor")
    if wrong := re.search(r"\{(?!path\}|line\}|column\})[^}]*\}?", text):
        raise ValueError(f"{wrong[0]} is not a placeholder: use {{path}}, {{line}} and {{column}}")
    return EditorLink(text)


@functools.cache
def detected() -> EditorLink:
    """Return the editor of this machine's user, as far as can be told."""
    return detect(os.environ, lambda command: shutil.which(command) is not None)


def detect(environ: Mapping[str, str], has: Callable[[str], bool]) -> EditorLink:
    """Return the editor that *environ* tells of, else the first whose command the machine *has*, else VS Code."""
    name = _of_terminal(environ) or _of_variables(environ)
    name = name or next((_COMMANDS[command] for command in _INSTALLED if has(command)), "vscode")
    template = NAMES[name]
    distribution = environ.get("WSL_DISTRO_NAME")
    if distribution and template.endswith(_LIKE_CODE) and name != "zed":
        # The browser and the editor are Windows', and know the files of this Linux by another name.
        template = template.replace("://file/", f"://vscode-remote/wsl+{quote(distribution)}/")
    return EditorLink(template)


def _of_terminal(environ: Mapping[str, str]) -> str:
    if environ.get("TERM_PROGRAM") == "vscode":
        hints = " ".join(
            environ.get(name, "") for name in ("VSCODE_GIT_ASKPASS_MAIN", "__CFBundleIdentifier")
        ).lower()
        if "CURSOR_TRACE_ID" in environ or "cursor" in hints:
            return "cursor"
        if "windsurf" in hints:
            return "windsurf"
        if "codium" in hints:
            return "codium"
        return (
            "vscode-insiders" if "insider" in environ.get("TERM_PROGRAM_VERSION", "") else "vscode"
        )
    if "ZED_TERM" in environ or environ.get("TERM_PROGRAM") == "zed":
        return "zed"
    return "pycharm" if "JetBrains" in environ.get("TERMINAL_EMULATOR", "") else ""


def _of_variables(environ: Mapping[str, str]) -> str:
    for name in ("VISUAL", "EDITOR"):
        command = Path((environ.get(name) or " ").replace("\\", "/").split(" ")[0]).name.lower()
        if found := _COMMANDS.get(command.removesuffix(".exe").removesuffix(".cmd")):
            return found
    return ""
