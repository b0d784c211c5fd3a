"""The sentences that a beginner needs, one test for each mistake."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rpyserve.diagnostics import advice
from rpyserve.diagnostics.describe import describe
from rpyserve.http.errors import WrongResult
from rpyserve.http.request import Request
from rpyserve.resources.rendering import describe_wrong_result
from rpyserve.resources.resource import FunctionResource
from rpyserve.util.exceptions import Interruption, ScriptInterrupted
from tests.support.script_site import ScriptSite

RESOURCE = "from rpyserve import *\n"
COROUTINE = "async def load(): pass\nuser = load()\ntry:\n    {}\nfinally:\n    user.close()\n"


@pytest.fixture(autouse=True)
def in_the_directory_of_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_loop() -> Iterator[None]:
    """No event loop of asyncio's in this thread: a browser that is driven from it has one."""
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(running)


# What is no Python 3

SYNTAX = {
    "print": ('print "Session", uid, "has expired."\n', 'This is Python 2. In Python 3 write:\nprint("Session", uid, "has expired.")'),
    "except": ("try:\n    pass\nexcept ValueError, e:\n    pass\n", "\nexcept ValueError as e:"),
    "raise": ('raise ValueError, "no"\n', '\nraise ValueError("no")'),
    "Ren'Py": ('define e = Character("Eileen")\n\nlabel start:\n    scene bg room\n    e "Hello"\n    return\n', "This looks like a Ren'Py script"),
    "tabs": ("def f():\n    if 1:\n\tpass\n        pass\n", "Use four spaces everywhere."),
    "no block": ("def f():\nx = 1\n", "Indent the lines after the colon by four spaces"),
    "unexpected indent": ("x = 1\n    y = 2\n", "indented more than the one above it"),
    "unindent": ("if 1:\n        x = 1\n    y = 2\n", "matches no line above"),
    "HTML": ("<h1>Hello</h1>\n", "This file is HTML. Give its name the extension .html"),
    "await": ("def f():\n    await g()\n", "\nasync def render_GET(self, request):"),
    "async with": ("def f():\n    async with g(): pass\n", "\nasync def render_GET(self, request):"),
    "an asynchronous comprehension": ("def f():\n    return [x async for x in g()]\n", "\nasync def render_GET(self, request):"),
    "return": ("return 'x'\n", 'Put it into one:\ndef resource(request):'),
    "merge": ("x = 1\n<<<<<<< HEAD\n", "marks of a merge conflict"),
    "quotes in quotes": ('x = "<p class="big">Hello</p>"\n', "\n\"<p class='big'>Hello</p>\""),
    "quotes in quotes, in a call": ("f('<input name='a' value='{}'>', 1)\n", "Use the other kind there"),
    "quotes in an f-string": ('x = {}\ny = f"{x["a"]}"\n', "\nf\"{user['name']}\""),
    "an apostrophe": ("x = 'It's here'\n", "\n\"It's here\""),
    "a text of several lines": ('x = f"<p>\n  hello</p>"\n', "For several lines write three quotes"),
    "a text without an end": ('x = f"""<p>\n  hello</p>\n', "Write three quotes where it ends"),
    "quotes around a word": ('x = "she said "hi" to me"\n', "\n\"Say 'hello' to them\""),
    "else if": ("if 1:\n    pass\nelse if 2:\n    pass\n", "Write:\nelif 2:"),
    "curly quotes": ("x = \u201cHello\u201d\n", "Type straight ones"),
    "encoding": (b"x = '\xe9'\n", "choose Save As and the encoding UTF-8"),
    "UTF-16": ("x = 1".encode("utf-16"), "choose Save As and the encoding UTF-8"),
}  # fmt: skip


if sys.version_info < (3, 14):
    NEW = "t-strings are new in Python 3.14, and this one is older. Give html the values beside"
    SYNTAX |= {
        f"a t-string, {text}": (f"x = {text}\n", NEW)
        for text in ('html(t"<p>{name}</p>")', "['', rt'<p>']", 'T"""<p>\n{a}"""', 'Tr"a" t"b"')
    }

