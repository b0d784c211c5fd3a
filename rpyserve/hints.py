"""What somebody who meets rpyserve, or Python 3, for the first time must be told about a failure.

The front of `nearmiss` (what is in ``resource``), `results` (what a method returned), `syntaxhints` and
`importhints`; exceptions of all other kinds are looked at here. Every hint is a sentence and the line to write. No
hint is better than a wrong one: an exception that explains itself gets none.
"""

from __future__ import annotations

import builtins
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rpyserve import nearmiss
from rpyserve.failures import is_authors
from rpyserve.importhints import for_attribute_of_module, for_import_error
from rpyserve.results import for_result, method_of
from rpyserve.syntaxhints import for_syntax_error

__all__ = ["for_exception", "for_namespace", "for_result", "method_of"]

_PYTHON2: Final = {
    "unicode": "str", "raw_input": 'request.field("name")', "xrange": "range", "basestring": "str", "long": "int",
    "unichr": "chr", "execfile": "exec(open(path).read())", "reload": "importlib.reload", "file": "open",
    "cmp": "(a > b) - (a < b)", "reduce": "functools.reduce", "izip": "zip",
}  # fmt: skip
_METHODS2: Final = {
    "has_key": "key in d", "iteritems": "d.items()", "itervalues": "d.values()", "iterkeys": "d.keys()",
    "next": "next(iterator)",
}  # fmt: skip
_TRIO: Final = {
    "sleep": "await trio.sleep(1)",
    "gather": "async with trio.open_nursery() as nursery:\n    nursery.start_soon(f)",
    "create_task": "async with trio.open_nursery() as nursery:\n    nursery.start_soon(f)",
    "ensure_future": "async with trio.open_nursery() as nursery:\n    nursery.start_soon(f)",
    "TaskGroup": "async with trio.open_nursery() as nursery:\n    nursery.start_soon(f)",
    "wait": "async with trio.open_nursery() as nursery:\n    nursery.start_soon(f)",
    "wait_for": "with trio.fail_after(5):\n    await f()",
    "timeout": "with trio.fail_after(5):\n    await f()",
    "to_thread": "await trio.to_thread.run_sync(f)",
    "run_in_executor": "await trio.to_thread.run_sync(f)",
    "Queue": "send, receive = trio.open_memory_channel(10)",
    "Event": "trio.Event()", "Lock": "trio.Lock()", "Semaphore": "trio.Semaphore(1)", "Future": "trio.Event()",
    "open_connection": "stream = await trio.open_tcp_stream(host, port)",
    "create_subprocess_exec": "await trio.run_process([...], capture_stdout=True)",
    "create_subprocess_shell": "await trio.run_process(command, shell=True, capture_stdout=True)",
    "shield": "with trio.CancelScope(shield=True):",
}  # fmt: skip


def for_namespace(namespace: Mapping[str, Any], source: str) -> tuple[str, str]:
    """Return what is wrong with what a script left, and what to do about it; two empty texts if nothing is."""
    return nearmiss.find(namespace, source)


def for_exception(exc: BaseException) -> str:
    """Return what to do about *exc*, which came out of a script; empty if nothing is known."""
    for kind, hint in _BY_KIND.items():
        if isinstance(exc, kind):
            return hint(exc)
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
    name = exc.name or ""
    if name in _PYTHON2:
        return f"{name} is Python 2's. In Python 3 write:\n{_PYTHON2[name]}"
    import rpyserve

    if name in rpyserve.__all__:
        return f"Import it first:\nfrom rpyserve import {name}"
    if name == "trio" or name in sys.stdlib_module_names:
        return f"Import it first:\nimport {name}"
    if name in {"true", "false", "null", "none", "undefined"}:
        return f"Python writes:\n{ {'true': 'True', 'false': 'False'}.get(name, 'None') }"
    if name == "self":
        return "A method must take it:\ndef render_GET(self, request):"
    if name == "request":
        return "A function must take it:\ndef resource(request):"
    if name == "NotImplemented" or name in dir(builtins):
        return ""
    return ""


def _attribute(exc: Any) -> str:
    name, thing = exc.name or "", getattr(exc, "obj", None)
    if hint := for_attribute_of_module(exc):
        return hint
    if name == "has_key" or (name in _METHODS2 and isinstance(thing, (dict, map, filter, zip, Iterator))):
        return f"{name} is Python 2's. In Python 3 write:\n{_METHODS2[name]}"
    if isinstance(thing, str) and name == "decode":
        return "It is text (str) already. Leave out .decode()."
    if isinstance(thing, bytes) and name in {"encode", "format"}:
        return 'These are bytes. Make text of them first:\ntext = data.decode("utf-8")'
    if thing is None and name == "create_future":
        return _asyncio_hint(exc)  # it asked for its event loop, and there is none
    if thing is None:
        return "The thing before the dot is None: perhaps a function without `return`, or a .get() that found nothing."
    return ""


