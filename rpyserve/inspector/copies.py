"""A recorded request as text that sends it again: for curl, PowerShell, and httpx in Python.

Pure functions. What is copied sends the same bytes: the same target, header fields and body. A
format that cannot say them says why instead of sending others. Whatever a request holds, its copy
is one command, or one program, in which it is only data. How long the body is, each client says in
its own way.

Secrets are masked first, by `masked`, unless the author wants them.
"""

from __future__ import annotations

import json
import re
import shlex
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote_plus

from rpyserve.diagnostics.redaction import MASK as SHOWN_MASK
from rpyserve.diagnostics.redaction import SHORTEST, Redactor, is_secret
from rpyserve.http.cookies import parse_cookies

# What is in the place of a secret, in letters that a URL and a header can hold.
MASK: Final = "***"

Field = tuple[bytes, bytes]

# What no client reads as anything else.
_PLAIN_TARGET: Final = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-F]{2})*")
_DOT_SEGMENT: Final = re.compile(r"/\.{1,2}(?:[/?]|\Z)")

# Fields that .NET has beside the body, by the beginnings of their names (RFC 9110, section 8).
_OF_CONTENT: Final = (b"content-", b"allow", b"expires", b"last-modified")


class CannotCopy(Exception):
    """A format cannot say this request; the text says why."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client has sent.

    Args:
        origin: where to send it, such as ``http://localhost:8080``.
        method: the method as it was sent.
        target: the request target as it was sent.
        fields: the header fields in their order, with names in lower case.
        body: the whole body.
    """

    origin: str
    method: str
    target: str
    fields: tuple[Field, ...] = ()
    body: bytes = b""

    @property
    def is_chunked(self) -> bool:
        return any(name == b"transfer-encoding" for name, _ in self.fields)

    @property
    def path_is_plain(self) -> bool:
        """Whether every client sends the target as it is when it is a part of the URL."""
        return bool(_PLAIN_TARGET.fullmatch(self.target)) and not _DOT_SEGMENT.search(self.target)

    def own_fields(self) -> list[Field]:
        """The fields that a client would not send by itself for this URL and body."""
        host = self.origin.partition("://")[2].encode()
        return [
            (name, value)
            for name, value in self.fields
            if not (name == b"host" and value == host)
            and not (name == b"content-length" and self.body)
        ]


def copy(sent: Sent, form: str, *, secrets: bool = False) -> str:
    """Return *sent* in the *form* ``"curl"``, ``"ps1"`` or ``"httpx"``.

    Args:
        secrets: whether passwords, cookies and the like are to be in it.

    Raises:
        KeyError: there is no such form.
        CannotCopy: the form cannot say this request.
    """
    return FORMS[form](sent if secrets else masked(sent))


# curl


def as_curl(sent: Sent) -> str:
    """Return a command for a POSIX shell; bash, zsh and ksh read it alike.

    Raises:
        CannotCopy: the body has a NUL byte in it, which ends an argument, or belongs to a HEAD.
    """
    if b"\0" in sent.body:
        raise CannotCopy(
            "No argument of a command can hold a NUL byte, as this body has; httpx can."
        )
    if sent.method == "HEAD" and _has_body(sent):
        raise CannotCopy("curl sends no body with HEAD; httpx does.")
    is_simple = bool(_PLAIN_TARGET.fullmatch(sent.target))
    options = [*_curl_method(sent)]
    if not is_simple:
        options.append(f"--request-target {_sh(sent.target)}")
    elif _DOT_SEGMENT.search(sent.target):
        options.append("--path-as-is")
    if "[" in sent.origin:
        options.append("--globoff")
    options += [f"-H {_sh(_curl_field(name, value))}" for name, value in sent.own_fields()]
    options += [f"-H {_sh(f'{name}:')}" for name in _curl_extras(sent)]
    if _has_body(sent):
        options.append(f"--data-raw {_sh(sent.body)}")
    url = sent.origin + (sent.target if is_simple else "/")
    return " \\\n  ".join([f"curl {_sh(url)}", *options]) + "\n"


def _has_body(sent: Sent) -> bool:
    return bool(sent.body) or sent.is_chunked


def _curl_method(sent: Sent) -> list[str]:
    if sent.method == "HEAD":
        return ["--head"]
    usual = "POST" if _has_body(sent) else "GET"
    return [] if sent.method == usual else [f"-X {_sh(sent.method)}"]


def _curl_field(name: bytes, value: bytes) -> bytes:
    return name + b": " + value if value else name + b";"  # nothing after the colon removes it


