"""The recipes for linters and type checkers work, for several scripts and modules of a site."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RECIPES = (ROOT / "docs" / "editors.md").read_text(encoding="utf-8").partition("## Linters")[2]
(COMMANDS,) = re.findall(r"^```sh\n(.*?)^```$", RECIPES, re.MULTILINE | re.DOTALL)
(SETTINGS,) = re.findall(r"^```toml\n(.*?)^```$", RECIPES, re.MULTILINE | re.DOTALL)
SCRIPT = """\
from rpyserve import Request

from words import greet


def resource(request: Request) -> str:
    session = request.getSession()
    session["n"] = request.field("n", 1, type=int)
    return greet({argument})
"""
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def run(tool: str, site: Path, argument: str) -> subprocess.CompletedProcess[str]:
    """Run the recipe for *tool* on two scripts of one name, and a module that both import."""
    (command,) = (line for line in COMMANDS.splitlines() if tool in line)
    if tool == "pyright" and shutil.which("pyright", path=PATH) is None:
        command, tool = command.replace("pyright", "basedpyright"), "basedpyright"
    if shutil.which(tool, path=PATH) is None:
        pytest.skip(f"there is no {tool} here")
    (site / "sub").mkdir(parents=True)
    (site.parent / "pyproject.toml").write_text(SETTINGS)
    (site / "words.py").write_text("def greet(name: str) -> str:\n    return f'Hello {name}'\n")
    (site / "page.rpy").write_text(SCRIPT.format(argument='"Ada"'))
    (site / "sub" / "page.rpy").write_text(SCRIPT.format(argument=argument))
    return subprocess.run(
        command,
        shell=True,
        cwd=site.parent,
        env={**os.environ, "PATH": PATH, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
@pytest.mark.parametrize(
    ("tool", "argument", "said"),
    [
        ("ruff", "name", "F821"),
        ("mypy", "3", 'incompatible type "int"; expected "str"'),
        ("pyright", "3", "reportArgumentType"),
    ],
)
def test_a_recipe_checks_every_script(tmp_path: Path, tool: str, argument: str, said: str) -> None:
    good = run(tool, tmp_path / "good" / "site", '"Bob"')
    assert good.returncode == 0, good.stdout + good.stderr
    bad = run(tool, tmp_path / "bad" / "site", argument)
    assert bad.returncode != 0
    assert said in bad.stdout
    assert "page.rpy" in bad.stdout


def test_a_t_string_is_a_template_to_type_checkers(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "page.py").write_text(
        "from string.templatelib import Template\n\nfrom rpyserve import html\n\n\n"
        "def row(template: Template) -> str:\n    return html(template)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.14", "page.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
