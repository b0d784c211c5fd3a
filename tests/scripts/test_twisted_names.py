"""Twisted's names without Twisted."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import rpyserve
from rpyserve.scripts import twisted_names
from tests.support.script_site import ScriptSite

pytestmark = pytest.mark.usefixtures("without_twisted")

in_a_process_without_twisted = pytest.mark.skipif(
    bool(list(importlib.metadata.distributions(name="twisted"))), reason="Twisted is installed"
)


@pytest.fixture
def names(without_twisted: None) -> Iterator[None]:
    assert "twisted" not in sys.modules
    twisted_names.install()
    yield
    twisted_names.uninstall()
    assert not [name for name in sys.modules if name.partition(".")[0] == "twisted"]


@pytest.mark.usefixtures("names")
def test_the_names_are_ours() -> None:
    from twisted.python.components import registerAdapter  # type: ignore[import-not-found]
    from twisted.web.resource import Resource  # type: ignore[import-not-found]
    from twisted.web.server import NOT_DONE_YET, Session, Site  # type: ignore[import-not-found]

    for thing, name in (
        (registerAdapter, "registerAdapter"),
        (Resource, "Resource"),
        (NOT_DONE_YET, "NOT_DONE_YET"),
        (Session, "Session"),
        (Site, "Site"),
    ):
        assert thing is getattr(rpyserve, name)


@pytest.mark.usefixtures("names")
def test_other_ways_to_write_it() -> None:
    import twisted.web.server  # type: ignore[import-not-found]
    from twisted.web import resource, server  # type: ignore[import-not-found]

    assert twisted.web.server is server
    assert resource.Resource is rpyserve.Resource
    assert importlib.util.find_spec("twisted.web.resource") is not None


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("statement", "name", "mend"),
    [
        ("from twisted.internet import reactor", "twisted.internet", "run(site, port=8080)"),
        ("import twisted.internet.defer", "twisted.internet", "await trio.sleep(seconds)"),
        ("from twisted.web import static", "twisted.web.static", "from rpyserve import Directory"),
        (
            "from twisted.web.static import File",
            "twisted.web.static",
            "from rpyserve import Directory",
        ),
        ("from twisted.web.server import Request", "twisted.web.server.Request", ""),
        (
            "from twisted.web.resource import NoResource",
            "twisted.web.resource.NoResource",
            "raise HTTPError(404)",
        ),
        ("from twisted.web.util import redirectTo", "twisted.web.util", "return Redirect(url)"),
        ("from twisted import version", "twisted.version", ""),
    ],
)
def test_any_other_says_what_to_write_or_what_there_is(
    statement: str, name: str, mend: str
) -> None:
    """All of it fits where an error is shown, which cuts what is too long."""
    with pytest.raises(ImportError) as caught:
        exec(statement)
    text = str(caught.value)
    assert f"rpyserve has no {name}. To have Twisted itself: `" in text
    assert mend in text
    provided = (
        "from twisted.web.resource import Resource",
        "from twisted.web.server import Session, Site, NOT_DONE_YET",
        "from twisted.python.components import registerAdapter",
    )
    assert [each in text for each in provided] == [not mend] * 3
    without_command = re.sub("`.*?pip install twisted`", "", text)
    assert len(without_command) < 260


@pytest.mark.usefixtures("names")
def test_dunder_names_are_asked_for_by_python_itself() -> None:
    import twisted.web.server

    assert not hasattr(twisted.web.server, "__wrapped__")
    assert not hasattr(twisted, "__version__")


def test_a_program_asks_for_them_as_well_as_a_site() -> None:
    twisted_names.install()
    twisted_names.install()
    twisted_names.uninstall()
    import twisted.web.resource  # type: ignore[import-not-found]  # noqa: F401

    twisted_names.uninstall()
    twisted_names.uninstall()
    assert "twisted" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="No module named 'twisted'"):
        exec("import twisted.web.resource")


def test_a_twisted_that_is_there_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = ModuleType("twisted")
    monkeypatch.setitem(sys.modules, "twisted", genuine)
    genuine.__path__ = []
    twisted_names.install()
    try:
        assert importlib.import_module("twisted") is genuine
        with pytest.raises(ModuleNotFoundError, match=r"No module named 'twisted\.web'"):
            importlib.import_module("twisted.web")
    finally:
        twisted_names.uninstall()
    assert sys.modules["twisted"] is genuine


def test_the_counter_of_the_series(tmp_path: Path) -> None:
    site = ScriptSite(tmp_path)
    site.write(
        "counter.rpy",
        "cache()\n\nfrom zope.interface import Interface, Attribute, implementer\n"
        "from twisted.python.components import registerAdapter\n"
        "from twisted.web.server import Session\n"
        "from twisted.web.resource import Resource\n\nclass ICounter(Interface):\n"
        '    value = Attribute("An int value which counts up once per page view.")\n\n'
        "@implementer(ICounter)\n"
        "class Counter(object):\n    def __init__(self, session):\n        self.value = 0\n\n"
        "registerAdapter(Counter, Session, ICounter)\n\nclass CounterResource(Resource):\n"
        "    session = Session(None, None)\n    def render_GET(self, request):\n"
        "        counter = ICounter(self.session)\n        counter.value += 1\n"
        '        return "Visit #%d for you!" % (counter.value,)\n\nresource = CounterResource()\n',
    )
    try:
        assert [site.get("counter.rpy") for _ in range(2)] == [
            "Visit #1 for you!",
            "Visit #2 for you!",
        ]
        error = site.error("from twisted.internet import reactor\n")
        begin = "ModuleNotFoundError: rpyserve has no twisted.internet. To have Twisted itself: "
        assert error.message.startswith(begin)
    finally:
        site.scripts.close()


@in_a_process_without_twisted
def test_a_program_needs_only_import_rpyserve(tmp_path: Path) -> None:
    """And a library that asks for Twisted by itself still gets its "no"."""
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "asks.py").write_text(
        "try:\n    import twisted\nexcept ImportError:\n    twisted = None\n"
    )
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, sysconfig\n"
        f"sys.path.append({str(library)!r})\n"
        "import rpyserve, rpyserve.util.author_code\n"
        "known = rpyserve.util.author_code._python_directories()\n"
        f"rpyserve.util.author_code._python_directories = lambda: (*known, {str(library)!r})\n"
        "import asks\n"
        "print(asks.twisted)\n"
        "from twisted.web.server import Session, Site\n"
        "print(Site is rpyserve.Site, Session is rpyserve.Session)\n"
        "try:\n    from twisted.internet import reactor\nexcept ImportError as exc:\n"
        "    print(exc)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    nothing, same, refused = done.stdout.splitlines()
    assert (nothing, same) == ("None", "True True")
    assert "run(site, port=8080)" in refused


def test_a_directory_whose_name_begins_with_rpyserve_is_the_authors() -> None:
    # In a thread, so that no other code of an author has called it.
    path = f"{Path(rpyserve.__file__).parent}_examples/counter.py"
    found: list[object] = []
    namespace = {"found": found, "find": twisted_names.find_for_author}
    exec(compile("def ask(): found.append(find('twisted.web'))", path, "exec"), namespace)
    thread = threading.Thread(target=namespace["ask"])
    thread.start()
    thread.join()
    try:
        assert found != [None]
    finally:
        twisted_names.uninstall()


@in_a_process_without_twisted
def test_a_prompt_needs_only_import_rpyserve() -> None:
    code = "import rpyserve\nfrom twisted.python.components import registerAdapter as r\n"
    code += "print(r is rpyserve.registerAdapter)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