def _curl_extras(sent: Sent) -> list[str]:
    """The fields that curl would add."""
    names = {name for name, _ in sent.fields}
    usual = ["user-agent", "accept"] + (["content-type"] if _has_body(sent) else [])
    missing = [name for name in usual if name.encode() not in names]
    return missing + ([] if b"host" in names else ["host"])


def _sh(text: str | bytes) -> str:
    """Return *text* as one word of a POSIX shell.

    What is not plain text is written in octal in dollar quotes, as are quotes and ``!`` there: some
    shells look for a word of their history after a quote that they take for the end.
    """
    data = text.encode() if isinstance(text, str) else text
    shown = _printable(data)
    if shown is not None:
        return shlex.quote(shown)
    return (
        "$'" + re.sub(rb"[^ -~]|['\\!]", lambda found: b"\\%03o" % found[0][0], data).decode() + "'"
    )


def _printable(data: bytes) -> str | None:
    """*data* as text if a terminal shows it as it is; else None."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.replace("\n", "").isprintable() else None


# PowerShell

_PS_START: Final = """\
Add-Type -AssemblyName System.Net.Http
$handler = [System.Net.Http.HttpClientHandler]::new()
$handler.UseCookies = $handler.AllowAutoRedirect = $handler.UseProxy = $false
$client = [System.Net.Http.HttpClient]::new($handler)
"""
_PS_END: Final = """\
$response = $client.SendAsync($request).GetAwaiter().GetResult()
[int]$response.StatusCode
$response.Content.ReadAsStringAsync().GetAwaiter().GetResult()
"""


def as_powershell(sent: Sent) -> str:
    """Return a script for PowerShell 7; what needs no ``UriCreationOptions`` works in 5.1, too.

    Raises:
        CannotCopy: the target is no path, or a field occurs twice, or is no ASCII.
    """
    _check_powershell(sent)
    lines = [
        f"$uri = {_ps_uri(sent)}",
        f"$method = [System.Net.Http.HttpMethod]::new({_ps(sent.method)})",
        "$request = [System.Net.Http.HttpRequestMessage]::new($method, $uri)",
    ]
    if _has_body(sent) or any(map(_is_of_content, sent.own_fields())):
        lines.append(f"$body = [Convert]::FromBase64String('{b64encode(sent.body).decode()}')")
        if (shown := _printable(sent.body)) is not None and shown:
            lines[-1] = f"$body = [Text.Encoding]::UTF8.GetBytes({_ps(shown)})"
        lines.append("$request.Content = [System.Net.Http.ByteArrayContent]::new($body)")
    lines += map(_ps_field, sent.own_fields())
    return _PS_START + "\n".join(lines) + "\n" + _PS_END


def _check_powershell(sent: Sent) -> None:
    if not sent.target.startswith("/"):
        raise CannotCopy("PowerShell asks for a path only, not for another target; curl can.")
    names = [name for name, _ in sent.fields]
    for name, value in sent.own_fields():
        if names.count(name) > 1:
            raise CannotCopy(f"PowerShell sends {name.decode()!r} once only; curl can repeat it.")
        if not value.isascii():
            raise CannotCopy(f"PowerShell sends ASCII only in headers, unlike {name.decode()!r}.")


def _ps_uri(sent: Sent) -> str:
    url = _ps(sent.origin + sent.target)
    if sent.path_is_plain:
        return f"[Uri]::new({url})"
    as_it_is = "[UriCreationOptions]@{ DangerousDisablePathAndQueryCanonicalization = $true }"
    return f"[Uri]::new({url}, ({as_it_is}))"


def _is_of_content(field: Field) -> bool:
    return field[0].startswith(_OF_CONTENT)


def _ps_field(field: Field) -> str:
    name, value = field
    if name == b"transfer-encoding":
        return "$request.Headers.TransferEncodingChunked = $true"
    place = "$request.Content.Headers" if _is_of_content(field) else "$request.Headers"
    add = f"{place}.TryAddWithoutValidation({_ps(name.decode())}, {_ps(value.decode())})"
    return f"[void]{add}"


def _ps(text: str) -> str:
    """Return *text* in single quotes; PowerShell ends a text at the curly ones, too."""
    return "'" + re.sub("(['\u2018-\u201b])", r"\1\1", text) + "'"


# httpx


def as_httpx(sent: Sent) -> str:
    """Return a program that can say every request."""
    lines = ["import httpx", "", "request = httpx.Request("]
    url = sent.origin + (sent.target if sent.path_is_plain else "/")
    lines += [f"    {sent.method!a},", f"    {url!a},"]
    fields = [_httpx_field(*field) for field in sent.own_fields() if not _is_framing(field)]
    if fields:
        lines += ["    headers=[", *(f"        {field}," for field in fields), "    ],"]
    if _has_body(sent):
        body = ascii(sent.body)
        lines.append(f"    content={f'iter([{body}])' if sent.is_chunked else body},")
    if not sent.path_is_plain:
        lines.append(f"    extensions={{'target': {sent.target.encode()!a}}},")
    lines.append(")")
    if sent.method != sent.method.upper():
        lines.append(f"request.method = {sent.method!a}")
    lines += [
        "with httpx.Client(trust_env=False) as client:",
        "    response = client.send(request)",
    ]
    return "\n".join([*lines, "print(response.status_code)", "print(response.text)"]) + "\n"


def _is_framing(field: Field) -> bool:
    return field[0] == b"transfer-encoding"


def _httpx_field(name: bytes, value: bytes) -> str:
    if value.isascii():
        return f"({name.decode()!a}, {value.decode()!a})"
    return f"({name!a}, {value!a})"


FORMS: Final[dict[str, Callable[[Sent], str]]] = {
    "curl": as_curl,
    "ps1": as_powershell,
    "httpx": as_httpx,
}
"""The formats by the ends of their URLs."""


# Secrets


def masked(sent: Sent) -> Sent:
    """Return *sent* with `MASK` in place of what is secret by its name, and of its credentials.

    That is cookies, ``Authorization`` and the like, and fields of the query, a form or JSON that
    are called ``password`` or similar.
    """
    redactor = Redactor(credentials_of(sent))

    def plain(text: str) -> str:
        return redactor.redact_value(text).replace(SHOWN_MASK, MASK)

    path, mark, query = sent.target.partition("?")
    return replace(
        sent,
        target=_masked_ascii(redactor, path) + mark + _masked_pairs(_masked_ascii(redactor, query)),
        fields=tuple(_masked_field(name, value, plain) for name, value in sent.fields),
        body=_masked_body(sent, plain),
    )


def credentials_of(sent: Sent) -> list[str]:
    """Return the texts that are credentials: cookies, and what follows ``Basic`` or ``Bearer``."""
    found: list[str] = []
    for name, value in sent.fields:
        text = value.decode("latin-1")
        if name == b"cookie":
            found += parse_cookies(text).values()
        if name in (b"authorization", b"proxy-authorization"):
            found.append(text.partition(" ")[2])
    return [text for text in found if len(text) >= SHORTEST]


def _masked_ascii(redactor: Redactor, text: str) -> str:
    return redactor.redact(text).replace(SHOWN_MASK, MASK)


def _masked_field(name: bytes, value: bytes, plain: Callable[[str], str]) -> Field:
    text = value.decode("latin-1")
    if name == b"cookie":
        pairs = (pair.partition("=") for pair in text.split(";"))
        return name, ";".join(f"{key}{mark}{MASK}" for key, mark, _ in pairs).encode("latin-1")
    if is_secret(name):
        kind, blank, _ = text.partition(" ")
        is_credential = name.endswith(b"authorization") and blank
        return name, (f"{kind} {MASK}" if is_credential else MASK).encode("latin-1")
    return name, plain(text).encode("latin-1")


def _masked_pairs(text: str) -> str:
    """Mask what fields of a query or form with a secret name hold."""
    pairs = [pair.partition("=") for pair in text.split("&")]
    return "&".join(
        f"{name}={MASK}" if mark and is_secret(unquote_plus(name)) else f"{name}{mark}{value}"
        for name, mark, value in pairs
    )


_PART: Final = re.compile(
    r"""(?six)( \r\n content-disposition: [^\r\n]*? \b name = "([^"\r\n]*)" .*? \r\n\r\n )
    .*? (?= \r\n-- )"""
)


def _masked_body(sent: Sent, plain: Callable[[str], str]) -> bytes:
    kinds = [value for name, value in sent.fields if name == b"content-type"]
    kind = b"".join(kinds).decode("latin-1").lower()
    text = sent.body.decode("utf-8", "surrogateescape")
    if "json" in kind:
        text = _masked_json(text)
    elif kind.startswith("multipart/"):
        text = _PART.sub(lambda part: part[1] + MASK if is_secret(part[2]) else part[0], text)
    elif kind.startswith("application/x-www-form-urlencoded"):
        text = _masked_pairs(text)
    return plain(text).encode("utf-8", "surrogateescape")


def _masked_json(text: str) -> str:
    """Mask what is below secret keys; *text* itself if there are none, or it is no JSON."""
    try:
        value = json.loads(text)
        shown = _masked_value(value)
    except (ValueError, RecursionError):
        return text
    return text if shown == value else json.dumps(shown)


def _masked_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: MASK if is_secret(key) else _masked_value(item) for key, item in value.items()}
    return [*map(_masked_value, value)] if isinstance(value, list) else value
