"""What the names in a site tell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rpyserve.check import filenames as filenames
from rpyserve.check.filenames import SiteFiles
from rpyserve.check.findings import Finding, Rule
from rpyserve.files import path_rules


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_text("")


def look(root: Path, *names: str, follow: bool = False) -> SiteFiles:
    make(root, *names)
    return SiteFiles(os.path.realpath(root), follow_symlinks=follow)


def told(found: SiteFiles) -> list[tuple[str, Rule]]:
    return sorted(
        (
            (path.replace(os.sep, "/"), finding.rule)
            for path, findings in found.findings.items()
            for finding in findings
        ),
        key=lambda pair: pair[0],
    )


def only(found: SiteFiles) -> Finding:
    ((finding,),) = found.findings.values()
    return finding


def link(path: Path, target: Path | str) -> None:
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("no symbolic links here")


def test_scripts_and_modules(tmp_path: Path) -> None:
    found = look(
        tmp_path, "a.rpy", "sub/b.rpy", "words.py", "sub/more.py", "style.css", "sub/page.html"
    )
    assert sorted(found.scripts) == ["a.rpy", os.path.join("sub", "b.rpy")]
    assert sorted(found.modules) == [os.path.join("sub", "more.py"), "words.py"]
    assert told(found) == []


def test_what_is_no_part_of_the_site_is_left_alone(tmp_path: Path) -> None:
    found = look(
        tmp_path, "node_modules/a.rpy", ".git/b.rpy", "env/pyvenv.cfg", "env/c.rpy", "__pycache__/d.py", ".e.rpy",
        "lib/site-packages/f.py", ".well-known/g.txt", "h.rpyc", "i.pyc", "notes.db", "page.html.j2", "tls.pem",
    )  # fmt: skip
    assert not found.scripts and not found.modules and not found.findings


@pytest.mark.parametrize(
    "name", ["hello.rpy.txt", "hello.RPY", "hello.rpy.html", "Hello.Rpy.py", "hello.rpy.TXT"]
)
def test_a_script_by_another_name(tmp_path: Path, name: str) -> None:
    found = look(tmp_path, name)
    assert told(found) == [(name, Rule.WRONG_EXTENSION)]
    assert only(found).hint == f"Rename it to {name[:5]}.rpy."
    assert found.scripts == found.modules == []


@pytest.mark.parametrize(
    "name", ["hello.rpy~", "hello.rpy.bak", "hello.rpy.orig", "#hello.rpy#", "style.css~", "words.py.old",
             "hello.rpy.txt", "hello.rpy - Copy", "words.py.txt"],
)  # fmt: skip
def test_backups_and_copies(tmp_path: Path, name: str) -> None:
    found = look(tmp_path, "hello.rpy", "words.py", name)
    assert told(found) == [(name, Rule.BACKUP)]
    assert found.scripts == ["hello.rpy"] and found.modules == ["words.py"]


@pytest.mark.parametrize(
    "name",
    ["server.log", "nohup.out", "core", "visits.dat", "a.ipynb", "a.pickle", "a.so", "core.12"],
)
def test_what_one_might_expect_to_be_served(tmp_path: Path, name: str) -> None:
    found = look(tmp_path, name)
    assert told(found) == [(name, Rule.NEVER_SERVED)]
    assert only(found).message in (
        path_rules.private_reason(name),
        path_rules.private_file_reason(name),
    )


def test_a_directory_may_be_called_core(tmp_path: Path) -> None:
    found = look(tmp_path, "core/a.rpy")
    assert told(found) == [] and found.scripts == [os.path.join("core", "a.rpy")]


def test_a_backup_of_a_whole_directory(tmp_path: Path) -> None:
    found = look(tmp_path, "pages.bak/a.rpy")
    assert told(found) == [("pages.bak", Rule.BACKUP)]
    assert found.scripts == []


@pytest.mark.parametrize("other", ["a", "a/", "a/x.css"])
def test_a_file_or_directory_that_comes_before_a_script(tmp_path: Path, other: str) -> None:
    found = look(tmp_path, "sub/a.rpy", f"sub/{other}")
    assert told(found) == [("sub/a.rpy", Rule.SHADOWED_PAGE)]
    assert "/sub/a does not lead to this script, only /sub/a.rpy does" in only(found).message


def test_an_index_that_comes_before_another(tmp_path: Path) -> None:
    found = look(
        tmp_path, "index.rpy", "index.html", "sub/index.rpy", "sub/index.html", "other/index.html"
    )
    assert told(found) == [
        ("index.html", Rule.SHADOWED_PAGE),
        ("sub/index.html", Rule.SHADOWED_PAGE),
    ]
    assert {finding.message for (finding,) in found.findings.values()} == {
        "index.rpy takes precedence: / never shows this file.",
        "index.rpy takes precedence: /sub/ never shows this file.",
    }  # fmt: skip


def test_a_directory_called_like_a_script(tmp_path: Path) -> None:
    found = look(tmp_path, "a.rpy/b.rpy")
    assert told(found) == [("a.rpy", Rule.WRONG_EXTENSION)]
    assert found.scripts == []


@pytest.mark.parametrize(
    "pair",
    [("Hello.rpy", "hello.rpy"), ("caf\u00e9.css", "cafe\u0301.css"), ("A/x.css", "a/y.css")],
)
def test_names_that_collide_elsewhere(tmp_path: Path, pair: tuple[str, str]) -> None:
    make(tmp_path, pair[0])
    if (tmp_path / pair[1].partition("/")[0]).exists():
        pytest.skip("they collide here")
    found = look(tmp_path, *pair)
    assert [kind for _, kind in told(found)] == [Rule.NAME_COLLISION]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("name", ["nul.rpy", "a:b.rpy", "a\\b.rpy", "com1.css"])
def test_names_that_no_url_has(tmp_path: Path, name: str) -> None:
    found = look(tmp_path, name)
    assert told(found) == [(name.replace(os.sep, "/"), Rule.UNREACHABLE)]


def test_links(tmp_path: Path) -> None:
    make(tmp_path, "site/pages/a.rpy", "out/b.rpy", "out/c.css", "site/.env")
    site = tmp_path / "site"
    link(site / "again", site / "pages")
    link(site / "broken", "nowhere")
    link(site / "loop", "loop")
    link(site / "out", tmp_path / "out")
    link(site / "c.css", tmp_path / "out" / "c.css")
    link(site / "env.txt", site / ".env")
    found = look(site)
    assert told(found) == [
        (name, Rule.BAD_LINK) for name in ("broken", "c.css", "env.txt", "loop", "out")
    ]
    assert found.scripts == [os.path.join("pages", "a.rpy")]
    found = look(site, follow=True)
    assert told(found) == [(name, Rule.BAD_LINK) for name in ("broken", "env.txt", "loop")]
    assert sorted(found.scripts) == [os.path.join("out", "b.rpy"), os.path.join("pages", "a.rpy")]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    make(tmp_path, "site/", "out/a.rpy")
    link(tmp_path / "site" / "out", tmp_path / "out")
    link(tmp_path / "out" / "back", tmp_path / "out")
    link(tmp_path / "out" / "site", tmp_path / "site")
    assert look(tmp_path / "site", follow=True).scripts == [os.path.join("out", "a.rpy")]


def test_a_directory_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "locked/a.rpy", "b.rpy")
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(filenames.os, "scandir", scandir)
    found = look(tmp_path)
    assert told(found) == [("locked", Rule.UNREADABLE)]
    assert "Permission denied" in only(found).message
    assert found.scripts == ["b.rpy"]
