"""The check of a whole site: what is found, how it is printed, and what the page says of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rpyserve import cli
from rpyserve.check import checker
from rpyserve.check.checker import check
from rpyserve.check.findings import Rule
from tests.support.doc_pages import BESIDE, blocks_of

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")

GOOD = "def resource(request):\n    return ''\n"
ALL = {
    "syntax-error.rpy": "print 'hello'\n",
    "no-resource.rpy": "x = 1\n",
    "wrong-resource.rpy": "resource = 'x'\n",
    "misspelled-method.rpy": (
        "from rpyserve import Resource\nclass A(Resource):\n"
        "    def render_get(self, request): pass\nresource = A()\n"
    ),
    "wrong-parameters.rpy": (
        "from rpyserve import Resource\nclass A(Resource):\n"
        "    def render_GET(self): return ''\nresource = A()\n"
    ),
    "wrong-result.rpy": "def resource(request):\n    return 42\n",
    "undefined-name.rpy": "def resource(request):\n    return nmae\n",
    "unknown-attribute.rpy": "def resource(request):\n    return request.getsession()['n']\n",
    "unescaped.rpy": "def resource(request):\n    return f'<p>{request.path}</p>'\n",
    "unresolved-import.rpy": "import nothere\n" + GOOD,
    "shadowed-module.rpy": "import calendar\n" + GOOD,
    "calendar.py": "",
    "shadowed-page.rpy": GOOD,
    "shadowed-page/style.css": "",
    "wrong-extension.rpy.txt": GOOD,
    "transient-object.rpy": (
        "class A: pass\ndef resource(request):\n    request.getSession()['a'] = A()\n    return ''\n"
    ),
    "state-lost-on-request.rpy": "n = []\ndef resource(request):\n    n.append(1)\n    return ''\n",
    "state-lost-on-edit.rpy": "from rpyserve import cache\ncache()\nn = []\ndef resource(request):\n    n.append(1)\n    return ''\n",
    "useless-cache.rpy": "import functools\n@functools.cache\ndef f(): pass\n" + GOOD,
    "missing-cache-file.rpy": "from rpyserve import cache\ncache('shadowed-page/stlye.css', 'shadowed-page/*.css')\n"
    + GOOD,
    "python-warning.rpy": "'\\d'\n" + GOOD,
    "backup.rpy": GOOD,
    "backup.rpy~": GOOD,
    "never-served.ipynb": "",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def rules(root: Path, **how: bool) -> dict[str, list[Rule]]:
    report = check(os.path.realpath(root), **how)
    return {
        path.replace(os.sep, "/"): [finding.rule for finding in found]
        for path, found in report.findings.items()
    }


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.chdir(os.getcwd())  # the command changes the directory

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli.main, [*arguments, "--check"], prog_name="rpyserve")

    return invoke


# What is found


def test_every_rule_is_broken_in_its_file(tmp_path: Path) -> None:
    found = rules(write(tmp_path, ALL))
    for name, there in found.items():
        assert [rule.value for rule in there] == [name.partition(".")[0]], name
    rest = {rule.value for rule in Rule} - {name.partition(".")[0] for name in found}
    assert rest == {
        "unreadable",
        "name-collision",
        "unreachable",
        "bad-link",
    }  # those want a file system that has such things


@pytest.mark.parametrize(
    "text", ["x = '\xe9'".encode("latin-1"), b"\xff\xfex\0", b"a\0b", b"# coding: klingon\n"]
)
def test_what_is_no_text(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.rpy").write_bytes(text)
    (tmp_path / "b.py").write_bytes(text)
    assert rules(tmp_path) == {"a.rpy": [Rule.SYNTAX_ERROR], "b.py": [Rule.SYNTAX_ERROR]}


@pytest.mark.parametrize(
    "text", ["(" * 500, "x = " + "-" * 100_000 + "1", "x = " + " + ".join(["1"] * 100_000)]
)
def test_what_is_nested_too_deep(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"a.rpy": text})
    assert rules(tmp_path)["a.rpy"] in ([Rule.SYNTAX_ERROR], [Rule.NO_RESOURCE])


def test_all_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    write(
        tmp_path, {"a.rpy": "import nothere\nn = 0\ndef page(request):\n    global n\n    n += 1\n"}
    )
    assert sorted(rule.value for rule in rules(tmp_path)["a.rpy"]) == [
        "no-resource",
        "state-lost-on-request",
        "unresolved-import",
    ]


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(checker.file_state, "read", read)
    assert rules(write(tmp_path, {"a.rpy": GOOD})) == {"a.rpy": [Rule.UNREADABLE]}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.rpy")
    assert rules(tmp_path) == {"a.rpy": [Rule.UNREADABLE]}


def test_nothing_is_executed(tmp_path: Path) -> None:
    """Neither scripts, nor packages (of which asking Python for a part would import the whole)."""
    write_file = f"open({str(tmp_path / 'RAN')!r}, 'w').close()\n"
    write(
        tmp_path / "site",
        {
            "a.rpy": write_file + "import helper, pack.part, pack.sub.leaf\nfrom pack import part\n"
            "from . import pack\nimport pack.nothere\n" + GOOD,
            "helper.py": write_file, "pack/__init__.py": write_file, "pack/part.py": write_file,
            "pack/sub/__init__.py": write_file, "pack/sub/leaf.py": write_file, "alone.py": write_file,
            "calendar.py": write_file, "click.py": write_file, "sitecustomize.py": write_file,
        },
    )  # fmt: skip
    command = [sys.executable, "-m", "rpyserve", "--check"]
    done = subprocess.run(command, cwd=tmp_path / "site", capture_output=True, text=True)
    assert done.returncode == 1
    assert "There is no module nothere in pack." in done.stdout
    assert done.stdout.count(".rpy:") == 1
    assert not (tmp_path / "RAN").exists()
    assert not list((tmp_path / "site").rglob("__pycache__"))


def test_a_python_file_that_no_script_imports_need_only_be_python(tmp_path: Path) -> None:
    text = "import nothere\nn = []\ndef f():\n    n.append(1)\n"
    files = {
        "a.rpy": "import store\n" + GOOD,
        "store.py": "from deeper import x\n",
        "deeper.py": text + "x = 1\n",
    }
    write(tmp_path, files | {"tools/make.py": text, "tools/broken.py": "def (:"})
    assert rules(tmp_path) == {
        "deeper.py": [Rule.UNRESOLVED_IMPORT, Rule.STATE_LOST_ON_EDIT],
        "tools/broken.py": [Rule.SYNTAX_ERROR],
    }


def test_where_the_path_of_modules_is_changed_no_import_is_judged(tmp_path: Path) -> None:
    files = {
        "a.rpy": "import sys\nsys.path.append('lib')\nimport inlib\n" + GOOD,
        "b.rpy": "import nothere\nx = 1\n",
    }
    assert rules(write(tmp_path, files)) == {"b.rpy": [Rule.NO_RESOURCE]}


def test_foreign_directories_are_left_alone(tmp_path: Path) -> None:
    names = ("node_modules/x/a.rpy", ".git/a.rpy", "env/lib/a.py", "lib/site-packages/a.py")
    write(tmp_path, dict.fromkeys(names, "def (:") | {"env/pyvenv.cfg": "", "a.rpy": GOOD})
    assert rules(tmp_path) == {}


# How it is printed


def test_findings_are_grouped_and_can_be_clicked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: object
) -> None:
    write(
        tmp_path / "site",
        {"b.rpy": "\n\nresource = None\n", "a.rpy": ALL["state-lost-on-edit.rpy"], "c.RPY": ""},
    )
    monkeypatch.chdir(tmp_path)
    result = invoke("site")  # type: ignore[operator]
    sep = os.sep
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"site{sep}a.rpy:5: `n` is shared by all visitors, but lost when this file is edited. "
        "[state-lost-on-edit]",
        '    Keep it in session["n"] for each visitor (session = request.getSession()), or in '
        'registry["n"] for all of them.',
        "",
        f"site{sep}b.rpy:3: resource is None. [wrong-resource]",
        "    Give that name to a function, or to an instance of a Resource class:",
        "    def resource(request):",
        '        return "<h1>Hello</h1>"',
        "",
        f"site{sep}c.RPY: This file is never served: the name of a script ends in .rpy, in lower "
        "case. [wrong-extension]",
        "    Rename it to c.rpy.",
    ]
    assert result.stderr == "2 scripts checked, 3 faults found.\n"


def test_paths_are_those_of_where_it_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: object
) -> None:
    write(tmp_path / "site", {"a.rpy": "x = 1"})
    write(tmp_path / "else", {"x": ""})
    monkeypatch.chdir(tmp_path / "site")
    assert invoke().stdout.startswith("a.rpy:1: ")  # type: ignore[operator]
    monkeypatch.chdir(tmp_path / "else")
    there = invoke(str(tmp_path / "site")).stdout  # type: ignore[operator]
    assert there.startswith(f"{(tmp_path / 'site' / 'a.rpy').resolve()}:1: ")


def test_notes_alone_are_no_failure(tmp_path: Path, invoke: object) -> None:
    write(tmp_path, {"a.rpy": ALL["useless-cache.rpy"], "b.rpy": ALL["python-warning.rpy"]})
    result = invoke(str(tmp_path))  # type: ignore[operator]
    assert result.exit_code == 0
    assert ": note: " in result.stdout
    assert result.stderr == "2 scripts checked, 2 notes found.\n"
    write(tmp_path, {"a.rpy~": ""})
    result = invoke(str(tmp_path))  # type: ignore[operator]
    assert result.exit_code == 1
    assert result.stderr == "2 scripts checked, 1 fault and 2 notes found.\n"


def test_a_site_without_problems(tmp_path: Path, invoke: object) -> None:
    write(tmp_path, {"a.rpy": GOOD, "words.py": ""})
    result = invoke(str(tmp_path))  # type: ignore[operator]
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "1 script and 1 module checked, no problems found.\n"
    assert invoke(str(tmp_path), "-q").output == ""  # type: ignore[operator]


def test_an_empty_site(tmp_path: Path, invoke: object) -> None:
    result = invoke(str(tmp_path))  # type: ignore[operator]
    assert (result.exit_code, result.stderr) == (0, "0 scripts checked, no problems found.\n")


def test_a_missing_site(tmp_path: Path, invoke: object) -> None:
    result = invoke(str(tmp_path / "nowhere"))  # type: ignore[operator]
    assert result.exit_code == 1
    assert "There is no directory" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    write(tmp_path, {"a\nb.rpy:1: fine.rpy": "x"})
    report = check(os.path.realpath(tmp_path))
    lines = list(report.lines(""))
    assert r"a\nb.rpy:1: fine.rpy" in lines[0]
    assert all(map(str.isprintable, lines))


def test_follow_symlinks_is_the_servers(tmp_path: Path) -> None:
    write(tmp_path, {"site/a.rpy": GOOD, "out/b.rpy": "x = 1"})
    try:
        (tmp_path / "site" / "out").symlink_to(tmp_path / "out")
    except OSError:
        pytest.skip("no symbolic links here")
    assert rules(tmp_path / "site") == {"out": [Rule.BAD_LINK]}
    assert rules(tmp_path / "site", follow_symlinks=True) == {"out/b.rpy": [Rule.NO_RESOURCE]}


# What we have written ourselves


def test_the_sample_site_is_clean(invoke: object) -> None:
    result = invoke(str(ROOT / "sample_site"))  # type: ignore[operator]
    assert (result.exit_code, result.stdout) == (0, "")


NEED_TWISTED = {"programs/later.rpy"}
"""Scripts in the documents whose imports are unresolved where Twisted is not installed."""

MEANT = {
    "check/counter.rpy",
    "check/hello.rpy",
    "check/lost.rpy",
    "check/unescaped.rpy",
    "coding-agents/broken.rpy",
    "index/hello.rpy",
    "sessions/basket.rpy",
}
"""What the documents show as a mistake."""


def test_the_scripts_in_the_documents_are_clean(tmp_path: Path) -> None:
    found = set()
    for document in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        site = tmp_path / document.stem
        for number, block in enumerate(blocks_of(document.read_text(encoding="utf-8"))):
            name = block.title or f"{number}.rpy"
            if (block.language == "python" and "resource" in block.text) or name.endswith(
                (".py", ".j2", ".txt", ".toml", ".env")
            ):
                write(site, {} if BESIDE.fullmatch(name) else {name: block.text})
        if site.exists():
            found |= {f"{document.stem}/{name}" for name in rules(site)}
    assert len(list(tmp_path.glob("*/*.rpy"))) > 50
    assert found - NEED_TWISTED == MEANT


def test_the_page_has_every_rule_and_no_other() -> None:
    faults, notes = PAGE.split("\n## Notes\n")
    headings = {
        part: re.findall(r"^### `([\w-]+)`$", part, re.MULTILINE) for part in (faults, notes)
    }
    assert headings[faults] == [rule.value for rule in Rule if not rule.is_note]
    assert headings[notes] == [rule.value for rule in Rule if rule.is_note]


def test_every_rule_can_be_broken() -> None:
    """No rule is left over from something that is no longer looked for."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rpyserve").rglob("*.py"))
    for rule in Rule:
        assert f"Rule.{rule.name}" in re.sub(r"_NOTES.*", "", text), rule


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("def resource(request):\n    name = 1\n    return nmae\n", "Did you mean name?"),
        ("def resource(request):\n    return json.dumps(1)\n", "Import it:\nimport json"),
        ("def resource(request):\n    return html('x')\n", "Import it:\nfrom rpyserve import html"),
        ("def resource(request):\n    return qqqqq\n", "Define it, or correct its spelling."),
    ],
)
def test_a_name_that_nothing_defines(tmp_path: Path, text: str, hint: str) -> None:
    findings = check(str(write(tmp_path, {"a.rpy": text}))).findings["a.rpy"]
    assert [each.hint for each in findings if each.rule is Rule.UNDEFINED_NAME] == [hint]


