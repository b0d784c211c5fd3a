"""Advice about an exception that came out of a script, for people who are new to rpyserve.

The advice is a table, `ROWS`: each row names a kind of exception and says when it applies (by a
pattern in the message, by one in the line of source, by a function) and what to do. The first row
that applies wins. Imports and names, which take a look around, have modules of their own:
`import_advice` and `name_advice`.

Advice is a sentence, followed by lines to write. No advice is better than wrong advice: an
exception that explains itself gets none. A test provokes each row by real code, because the
patterns depend on Python's own messages.
"""

from __future__ import annotations

import inspect
import linecache
import logging
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Final

from rpyserve.diagnostics import name_advice
from rpyserve.diagnostics.import_advice import (
    PYTHON2,
    for_attribute_of_module,
    for_import_error,
)
from rpyserve.http.errors import WrongResult
from rpyserve.http.response import json_conversion
from rpyserve.scripts import validation
from rpyserve.scripts.source import find_dropped_text, innermost_author_line, source_lines
from rpyserve.util.author_code import PACKAGE_DIRECTORY, is_author_code
from rpyserve.util.exceptions import ScriptInterrupted
from rpyserve.util.html import html

log = logging.getLogger("rpyserve")


@dataclass(frozen=True, slots=True)
class Advice:
    r"""One row of the table. It applies if all its conditions hold and its text is not empty.

    Attributes:
        kind: the class of the exception.
        text: the advice. ``\1`` stands for the first group of *line*; if that has no groups, of
            *pattern*. Or a function of the exception that returns the advice.
        pattern: a regular expression that is found in the exception's message.
        line: a regular expression that is found in the author's line of source that failed, or of
            a syntax error in its own line.
        when: a function of the exception.
    """

    kind: type[BaseException]
    text: str | Callable[[Any], str]
    pattern: str = ""
    line: str = ""
    when: Callable[[Any], object] = lambda exc: True

    def apply(self, exc: BaseException) -> str:
        """Return the advice about *exc*; empty if this row does not apply."""
        if not isinstance(exc, self.kind) or not self.when(exc):
            return ""
        found = re.search(self.pattern, str(exc))
        at = re.search(self.line, _line(exc) if self.line else "")
        if found is None or at is None:
            return ""
        if not isinstance(self.text, str):
            return self.text(exc)
        groups = at if at.re.groups else found
        return groups.expand(self.text.replace("\n", r"\n"))


def _line(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError):
        return (exc.text or "").strip()
    return innermost_author_line(exc)[1]


def advice_for(exc: BaseException) -> str:
    """Return what to do about *exc*, which came out of a script; empty if there is no advice."""
    try:
        return next(filter(None, (row.apply(exc) for row in ROWS)), "")
    except Exception as failure:  # an odd object in the exception must not cost its page
        log.debug("There is no hint for %s: %r", type(exc).__name__, failure)
        return ""


# Conditions and texts of rows


def _in_file(pattern: str) -> Callable[[Any], object]:
    """Whether the file that cannot be compiled has *pattern* in it."""
    return lambda exc: re.search(pattern, "".join(linecache.getlines(exc.filename or "")))


def _is_t_string(exc: SyntaxError) -> object:
    """Whether *exc* complains of the quotation mark of a t-string, which this Python lacks."""
    text, start = exc.text or "", (exc.offset or 1) - 1
    return text[start : start + 1] in {"'", '"'} and re.search(r"(?i)\b(t|tr|rt)$", text[:start])


def _is_global_too(exc: UnboundLocalError) -> bool:
    frame, _ = innermost_author_line(exc)
    found = re.search(r"local variable '(\w+)'", str(exc))
    return frame is not None and found is not None and found[1] in frame.f_globals


def _is_raised_by_rpyserve(exc: BaseException) -> bool:
    """Whether rpyserve's own code raised *exc*, and said in it what to do."""
    entries = list(traceback.walk_tb(exc.__traceback__))
    innermost = entries[-1][0].f_code.co_filename if entries else ""
    return isinstance(exc, WrongResult) or innermost.startswith(PACKAGE_DIRECTORY)