def _key(exc: Any) -> str:
    line = _line_of(exc)
    key = exc.args[0] if exc.args else None
    if isinstance(key, bytes):
        return f"Names are text here, not bytes. Write:\n{key.decode('latin-1')!r} without the b"
    if "request.args" in line or ".args[" in line:
        return f'There is no such field in the query or form. With a default:\nrequest.field({key!r}, "")'
    if "session" in line.lower() and isinstance(key, str):
        return f"The session has no such value yet. With a default:\nsession.get({key!r}, 0)"
    if "registry" in line and isinstance(key, str):
        return f"The registry has no such value yet. With a default:\nregistry.get({key!r}, 0)"
    return ""


def _type(exc: Any) -> str:
    text = str(exc)
    if "Could not adapt" in text:
        found = re.search(r"InterfaceClass [\w.%]*?(\w+)>", text)
        name = found[1] if found else "ICounter"
        line = f"registerAdapter({name[1:]}, Session, {name})"
        return f"Nobody has said how to make one. Write once, after the class:\n{line}"
    if "unrecognized yield message" in text or "library written for" in text:
        return _asyncio_hint(exc)
    if found := re.search(r"(\w+)\.__init__\(\) takes 1 positional argument but 2 were given", text):
        return (
            f"The factory of an adapter is called with the session. Write in {found[1]}:\ndef __init__(self, session):"
        )
    if "() takes no arguments" in text:
        return (
            "If this class is an adapter's factory, it is called with the session. Write:\ndef __init__(self, session):"
        )
    if found := re.search(r"(render_\w+|render|resource)\(\) missing 1 required positional argument: '(\w+)'", text):
        return f"Write:\ndef {found[1]}(self, request):"
    if found := re.search(r"(render_\w+)\(\) takes (\d) positional arguments? but (\d) (was|were) given", text):
        return f"Write:\ndef {found[1]}(self, request):"
    if "unsupported operand type(s) for >>" in text and "builtin_function" in text:
        return "This is Python 2. In Python 3 write:\nprint(..., file=sys.stderr)"
    return _text_and_bytes(text)


def _text_and_bytes(text: str) -> str:
    if "can only concatenate str" in text or 'not "int") to str' in text:
        return 'Text and another thing cannot be added. Write:\nf"Visit {number}"'
    if "can't concat str to bytes" in text or "a bytes-like object is required, not 'str'" in text:
        return 'Text and bytes do not mix. Leave out the b before the quotes, or write:\ntext.encode("utf-8")'
    if "not JSON serializable" in text:
        return "JSON knows text, numbers, True, False, None, lists and dicts only. Write str(x), or list(x)."
    return ""


def _runtime(exc: Any) -> str:
    text = str(exc)
    if "no running event loop" in text or "no current event loop" in text:
        return _asyncio_hint(exc)
    if "Attempted to call run() from inside a run()" in text:
        return "The server has trio running already. Write `async def`, and await the function in it."
    if "must be called from async context" in text:
        return "Top-level code cannot wait. Do it in the method:\nasync def render_GET(self, request):"
    if "changed size during iteration" in text:
        return "A loop changes what it goes through. Go through a copy:\nfor key in list(d):"
    return ""


def _asyncio_hint(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)
    codes = [frame.f_code for frame, _ in traceback.walk_tb(exc.__traceback__)]
    inside = [code.co_qualname for code in codes if re.search(r"\basyncio\b", code.co_filename)]
    called = [name for qualified in inside for name in qualified.split(".")]  # Queue.get: the class says more
    written = [found[1] for frame in frames if (found := re.search(r"\basyncio\.(\w+)", frame.line or ""))]
    used = next((name for name in called + written if name in _TRIO), None)
    instead = "Look for trio's function of that kind."
    if used is not None:
        instead = f"In place of {used}() write:\n{_TRIO[used]}"
    return f"This is asyncio's, and rpyserve runs on trio: `import trio`. {instead}"


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
    return 'Say which encoding the file has:\nopen(name, encoding="utf-8")' if ".decode(" not in _line_of(exc) else ""


def _line_of(exc: BaseException) -> str:
    """The innermost of the author's lines on the way to *exc*."""
    frames = traceback.extract_tb(exc.__traceback__)
    return next((frame.line or "" for frame in reversed(frames) if is_authors(frame.filename)), "")


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
