"""A visit as a test for pytest: its requests, its pauses, and what two rehearsals agree on.

Pure functions. What a visitor sent, and what came of it, is in the test as literals only. What did
not hold is a comment, never an assertion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from rpyserve.diagnostics.redaction import is_secret
from rpyserve.inspector.copies import MASK, Field, Sent
from rpyserve.inspector.rehearsal import Heard, Step

# Characters of a body that a test has word for word; of a longer one it has a hash.
LONGEST_TEXT: Final = 10_000

# Characters of a line of a test.
WIDTH: Final = 88

# Methods that have a function of the client's.
_WITH_BODY: Final = ("POST", "PUT", "PATCH")
_WITHOUT_BODY: Final = ("GET", "HEAD", "DELETE", "OPTIONS")

# Fields that say how a browser or a connection works, not what its visitor wants.
_NOT_SAID: Final = frozenset(
    b"accept-encoding accept-language cache-control connection content-length cookie dnt host "
    b"if-modified-since if-none-match keep-alive pragma priority proxy-connection referer te "
    b"transfer-encoding upgrade-insecure-requests user-agent".split()
)


def prepared(sent: Sent) -> Sent:
    """Return *sent* as a test sends it: without what a browser adds by itself."""
    fields = [*_kept_fields(sent)]
    return Sent("", sent.method, _path_of(sent.target), tuple(fields), sent.body)


def _kept_fields(sent: Sent) -> Iterator[Field]:
    for name, value in sent.fields:
        if name == b"host" and not _is_this_machine(value):
            yield name, value
        elif name == b"accept" and value != b"*/*":
            yield name, b"text/html" if value.startswith(b"text/html,") else value
        elif name not in _NOT_SAID | {b"accept"} and not name.startswith(b"sec-"):
            yield name, value


def _is_this_machine(host: bytes) -> bool:
    name = re.sub(r":\d*\Z", "", host.decode("latin-1")).strip("[]")
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _path_of(target: str) -> str:
    """The target of a client that asks the site itself."""
    path = re.sub(r"\A[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*", "", target) or "/"
    return f"http://localhost:8080{path}" if path.startswith("//") else path


def as_test(
    steps: list[Step], first: list[Heard], second: list[Heard], *, timeout: float | None = None
) -> str:
    """Return the test.

    Args:
        steps: the visit, with requests that are `prepared`.
        first, second: what came of each step in two rehearsals.
        timeout: seconds that idle sessions of the site live, if not as usual.
    """
    fails = any(one.broken or (one.status >= 500 and not one.asks_others) for one in first)
    body = [f"client = site_client{'.new_visitor(raise_errors=False)' if fails else ''}"]
    if timeout is not None:
        body.append(f"client.site.sessions.timeout = {timeout!r}")
    for step, one, two in zip(steps, first, second, strict=True):
        body += ["", *_step_lines(step, one, two)]
    imports = ["import hashlib", "", ""] if any("hashlib" in line for line in body) else [""]
    return "\n".join(
        [
            f'"""{_title(steps)}',
            "",
            "Made by rpyserve. It needs rpyserve[testing]; `rpyserve_site` in pytest's settings",
            'says where the site is, unless that is the directory "site".',
            '"""',
            "",
            *imports,
            f"def test_{_name(steps)}(site_client):",
            *(f"    {line}" if line else "" for line in body),
            "",
        ]
    )


def _title(steps: list[Step]) -> str:
    count = len(steps)
    return f"A visit of {count} request{'' if count == 1 else 's'}."


def _name(steps: list[Step]) -> str:
    path = _path_of(steps[0].sent.target).partition("?")[0]
    words = re.sub(r"[^a-z0-9]+", "_", path.lower()).strip("_")[:40] or "home"
    return f"visit_{words}" if len(steps) > 1 else words