if sys.version_info >= (3, 12):
    del SYNTAX["quotes in an f-string"]  # there they may be any

if sys.version_info >= (3, 14):
    del SYNTAX["except"]  # there `except ValueError, e:` means two kinds of exceptions


@pytest.mark.parametrize("case", SYNTAX)
def test_what_is_no_python_3(site: ScriptSite, case: str) -> None:
    text, hint = SYNTAX[case]
    error = site.error(text)
    assert isinstance(error.__cause__, SyntaxError)
    assert hint in error.hint
    assert error.message == f"{type(error.__cause__).__name__}: {error.__cause__.msg}"


KEYWORDS = {
    "return": ("def resource(request):\n    retrun 'hi'\n", "return 'hi'"),
    "return, in a block": ("def f(x):\n    if x:\n        retun x\n    y = (\n", "return x"),
    "def": ("defn resource(request):\n    return 'hi'\n", "def resource(request):"),
    "def, transposed": ("dfe resource(request):\n    return 'hi'\n", "def resource(request):"),
    "import": ("imprt os\n", "import os"),
    "from": ("form rpyserve import html\n", "from rpyserve import html"),
    "while": ("wihle True:\n    pass\n", "while True:"),
    "for": ("fro i in range(3):\n    pass\n", "for i in range(3):"),
    "else": ("if 1:\n    pass\nesle:\n    pass\n", "else:"),
    "class": ("clas A:\n    pass\n", "class A:"),
    "return, alone": ("def f():\n    reutrn\nf()\n", "return"),
}


@pytest.mark.parametrize("case", KEYWORDS)
def test_a_misspelled_keyword(site: ScriptSite, case: str) -> None:
    text, line = KEYWORDS[case]
    error = site.error(text)
    explains_itself = "Did you mean" in error.message  # from Python 3.14 on
    assert explains_itself or error.hint == f"Did you mean this?\n{line}"


def test_a_word_that_is_like_a_keyword_is_none(site: ScriptSite) -> None:
    assert site.error("form 5\n").hint == ""
    assert site.error("x = raisin\n").hint == ""
    assert site.error("Class Hello world\n").hint == ""


def test_a_plain_slip_gets_no_hint(site: ScriptSite) -> None:
    assert site.error("x = (1,\n").hint == ""
    assert site.error("def f(:\n    pass\n").hint == ""
    assert "t-string" not in site.error("html('don t' x)\n").hint
    assert "t-string" not in site.error("at'x'\n").hint


def test_a_slip_in_a_helper(site: ScriptSite) -> None:
    site.write("words.py", 'print "x"\n')
    assert 'print("x")' in site.error("import words\n").hint


# Exceptions