def _for_braces(exc: BaseException) -> str:
    """The advice on a template of `html` that fails before any code of the author's is called."""
    entries = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    codes = [frame.f_code for frame in entries]
    if html.__code__ not in codes:
        return ""
    call = entries[codes.index(html.__code__)]
    if any(is_author_code(code.co_filename) for code in codes[codes.index(html.__code__) :]):
        return ""
    template = call.f_locals["template"]
    field = exc.args[0] if isinstance(exc, KeyError) else ""
    if str(field).isidentifier() and re.search(rf"\{{{field}[}}!.\[]", template):
        return f"Give html a value for {{{field}}}:\nhtml(..., {field}={field})"
    if call.f_locals["args"] or call.f_locals["values"]:
        return _BRACES
    return (
        f"{_BRACES} Markup that is complete, such as that of a plot, goes without html:\n"
        "from markupsafe import Markup\nMarkup(text)"
    )


def _for_json(exc: BaseException) -> str:
    """The advice on a value that `json` cannot hold; its encoder's frame has the value."""
    innermost = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)][-1]
    conversion = json_conversion(innermost.f_locals.get("o"), "x")
    return (
        "JSON can only hold text, numbers, True, False, None, lists and dicts. Write for this "
        f"value x:\n{conversion}"
    )


def _for_dropped_text(exc: WrongResult) -> str:
    """The advice on a function that makes its page, and returns nothing."""
    function: Any = inspect.unwrap(exc.method) if callable(exc.method) else None
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    dropped = find_dropped_text(code, source_lines(code, function.__globals__) or ())
    if dropped is None:
        return ""
    return hint_for_dropped(dropped.source or "...", dropped.is_printed, dropped.is_repeated)


def hint_for_dropped(text: str, is_printed: bool, is_repeated: bool) -> str:
    """Return what to write in place of a *text* that a page drops, or prints."""
    if is_repeated:
        why = "print() writes to the server's console. To send each of them, write:"
        return f"{why}\nyield str({text})"
    if is_printed:
        return f"print() writes to the server's console. Write instead:\nreturn {text}"
    return f"This text is made, and then dropped. Write:\nreturn {text}"


def _is_property_of_css(exc: NameError) -> object:
    name = re.escape(exc.name or "")
    return re.search(rf"\{{\s*{name}[\w-]*\s*:(\s|#|[a-z]{{2}})", innermost_author_line(exc)[1])


def _calls_resource(exc: BaseException) -> str:
    """The advice on ``resource = page()``, where the server is to call the function."""
    frame, line = innermost_author_line(exc)
    found = re.match(r"resource\s*=\s*(\w+)\(", line)
    if frame is None or found is None or frame.f_code.co_name != "<module>":
        return ""
    name = found[1]
    if not inspect.isfunction(frame.f_globals.get(name)):
        return ""
    sentence = "The server calls the function itself, with each request."
    if name == "resource":
        return f"{sentence} Remove this line."
    return f"{sentence} Leave out the parentheses:\nresource = {name}"


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


# What to do about a name that is not defined.
_NAMES: Final = {
    "self": "A method must take it as a parameter:\ndef render_GET(self, request):",
    "request": "A function must take it as a parameter:\ndef resource(request):",
    "null": "Did you mean this?\nNone",
    "unicode": f"{PYTHON2}str",
    "raw_input": f'{PYTHON2}request.field("name")',
    "xrange": f"{PYTHON2}range",
    "implements": f"{PYTHON2}@implementer(ICounter)\nclass Counter:",
}

# What to do about a method that a dict does not have.
_METHODS: Final = {"has_key": f"{PYTHON2}key in d", "iteritems": f"{PYTHON2}d.items()"}

_TO_BYTES: Final = (
    "Text and bytes cannot be mixed. Remove the b before the quotes, or write:\n"
    'text.encode("utf-8")'
)
_TO_TEXT: Final = (
    'Text and bytes cannot be mixed. Make text of the bytes:\ntext = data.decode("utf-8")'
)

_BRACES: Final = (
    "For html, { begins a place for a value. For the braces of CSS and JavaScript write {{ and }}."
)

