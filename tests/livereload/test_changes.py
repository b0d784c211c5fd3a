"""What browsers are told of changed files: which count, by which names, whom they concern."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from rpyserve.livereload.changes import ANYTHING, MAX_URLS, NOTHING, FileKind, Mounts, PageChange
from rpyserve.livereload.snapshot import FileChanges

ROOT = os.path.abspath("/srv/site")
FILES = os.path.abspath("/srv/elsewhere")


def at(name: str, root: str = ROOT) -> str:
    return os.path.join(root, *name.split("/"))


@pytest.fixture
def mounts() -> Mounts:
    return Mounts([(ROOT, "/"), (FILES, "/files/")])


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("a.rpy", "/a.rpy"),
        ("sub/style.css", "/sub/style.css"),
        ("sub/", "/sub/"),
        ("", "/"),
        ("a b/ü&'.png", "/a%20b/%C3%BC%26%27.png"),
        ("site.db", "*"),
        ("words.py", "*"),
        (".env", "*"),
        ("sub/.git/x", "*"),
        (".well-known/x.json", "/.well-known/x.json"),
    ],
)
def test_urls(mounts: Mounts, name: str, url: str) -> None:
    assert mounts.url_of(at(name)) == url


def test_a_directory_put_into_a_tree(mounts: Mounts) -> None:
    assert mounts.url_of(at("x/y.css", FILES)) == "/files/x/y.css"
    assert mounts.display_name(at("x/y.css", FILES)) == "files/x/y.css"
    assert mounts.display_name(at("x/y.css")) == "x/y.css"


def test_what_is_in_no_directory_of_the_site_has_no_url(mounts: Mounts) -> None:
    assert mounts.url_of(ROOT + "-secret" + os.sep + "x.css") == "*"
    assert mounts.kind_of(os.path.abspath("/etc/passwd")) is FileKind.IGNORED


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (FileKind.SCRIPT, "a.rpy sub/index.rpy"),
        (FileKind.MODULE, "words.py sub/__init__.py"),
        (FileKind.FILE, "style.css words.txt README 4913 .well-known/x"),
        (FileKind.PRIVATE_DATA, "site.db site.sqlite3 site.db-wal page.html.j2 x.pem"),
        (
            FileKind.IGNORED,
            "a.rpy~ .a.rpy.swp .#a.rpy #a.rpy# a.rpy.bak a.rpy.tmp.123 a.rpy___jb_tmp___ x.tmp "
            "x.pyc __pycache__/a.py .env .git/index node_modules.tmp site.db-journal site.db-shm "
            "visits.log sub/.cache/x.css",
        ),
    ],
)
def test_kinds(mounts: Mounts, kind: FileKind, names: str) -> None:
    assert {name: mounts.kind_of(at(name)) for name in names.split()} == dict.fromkeys(
        names.split(), kind
    )


def page_change(
    mounts: Mounts, *names: str, new: Iterable[str] = (), directories: Iterable[str] = ()
) -> PageChange:
    """What pages are told when files called *names* have changed, some of them *new*."""
    files = {at(name): 0.0 for name in names}
    kinds = {path: mounts.kind_of(path) for path in files}
    counting = {path: kind for path, kind in kinds.items() if kind is not FileKind.IGNORED}
    added = frozenset(at(name) for name in (*new, *directories))
    changes = mounts.page_changes(FileChanges(files, added), counting)
    assert changes.keys() <= {ROOT}
    return changes.get(ROOT, NOTHING)


def test_whom_it_concerns(mounts: Mounts) -> None:
    assert page_change(mounts, "a.rpy") == PageChange(frozenset({"/a.rpy"}))
    assert page_change(mounts, "words.py") == PageChange(all=True)
    assert page_change(mounts, "style.css") == PageChange(frozenset({"/style.css"}), data=True)
    assert page_change(mounts, "site.db") == PageChange(frozenset({"*"}), data=True)
    backups = ("a.rpy~", ".a.rpy.swp")
    assert not page_change(mounts, *backups, new=backups)


def test_other_names_change_their_directory(mounts: Mounts) -> None:
    change = page_change(mounts, "sub/new.css", new=["sub/new.css"])
    assert change.urls == {"/sub/", "/sub/new.css"}
    change = page_change(mounts, directories=["empty"])
    assert change.urls == {"/", "/empty/"} and not change.all and not change.data


def test_each_directory_has_changes_of_its_own(mounts: Mounts) -> None:
    files = {at("a.css"): 0.0, at("b.py", FILES): 0.0, at("c.css", FILES): 0.0}
    kinds = {path: mounts.kind_of(path) for path in files}
    changes = FileChanges(files, frozenset({at("c.css", FILES)}))
    assert mounts.page_changes(changes, kinds) == {
        ROOT: PageChange(frozenset({"/a.css"}), data=True),
        FILES: PageChange(frozenset({"/files/c.css", "/files/"}), all=True, data=True),
    }


def test_together() -> None:
    one, two = PageChange(frozenset({"/a"})), PageChange(frozenset({"/b"}), data=True)
    assert one | two == PageChange(frozenset({"/a", "/b"}), data=True)
    assert one | NOTHING == one
    assert one | ANYTHING == ANYTHING


def test_too_many_names_are_anything(mounts: Mounts) -> None:
    names = [f"{n}.css" for n in range(MAX_URLS + 1)]
    assert not page_change(mounts, *names[1:]).lost
    assert page_change(mounts, *names) == ANYTHING


def test_a_name_that_is_no_text_is_shown_with_escapes() -> None:
    mounts = Mounts([("/site", "/")])
    assert mounts.display_name("/site/caf\udce9.txt") == r"caf\xe9.txt"
    assert mounts.display_name("/site/café.txt") == "café.txt"