RAISED = {
    "unicode": ("x = unicode('a')", "This is Python 2. In Python 3 write:\nstr"),
    "raw_input": ("x = raw_input()", '\nrequest.field("name")'),
    "xrange": ("x = xrange(3)", "\nrange"),
    "true": ("x = true", "Did you mean this?\nTrue"),
    "self": ("def f(): return self\nf()", "\ndef render_GET(self, request):"),
    "request": ("def f(): return request\nf()", "\ndef resource(request):"),
    "has_key": ("{}.has_key(1)", "This is Python 2. In Python 3 write:\nkey in d"),
    "iteritems": ("{}.iteritems()", "\nd.items()"),
    "decode": ("'a'.decode()", "This is text (str) already."),
    "encode": ("b'a'.encode()", 'data.decode("utf-8")'),
    "None": ("x = None\nx.upper()", "The value before the dot is None"),
    "implements": ("from zope.interface import implements", "\n@implementer(ICounter)\nclass Counter:"),
    "an old module": ("import urllib2", "\nimport urllib.request"),
    "not installed": ("import no_such_thing", " -m pip install no_such_thing"),
    "not installed, another name": ("import yaml_, bs4", "-m pip install"),
    "no neighbour": ("from . import no_such_thing", "There is no no_such_thing.py in the site."),
    "no neighbour's name": ("from .no_such_thing import x", "There is no no_such_thing.py in the site."),
    "text and a number": ("'Visit ' + 1", 'f"Visit {number}"'),
    "text and bytes": ("b'a' + 'b'", "Text and bytes cannot be mixed."),
    "text in a join of bytes": ("b''.join(['a'])", 'text.encode("utf-8")'),
    "bytes in a join of text": ("''.join([b'a'])", 'text = data.decode("utf-8")'),
    "text plus bytes": ("'a' + b'b'", 'text = data.decode("utf-8")'),
    "braces of CSS": (RESOURCE + "html('<style>p{color:red}</style>{}', 1)", "write {{ and }}."),
    "braces of a plot": (RESOURCE + "html('<script>f({ })</script>')", "\nMarkup(text)"),
    "braces without a value": (RESOURCE + "html('{}')", "write {{ and }}."),
    "a single brace": (RESOURCE + "html('if (x) {', 1)", "write {{ and }}."),
    "a field without a value": (RESOURCE + "html('<p>{name}')", "\nhtml(..., name=name)"),
    "a value that fails": (RESOURCE + "class V:\n    def __html__(self): {}['a']\nhtml('{}', V())", ""),
    "a text compared with a number": ("'7' < 5", '\nrequest.field("n", type=int)'),
    "a text times a text": ("'7' * '5'", '\nrequest.field("n", type=int)'),
    "a text minus a number": ("'7' - 5", '\nrequest.field("n", type=int)'),
    "a number in a field": (
        RESOURCE + "request = Request('GET', '/?n=x')\nint(request.field('n'))", '\nrequest.field("n", type=int)',
    ),
    "a number elsewhere": ("int('x')", ""),
    "CSS in an f-string": ("f'<style>p {color: red}</style>'", "write {{ and }}."),
    "CSS in an f-string, with a dash": ("f'p { font-size: 2em; }'", "write {{ and }}."),
    "a format in an f-string": ("f'{price:.2f}'", ""),
    "no body": (RESOURCE + "Response(None)", ""),
    "a body of another kind": (RESOURCE + "Response(object())", ""),
    "a function that is called": ("def resource(request): pass\nresource = resource()", "Remove this line."),
    "another function that is called": ("def page(request): pass\nresource = page()", "\nresource = page"),
    "a call that lacks something": ("def f(x): pass\nf()", ""),
    "a list plus bytes": ("[1] + b'b'", ""),
    "None as a file": ("open(None)", ""),
    "None as JSON": ("import json\njson.loads(None)", ""),
    "bytes start with text": ("b'a'.startswith('a')", 'text.encode("utf-8")'),
    "a text pattern on bytes": ("import re\nre.search('a', b'a')", 'text = data.decode("utf-8")'),
    "bytes written as text": ("import io\nio.StringIO().write(b'a')", "Text and bytes cannot be mixed."),
    "text written as bytes": ("import io\nio.BytesIO().write('a')", 'text.encode("utf-8")'),
    "a method without self": (
        "class Shop:\n    def add(item): pass\nShop().add(1)", "A method must take self. Write in Shop:\ndef add(self, item):",
    ),
    "a method with too much": ("class Shop:\n    def add(self, item): pass\nShop().add(1, 2)", ""),
    "implements, imported otherwise": ("class Counter:\n    implements(int)", "\n@implementer(ICounter)\nclass Counter:"),
    "JSON": ("import json\njson.dumps({1, 2})", "JSON can only hold text, numbers"),
    "a date in JSON": ("import json, datetime\njson.dumps([datetime.date(2026, 1, 1)])", "\nx.isoformat()"),
    "no factory": (RESOURCE + "class ICounter(Interface): pass\nICounter(Session(None, None))", "\nregisterAdapter(Counter, Session, ICounter)"),
    "a factory without session": (
        RESOURCE + "class ICounter(Interface): pass\nclass Counter:\n    def __init__(self): pass\n"
        "registerAdapter(Counter, Session, ICounter)\nICounter(Session(None, None))", "\ndef __init__(self, session):"),
    "a factory without __init__": (
        RESOURCE + "class ICounter(Interface): pass\nclass Counter: pass\n"
        "registerAdapter(Counter, Session, ICounter)\nICounter(Session(None, None))", "\ndef __init__(self, session):"),
    "a missing file": ("open('no/words.txt')", 'Path(__file__).with_name("words.txt")'),
    "a file's encoding": ("with open('x.txt', encoding='utf-8') as file:\n    file.read()", 'open(name, encoding="utf-8")'),
    "a loop that changes": ("d = {1: 1}\nfor x in d: d[2] = 2", "\nfor key in list(d):"),
    "a session's value": ("session = {}\nsession['n'] += 1", "\nsession.get('n', 0)"),
    "the registry's value": ("registry['n'] += 1", "\nregistry.get('n', 0)"),
    "bytes as a field": ("class request: args = {}\nrequest.args[b'name']", "Names are text here, not bytes."),
    "a missing field": ("class request: args = {}\nrequest.args['name']", '\nrequest.field(\'name\', "")'),
    "a file as Flask has it": ("class request: files = {}\nrequest.files['photo'].save('x')", "\nrequest.file('photo')"),
    "files as one": ("class request: files = {'a': []}\nrequest.files['a'].filename", '\nrequest.file("photo")'),
    "JSON as Flask has it": ("class Page:\n    def json(self): pass\nrequest = Page()\nrequest.json['a']", '\nrequest.json()["name"]'),
    "one's own words": ("raise ValueError('mine')", ""),
    "sys.exit": ("import sys\nsys.exit()", "sys.exit() ends programs, and this one is the server."),
    "endless recursion": ("def walk(): walk()\nwalk()", "A function calls itself without end."),
    "a value that is too deep": ("x = []\nfor n in range(100_000): x = [x]\nrepr(x)", "A value contains itself, or is nested too deeply."),
    "a local variable": ("n = 0\ndef count():\n    n += 1\ncount()", "so n is a local variable, and has no value yet."),
    "Flask's form": (RESOURCE + "Request('GET', '/').form", '\nrequest.field("name")'),
    "a misspelled attribute": ("[].apend(1)", "\nappend"),
    "an attribute of a coroutine": (COROUTINE.format("user.name"), "user is a coroutine, because its call lacks `await`."),
    "an item of a coroutine": (COROUTINE.format("user['name']"), "user is a coroutine, because its call lacks `await`."),
    "await of a value": ("import trio\nasync def main(): await str(1)\ntrio.run(main)", "it returns a value (str) at once."),
    "trio in trio": ("import trio\nasync def main(): trio.run(main)\ntrio.run(main)", "The server is already running trio."),
    "trio's function at the top level": ("import trio\ntrio.current_time()", "Top-level code cannot wait."),
    "await twice": (
        "import trio\nasync def later(): pass\nwork = later()\nasync def main():\n    await work\n    await work\ntrio.run(main)",
        "A coroutine can be awaited only once.",
    ),
    "asyncio's running loop": ("import asyncio\nasyncio.get_running_loop()", "This needs asyncio, but rpyserve runs on trio"),
    "asyncio's loop": ("import asyncio\nasyncio.Event().wait().send(None)", "\ntrio.Event()"),
    "asyncio's future": (
        "import trio\nclass Future:\n    def __await__(self): yield object()\n"
        "async def main(): await Future()\ntrio.run(main)",
        "Look for trio's counterpart.",
    ),
    "a render method without request": ("class Page:\n    def render_GET(self, request): pass\nPage().render_GET()", "\ndef render_GET(self, request):"),
    "a render method with too much": ("class Page:\n    def render_GET(self): pass\nPage().render_GET(1)", "\ndef render_GET(self, request):"),
    "tables that are defined again": (
        "raise Exception(\"Table 'p' is already defined for this MetaData instance.\")",
        "of an earlier execution of this file",
    ),
    "pickle after another execution": (
        "import pickle\nclass A: pass\na = A()\nclass A: pass\npickle.dumps(a)",
        "Move it into a .py file beside the script",
    ),
    "text found in bytes": ("'a' in b'a'", 'text.encode("utf-8")'),
    "bytes formatted with text": ("b'%s' % 'a'", 'text.encode("utf-8")'),
}  # fmt: skip