_TABLES: Final = (
    "The base class, or its MetaData, remembers the tables of an earlier execution of this file. "
    "Create it in the same file as the tables, so that it is new each time:\n"
    "class Base(DeclarativeBase):\n    pass"
)
_TABLES_OF_SQLMODEL: Final = (
    "SQLModel remembers the tables of an earlier execution of this file. Derive them from a base "
    "class of the file's own, which is new each time:\n"
    "from sqlalchemy.orm import registry as tables\n"
    "class Base(SQLModel, registry=tables()):\n    pass"
)

# Await: forgotten, or asyncio's
#
# A coroutine that was not awaited shows up in three ways: in an exception, where a value was
# expected (here), as the result of a method (`resources.rendering`), or not at all
# (`serving.notices`).

_TRIO_LINES: Final = (
    ("sleep", "await trio.sleep(1)"),
    (
        "gather create_task ensure_future TaskGroup wait",
        "async with trio.open_nursery() as nursery:\n    nursery.start_soon(f)",
    ),
    ("wait_for timeout", "with trio.fail_after(5):\n    await f()"),
    ("to_thread", "await trio.to_thread.run_sync(f)"),
    ("Queue", "send, receive = trio.open_memory_channel(10)"),
    ("Event", "trio.Event()"),
    ("Lock", "trio.Lock()"),
    ("Semaphore", "trio.Semaphore(1)"),
    ("open_connection", "stream = await trio.open_tcp_stream(host, port)"),
    ("create_subprocess_exec", "await trio.run_process([...], capture_stdout=True)"),
    (
        "create_subprocess_shell",
        "await trio.run_process(command, shell=True, capture_stdout=True)",
    ),
    ("shield", "with trio.CancelScope(shield=True):"),
)
# What trio has in place of a name of asyncio's.
_TRIO: Final = {name: line for names, line in _TRIO_LINES for name in names.split()}


def _for_coroutine(exc: BaseException) -> str:
    """Return the advice if *exc* says that a value is a ``coroutine``; else an empty text."""
    if not re.search(r"\bcoroutine\b", str(exc)):
        return ""
    frame, line = innermost_author_line(exc)
    for name, value in getattr(frame, "f_locals", {}).items():
        if type(value) is CoroutineType and re.search(rf"\b{re.escape(name)}\b", line):
            call = value.__qualname__.rpartition(".")[2]
            sentence = f"{name} is a coroutine, because its call lacks `await`."
            return f"{sentence} Write:\n{name} = await {call}(...)"
    return "The call of an async function lacks `await`. Write:\nvalue = await f(...)"


def _for_asyncio(exc: BaseException) -> str:
    """Return what to write with trio in place of the asyncio function that failed."""
    sentence = "This needs asyncio, but rpyserve runs on trio: `import trio`."
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        if re.search(r"\basyncio\b", frame.f_code.co_filename) is None:
            continue
        # Of Queue.get, the class says more.
        for name in frame.f_code.co_qualname.split("."):
            if name in _TRIO:
                return f"{sentence} In place of {name}() write:\n{_TRIO[name]}"
    return f"{sentence} Look for trio's counterpart."


def _for_busy_script(exc: ScriptInterrupted) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    own = [frame for frame in frames if is_author_code(frame.f_code.co_filename)]
    if any(frame.f_code.co_flags & _ASYNC for frame in own):
        return (
            "An async function holds the server wherever it does not await. Move what takes long "
            "into a plain function with @in_thread above it, and await that; or write "
            "`await trio.sleep(0)` in the loop."
        )
    return (
        "Everybody waits while a plain function runs. For what takes long on purpose, write "
        "@in_thread above it:\nfrom rpyserve import in_thread\n\n@in_thread\ndef resource(request):"
    )


_ASYNC: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


# The table

_UNTERMINATED: Final = r"unterminated (f-|t-)?string literal"
_QUOTES_IN_F_STRINGS: Final = Advice(
    SyntaxError,
    "Quotes within the braces of an f-string are of the other kind than those around it, "
    "before Python 3.12:\nf\"{user['name']}\"",
    pattern="f-string: (unmatched|expecting)",
)
_T_STRINGS: Final = Advice(
    SyntaxError,
    "t-strings are new in Python 3.14, and this one is older. Give html the values beside the "
    'text:\nhtml("<p>{name}</p>", name=name)',
    when=_is_t_string,
)

