"""Advice about names: those of Twisted's and Flask's requests, forgotten imports, misspellings.

Names are looked up without calling any code of the author's.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import linecache
import re
import sys
from collections.abc import Iterable
from typing import Any, Final

from rpyserve._names import PUBLIC
from rpyserve.diagnostics.values import attributes
from rpyserve.http.request import Request
from rpyserve.scripts.source import innermost_author_line
from rpyserve.sessions.session import Session
from rpyserve.util.text import closest_match

_REQUEST: Final = (
    # Twisted's
    ("getHost host", "request.server"),
    ("getClientAddress transport", "request.client"),
    ("getAllHeaders requestHeaders", 'request.getHeader("user-agent")'),
    ("responseHeaders", 'request.setHeader("Content-Type", "text/plain")'),
    ("setLastModified", 'request.setHeader("Last-Modified", ...)'),
    ("setETag", 'request.setHeader("ETag", ...)'),
    ("received_cookies", "request.cookies"),
    ("isSecure", 'request.scheme == "https"'),
    ("clientproto", "request.http_version"),
    ("prePathURL", '"/".join(request.prepath)'),
    ("URLPath", "request.path"),
    ("notifyFinish", "async def render_GET(self, request):\n    try:\n        ...\n    finally:"),
    ("registerProducer", "yield chunk  # a generator sends a page in pieces"),
    # Flask's and others'
    ("form values params query_params GET POST", 'request.field("name")'),
    ("get", 'request.field("name", "")'),
    ("data body get_data", "request.content.read()"),
    ("get_json", "request.json()"),
    ("headers user_agent", 'request.getHeader("user-agent")'),
    ("host_url getRequestHostname", 'request.getHeader("host")'),
    ("remote_addr getClientIP", "request.client[0]"),
    ("query_string", "request.query"),
    ("full_path", "request.uri"),
)
_SESSION: Final = (
    ("permanent", "session.sessionTimeout = None"),
    ("modified", 'session["name"] = value'),
    ("invalidate", "session.expire()"),
    ("sid", "session.uid"),
)
# What rpyserve has in place of a member of another server's class.
_MEMBERS: Final = {
    kind: {name: line for names, line in rows for name in names.split()}
    for kind, rows in {Request: _REQUEST, Session: _SESSION}.items()
}

# The modules of names that are often used without an import.
_HOMES: Final = {
    "Path": "pathlib", "date": "datetime", "timedelta": "datetime", "dataclass": "dataclasses",
    "defaultdict": "collections", "randint": "random", "choice": "random", "sqrt": "math",
    "escape": "html", "quote": "urllib.parse", "sleep": "trio", "open_nursery": "trio",
    **dict.fromkeys(PUBLIC, "rpyserve"),
}  # fmt: skip
_MODULES: Final = {*sys.stdlib_module_names, "trio"}
# The keywords that are a statement by themselves.
_STATEMENTS: Final = ("return", "pass", "break", "continue", "raise")


def for_member(exc: AttributeError) -> str:
    """Return the advice about a member of another server's requests or sessions."""
    for kind, names in _MEMBERS.items():
        if issubclass(type(exc.obj), kind) and exc.name in names:
            return f"rpyserve's {kind.__name__} has no {exc.name}. Write:\n{names[exc.name]}"
    return ""


def for_name(exc: Any) -> str:
    """Return the advice about a name that is not defined: import it, or what it may stand for."""
    if exc.name in _HOMES:
        return f"Import it first:\nfrom {_HOMES[exc.name]} import {exc.name}"
    if exc.name in _MODULES:
        return f"Import it first:\nimport {exc.name}"
    frame, line = innermost_author_line(exc)
    if frame is None:
        return ""
    if "self" in frame.f_locals and exc.name in _members(frame.f_locals["self"]):
        return f"{exc.name} belongs to the object. Write:\nself.{exc.name}"
    statements = _STATEMENTS if line.strip() == exc.name else ()
    return _did_you_mean(exc.name, [*statements, *frame.f_locals, *frame.f_globals, *dir(builtins)])


def for_attribute(exc: Any) -> str:
    """Return the advice about an attribute that is misspelled."""
    return _did_you_mean(exc.name, _members(exc.obj))


def for_keyword(exc: SyntaxError) -> str:
    """Return the advice about a misspelled keyword: the line in which it is right.

    It is one if the line is Python with it: a word that is merely like a keyword is not enough.
    """
    lines = linecache.getlines(exc.filename or "")
    number = exc.lineno or 0
    if not 1 <= number <= len(lines):
        return ""
    line = lines[number - 1]
    for found in re.finditer(r"\b[A-Za-z]{2,9}\b", line):
        for meant in _keywords_like(found[0]):
            mended = f"{line[: found.start()]}{meant}{line[found.end() :]}"
            if _is_python([*lines[: number - 1], mended, *lines[number:]], number):
                return f"Did you mean this?\n{mended.strip()}"
    return ""


def _keywords_like(word: str) -> list[str]:
    import difflib

    if keyword.iskeyword(word):
        return []
    return difflib.get_close_matches(word, keyword.kwlist, 2, 0.6)


def _is_python(lines: list[str], number: int) -> bool:
    """Whether *lines* are Python, at least as far as line *number*."""
    try:
        ast.parse("".join(lines))
    except SyntaxError as exc:
        return (exc.lineno or 0) > number
    except ValueError:  # a NUL byte
        return False
    return True


def for_import(module: str, name: str) -> str:
    """Return the advice about a *name* that *module*, which has been imported, does not have."""
    loaded = sys.modules.get(module)
    names: Any = getattr(loaded, "__all__", None) or getattr(loaded, "__dict__", ())
    return _did_you_mean(name, names)


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of *names* that *name* is a misspelling of; None if there is none."""
    if not 3 <= len(name) <= 80:
        return None
    return closest_match(name, {*names} - {name})


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    found = closest(name, names)
    return f"Did you mean this?\n{found}" if found else ""


def _members(thing: object) -> list[str]:
    """The names in the classes of *thing* and what it holds; `dir` would call its code."""
    own = [name for name, _ in attributes(thing)]
    return [*own, *(name for kind in type(thing).__mro__ for name in vars(kind))]