@pytest.mark.parametrize("case", RAISED)
def test_what_top_level_code_raises(site: ScriptSite, case: str, no_loop: None) -> None:
    text, hint = RAISED[case]
    site.write("x.txt", b"\xe9")
    error = site.error(text + "\n")
    assert error.__cause__ is not None
    if hint:
        assert hint in error.hint
    else:
        assert error.hint == ""


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> set[advice.Advice]:
    """The rows of the table that win for what these programs raise."""
    site = ScriptSite(tmp_path_factory.mktemp("site"))
    site.write("x.txt", b"\xe9")
    site.write("calendar.py", "")
    site.write("one.py", "from two import b\na = 1\n")
    site.write("two.py", "from one import a\nb = 1\n")
    programs = [text for text, _ in [*RAISED.values(), *SYNTAX.values(), *KEYWORDS.values()]]
    programs += ["import calendar\ncalendar.mine()", "import one", "from ... import x"]
    found: set[advice.Advice] = set()
    with contextlib.chdir(site.root):
        for text in programs:
            exc = site.error(text).__cause__
            assert exc is not None
            found.update([row for row in advice.ROWS if row.apply(exc)][:1])
        found.update([row for row in advice.ROWS if row.apply(nothing_from(site, "print"))][:1])
        busy = ScriptInterrupted(Interruption.TIMEOUT)
        found.update([row for row in advice.ROWS if row.apply(busy)][:1])
    site.scripts.close()
    return found


