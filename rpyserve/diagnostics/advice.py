"""What somebody who meets rpyserve, or Python 3, for the first time must be told about a failure.

The front of `nearmiss` (what is in ``resource``), `results` (what a method returned), `syntaxhints`, `importhints`,
`asynchints` (`await`), `foreignnames` (of other servers) and `typos`; exceptions of all other kinds are looked at
here. Every hint is a sentence and the line to write. No hint is better than a wrong one: an exception that explains
itself gets none.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rpyserve.diagnostics import async_advice, name_advice
from rpyserve.diagnostics.import_advice import for_attribute_of_module, for_import_error
from rpyserve.diagnostics.syntax_advice import for_syntax_error
from rpyserve.scripts import validation

__all__ = ["advice_for", "for_namespace"]

log = logging.getLogger("rpyserve")

_PYTHON2: Final = {
    "unicode": "str", "raw_input": 'request.field("name")', "xrange": "range", "basestring": "str", "long": "int",
    "unichr": "chr", "execfile": "exec(open(path).read())", "reload": "importlib.reload", "file": "open",
    "cmp": "(a > b) - (a < b)",
    "implements": "@implementer(ICounter)\nclass Counter:", "reduce": "functools.reduce", "izip": "zip",
}  # fmt: skip
_METHODS2: Final = {
    "has_key": "key in d", "iteritems": "d.items()", "itervalues": "d.values()", "iterkeys": "d.keys()",
    "next": "next(iterator)",
}  # fmt: skip


def for_namespace(namespace: Mapping[str, Any], source: str) -> tuple[str, str]:
    """Return what is wrong with what a script left, and what to do about it; two empty texts if nothing is."""
    return validation.validate_namespace(namespace, source)


def advice_for(exc: BaseException) -> str:
    """Return what to do about *exc*, which came out of a script; empty if nothing is known."""
    for kind, hint in _BY_KIND.items():
        if isinstance(exc, kind):
            try:
                return hint(exc)
            except (
                Exception
            ) as failure:  # whatever odd objects the exception holds, its page must come
                log.debug("There is no hint for %s: %r", type(exc).__name__, failure)
                return ""
    return ""


def _system_exit(exc: Any) -> str:
    return "sys.exit() ends programs, and this one is the server. Take it out; to stop early, use if and else."


def _recursion(exc: Any) -> str:
    frames = traceback.extract_tb(exc.__traceback__)[-20:]
    names = {frame.name for frame in frames}
    if any("repr" in name for name in names):
        return "Something is nested in itself, or too deep."
    name = max(names, key=[frame.name for frame in frames].count, default="")
    return f"{name or 'A function'} calls itself without end. Give it a case in which it does not."


def _name(exc: Any) -> str:
    if isinstance(exc, UnboundLocalError):
        return _unbound(exc)
    name = exc.name or ""
    if name in _PYTHON2:
        return f"{name} is Python 2's. In Python 3 write:\n{_PYTHON2[name]}"
    if name in {"true", "false", "null", "none", "undefined"}:
        return f"Python writes:\n{ {'true': 'True', 'false': 'False'}.get(name, 'None') }"
    if name == "self":
        return "A method must take it:\ndef render_GET(self, request):"
    if name == "request":
        return "A function must take it:\ndef resource(request):"
    return name_advice.for_unimported(name) or name_advice.for_name(exc, name)


def _unbound(exc: UnboundLocalError) -> str:
    frame, _ = async_advice.innermost(exc)
    found = re.search(r"local variable '(\w+)'", str(exc))
    if frame is None or found is None or found[1] not in frame.f_globals:
        return ""
    name = found[1]
    return (
        f"The function assigns {name}, so {name} is its own, and has no value yet. To keep a value from one visit to "
        f'the next write:\nsession = request.getSession()\nsession["{name}"] = session.get("{name}", 0) + 1'
    )


def _attribute(exc: Any) -> str:
    name, thing = exc.name or "", getattr(exc, "obj", None)
    if (
        hint := for_attribute_of_module(exc)
        or async_advice.for_coroutine(exc)
        or name_advice.for_member(thing, name)
    ):
        return hint
    if name == "has_key" or (
        name in _METHODS2 and isinstance(thing, (dict, map, filter, zip, Iterator))
    ):
        return f"{name} is Python 2's. In Python 3 write:\n{_METHODS2[name]}"
    if isinstance(thing, str) and name == "decode":
        return "It is text (str) already. Leave out .decode()."
    if isinstance(thing, bytes) and name in {"encode", "format"}:
        return 'These are bytes. Make text of them first:\ntext = data.decode("utf-8")'
    if isinstance(thing, list) and "request.files[" in async_advice.innermost(exc)[1]:
        return 'A form may have several files of one name. The first is:\nrequest.file("photo")'
    if thing is None and name == "create_future":
        return async_advice.for_asyncio(exc)  # it asked for its event loop, and there is none
    if thing is None:
        return "The thing before the dot is None: perhaps a function without `return`, or a .get() that found nothing."
    return name_advice.for_attribute(thing, name) if name and thing is not None else ""


def _key(exc: Any) -> str:
    line = async_advice.innermost(exc)[1]
    key = exc.args[0] if exc.args else None
    if isinstance(key, bytes):
        return f"Names are text here, not bytes. Write:\n{key.decode('latin-1')!r} without the b"
    if "request.files" in line:
        return (
            f"No file was chosen, or the form does not say enctype. Write:\nrequest.file({key!r})"
        )
    if "request.args" in line or ".args[" in line:
        return f'There is no such field in the query or form. With a default:\nrequest.field({key!r}, "")'
    if "session" in line.lower() and isinstance(key, str):
        return f"The session has no such value yet. With a default:\nsession.get({key!r}, 0)"
    if "registry" in line and isinstance(key, str):
        return f"The registry has no such value yet. With a default:\nregistry.get({key!r}, 0)"
    return ""


def _type(exc: Any) -> str:
    text = str(exc)
    if (
        "'method' object is not subscriptable" in text
        and "request.json[" in async_advice.innermost(exc)[1]
    ):
        return 'json is a method. Write:\nrequest.json()["name"]'
    if "Could not adapt" in text:
        found = re.search(r"InterfaceClass [\w.%]*?(\w+)>", text)
        name = found[1] if found else "ICounter"
        line = f"registerAdapter({name[1:]}, Session, {name})"
        return f"Nobody has said how to make one. Write once, after the class:\n{line}"
    if "unrecognized yield message" in text or "library written for" in text:
        return async_advice.for_asyncio(exc)
    if (
        hint := async_advice.for_await(exc)
        or async_advice.for_coroutine(exc)
        or _no_self(exc, text)
    ):
        return hint
    if found := re.search(
        r"(\w+)\.__init__\(\) takes 1 positional argument but 2 were given", text
    ):
        return f"The factory of an adapter is called with the session. Write in {found[1]}:\ndef __init__(self, session):"
    if "() takes no arguments" in text:
        return "If this class is an adapter's factory, it is called with the session. Write:\ndef __init__(self, session):"
    if found := re.search(
        r"(render_\w+|render|resource)\(\) missing 1 required positional argument: '(\w+)'", text
    ):
        return f"Write:\ndef {found[1]}(self, request):"
    if found := re.search(
        r"(render_\w+)\(\) takes (\d) positional arguments? but (\d) (was|were) given", text
    ):
        return f"Write:\ndef {found[1]}(self, request):"
    if "unsupported operand type(s) for >>" in text and "builtin_function" in text:
        return "This is Python 2. In Python 3 write:\nprint(..., file=sys.stderr)"
    return _text_and_bytes(text)


def _no_self(exc: Any, text: str) -> str:
    """A method that was written without ``self``."""
    found = re.search(
        r"(\w+)\.(\w+)\(\) takes \d+ positional arguments? but \d+ (?:was|were) given", text
    )
    frame, _ = async_advice.innermost(exc)
    if found is None or frame is None:
        return ""
    method = getattr(frame.f_globals.get(found[1]), found[2], None)
    function = validation.describe_function(method, found[2])
    names = function.parameters
    if function.signature is None or names[:1] in (["self"], ["cls"]):
        return ""
    return f"A method must take self. Write in {found[1]}:\ndef {found[2]}({', '.join(['self', *names])}):"


def _text_and_bytes(text: str) -> str:
    if (
        "can only concatenate str" in text and '"bytes"' not in text
    ) or 'not "int") to str' in text:
        return 'Text and another thing cannot be added. Write:\nf"Visit {number}"'
    if "can't concat str to bytes" in text or "a bytes-like object is required, not 'str'" in text:
        return 'Text and bytes do not mix. Leave out the b before the quotes, or write:\ntext.encode("utf-8")'
    if re.search(
        r"not bytes\b|bytes found|string pattern on a bytes|not 'bytes'|\(not \"bytes\"\)|got 'bytes'",
        text,
    ):
        return 'Text and bytes do not mix. Make text of the bytes:\ntext = data.decode("utf-8")'
    if "bytes" in text and re.search(r"\bstr\b", text):
        return 'Text and bytes do not mix. Leave out the b before the quotes, or write:\ntext.encode("utf-8")'
    if "not JSON serializable" in text:
        return "JSON knows text, numbers, True, False, None, lists and dicts only. Write str(x), or list(x)."
    return ""


def _runtime(exc: Any) -> str:
    if "changed size during iteration" in str(exc):
        return "A loop changes what it goes through. Go through a copy:\nfor key in list(d):"
    return async_advice.for_runtime_error(exc)


def _file(exc: Any) -> str:
    name = exc.filename
    if not isinstance(name, str) or re.match(r"([A-Za-z]:)?[/\\]", name):
        return ""
    last = re.split(r"[/\\]", name)[-1]
    return (
        "A relative name is looked for in the site's directory, wherever the script is. For a file beside the script "
        f'write:\nopen(Path(__file__).with_name("{last}"))'
    )


def _decoding(exc: Any) -> str:
    return (
        'Say which encoding the file has:\nopen(name, encoding="utf-8")'
        if ".decode(" not in async_advice.innermost(exc)[1]
        else ""
    )


_BY_KIND: Final[dict[type[BaseException], Callable[[Any], str]]] = {
    SystemExit: _system_exit,
    SyntaxError: for_syntax_error,
    RecursionError: _recursion,
    ImportError: for_import_error,
    NameError: _name,
    AttributeError: _attribute,
    KeyError: _key,
    TypeError: _type,
    RuntimeError: _runtime,
    FileNotFoundError: _file,
    UnicodeDecodeError: _decoding,
}
