"""What the documents say is true: their commands, their code, their tables."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rpyserve import Directory, Session, Site
from tests.support.in_process import Visitor

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TWISTED = (ROOT / "docs" / "twisted.md").read_text(encoding="utf-8")
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
HEADINGS = ["Try it", "Run the tests"]


def command(heading: str, language: str = "sh") -> str:
    script = [sys.executable, str(ROOT / ".ci" / "readme_command.py"), heading, language]
    return subprocess.run(
        script, capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout.strip()


def block(with_text: str) -> str:
    (found,) = (code for code in BLOCKS if with_text in code)
    return found


# The two commands


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_first_block_below_the_heading_is_one_line_of_sh(heading: str) -> None:
    section = README.partition(f"\n## {heading}\n")[2]
    first = re.search(r"^```(.*)\n((?:.*\n)*?)```$", section, re.MULTILINE)
    assert first and first[1] == "sh" and first[2] == command(heading) + "\n"


def test_the_commands_do_what_they_are_there_for() -> None:
    assert command("Try it").endswith("rpyserve ./sample_site --session-timeout 5")
    assert command("Run the tests").endswith("python -m pytest")


@pytest.mark.parametrize("heading", HEADINGS)
def test_powershell_has_the_same_steps(heading: str) -> None:
    posix, windows = command(heading), command(heading, "powershell")
    steps = [step.strip() for step in re.split(r"; if \(\$\?\) \{", windows.rstrip("} "))]
    as_posix = [
        step.replace(".\\.venv\\Scripts\\", ".venv/bin/").replace("py -3", "python3")
        for step in steps
    ]
    assert [re.sub(r"'(\.\[\w+\])'", r'"\1"', step) for step in as_posix] == posix.split(" && ")


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
@pytest.mark.parametrize("heading", HEADINGS)
def test_an_older_python_is_told_first_which_one_is_needed(heading: str, tmp_path: Path) -> None:
    older = tmp_path / "python3"
    pretend = (
        "import sys; sys.version_info = (3, 10, 4); sys.version = '3.10.4 (main)'; "
        "exec(sys.argv[1])"
    )
    older.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{pretend}" "$2"\n')
    older.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", command(heading)],
        cwd=tmp_path,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "rpyserve needs Python 3.11 or newer; this is 3.10.4\n"
    assert os.listdir(tmp_path) == ["python3"]


def test_this_python_passes_the_check() -> None:
    (code,) = set(re.findall(r'-c "(.*?)"', README))
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""
    )


@pytest.mark.skipif(os.name == "nt", reason="bash")
def test_ci_runs_readmes_command() -> None:
    assert '$(python3 .ci/readme_command.py "Run the tests")' in (ROOT / ".ci" / "run").read_text(
        encoding="utf-8"
    )
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert shutil.which("bash")
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def test_nothing_is_installed_that_no_index_has() -> None:
    """The package is not published: only its source can be installed."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")]
    for path in [*pages, *ROOT.glob("rpyserve/**/*.py"), *ROOT.glob("sample_site/*.rpy")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install [^`\n;&]*(?<![/.\w])rpyserve\b", text), path


# The code


async def test_the_first_script_has_five_lines_and_works(tmp_path: Path) -> None:
    code = block("Hello {name}")
    assert len(code.splitlines()) == 5
    (tmp_path / "hello.rpy").write_text(code, encoding="utf-8")
    site = Site(Directory(tmp_path))
    async with site.running():
        assert (await Visitor(site).get("/hello")).text == "<h1>Hello world!</h1>"
        assert (await Visitor(site).get("/hello?name=Ada")).text == "<h1>Hello Ada!</h1>"
        assert (await Visitor(site).get("/hello?name=%3Cb")).text == "<h1>Hello &lt;b!</h1>"


@pytest.mark.parametrize(
    "code", [block('session["n"] ='), block("registerAdapter(")], ids=["mapping", "interface"]
)
async def test_the_counters_count(code: str, tmp_path: Path) -> None:
    (tmp_path / "counter.rpy").write_text(code, encoding="utf-8")
    site = Site(Directory(tmp_path))
    async with site.running():
        for visitor in (Visitor(site), Visitor(site)):
            visits = [(await visitor.get("/counter")).text for _ in range(3)]
            assert visits == ["Visit #1 for you!", "Visit #2 for you!", "Visit #3 for you!"]


async def test_without_cache_the_counter_never_gets_past_one(tmp_path: Path) -> None:
    code = block("registerAdapter(").replace("\ncache()\n", "")
    (tmp_path / "counter.rpy").write_text(code, encoding="utf-8")
    site = Site(Directory(tmp_path))
    async with site.running():
        visitor = Visitor(site)
        assert {(await visitor.get("/counter")).text for _ in range(3)} == {"Visit #1 for you!"}


async def test_state_comes_before_interfaces() -> None:
    assert README.index('session["n"]') < README.index("ICounter")


async def test_the_program_makes_a_site_whose_sessions_are_short(autojump_clock: object) -> None:
    namespace: dict[str, object] = {"__name__": "program"}
    exec(block("sessionFactory"), namespace)
    site = namespace["site"]
    assert isinstance(site, Site)
    async with site.running():
        visitor = Visitor(site)
        assert (await visitor.get("/hello")).text.startswith("Hello, ")
        (session,) = site.sessions
        assert isinstance(session, Session) and session.sessionTimeout == 5


# The tables


def rows(text: str, heading: str) -> list[list[str]]:
    section = re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_the_options_are_those_of_the_command() -> None:
    from rpyserve.cli import main

    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0
    for_sure = {
        name
        for param in main.params
        for name in (*param.opts, *param.secondary_opts)
        if name.startswith("-")
    }
    for_sure |= {"-h", "--help"}
    assert {name for name in re.findall(r"--[a-z][a-z-]+", shown.output)} == {
        n for n in for_sure if n[:2] == "--"
    }
    assert names_in(OPTIONS) == for_sure
    assert names_in(README.partition("\n## Options\n")[2].partition("\n## ")[0]) < for_sure


def names_in(text: str) -> set[str]:
    """The options that the tables of *text* explain."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `-")]
    return {name for cell in cells for name in re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", cell)}


def test_every_name_of_the_series_that_scripts_import_is_in_the_table() -> None:
    for name in (
        "NOT_DONE_YET",
        "registerAdapter",
        "Interface",
        "Attribute",
        "implementer",
        "cache",
        "registry",
    ):
        assert f"`{name}" in TWISTED, name
    for name in (
        "Site",
        "Session",
        "getSession",
        "notifyOnExpire",
        "sessionTimeout",
        "sessionFactory",
        "getChild",
    ):
        assert name in TWISTED, name


@pytest.mark.parametrize(
    "document", ["README.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
)
def test_tables_are_whole(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = table.splitlines()
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) == 1 and set(lines[1]) == {"|", "-"}, lines[0]


DOCUMENTS = [
    *(path.name for path in ROOT.glob("*.md")),
    *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    page = ROOT / document
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
