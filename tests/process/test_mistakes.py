"""The mistakes of somebody's first day, each as they would make it, and what the real command says.

Each is a script that a beginner saves and opens. What to write instead must be on the page that they
see and on the console, and `--check` must find what can be found without running it. Tests of the
advice itself, in all its variants, are elsewhere: here, one server has met all mistakes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.real_process import Server, serving

pytestmark = pytest.mark.process

FUNCTION = "def resource(request):\n"
CLASS = "from rpyserve import Resource\n\n\nclass Hello(Resource):\n"
MARKUP = "from rpyserve import html\n\n\n"


@dataclass(frozen=True)
class Mistake:
    """A script, what is said of it, and the rule of ``--check`` that finds it, if one does.

    Args:
        is_error: whether its page is an error page; else only the console says it.
    """

    script: str
    said: str
    rule: str = ""
    is_error: bool = True


MISTAKES = {
    # What is no Python
    "print without parentheses": Mistake(
        'print "hello"\n', 'This is Python 2. In Python 3 write:\nprint("hello")', "syntax-error"
    ),
    "retrun": Mistake(
        FUNCTION + '    retrun "hello"\n',
        "Did you mean 'return'?" if sys.version_info >= (3, 14) else 'this?\nreturn "hello"',
        "syntax-error",
    ),
    "curly quotes": Mistake(
        FUNCTION + "    return \u201chello\u201d\n", "Type straight ones", "syntax-error"
    ),
    "quotes in quotes": Mistake(
        FUNCTION + '    return "<p class="big">hello</p>"\n',
        "Use the other kind there:\n\"<p class='big'>Hello</p>\"",
        "syntax-error",
    ),
    "a text over two lines": Mistake(
        FUNCTION + '    return "<p>\n    hello</p>"\n',
        'For several lines write three quotes:\n"""<h1>Hello</h1>',
        "syntax-error",
    ),
    "an apostrophe": Mistake(
        FUNCTION + "    return 'It's me'\n",
        'Put double quotes around it:\n"It\'s here"',
        "syntax-error",
    ),
    "no indentation": Mistake(
        FUNCTION + "return 'hello'\n",
        "Indent the lines after the colon by four spaces.",
        "syntax-error",
    ),
    "tabs and spaces": Mistake(
        FUNCTION + "    if 1:\n\tx = 1\n        return 'a'\n",
        "Use four spaces everywhere.",
        "syntax-error",
    ),
    "else if": Mistake(
        FUNCTION + "    if 1:\n        return 'a'\n    else if 2:\n        return 'b'\n",
        "Write:\nelif 2:",
        "syntax-error",
    ),
    "HTML in the script": Mistake(
        "<h1>Hello</h1>\n", "Give its name the extension .html", "syntax-error"
    ),
    "await in def": Mistake(
        "import trio\n\n\n" + FUNCTION + "    await trio.sleep(1)\n    return 'a'\n",
        "Write `async def`:\n",
        "syntax-error",
    ),
    # What is no page
    "resourse": Mistake(
        'def resourse(request):\n    return "hello"\n',
        "Did you mean this?\ndef resource(request):",
        "no-resource",
    ),
    "no request": Mistake(
        "def resource():\n    return 'a'\n", "Add it:\ndef resource(request):", "wrong-resource"
    ),
    "resource = resource()": Mistake(
        FUNCTION + "    return 'a'\n\n\nresource = resource()\n",
        "The server calls the function itself, with each request. Remove this line.",
        "wrong-resource",
    ),
    "the class itself": Mistake(
        CLASS + "    def render_GET(self, request):\n        return 'a'\n\n\nresource = Hello\n",
        "Add parentheses:\nresource = Hello()",
        "wrong-resource",
    ),
    "no self": Mistake(
        CLASS + "    def render_GET(request):\n        return 'a'\n\n\nresource = Hello()\n",
        "Write:\ndef render_GET(self, request):",
        "wrong-parameters",
    ),
    "render_get": Mistake(
        CLASS + "    def render_get(self, request):\n        return 'a'\n\n\nresource = Hello()\n",
        "Write:\ndef render_GET(self, request):",
        "misspelled-method",
    ),
    # What is returned
    "print for return": Mistake(
        FUNCTION + "    print('hello')\n",
        "print() writes to the server's console. Write instead:\nreturn 'hello'",
        "wrong-result",
    ),
    "a text that is dropped": Mistake(
        FUNCTION + "    name = 'Ada'\n    f'Hello {name}'\n",
        "This text is made, and then dropped. Write:\nreturn f'Hello {name}'",
        "wrong-result",
    ),
    "a number": Mistake(FUNCTION + "    return 42\n", "Write return str(42).", "wrong-result"),
    "a tuple": Mistake(
        FUNCTION + "    return 'Not here', 404\n",
        "as Flask's views do. Write request.setResponseCode(404) before the return",
    ),
    "a function": Mistake(
        FUNCTION + "    return request.field\n", "without calling it. Write return field(...)."
    ),
    # What is called or read
    "input()": Mistake(
        FUNCTION + "    return input('Name?')\n", 'read it with request.field("answer")'
    ),
    "sys.exit()": Mistake(
        "import sys\n\n\n" + FUNCTION + "    sys.exit()\n",
        "sys.exit() ends programs, and this one is the server. Remove it",
        "wrong-result",
    ),
    "count += 1": Mistake(
        "count = 0\n\n\n" + FUNCTION + "    count += 1\n    return str(count)\n",
        'session["count"] = session.get("count", 0) + 1',
    ),
    "request.form": Mistake(
        FUNCTION + "    return request.form['name']\n",
        'Write:\nrequest.field("name")',
        "unknown-attribute",
    ),
    "a field that nobody sent": Mistake(
        FUNCTION + "    return request.field('name')\n",
        'give a default (FILE, line 2): request.field("name", "")',
    ),
    "text is no number": Mistake(
        FUNCTION
        + "    guess = request.field('guess', '5')\n    return 'low' if guess < 7 else ''\n",
        'For a number, write:\nrequest.field("n", type=int)',
    ),
    "a misspelled name": Mistake(
        FUNCTION + "    name = 'Ada'\n    return nmae\n",
        "Did you mean this?\nname",
        "undefined-name",
    ),
    "getsession": Mistake(
        FUNCTION + "    request.getsession()['n'] = 1\n    return 'a'\n",
        "Did you mean this?\ngetSession",
        "unknown-attribute",
    ),
    "a file beside the script": Mistake(
        FUNCTION + "    return open('words.txt').read()\n",
        'write:\nopen(Path(__file__).with_name("words.txt"))',
    ),
    "asyncio": Mistake(
        "import asyncio\n\n\nasync " + FUNCTION + "    await asyncio.sleep(1)\n    return 'a'\n",
        "In place of sleep() write:\nawait trio.sleep(1)",
    ),
    "a forgotten await": Mistake(
        "import trio\n\n\nasync " + FUNCTION + "    trio.sleep(1)\n    return 'a'\n",
        "sleep() was called without `await`, so it never ran.",
        is_error=False,
    ),
    # What is imported
    "what is not installed": Mistake(
        "import skimage\n\n\n" + FUNCTION + "    return 'a'\n",
        "pip install scikit-image",
        "unresolved-import",
    ),
    "a page": Mistake(
        "import page\n\n\n" + FUNCTION + "    return page.greet()\n",
        "page.rpy is a script, which cannot be imported. Move what both need into a module",
        "unresolved-import",
    ),
    "a name of Python's": Mistake(
        "import calendar\n\n\n" + FUNCTION + "    return calendar.mine()\n",
        "This is Python's own calendar, not the site's calendar.py. Rename that file",
        "shadowed-module",
    ),
    # What is markup, and what is kept
    "braces of CSS": Mistake(
        MARKUP + FUNCTION + "    return html('<style>p {color: red}</style>{}', 1)\n",
        "For the braces of CSS and JavaScript write {{ and }}.",
    ),
    "html(f'...')": Mistake(
        MARKUP + FUNCTION + "    name = request.field('name', 'x')\n"
        "    return html(f'<p>{name}</p>')\n",
        "so they are not escaped: a visitor could send markup or a script",
        "unescaped",
        is_error=False,
    ),
    "f'<p>...'": Mistake(
        FUNCTION + "    return f\"<p>{request.field('name', 'x')}</p>\"\n",
        "This markup has a visitor's text in it, which is not escaped",
        "unescaped",
        is_error=False,
    ),
    "a list of all visits": Mistake(
        "notes = []\n\n\n" + FUNCTION + "    notes.append('a')\n    return str(len(notes))\n",
        '(session = request.getSession()), or in registry["notes"] for all',
        "state-lost-on-request",
        is_error=False,
    ),
}
NAMES = {case: f"m{number}" for number, case in enumerate(MISTAKES)}
"""The scripts' names, which mean nothing."""