@pytest.mark.parametrize(
    ("kind", "words"), [("def", "@in_thread\ndef"), ("async def", "await trio")]
)
def test_a_script_that_was_busy_for_too_long(kind: str, words: str) -> None:
    namespace: dict[str, Any] = {"exc": ScriptInterrupted(Interruption.TIMEOUT)}
    exec(compile(f"{kind} page():\n    raise exc\n", "page.rpy", "exec"), namespace)
    with pytest.raises(ScriptInterrupted) as caught:
        result = namespace["page"]()
        result.send(None)
    assert words in advice.advice_for(caught.value)


@pytest.mark.parametrize("number", range(len(advice.ROWS)))
def test_every_row_is_provoked(number: int, applied: set[advice.Advice]) -> None:
    row = advice.ROWS[number]
    assert row in applied, f"nothing provokes {row}"


def test_a_helper_beside_the_script(site: ScriptSite) -> None:
    site.write("sub/helper.py", "")
    site.write("sub/a.rpy", "import helper\n")
    assert site.error(name="sub/a.rpy").hint == (
        "helper.py is beside the script, not in the site's directory. Write:\nfrom . import helper"
    )


def test_a_helper_in_another_directory(site: ScriptSite) -> None:
    site.write("lib/helper.py", "")
    assert (
        site.error("import helper\n").hint == "helper.py is in lib. Write:\nfrom lib import helper"
    )


def test_a_helper_deeper_down(site: ScriptSite) -> None:
    site.write("lib/more/helper.py", "")
    site.write("lib/node_modules/other.py", "")
    assert (
        site.error("import helper\n").hint
        == f"helper.py is in {Path('lib/more')}. Write:\nfrom lib.more import helper"
    )
    assert "pip install other" in site.error("import other\n").hint


def test_a_script_is_no_helper(site: ScriptSite) -> None:
    site.write("helpers.rpy", "def greet(): pass\n")
    site.write("sub/b.rpy", "from . import helpers\n")
    for error in (site.error("import helpers\n"), site.error(name="sub/b.rpy")):
        assert error.hint.startswith("helpers.rpy is a script, which cannot be imported.")
        assert "pip install" not in error.hint


