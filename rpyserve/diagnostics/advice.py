"""Advice about an exception that came out of a script, for people who are new to rpyserve.

The advice is a table, `ROWS`: each row names a kind of exception and says when it applies (by a
pattern in the message, by one in the line of source, by a function) and what to do. The first row
that applies wins. Large subjects have modules of their own: `syntax_advice`, `import_advice`,
`async_advice` and `name_advice`.

Advice is a sentence, followed by lines to write. No advice is better than wrong advice: an
exception that explains itself gets none. A test provokes each row by real code, because the
patterns depend on Python's own messages.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rpyserve.diagnostics import async_advice, name_advice
from rpyserve.diagnostics.import_advice import for_attribute_of_module, for_import_error
from rpyserve.diagnostics.syntax_advice import for_syntax_error
from rpyserve.scripts import validation
from rpyserve.scripts.source import innermost_author_line

__all__ = ["ROWS", "Advice", "advice_for"]

log = logging.getLogger("rpyserve")


@dataclass(frozen=True, slots=True)
class Advice:
    r"""One row of the table. It applies if all its conditions hold and its text is not empty.

    Attributes:
        kind: the class of the exception.
        text: the advice. ``\1`` stands for the first group of *pattern*. Or a function of the
            exception that returns the advice.
        pattern: a regular expression that is found in the exception's message.
        line: a regular expression that is found in the author's line of source that failed.
        when: a function of the exception.
    """

    kind: type[BaseException]
    text: str | Callable[[Any], str]
    pattern: str = ""
    line: str = ""
    when: Callable[[Any], bool] = lambda exc: True

    def apply(self, exc: BaseException) -> str:
        """Return the advice about *exc*; empty if this row does not apply."""
        if not isinstance(exc, self.kind) or not self.when(exc):
            return ""
        found = re.search(self.pattern, str(exc))
        if found is None or not re.search(self.line, innermost_author_line(exc)[1]):
            return ""
        if isinstance(self.text, str):
            return found.expand(self.text.replace("\n", r"\n"))
        return self.text(exc)


def advice_for(exc: BaseException) -> str:
    """Return what to do about *exc*, which came out of a script; empty if there is no advice."""
    try:
        return next(filter(None, (row.apply(exc) for row in ROWS)), "")
    except Exception as failure:  # an odd object in the exception must not cost its page
        log.debug("There is no hint for %s: %r", type(exc).__name__, failure)
        return ""


# Names

_PYTHON2: Final = "This is Python 2. In Python 3 write:\n"

_NAMES: Final = {
    "self": "A method must take it as a parameter:\ndef render_GET(self, request):",
    "request": "A function must take it as a parameter:\ndef resource(request):",
    "null": "Did you mean this?\nNone",
    "unicode": f"{_PYTHON2}str",
    "raw_input": f'{_PYTHON2}request.field("name")',
    "xrange": f"{_PYTHON2}range",
    "implements": f"{_PYTHON2}@implementer(ICounter)\nclass Counter:",
}
"""What to do about a name that is not defined."""

_METHODS: Final = {"has_key": f"{_PYTHON2}key in d", "iteritems": f"{_PYTHON2}d.items()"}
"""What to do about a method that a dict does not have."""


def _local_without_value(exc: UnboundLocalError) -> str:
    frame, _ = innermost_author_line(exc)
    found = re.search(r"local variable '(\w+)'", str(exc))
    if frame is None or found is None or found[1] not in frame.f_globals:
        return ""
    name = found[1]
    return (
        f"The function assigns {name}, so {name} is a local variable, and has no value yet. To "
        f"keep a value from one visit to the next, write:\nsession = request.getSession()\n"
        f'session["{name}"] = session.get("{name}", 0) + 1'
    )


# Keys


def _with_key(text: str) -> Callable[[Any], str]:
    return lambda exc: text.format(repr(exc.args[0]))


def _key_is(kind: type) -> Callable[[Any], bool]:
    return lambda exc: bool(exc.args) and isinstance(exc.args[0], kind)


# Calls


def _no_adapter(exc: Any) -> str:
    found = re.search(r"InterfaceClass [\w.%]*?(\w+)>", str(exc))
    name = found[1] if found else "ICounter"
    line = f"registerAdapter({name[1:]}, Session, {name})"
    return f"There is no adapter for {name}. Write once, after the class:\n{line}"


def _method_without_self(exc: Any) -> str:
    found = re.search(r"(\w+)\.(\w+)\(\) takes", str(exc))
    frame, _ = innermost_author_line(exc)
    if found is None or frame is None:
        return ""
    method = getattr(frame.f_globals.get(found[1]), found[2], None)
    function = validation.describe_function(method, found[2])
    names = function.parameters
    if function.signature is None or names[:1] in (["self"], ["cls"]):
        return ""
    parameters = ", ".join(("self", *names))
    return f"A method must take self. Write in {found[1]}:\ndef {found[2]}({parameters}):"


# Everything else


def _endless_recursion(exc: Any) -> str:
    names = [frame.name for frame in traceback.extract_tb(exc.__traceback__)[-20:]]
    if any("repr" in name for name in names):
        return "A value contains itself, or is nested too deeply."
    name = max(set(names), key=names.count, default="A function")
    return f"{name} calls itself without end. Give it a case in which it does not."


def _relative_path(exc: Any) -> str:
    name = exc.filename
    if not isinstance(name, str) or re.match(r"([A-Za-z]:)?[/\\]", name):
        return ""
    last = re.split(r"[/\\]", name)[-1]
    return (
        "A relative path starts at the site's directory, wherever the script is. For a file "
        f'beside the script write:\nopen(Path(__file__).with_name("{last}"))'
    )


_NEEDS_SESSION: Final = "is called with the session. Write{}:\ndef __init__(self, session):"
_TO_BYTES: Final = (
    "Text and bytes cannot be mixed. Remove the b before the quotes, or write:\n"
    'text.encode("utf-8")'
)
_TO_TEXT: Final = (
    'Text and bytes cannot be mixed. Make text of the bytes:\ntext = data.decode("utf-8")'
)

ROWS: Final = (
    Advice(
        SystemExit,
        "sys.exit() ends programs, and this one is the server. Remove it; to stop early, use if "
        "and else.",
    ),
    Advice(SyntaxError, for_syntax_error),
    Advice(RecursionError, _endless_recursion),
    # Imports
    Advice(
        ImportError,
        "One dot is the script's own directory, two dots are the one above it. The site's "
        "directory is the topmost.",
        pattern=r"no known parent package|beyond top-level package",
    ),
    Advice(
        ImportError,
        _NAMES["implements"],
        pattern=r"cannot import name 'implements' from 'zope\.interface'",
    ),
    Advice(
        ImportError,
        r"\1 is still being imported: two modules import each other. Import within a function, or "
        "move what both need into a third module.",
        pattern=r"partially initialized module '([\w.]+)'",
    ),
    Advice(ImportError, for_import_error),
    # Names
    Advice(UnboundLocalError, _local_without_value),
    Advice(NameError, lambda exc: _NAMES.get(exc.name, "")),
    Advice(
        NameError, name_advice.for_name, when=lambda exc: not isinstance(exc, UnboundLocalError)
    ),
    # Attributes
    Advice(AttributeError, for_attribute_of_module),
    Advice(AttributeError, async_advice.for_coroutine),
    Advice(AttributeError, name_advice.for_member),
    Advice(AttributeError, lambda exc: _METHODS.get(exc.name, "")),
    Advice(
        AttributeError,
        "This is text (str) already. Remove .decode().",
        when=lambda exc: exc.name == "decode" and isinstance(exc.obj, str),
    ),
    Advice(
        AttributeError,
        'These are bytes. Make text of them first:\ntext = data.decode("utf-8")',
        when=lambda exc: exc.name in ("encode", "format") and isinstance(exc.obj, bytes),
    ),
    Advice(
        AttributeError,
        'A form may have several files of the same name. The first one is:\nrequest.file("photo")',
        line=r"request\.files\[",
        when=lambda exc: isinstance(exc.obj, list),
    ),
    Advice(
        AttributeError,
        async_advice.for_asyncio,  # it asked for its event loop, and there is none
        when=lambda exc: exc.obj is None and exc.name == "create_future",
    ),
    Advice(
        AttributeError,
        "The value before the dot is None. Perhaps a function has no `return`, or a .get() found "
        "nothing.",
        when=lambda exc: exc.name is not None and exc.obj is None,
    ),
    Advice(AttributeError, name_advice.for_attribute),
    # Keys
    Advice(
        KeyError,
        lambda exc: f"Names are text here, not bytes. Write:\n{exc.args[0].decode('latin-1')!r}",
        when=_key_is(bytes),
    ),
    Advice(
        KeyError,
        _with_key(
            "No file was chosen, or the form has no enctype. Write:\nrequest.file({})",
        ),
        line=r"request\.files",
    ),
    Advice(
        KeyError,
        _with_key(
            'The query or form has no such field. With a default:\nrequest.field({}, "")',
        ),
        line=r"request\.args|\.args\[",
    ),
    Advice(
        KeyError,
        _with_key("The session has no such value yet. With a default:\nsession.get({}, 0)"),
        line=r"(?i)session",
        when=_key_is(str),
    ),
    Advice(
        KeyError,
        _with_key("The registry has no such value yet. With a default:\nregistry.get({}, 0)"),
        line=r"registry",
        when=_key_is(str),
    ),
    # Calls
    Advice(
        TypeError,
        'json is a method. Write:\nrequest.json()["name"]',
        pattern=r"'method' object is not subscriptable",
        line=r"request\.json\[",
    ),
    Advice(TypeError, _no_adapter, pattern=r"Could not adapt"),
    Advice(
        TypeError,
        async_advice.for_asyncio,
        pattern=r"unrecognized yield message|library written for",
    ),
    Advice(TypeError, async_advice.for_await),
    Advice(TypeError, async_advice.for_coroutine),
    Advice(
        TypeError,
        _method_without_self,
        pattern=r"\w+\.\w+\(\) takes \d+ positional arguments? but \d+ (was|were) given",
    ),
    Advice(
        TypeError,
        "The factory of an adapter " + _NEEDS_SESSION.format(r" in \1"),
        pattern=r"(\w+)\.__init__\(\) takes 1 positional argument but 2 were given",
    ),
    Advice(
        TypeError,
        "If this class is the factory of an adapter, it " + _NEEDS_SESSION.format(""),
        pattern=r"\(\) takes no arguments",
    ),
    Advice(
        TypeError,
        "Write:\ndef \\1(self, request):",
        pattern=r"(render\w*)\(\) (missing 1 required|takes \d) positional",
    ),
    # Text, bytes and other values
    Advice(
        TypeError,
        'Text can only be joined with text. Write:\nf"Visit {number}"',
        pattern=r"""can only concatenate str(?!.*"bytes")|not "int"\) to str""",
    ),
    Advice(
        TypeError,
        _TO_TEXT,
        pattern=r"not bytes\b|bytes found|string pattern on a bytes|not 'bytes'|\(not \"bytes\"\)"
        r"|got 'bytes'",
    ),
    Advice(TypeError, _TO_BYTES, pattern=r"bytes.*\bstr\b|\bstr\b.*bytes"),
    Advice(
        TypeError,
        "JSON can only hold text, numbers, True, False, None, lists and dicts. Convert the value: "
        "str(x), or list(x).",
        pattern=r"not JSON serializable",
    ),
    # Everything else
    Advice(
        RuntimeError,
        "The loop changes the dict that it goes through. Use a copy:\nfor key in list(d):",
        pattern=r"changed size during iteration",
    ),
    Advice(RuntimeError, async_advice.for_runtime_error),
    Advice(FileNotFoundError, _relative_path),
    Advice(
        UnicodeDecodeError,
        'Say which encoding the file has:\nopen(name, encoding="utf-8")',
        when=lambda exc: ".decode(" not in innermost_author_line(exc)[1],
    ),
)
"""The rows in their order; the first that applies wins."""