@pytest.mark.parametrize(
    "text",
    [
        "from helpers import *\n" + GOOD + "x = nmae\n",
        GOOD + "def f():\n    global later\n    later = 1\ndef g():\n    return later\n",
        GOOD + "try:\n    unicode\nexcept NameError:\n    unicode = str\n",
        GOOD + "exec('made = 1')\nprint(made)\n",
        GOOD + "print(__file__, __name__, __execution__, __annotations__)\n",
        GOOD + "class A:\n    x = 1\n    y = [x for _ in range(3)]\n    print(__qualname__)\n",
        GOOD + "def f[T](x: T) -> T:\n    return x\n" if sys.version_info >= (3, 12) else GOOD,
        "def resource(request):\n    return [y := 1, y][0] and ''\n",
    ],
)
def test_a_name_that_may_be_defined(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"a.rpy": text, "helpers.py": ""})
    rules = {finding.rule for each in check(str(tmp_path)).findings.values() for finding in each}
    assert Rule.UNDEFINED_NAME not in rules


# For programs


def told(site: Path, kind: str) -> str:
    """What the command prints about *site* in the format *kind*."""
    result = CliRunner().invoke(cli.main, [str(site), "--check", "--format", kind, "-q"])
    assert result.exit_code == 1
    return result.stdout


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "a, b%"
    site.mkdir()
    (site / "x.rpy").write_text("x = 1\n")
    (site / "twice.rpy").write_text("import nothere\nimport notthere\n" + GOOD)
    (site / "never.ipynb").write_text("")
    return site