def test_what_is_returned_gets_no_advice_on_its_words(site: ScriptSite) -> None:
    request = Request("GET", "/")
    message = describe_wrong_result(object(), request, FunctionResource(print))
    assert "str, bytes" in message
    assert advice.advice_for(WrongResult(message, print)) == ""


NOTHING = {
    "print": ("print('<h1>Hello</h1>')", "print() writes to the server's console.", "return '<h1>Hello</h1>'"),
    "print in a loop": ("for n in range(3):\n        if n:\n            print(n)", "To send each of them, write:", "yield str(n)"),
    "print after a loop": ("for n in range(3):\n        pass\n    print('x')", "Write instead:", "return 'x'"),
    "an f-string": ("f'<h1>{request.path}</h1>'", "This text is made, and then dropped.", "return f'<h1>{request.path}</h1>'"),
    "html": ("html('<h1>{}', 1)", "and then dropped", "return html('<h1>{}', 1)"),
    "a sum": ("'<h1>' + request.path", "and then dropped", "return '<h1>' + request.path"),
    "a text of several lines": ("request.path\n    '''<h1>\n</h1>'''", "and then dropped", "return ..."),
    "in a branch": ("if request:\n        'x'\n    print('y')", "and then dropped", "return 'x'"),
    "in a handler": ("try:\n        int('x')\n    except ValueError:\n        print('y')", "console", "return 'y'"),
    "a docstring": ("'''Say hello.'''", "", ""),
    "another function": ("def other():\n        print('x')", "", ""),
    "a call": ("request.setHeader('X-A', 'b')", "", ""),
}  # fmt: skip


def nothing_from(site: ScriptSite, case: str) -> WrongResult:
    text = f"from rpyserve import html\n\n\ndef resource(request):\n    {NOTHING[case][0]}\n"
    site.write("a.rpy", text)
    return WrongResult("", site.load().function, is_nothing=True)


@pytest.mark.parametrize("case", NOTHING)
def test_a_page_that_is_made_and_not_returned(site: ScriptSite, case: str) -> None:
    _, sentence, line = NOTHING[case]
    exc = nothing_from(site, case)
    hint = advice.advice_for(exc)
    assert sentence in hint
    assert hint.splitlines()[1:] == ([line] if line else [])
    place = describe(exc).place
    assert place is not None
    assert (place.line == 4) is (line == "")


def test_a_helper_above(site: ScriptSite) -> None:
    site.write("helper.py", "")
    site.write("sub/a.rpy", "from . import helper\n")
    assert site.error(name="sub/a.rpy").hint == (
        "helper.py is in the site's directory. Write:\nimport helper"
    )
    hint = site.error("from sub import helper\n").hint
    assert hint == "helper.py is in the site's directory. Write:\nimport helper"
    site.write("lib/words.py", "")
    site.write("sub/b.rpy", "from .words import x\n")
    assert "words.py is in lib. Write:\nfrom lib import words" in site.error(name="sub/b.rpy").hint