@dataclass
class Met:
    """What has been seen of all mistakes."""

    pages: dict[str, httpx.Response]
    server: Server
    findings: list[dict[str, Any]]


def write_site(site: Path) -> None:
    site.mkdir()
    for case, mistake in MISTAKES.items():
        (site / f"{NAMES[case]}.rpy").write_text(mistake.script, encoding="utf-8")
    (site / "page.rpy").write_text("def greet():\n    return 'hi'\n\n\n" + FUNCTION + "    pass\n")
    (site / "calendar.py").write_text("def mine():\n    return 'x'\n")


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Met]:
    where = tmp_path_factory.mktemp("mistakes")
    site = where / "site"
    write_site(site)
    command = [sys.executable, "-m", "rpyserve", str(site), "--check", "--format", "json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=where)
    assert checked.returncode == 1, checked.stderr
    findings = json.loads(checked.stdout)["findings"]
    with serving(site, where) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        pages = {
            case: client.get(f"/{name}", headers={"Accept": "text/html"})
            for case, name in NAMES.items()
        }
        server.wait_for(rf"GET /{list(NAMES.values())[-1]} ")
        yield Met(pages, server, findings)


def test_there_are_many() -> None:
    assert len(MISTAKES) >= 33


def lines_of(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def plain(page: str) -> str:
    """The text of a page of ours, as somebody reads it."""
    return unescape(re.sub(r"<[^>]+>", "", page))


def on_console(server: Server, name: str) -> str:
    """What the console says of the script *name*: entries begin with the time."""
    entries = re.split(r"(?m)^(?=\d\d:\d\d:\d\d )", server.output())
    return "".join(each for each in entries if re.search(rf"\b{name}\b", each))


@pytest.mark.parametrize("case", MISTAKES)
def test_what_is_said(met: Met, case: str) -> None:
    mistake, page = MISTAKES[case], met.pages[case]
    wanted = lines_of(mistake.said.replace("FILE", f"{NAMES[case]}.rpy"))
    if mistake.is_error:
        assert page.status_code in (400, 500)
        assert "\n".join(wanted) in "\n".join(lines_of(plain(page.text)))
    else:
        assert page.status_code == 200
    if page.status_code != 400:
        assert "\n".join(wanted) in "\n".join(lines_of(on_console(met.server, NAMES[case])))


@pytest.mark.parametrize("case", [case for case, each in MISTAKES.items() if each.rule])
def test_what_the_check_finds(met: Met, case: str) -> None:
    found = [each for each in met.findings if each["path"].endswith(f"{NAMES[case]}.rpy")]
    assert [each["rule"] for each in found] == [MISTAKES[case].rule]
    assert found[0]["message"] and found[0]["hint"]


def test_the_server_has_survived(met: Met) -> None:
    assert httpx.get(f"{met.server.url}/calendar").status_code == 404
    assert met.server.process.poll() is None