def test_json(faulty: Path) -> None:
    report = json.loads(told(faulty, "json"))
    assert (report["scripts"], report["modules"], report["faults"]) == (2, 0, 3)
    found = [(each["path"], each["line"], each["rule"]) for each in report["findings"]]
    assert found == [
        ("a, b%/never.ipynb", None, "never-served"),
        ("a, b%/twice.rpy", 1, "unresolved-import"),
        ("a, b%/twice.rpy", 2, "unresolved-import"),
        ("a, b%/x.rpy", 1, "no-resource"),
    ]
    assert [each["level"] for each in report["findings"]] == ["note", "fault", "fault", "fault"]
    assert all(each["message"] and each["hint"] for each in report["findings"])


def test_sarif(faulty: Path) -> None:
    log = json.loads(told(faulty, "sarif"))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    known = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert known == ["never-served", "no-resource", "unresolved-import"]
    places = [each["locations"][0]["physicalLocation"] for each in run["results"]]
    assert places[0] == {"artifactLocation": {"uri": "a%2C%20b%25/never.ipynb"}}
    assert places[2]["region"] == {"startLine": 2}
    assert [each["level"] for each in run["results"]] == ["note", "error", "error", "error"]
    assert {each["ruleId"] for each in run["results"]} == set(known)


def test_github(faulty: Path) -> None:
    lines = told(faulty, "github").splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("::notice file=a%2C b%25/never.ipynb,title=never-served::")
    assert lines[2].startswith("::error file=a%2C b%25/twice.rpy,line=2,title=unresolved-import::")
    assert "%0A" in lines[2]


@pytest.mark.parametrize(("kind", "nothing"), [("json", []), ("github", None), ("sarif", [])])
def test_nothing_found(tmp_path: Path, kind: str, nothing: object) -> None:
    (tmp_path / "x.rpy").write_text(GOOD)
    result = CliRunner().invoke(cli.main, [str(tmp_path), "--check", "--format", kind])
    assert result.exit_code == 0
    if kind == "github":
        assert result.stdout == ""
    else:
        log = json.loads(result.stdout)
        assert (log["findings"] if kind == "json" else log["runs"][0]["results"]) == nothing