def test_a_hint_that_fails_is_none(site: ScriptSite, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error = site.error(
        "class Odd(KeyError):\n    def __str__(self): raise LookupError('odd')\nraise Odd(1)\n"
    )
    assert error.hint == ""
    assert "There is no hint for Odd: LookupError('odd')" in caplog.text


def test_a_hidden_file(site: ScriptSite, caplog: pytest.LogCaptureFixture) -> None:
    site.write("calendar.py", "def mine(): pass\n")
    for text in ("from calendar import mine\n", "import calendar\ncalendar.mine()\n"):
        hint = site.error(text).hint
        assert "This is Python's own calendar, not the site's calendar.py. Rename that file" in hint
        assert "\nfrom . import calendar" in hint
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_modules_that_import_each_other(site: ScriptSite) -> None:
    site.write("one.py", "from two import b\na = 1\n")
    site.write("two.py", "from one import a\nb = 1\n")
    assert "two modules import each other" in site.error("import one\n").hint


def test_above_the_site(site: ScriptSite) -> None:
    assert "The site's directory is the topmost" in site.error("from ... import x\n").hint


def test_the_pip_line_can_be_run(site: ScriptSite) -> None:
    hint = site.error("import no_such_thing\n").hint
    assert os.path.basename(sys.executable) in hint.splitlines()[-1]


def test_where_there_is_no_pip_there_is_uv(
    site: ScriptSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = site.error("import no_such_thing\n").hint.splitlines()[-1]
    assert line.startswith("uv pip install --python ")
    assert line.endswith(" no_such_thing")


# asyncio

ASYNCIO: dict[str, tuple[Callable[[Any], Any], str]] = {
    "sleep": (lambda work: asyncio.sleep(1), "await trio.sleep(1)"),
    "sleep(0)": (lambda work: asyncio.sleep(0), "await trio.sleep(1)"),
    "wait_for": (lambda work: asyncio.wait_for(work, 1), "with trio.fail_after(5):"),
    "create_task": (lambda work: asyncio.create_task(work), "nursery.start_soon(f)"),
    "to_thread": (lambda work: asyncio.to_thread(print), "await trio.to_thread.run_sync(f)"),
    "Queue": (lambda work: asyncio.Queue().get(), "trio.open_memory_channel(10)"),
    "Event": (lambda work: asyncio.Event().wait(), "trio.Event()"),
    "open_connection": (
        lambda work: asyncio.open_connection("127.0.0.1", 9),
        "trio.open_tcp_stream(host, port)",
    ),
}


async def later() -> str:
    return ""


@pytest.mark.parametrize("case", ASYNCIO)
async def test_asyncio(case: str, no_loop: None) -> None:
    call, instead = ASYNCIO[case]
    work = later()
    with pytest.raises((RuntimeError, TypeError, AttributeError)) as caught:
        await call(work)
    work.close()
    hint = advice.advice_for(caught.value)
    assert "This needs asyncio, but rpyserve runs on trio" in hint
    assert instead in hint


TABLE = """
{base}
class {name}({parent}, table=True):
    id: int | None = Field(default=None, primary_key=True)
def resource(request): return {name}.__name__
"""
IMPORTS = "from sqlmodel import Field, SQLModel\n"
OWN_BASE = """from sqlalchemy.orm import registry as tables
class Base(SQLModel, registry=tables()):
    pass
"""


@pytest.mark.parametrize("cached", ["", "cache()\n"])
@pytest.mark.filterwarnings("ignore:This declarative base already contains")
def test_tables_of_sqlmodel_that_are_defined_again(site: ScriptSite, cached: str) -> None:
    pytest.importorskip("sqlmodel")
    name = f"Row{len(cached)}"
    bad = cached + IMPORTS + TABLE.format(base="", name=name, parent="SQLModel")
    site.write("a.rpy", bad)
    assert site.get() == name
    error = site.error(bad + "# edited\n")
    assert error.hint is not None and error.hint.endswith(OWN_BASE.rstrip())
    for edit in range(3):
        good = cached + IMPORTS + TABLE.format(base=OWN_BASE, name=name, parent="Base")
        site.write("a.rpy", f"{good}# {edit}\n")
        assert [site.get(), site.get()] == [name, name]


@pytest.mark.filterwarnings("ignore:This declarative base already contains")
def test_tables_of_a_base_class_that_outlives_the_script(site: ScriptSite) -> None:
    pytest.importorskip("sqlalchemy")
    site.write(
        "base.py", "from sqlalchemy.orm import DeclarativeBase\nclass Base(DeclarativeBase): pass\n"
    )
    site.write(
        "a.rpy",
        "from base import Base\nfrom sqlalchemy.orm import Mapped, mapped_column\n"
        "class Row(Base):\n    __tablename__ = 'row'\n"
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
        "def resource(request): return 1\n",
    )
    assert site.get() == 1
    assert "of an earlier execution of this file" in site.error().hint
