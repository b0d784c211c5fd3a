"""Imports that nothing satisfies, found without importing anything."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from rpyserve.check.bindings import ModuleBindings
from rpyserve.check.findings import Finding, Rule
from rpyserve.check.imports import ImportChecker
from rpyserve.scripts.importer import SiteModules

pytestmark = pytest.mark.usefixtures("without_twisted")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with a module, packages with and without ``__init__``, and a script's directory."""
    explode = "raise SystemExit('executed')\n"
    for name, text in {
        "words.py": explode + "SKIES = 1\nif SKIES:\n    def later(): pass\n",
        "any.py": explode + "from words import *\n",
        "lazy.py": explode + "def __getattr__(name): return 1\n",
        "pack/__init__.py": explode + "from .inner import thing\n",
        "pack/inner.py": explode + "thing = 1\n",
        "plain/leaf.py": explode,
        "sub/beside.py": explode + "x = 1\n",
        "sub/deep/leaf.py": explode,
        "node_modules/foreign.py": explode,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def found(site: Path, text: str, name: str = "a.rpy") -> list[Finding]:
    tree = ast.parse(text)
    before = set(sys.modules)
    findings = sorted(
        ImportChecker(SiteModules(site)).check(tree, ModuleBindings(tree), str(site / name)),
        key=lambda f: f.line,
    )
    assert not {"words", "pack", "plain", "sub", "any"} & (set(sys.modules) - before)
    return findings


SATISFIED = [
    "import os.path, json, xml.etree.ElementTree, __future__",
    "import trio, zope.interface, h11._events",
    "import rpyserve, rpyserve.site\n"
    "from rpyserve import Resource, html, registry, cache, site, __version__",
    "from rpyserve import *",
    "from twisted.web.resource import Resource\n"
    "from twisted.web.server import Session, Site, NOT_DONE_YET",
    "import twisted.web.server\nfrom twisted.web import server, resource\n"
    "from twisted.python import components",
    "import words\nfrom words import SKIES, later, __name__",
    "from any import whatever\nfrom lazy import whatever",
    "import pack, pack.inner\nfrom pack import thing, inner\nfrom pack.inner import thing",
    "import plain.leaf\nfrom plain import leaf\nimport sub.deep.leaf\nfrom sub import beside, deep",
    "from . import words, pack, plain\nfrom .words import SKIES\nfrom .pack.inner import thing",
    "try:\n    import nothere\nexcept ImportError:\n    import neither",
    "try:\n    from words import nothing\nexcept (KeyError, ModuleNotFoundError):\n    pass",
    "try:\n    import nothere\nexcept:\n    pass",
    "from contextlib import suppress\nwith suppress(ImportError):\n    import nothere",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nothere",
    "import typing\nif typing.TYPE_CHECKING:\n    import nothere",
    "import sys\nif sys.platform == 'win32':\n    import nothere",
    "import sys\nif sys.version_info < (3, 9):\n    import nothere\nelse:\n    import words",
]


@pytest.mark.parametrize("text", SATISFIED)
def test_satisfied(site: Path, text: str) -> None:
    assert found(site, text) == []


UNMET = {
    "import nothere": ("nothere", "pip install nothere"),
    "import yaml_x.y": ("yaml_x.y", "install"),
    "def f():\n    import nothere": ("nothere", "install"),
    "try:\n    import nothere\nexcept ValueError:\n    pass": ("nothere", "install"),
    "if a:\n    import nothere": ("nothere", "install"),
    "import urllib2": ("urllib2", "import urllib.request"),
    "from words import SKYES": ("There is no SKYES in words.py", "Did you mean SKIES?"),
    "import words.more": ("There is no module more in words", "remove the import"),
    "import pack.iner": ("There is no module iner in pack", "Did you mean inner?"),
    "from pack import other": ("There is no other in pack", "remove the import"),
    "from plain import twig": ("There is no twig in plain", "remove the import"),
    "from . import wrods": ("There is no wrods beside this file", "Did you mean words?"),
    "from .wrods import x": (
        "There is no module wrods in the site's directory",
        "Did you mean words?",
    ),
    "from .. import words": (".. leads out of the site", "topmost"),
    "from rpyserve import Resorce": ("rpyserve has no Resorce", "Did you mean Resource?"),
    "from twisted.internet import reactor": (
        "rpyserve has no twisted.internet.reactor",
        "trio.sleep",
    ),
    "from twisted.web.server import Request": (
        "rpyserve has no twisted.web.server.Request",
        "from twisted.web",
    ),
    "from twisted.web.vhost import NameVirtualHost": (
        "rpyserve has no twisted.web.vhost",
        "addHost",
    ),
    "from twisted.web.wsgi import WSGIResource": (
        "rpyserve has no twisted.web.wsgi",
        "WSGIResource(app)",
    ),
    "from twisted.web.proxy import ReverseProxyResource": (
        "rpyserve has no twisted.web.proxy",
        "http://",
    ),
    "from twisted.web.guard import HTTPAuthSessionWrapper": (
        "rpyserve has no twisted.web.guard",
        "BasicAuth(",
    ),
    "from twisted.cred.portal import Portal": ("rpyserve has no twisted.cred", "BasicAuth("),
    "import twisted.web.static": ("rpyserve has no twisted.web.static", "DIRECTORY"),
    "class A(Resource): pass": ("Resource is not imported", "from rpyserve import Resource"),
    "def resource(request):\n    return html('')": (
        "html is not imported",
        "from rpyserve import html",
    ),
}


@pytest.mark.parametrize("text", UNMET)
def test_unmet(site: Path, text: str) -> None:
    (finding,) = found(site, text)
    message, hint = UNMET[text]
    assert finding.rule is Rule.UNRESOLVED_IMPORT
    assert message in finding.message
    assert hint in finding.hint
    assert (
        text.splitlines()[finding.line - 1]
        .strip()
        .startswith(("import", "from", "class", "return"))
    )


def test_beside_a_script_in_a_directory(site: Path) -> None:
    (finding,) = found(site, "import beside", "sub/b.rpy")
    assert finding.hint.endswith("from . import beside")
    assert (
        found(
            site, "from . import beside\nfrom .beside import x\nfrom .. import words", "sub/b.rpy"
        )
        == []
    )
    (finding,) = found(site, "import beside")
    assert finding.hint.endswith("from sub import beside")


def test_a_helper_that_another_module_hides(site: Path) -> None:
    (site / "calendar.py").write_text("mine = 1\n")
    (site / "trio.py").write_text("mine = 1\n")
    own, installed = found(site, "import calendar\nfrom trio import mine")
    assert (own.rule, own.line) == (Rule.SHADOWED_MODULE, 1)
    assert "Python's own, not the site's calendar.py" in own.message
    assert "`from . import calendar`" in own.hint
    assert (installed.rule, installed.line) == (Rule.SHADOWED_MODULE, 2)
    assert "an installed module of that name" in installed.message
    assert found(site, "from . import calendar\nfrom .calendar import mine") == []


@pytest.mark.parametrize(
    "text",
    ["html = 1\nhtml", "def f(html):\n    html", "def f():\n    from words import SKIES as "
                                                 "html\n    html",
     "def f():\n    html = 1\n    return html", "from any import *\nhtml", "for html in x:\n    html",
     "def f():\n    def html(): pass\n    html", "def f():\n    class html: pass\n    html()"],
)  # fmt: skip
def test_a_name_of_the_scripts_own_needs_no_import(site: Path, text: str) -> None:
    assert found(site, text) == []


def test_a_broken_module_is_not_judged_by_its_names(site: Path) -> None:
    (site / "words.py").write_text("def (:")
    assert found(site, "from words import anything") == []


def test_what_is_reached(site: Path) -> None:
    imports = ImportChecker(SiteModules(site))
    tree = ast.parse(
        "from pack import inner\nimport words\ntry:\n    import sub.beside\nexcept ImportError:\n"
        "    pass"
    )
    assert list(imports.check(tree, ModuleBindings(tree), str(site / "a.rpy"))) == []
    names = {Path(file).relative_to(site).as_posix() for file in imports.reached}
    assert names == {"pack/__init__.py", "pack/inner.py", "words.py", "sub/beside.py"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import sys\nsys.path.insert(0, 'lib')", True),
        ("from sys import path\npath.append('lib')", True),
        ("def f():\n    import site\n    site.addsitedir('lib')", True),
        ("import os.path\nos.path.join", False),
    ],
)
def test_the_path_of_modules_may_be_changed(site: Path, text: str, expected: bool) -> None:
    imports = ImportChecker(SiteModules(site))
    tree = ast.parse(text)
    list(imports.check(tree, ModuleBindings(tree), str(site / "a.rpy")))
    assert imports.search_path_changes is expected
