"""What to do about an exception that came out of a script, for people who are new to rpyserve.

The advice is a table: each row names a kind of exception and says when it applies (a pattern in the message, a
word in the line of source, the object), and what to write. The first row that applies wins. Whole subjects have modules
of their own: `syntax_advice`, `import_advice`, `async_advice` and `name_advice`. Every piece of advice is a sentence
and the line to write. None is better than a wrong one: an exception that explains itself gets none.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from rpyserve.diagnostics import async_advice, name_advice
from rpyserve.diagnostics.import_advice import for_attribute_of_module, for_import_error
from rpyserve.diagnostics.syntax_advice import for_syntax_error
from rpyserve.scripts import validation

__all__ = ["ROWS", "Advice", "advice_for"]

log = logging.getLogger("rpyserve")


@dataclass(frozen=True, slots=True)
class Advice:
    r"""One row of the table.

    Attributes:
        kind: the class of the exception.
        text: the advice, in which ``\\1`` stands for the first group of *pattern*; or a function of the exception
            that returns the advice, or an empty text if it has none.
        pattern: a regular expression that the exception's message must contain.
        line: a regular expression that the line of source which raised it must contain.
        when: says of the exception whether the row applies.
    """

    kind: type[BaseException]
    text: str | Callable[[Any], str]
    pattern: str = ""
    line: str = ""
    when: Callable[[Any], bool] | None = None

    def apply(self, exc: BaseException) -> str:
        """Return the advice for *exc*; empty if this row does not apply."""
        if not isinstance(exc, self.kind):
            return ""
        found = re.search(self.pattern, str(exc)) if self.pattern else None
        if self.pattern and found is None:
            return ""
        if self.line and not re.search(self.line, async_advice.innermost(exc)[1]):
            return ""
        if self.when is not None and not self.when(exc):
            return ""
        if callable(self.text):
            return self.text(exc)
        return found.expand(self.text.replace("\n", "\\n")) if found else self.text


def advice_for(exc: BaseException) -> str:
    """Return what to do about *exc*, which came out of a script; empty if nothing is known."""
    for row in ROWS:
        try:
            if advice := row.apply(exc):
                return advice
        except Exception as failure:  # an odd object in the exception must not cost its page
            log.debug("There is no hint for %s: %r", type(exc).__name__, failure)
            return ""
    return ""


# What a name or an attribute was in Python 2, in which the series of Twisted is written.
_OLD_NAMES: Final = {
    "unicode": "str",
    "raw_input": 'request.field("name")',
    "xrange": "range",
    "basestring": "str",
    "long": "int",
    "implements": "@implementer(ICounter)\nclass Counter:",
}
_OLD_METHODS: Final = {
    "has_key": "key in d",
    "iteritems": "d.items()",
    "itervalues": "d.values()",
    "iterkeys": "d.keys()",
    "next": "next(iterator)",
}
_OTHER_LANGUAGES: Final = {
    "true": "True",
    "false": "False",
    "null": "None",
    "none": "None",
    "undefined": "None",
}


def _endless_recursion(exc: Any) -> str:
    frames = traceback.extract_tb(exc.__traceback__)[-20:]
    names = [frame.name for frame in frames]
    if any("repr" in name for name in names):
        return "Something is nested in itself, or too deep."
    name = max(set(names), key=names.count, default="A function")
    return f"{name} calls itself without end. Give it a case in which it does not."


def _old_name(exc: Any) -> str:
    return f"{exc.name} is Python 2's. In Python 3 write:\n{_OLD_NAMES[exc.name]}"


def _old_method(exc: Any) -> str:
    return f"{exc.name} is Python 2's. In Python 3 write:\n{_OLD_METHODS[exc.name]}"


def _is_old_method(exc: Any) -> bool:
    if exc.name == "has_key":
        return True
    return exc.name in _OLD_METHODS and isinstance(exc.obj, (dict, map, filter, zip, Iterator))


def _unknown_name(exc: Any) -> str:
    name = exc.name or ""
    return name_advice.for_unimported(name) or name_advice.for_name(exc, name)


def _unbound_local(exc: UnboundLocalError) -> str:
    frame, _ = async_advice.innermost(exc)
    found = re.search(r"local variable '(\w+)'", str(exc))
    if frame is None or found is None or found[1] not in frame.f_globals:
        return ""
    name = found[1]
    return (
        f"The function assigns {name}, so {name} is a local variable, and has no value yet. To keep a value "
        f"from one visit to the next, write:\nsession = request.getSession()\n"
        f'session["{name}"] = session.get("{name}", 0) + 1'
    )


def _member_of_another_server(exc: Any) -> str:
    return name_advice.for_member(exc.obj, exc.name or "")


def _misspelt_attribute(exc: Any) -> str:
    if not exc.name or exc.obj is None:
        return ""
    return name_advice.for_attribute(exc.obj, exc.name)


def _missing_key(text: str) -> Callable[[Any], str]:
    return lambda exc: text.format(repr(exc.args[0]))


def _bytes_as_key(exc: Any) -> str:
    return f"Names are text here, not bytes. Write:\n{exc.args[0].decode('latin-1')!r} without the b"


def _is_text_key(exc: Any) -> bool:
    return bool(exc.args) and isinstance(exc.args[0], str)


def _no_adapter(exc: Any) -> str:
    found = re.search(r"InterfaceClass [\w.%]*?(\w+)>", str(exc))
    name = found[1] if found else "ICounter"
    line = f"registerAdapter({name[1:]}, Session, {name})"
    return f"No adapter is registered for {name}. Write once, after the class:\n{line}"


def _method_without_self(exc: Any) -> str:
    found = re.search(r"(\w+)\.(\w+)\(\) takes", str(exc))
    frame, _ = async_advice.innermost(exc)
    if found is None or frame is None:
        return ""
    method = getattr(frame.f_globals.get(found[1]), found[2], None)
    names = validation.parameters(method) if method is not None else None
    if names is None or names[:1] in (("self",), ("cls",)):
        return ""
    parameters = ", ".join(("self", *names))
    return f"A method must take self. Write in {found[1]}:\ndef {found[2]}({parameters}):"


def _relative_file(exc: Any) -> str:
    name = exc.filename
    if not isinstance(name, str) or re.match(r"([A-Za-z]:)?[/\\]", name):
        return ""
    last = re.split(r"[/\\]", name)[-1]
    return (
        "A relative path starts at the site's directory, wherever the script is. For a file beside "
        f'the script write:\nopen(Path(__file__).with_name("{last}"))'
    )


_FACTORY: Final = "is called with the session. Write{}:\ndef __init__(self, session):"
_TO_BYTES: Final = (
    "Text and bytes do not mix. Leave out the b before the quotes, or write:\n"
    'text.encode("utf-8")'
)
_TO_TEXT: Final = (
    "Text and bytes do not mix. Make text of the bytes:\n" 'text = data.decode("utf-8")'
)

ROWS: Final = (
    Advice(
        SystemExit,
        "sys.exit() ends programs, and this one is the server. Remove it; to stop early, use if and else.",
    ),
    Advice(SyntaxError, for_syntax_error),
    Advice(RecursionError, _endless_recursion),
    Advice(ImportError, for_import_error),
    # Names.
    Advice(UnboundLocalError, _unbound_local),
    Advice(NameError, _old_name, when=lambda exc: exc.name in _OLD_NAMES),
    Advice(
        NameError,
        lambda exc: f"Python writes:\n{_OTHER_LANGUAGES[exc.name]}",
        when=lambda exc: exc.name in _OTHER_LANGUAGES,
    ),
    Advice(
        NameError,
        "A method must take it:\ndef render_GET(self, request):",
        when=lambda exc: exc.name == "self",
    ),
    Advice(
        NameError,
        "A function must take it:\ndef resource(request):",
        when=lambda exc: exc.name == "request",
    ),
    Advice(NameError, _unknown_name, when=lambda exc: not isinstance(exc, UnboundLocalError)),
    # Attributes.
    Advice(AttributeError, for_attribute_of_module),
    Advice(AttributeError, async_advice.for_coroutine),
    Advice(AttributeError, _member_of_another_server),
    Advice(AttributeError, _old_method, when=_is_old_method),
    Advice(
        AttributeError,
        "It is text (str) already. Leave out .decode().",
        when=lambda exc: exc.name == "decode" and isinstance(exc.obj, str),
    ),
    Advice(
        AttributeError,
        'These are bytes. Make text of them first:\ntext = data.decode("utf-8")',
        when=lambda exc: exc.name in ("encode", "format") and isinstance(exc.obj, bytes),
    ),
    Advice(
        AttributeError,
        'A form may have several files of one name. The first is:\nrequest.file("photo")',
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
        "The value before the dot is None: perhaps a function without `return`, or a .get() that found nothing.",
        when=lambda exc: exc.name is not None and exc.obj is None,
    ),
    Advice(AttributeError, _misspelt_attribute),
    # Keys.
    Advice(KeyError, _bytes_as_key, when=lambda exc: exc.args and isinstance(exc.args[0], bytes)),
    Advice(
        KeyError,
        _missing_key("No file was chosen, or the form lacks enctype. Write:\nrequest.file({})"),
        line=r"request\.files",
    ),
    Advice(
        KeyError,
        _missing_key(
            'There is no such field in the query or form. With a default:\nrequest.field({}, "")'
        ),
        line=r"request\.args|\.args\[",
    ),
    Advice(
        KeyError,
        _missing_key("The session has no such value yet. With a default:\nsession.get({}, 0)"),
        line=r"(?i)session",
        when=_is_text_key,
    ),
    Advice(
        KeyError,
        _missing_key("The registry has no such value yet. With a default:\nregistry.get({}, 0)"),
        line=r"registry",
        when=_is_text_key,
    ),
    # Calls and operators.
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
        pattern=r"\w+\.\w+\(\) takes \d+ positional arguments? but \d+ (?:was|were) given",
    ),
    Advice(
        TypeError,
        "The factory of an adapter " + _FACTORY.format(r" in \1"),
        pattern=r"(\w+)\.__init__\(\) takes 1 positional argument but 2 were given",
    ),
    Advice(
        TypeError,
        "If this class is an adapter's factory, it " + _FACTORY.format(""),
        pattern=r"\(\) takes no arguments",
    ),
    Advice(
        TypeError,
        "Write:\ndef \\1(self, request):",
        pattern=r"(render_\w+|render|resource)\(\) missing 1 required positional argument: '\w+'",
    ),
    Advice(
        TypeError,
        "Write:\ndef \\1(self, request):",
        pattern=r"(render_\w+)\(\) takes \d positional arguments? but \d (?:was|were) given",
    ),
    Advice(
        TypeError,
        "This is Python 2. In Python 3 write:\nprint(..., file=sys.stderr)",
        pattern=r"unsupported operand type\(s\) for >>.*builtin_function",
    ),
    Advice(
        TypeError,
        'Text and another thing cannot be added. Write:\nf"Visit {number}"',
        pattern=r"""can only concatenate str(?!.*"bytes")|not "int"\) to str""",
    ),
    Advice(
        TypeError,
        _TO_BYTES,
        pattern=r"can't concat str to bytes|a bytes-like object is required, not 'str'",
    ),
    Advice(
        TypeError,
        _TO_TEXT,
        pattern=r"not bytes\b|bytes found|string pattern on a bytes|not 'bytes'|\(not \"bytes\"\)|got 'bytes'",
    ),
    Advice(TypeError, _TO_BYTES, pattern=r"bytes.*\bstr\b|\bstr\b.*bytes"),
    Advice(
        TypeError,
        "JSON knows text, numbers, True, False, None, lists and dicts only. Write str(x), or list(x).",
        pattern=r"not JSON serializable",
    ),
    # The rest.
    Advice(
        RuntimeError,
        "A loop changes what it goes through. Go through a copy:\nfor key in list(d):",
        pattern=r"changed size during iteration",
    ),
    Advice(RuntimeError, async_advice.for_runtime_error),
    Advice(FileNotFoundError, _relative_file),
    Advice(
        UnicodeDecodeError,
        'Say which encoding the file has:\nopen(name, encoding="utf-8")',
        when=lambda exc: ".decode(" not in async_advice.innermost(exc)[1],
    ),
)
"""The rows in their order; the first that applies wins."""