def _step_lines(step: Step, one: Heard, two: Heard) -> Iterator[str]:
    if step.pause > 1:
        yield f"client.sleep({round(step.pause, 1):g})"
        if one.ended_before and two.ended_before:
            yield "assert client.session is None"
    if one.error or two.error:
        why = one.error or two.error
        yield f"# {_comment(step.sent)} failed in the client: {_comment_text(why)}."
        return
    if any(MASK.encode() in part for part in (step.sent.body, *_values(step.sent))):
        yield f"# A secret is masked here: {MASK} is what the answers below are to."
    if one.body is None or two.body is None:
        yield f"with client.stream({_arguments(step.sent, with_method=True)}) as response:"
        yield from (f"    {line}" for line in _head_lines(one, two))
    else:
        yield f"response = client.{_call(step.sent)}"
        yield from _head_lines(one, two)
        yield from _body_lines(one, two)
    yield from _session_lines(one, two)


def _values(sent: Sent) -> Iterator[bytes]:
    yield sent.target.encode()
    yield from (value for _, value in sent.fields)


def _comment(sent: Sent) -> str:
    return _comment_text(f"{sent.method} {sent.target}")


def _comment_text(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:60]


def _call(sent: Sent) -> str:
    method = sent.method.lower()
    has_own = sent.method in _WITH_BODY or (sent.method in _WITHOUT_BODY and not sent.body)
    if has_own:
        return f"{method}({_arguments(sent)})"
    return f"request({_arguments(sent, with_method=True)})"


def _arguments(sent: Sent, *, with_method: bool = False) -> str:
    parts = [repr(sent.method)] if with_method else []
    parts.append(repr(sent.target))
    names = [name for name, _ in sent.fields]
    pairs = [(_text(name), _text(value)) for name, value in sent.fields]
    if len({*names}) < len(names):
        parts.append(f"headers=[{', '.join(f'({name}, {value})' for name, value in pairs)}]")
    elif pairs:
        parts.append(f"headers={{{', '.join(f'{name}: {value}' for name, value in pairs)}}}")
    if sent.body:
        parts.append(f"content={_text(sent.body)}")
    return ", ".join(parts)


def _text(data: bytes) -> str:
    return repr(data.decode()) if data.isascii() else repr(data)


def _head_lines(one: Heard, two: Heard) -> list[str]:
    if one.asks_others or two.asks_others:
        return ["pass  # This asks another program, whose answers are not the site's."]
    lines = []
    if one.status == two.status:
        lines.append(f"assert response.status_code == {one.status}")
    else:
        lines.append(f"# The status differs from run to run: {one.status}, {two.status}.")
    for name in sorted(one.headers.keys() & two.headers.keys()):
        if one.headers[name] == two.headers[name]:
            lines.append(f"assert response.headers[{name!r}] == {one.headers[name]!r}")
    return lines


def _body_lines(one: Heard, two: Heard) -> list[str]:
    if one.asks_others or two.asks_others or min(one.status, two.status) >= 500:
        return []  # an error page is rpyserve's own
    if one.body != two.body or one.body is None:
        return ["# The body differs from run to run."]
    if not one.body:
        return []
    text = _as_text(one)
    if text is None:
        digest = sha256(one.body).hexdigest()
        return [f'assert hashlib.sha256(response.content).hexdigest() == "{digest}"']
    lines = text.splitlines(keepends=True)
    if len(lines) == 1 and len(repr(text)) < WIDTH - 30:
        return [f"assert response.text == {text!r}"]
    return ["assert response.text == (", *(f"    {line!r}" for line in lines), ")"]


def _as_text(heard: Heard) -> str | None:
    """The body as httpx decodes it; None if it is long, or no text that one would read."""
    kind = heard.headers.get("content-type", "").lower()
    is_text = kind.startswith("text/") or "json" in kind or "xml" in kind
    is_utf8 = "charset" not in kind or "utf-8" in kind
    if heard.body is None or len(heard.body) > LONGEST_TEXT or not (is_text and is_utf8):
        return None
    try:
        return heard.body.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _session_lines(one: Heard, two: Heard) -> Iterator[str]:
    if one.ended and two.ended:
        yield "assert client.session is None"
    for key, value in one.changed.items():
        held = key in two.changed and two.changed[key] == value
        if held and not is_secret(key):
            yield f"assert client.session[{key!r}] == {value!r}"