ROWS: Final = (
    Advice(
        SystemExit,
        "sys.exit() ends programs, and this one is the server. Remove it; to stop early, use if "
        "and else.",
    ),
    Advice(ScriptInterrupted, _for_busy_script),
    Advice(WrongResult, _for_dropped_text, when=lambda exc: exc.is_nothing),
    # Syntax errors. Where the message explains itself there is no advice.
    Advice(
        SyntaxError,
        "This file is HTML. Give its name the extension .html, or return the HTML from a "
        'function:\ndef resource(request):\n    return """<h1>Hello</h1>"""',
        when=_in_file(r"\A\ufeff?\s*<[!A-Za-z]"),
    ),
    Advice(
        SyntaxError,
        "There are marks of a merge conflict in this file (<<<<<<<). Choose one side and delete "
        "the marks.",
        when=_in_file(r"(?m)^(<{7}|={7}|>{7})( |$)"),
    ),
    Advice(
        SyntaxError,
        "This looks like a Ren'Py script: visual novels use the extension .rpy, too. rpyserve's "
        "scripts are Python.",
        when=_in_file(r"(?m)^\s*(label\s+\w+\s*:|(define|default)\s+[\w.]+\s*=)"),
    ),
    Advice(
        TabError,
        "Some lines are indented with tabs, others with spaces. Use four spaces everywhere.",
    ),
    Advice(
        SyntaxError,
        "Indent the lines after the colon by four spaces. If nothing is to happen, write `pass`.",
        pattern="expected an indented block",
    ),
    Advice(
        SyntaxError,
        "This line is indented less than the block before it, but it matches no line above. "
        "Align it with one of them.",
        pattern="unindent does not match",
    ),
    Advice(
        SyntaxError,
        "This line is indented more than the one above it, for no reason. Align the two.",
        pattern="unexpected indent",
    ),
    Advice(
        SyntaxError,
        "`await` and the like only work in async functions. Write `async def`:\n"
        "async def render_GET(self, request):",
        pattern=r"(await|async \w+|asynchronous \w+)\b.*outside",
    ),
    Advice(
        SyntaxError,
        "Only functions return something. Put it into one:\n"
        'def resource(request):\n    return "..."',
        pattern="'return' outside function",
    ),
    Advice(
        SyntaxError,
        "In your editor, choose Save As and the encoding UTF-8.",
        pattern="UTF-8|UTF-16|NUL byte",
    ),
    Advice(
        SyntaxError,
        "These are curly quotation marks, perhaps copied from a page. Type straight ones: \" or '.",
        pattern="invalid character '[\u2018\u2019\u201c\u201d]'",
    ),
    *([_T_STRINGS] if sys.version_info < (3, 14) else []),
    Advice(
        SyntaxError,
        rf"{PYTHON2}print(\1)",
        pattern="Missing parentheses in call to 'print'",
        line=r"\bprint\s+(.*)",
    ),
    Advice(
        SyntaxError,
        rf"{PYTHON2}except \1 as \2:",
        line=r"\bexcept\s+([\w.]+)\s*,\s*(\w+)\s*:",
    ),
    Advice(
        SyntaxError,
        rf"{PYTHON2}raise \1(\2)",
        line=r"\braise\s+([\w.]+)\s*,\s*(.+)",
    ),
    Advice(SyntaxError, r"Write:\nelif \1", line=r"^else\s+if\s+(.*)"),
    # A library that remembers what an earlier execution defined
    Advice(
        Exception,
        lambda exc: _TABLES_OF_SQLMODEL if "sqlmodel" in sys.modules else _TABLES,
        pattern="Table '.*' is already defined for this MetaData instance",
    ),
    Advice(
        Exception,
        "pickle looks for a class or a function by its name in its module, and this script has "
        "been executed again for another request since. Move it into a .py file beside the script "
        "and import it from there, or write cache() as the first line of the script.",
        pattern=r"(not the same object as|import of module '?|not found as) ?rpysite",
    ),
    Advice(
        SyntaxError,
        'Nothing ends the text that begins here. Write three quotes where it ends: """',
        pattern="unterminated triple-quoted",
    ),
    *([_QUOTES_IN_F_STRINGS] if sys.version_info < (3, 12) else []),
    Advice(
        SyntaxError,
        # Such as "<p class="big">": it ends after the =.
        "A quote within the text ends it. Use the other kind there:\n\"<p class='big'>Hello</p>\"",
        line=r"""(["'])[^"']*<[^"'<>]*=\1[^"']*\1""",
    ),
    Advice(
        SyntaxError,
        'The apostrophe ends the text. Put double quotes around it:\n"It\'s here"',
        pattern=_UNTERMINATED,
        line=r"""'[^'"]*\w'\w""",
    ),
    Advice(
        SyntaxError,
        "A text in such quotes ends on its own line. For several lines write three quotes:\n"
        '"""<h1>Hello</h1>\n<p>Welcome.</p>"""',
        pattern=_UNTERMINATED,
    ),
    Advice(
        SyntaxError,
        # Such as "Say "hello" to them": the word that follows is no text any more.
        "A quote within the text ends it. Use the other kind there:\n\"Say 'hello' to them\"",
        pattern="^invalid syntax",
        line=r"""(["'])[^"']*\1\w+(?:[ ,.!?]+\w+)*[.!?]?\1[^"']*\1""",
    ),
    Advice(SyntaxError, name_advice.for_keyword, pattern=r"^(invalid syntax|expected ':') \("),
    # Endless recursion
    Advice(
        RecursionError,
        "A value contains itself, or is nested too deeply.",
        pattern="repr of an object|encoding a JSON object",
    ),
    Advice(
        RecursionError,
        "A function calls itself without end. Give it a case in which it does not.",
    ),
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
    Advice(
        ImportError,
        for_import_error,
        when=lambda exc: "rpyserve has no" not in str(exc),  # of Twisted's: it explains itself
    ),
    # Names
    Advice(
        UnboundLocalError,
        r"The function assigns \1, so \1 is a local variable, and has no value yet. To keep a "
        "value from one visit to the next, write:\nsession = request.getSession()\n"
        r'session["\1"] = session.get("\1", 0) + 1',
        pattern=r"local variable '(\w+)'",
        when=_is_global_too,
    ),
    Advice(
        NameError,
        "In an f-string, { begins a value. For the braces of CSS and JavaScript write {{ and }}.",
        when=_is_property_of_css,
    ),
    Advice(NameError, lambda exc: _NAMES.get(exc.name, "")),
    Advice(NameError, name_advice.for_name, when=lambda exc: exc.name),
    # Attributes
    Advice(AttributeError, for_attribute_of_module),
    Advice(AttributeError, _for_coroutine),
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
        _for_asyncio,  # it asked for its event loop, and there is none
        when=lambda exc: exc.obj is None and exc.name == "create_future",
    ),
    Advice(
        AttributeError,
        "The value before the dot is None. Perhaps a function has no `return`, or a .get() found "
        "nothing.",
        when=lambda exc: exc.name is not None and exc.obj is None,
    ),
    Advice(AttributeError, name_advice.for_attribute, when=lambda exc: exc.name),
    # Templates of html
    *(Advice(kind, _for_braces) for kind in (KeyError, IndexError, ValueError)),
    # Keys
    Advice(
        KeyError,
        r"Names are text here, not bytes. Write:\n\1",
        pattern=r"""^b(['"].*)""",
    ),
    Advice(
        KeyError,
        r"No file was chosen, or the form has no enctype. Write:\nrequest.file(\1)",
        pattern="(.*)",
        line=r"request\.files",
    ),
    Advice(
        KeyError,
        r'The query or form has no such field. With a default:\nrequest.field(\1, "")',
        pattern="(.*)",
        line=r"request\.args|\.args\[",
    ),
    Advice(
        KeyError,
        r"The session has no such value yet. With a default:\nsession.get(\1, 0)",
        pattern=r"""^(['"].*)""",
        line=r"(?i)session",
    ),
    Advice(
        KeyError,
        r"The registry has no such value yet. With a default:\nregistry.get(\1, 0)",
        pattern=r"""^(['"].*)""",
        line=r"registry",
    ),
    # Calls
    Advice(
        TypeError,
        'json is a method. Write:\nrequest.json()["name"]',
        pattern=r"'method' object is not subscriptable",
        line=r"request\.json\[",
    ),
    Advice(
        TypeError,
        # \1 is the I of an interface, and \2 the rest of its name, which its class has.
        r"There is no adapter for \1\2. Write once, after the class:\n"
        r"registerAdapter(\2, Session, \1\2)",
        pattern=r"Could not adapt[\s\S]*InterfaceClass [\w.%]*?(\w)(\w+)>",
    ),
    Advice(
        TypeError,
        _for_asyncio,
        pattern="library written for",
    ),
    Advice(
        TypeError,
        # The message has one of the two forms; the group of the other one is empty.
        r"This function is not async: it returns a value (\1\2) at once. Remove the `await`.",
        pattern=r"object (\w+) can't be used in 'await'|'(\w+)' object can't be awaited",
    ),
    Advice(TypeError, _for_coroutine),
    Advice(
        TypeError,
        _method_without_self,
        pattern=r"\w+\.\w+\(\) takes \d+ positional arguments? but \d+ (was|were) given",
    ),
    Advice(TypeError, _calls_resource, pattern=r"\(\) missing 1 required positional argument"),
    Advice(
        TypeError,
        "The factory of an adapter is called with the session. Write in \\1:\n"
        "def __init__(self, session):",
        pattern=r"(\w+)\.__init__\(\) takes 1 positional argument but 2 were given",
    ),
    Advice(
        TypeError,
        "If this class is the factory of an adapter, it is called with the session. Write:\n"
        "def __init__(self, session):",
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
        _TO_TEXT,
        pattern=r"not bytes\b|bytes found|string pattern on a bytes|not 'bytes'|got 'bytes'"
        r'|str \(not "bytes"\)',
    ),
    Advice(
        TypeError,
        "One of the two is text, as all that visitors send. For a number, write:\n"
        'request.field("n", type=int)\nor make one of any other text: int(text)',
        pattern=r"('str' and '(int|float)'|'(int|float)' and 'str')|by non-int of type 'str'",
    ),
    Advice(
        TypeError,
        'Text can only be joined with text. Write:\nf"Visit {number}"',
        pattern="can only concatenate str",
    ),
    Advice(
        TypeError,
        _TO_BYTES,
        pattern=r"bytes.*\bstr\b|\bstr\b.*bytes",
        # That lists what a function accepts, such as open(); it was given neither.
        when=lambda exc: "str, bytes or" not in str(exc) and not _is_raised_by_rpyserve(exc),
    ),
    Advice(TypeError, _for_json, pattern=r"not JSON serializable"),
    Advice(
        ValueError,
        "A visitor may send anything. This answers with a plain 400 to what is no number:\n"
        r'request.field("n", type=\1)',
        pattern=r"invalid literal for int|could not convert string to float",
        line=r"\b(int|float)\(request\.(?:field|args)",
    ),
    # Everything else
    Advice(
        RuntimeError,
        "The loop changes the dict that it goes through. Use a copy:\nfor key in list(d):",
        pattern=r"changed size during iteration",
    ),
    Advice(RuntimeError, _for_asyncio, pattern=r"no (running|current) event loop"),
    Advice(
        RuntimeError,
        "The server is already running trio. Write `async def`, and await the function in it.",
        pattern=r"Attempted to call run\(\) from inside a run\(\)",
    ),
    Advice(
        RuntimeError,
        "Top-level code cannot wait. Do it in the method:\nasync def render_GET(self, request):",
        pattern="must be called from async context",
    ),
    Advice(
        RuntimeError,
        "A coroutine can be awaited only once. Call the function again each time:\nawait f(...)",
        pattern="cannot reuse already awaited coroutine",
    ),
    Advice(
        FileNotFoundError,
        "A relative path starts at the site's directory, wherever the script is. For a file "
        r'beside the script write:\nopen(Path(__file__).with_name("\1"))',
        # at the end of the message, the name in quotes, and its last part
        pattern=r": '(?![/\\]|[A-Za-z]:)(?:[^']*[/\\])?([^'/\\]+)'$",
    ),
    Advice(
        UnicodeDecodeError,
        'Say which encoding the file has:\nopen(name, encoding="utf-8")',
        when=lambda exc: ".decode(" not in innermost_author_line(exc)[1],
    ),
)
