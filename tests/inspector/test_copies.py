"""Copies of requests: whatever was sent, what is copied sends the same, and nothing else happens."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rpyserve.inspector.copies import (
    FORMS,
    MASK,
    CannotCopy,
    Sent,
    as_curl,
    as_httpx,
    as_powershell,
    copy,
)

ORIGIN = "http://localhost:8080"
SHELLS = [shell for shell in ("bash", "zsh", "ksh") if shutil.which(shell)]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
"""No proxy, and no ``.curlrc``."""


@dataclass
class EchoServer:
    """Keeps what comes, one request a connection."""

    listener: socket.socket
    heard: list[tuple[h11.Request, bytes]] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # it has been closed
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        reader, head, body = h11.Connection(h11.SERVER), None, b""
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                reader.receive_data(connection.recv(2**16))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
        assert isinstance(event, h11.EndOfMessage) and head is not None
        self.heard.append((head, body))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def hears(self, send: Callable[[], object]) -> Sent:
        """What comes when *send* is called."""
        self.heard.clear()
        send()
        ((head, body),) = self.heard
        return Sent(
            self.origin, head.method.decode(), head.target.decode(), tuple(head.headers), body
        )


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = EchoServer(listener)
        thread = threading.Thread(target=server.serve)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def told(sent: Sent) -> tuple[object, ...]:
    """All that counts; fields of different names have no order, and lengths are told apart."""
    fields = sorted(
        ((name, value) for name, value in sent.fields if name != b"content-length"),
        key=lambda pair: pair[0],
    )
    return sent.method, sent.target, fields, sent.body


def run_shell(text: str, shell: str = "bash") -> None:
    done = subprocess.run([shell, "-c", text], env=ENVIRONMENT, capture_output=True, timeout=60)
    assert done.returncode == 0, (text, done.stderr)


def run_powershell(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8-sig")
    subprocess.run(["pwsh", "-NoProfile", "-File", str(path)], check=True, timeout=60)


def run_python(text: str) -> None:
    exec(compile(text, "copied.py", "exec"), {"print": lambda text: None})


# Any request that rpyserve would take

TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)
HOSTILE = st.sampled_from(
    ["'", '"', "@/etc/passwd", "$(touch /tmp/x)", "`id`", "%0d%0a", "\\", "!!", "' ; id '", "é"]
)
VALUE = st.one_of(
    st.binary(max_size=20).map(lambda data: bytes(c for c in data if c == 9 or 32 <= c != 127)),
    HOSTILE.map(str.encode),
).map(lambda value: value.strip(b" \t"))
OURS = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"}
FIELDS = st.lists(
    st.tuples(
        st.one_of(
            TOKEN,
            st.sampled_from(["user-agent", "accept", "cookie", "authorization", "content-type"]),
        ).map(str.encode),
        VALUE,
    ).filter(lambda pair: pair[0] not in OURS),
    max_size=6,
)
TARGET = st.one_of(
    st.text("abc/%2fF.[]{}|^`&;=+,!$'()*@:~_-\\?", max_size=30).map(
        lambda text: "/" + text.partition("?")[0].replace("\\", "") + "?" + text.partition("?")[2]
    ),
    st.sampled_from(
        ["/", "//a", "/../a", "/a/./b", "/..", "*", "http://elsewhere.example/a?b", "/%41%zz"]
    ),
)
BODY = st.one_of(
    st.just(b""),
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(HOSTILE, min_size=1).map(lambda parts: "\r\n".join(parts).encode()),
)
METHOD = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "get", "M-X"])


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    body, fields = draw(BODY), draw(FIELDS)
    host = draw(st.sampled_from([b"localhost:8080", b"127.0.0.1:8080", b"a.example"]))
    if draw(st.booleans()):
        fields.append((b"transfer-encoding", b"chunked"))
    elif body or draw(st.booleans()):
        fields.append((b"content-length", str(len(body)).encode()))
    return Sent(ORIGIN, draw(METHOD), draw(TARGET), ((b"host", host), *fields), body)


def said_to(echo: EchoServer, sent: Sent) -> Sent:
    return Sent(echo.origin, sent.method, sent.target, sent.fields, sent.body)


def reason_to_refuse(sent: Sent, form: str) -> bool:
    """What a form is known to be unable to say."""
    if form == "curl":
        return b"\0" in sent.body or (
            sent.method == "HEAD" and (sent.is_chunked or bool(sent.body))
        )
    names = [name for name, _ in sent.fields]
    in_fields = [value for name, value in sent.fields if name != b"content-length"]
    return (
        not sent.target.startswith("/")
        or len({*names}) != len(names)
        or not all(value.isascii() for value in in_fields)
    )


FUZZ = settings(
    max_examples=500, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@FUZZ
@given(sent=requests())
@example(sent=Sent(ORIGIN, "POST", "/", ((b"host", b"localhost:8080"), (b"content-length", b"0"))))
@example(sent=Sent(ORIGIN, "GET", "/", ()))
def test_what_is_copied_for_curl_sends_the_same(sent: Sent, echo: EchoServer) -> None:
    sent = said_to(echo, sent)
    if reason_to_refuse(sent, "curl"):
        with pytest.raises(CannotCopy):
            as_curl(sent)
        return
    text = as_curl(sent)
    if not any(name == b"host" for name, _ in sent.fields):
        return  # HTTP/1.0: h11 would refuse it
    assert told(echo.hears(lambda: run_shell(text))) == told(sent), text


@FUZZ
@given(sent=requests())
def test_what_is_copied_for_httpx_sends_the_same(sent: Sent, echo: EchoServer) -> None:
    sent = said_to(echo, sent)
    assert told(echo.hears(lambda: run_python(as_httpx(sent)))) == told(sent), as_httpx(sent)


@pytest.mark.skipif(not shutil.which("pwsh"), reason="PowerShell 7 is not installed")
@settings(FUZZ, max_examples=50)
@given(sent=requests())
def test_what_is_copied_for_powershell_sends_the_same(
    sent: Sent, echo: EchoServer, tmp_path: Path
) -> None:
    sent = said_to(echo, sent)
    if not reason_to_refuse(sent, "ps1"):
        text = as_powershell(sent)
        heard = echo.hears(lambda: run_powershell(text, tmp_path / "copied.ps1"))
        assert told(heard) == told(sent), text


@FUZZ
@given(sent=requests())
def test_a_powershell_script_holds_a_request_as_data_only(sent: Sent) -> None:
    """No quote of the request's ends a text, so no character of it is code."""
    if reason_to_refuse(sent, "ps1"):
        with pytest.raises(CannotCopy):
            as_powershell(sent)
        return
    code = _without_texts(as_powershell(sent))
    assert set(code) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789$=:[](){}.,@-_ \n'"
    )
    assert "touch" not in code and "passwd" not in code and "id" not in code.split()


def _without_texts(script: str) -> str:
    code, in_text = "", False
    for character in script:
        if character in "'\u2018\u2019\u201a\u201b":
            in_text = not in_text  # two in a row end it and begin it again
        elif not in_text:
            code += character
    assert not in_text
    return code


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_reads_it_alike(shell: str, echo: EchoServer) -> None:
    body = bytes(range(1, 256)) + b"'!\\041 $(id) `id` ${HOME} !!" + "ä‮❤".encode()
    fields = ((b"host", echo.origin[7:].encode()), (b"x-a", b"'$(id)'"), (b"x-empty", b""))
    sent = Sent(echo.origin, "POST", "/a", fields, body)
    heard = echo.hears(lambda: run_shell(as_curl(sent), shell))
    assert heard.body == body and (b"x-a", b"'$(id)'") in heard.fields
    assert (b"x-empty", b"") in heard.fields


# What is written


def test_an_ordinary_request_is_short() -> None:
    fields = ((b"host", b"localhost:8080"), (b"user-agent", b"x"), (b"accept", b"*/*"))
    sent = Sent(ORIGIN, "GET", "/hello?name=Ada", fields)
    assert as_curl(sent) == (
        "curl 'http://localhost:8080/hello?name=Ada' \\\n  -H 'user-agent: x' \\\n"
        "  -H 'accept: */*'\n"
    )
    assert "extensions" not in as_httpx(sent) and "Dangerous" not in as_powershell(sent)


def test_what_no_terminal_shows_is_escaped() -> None:
    sent = Sent(ORIGIN, "POST", "/", ((b"content-type", b"text/plain"),), "a‮b\x1b\r".encode())
    text = as_curl(sent)
    assert r"--data-raw $'a\342\200\256b\033\015'" in text
    for form in FORMS:
        assert copy(sent, form).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("sent", "form", "why"),
    [
        (Sent(ORIGIN, "POST", "/", (), b"a\0b"), "curl", "NUL byte"),
        (Sent(ORIGIN, "HEAD", "/", (), b"a"), "curl", "no body with HEAD"),
        (Sent(ORIGIN, "OPTIONS", "*"), "ps1", "a path only"),
        (Sent(ORIGIN, "GET", "/", ((b"a", b"1"), (b"a", b"2"))), "ps1", "'a' once only"),
        (Sent(ORIGIN, "GET", "/", ((b"a", b"\xe4"),)), "ps1", "ASCII only"),
    ],
)
def test_a_form_says_what_it_cannot(sent: Sent, form: str, why: str) -> None:
    with pytest.raises(CannotCopy, match=why):
        copy(sent, form)
    assert copy(sent, "httpx")


# Secrets


def secret(content_type: str, body: str, target: str = "/") -> Sent:
    fields = (
        (b"host", b"localhost:8080"),
        (b"cookie", b"rpyserve_8080=0123456789abcdef; theme=dark"),
        (b"authorization", b"Bearer hunter2hunter2"),
        (b"x-api-key", b"hunter2"),
        (b"referer", b"http://localhost:8080/?token=hunter2"),
        (b"content-type", content_type.encode()),
    )
    return Sent(ORIGIN, "POST", target, fields, body.encode())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", "name=Ada&pass%77ord=hunter2+and+hunter2&a=b"),
        ("application/json", '{"name": "Ada", "user": [{"password": "hunter2 hunter2"}]}'),
        ("application/json", '{"name": "Ada \\ud800", "token": "hunter2"}'),
        ("application/json; charset=utf-8", "[" * 60_000 + '"password": "hunter2"'),
        (
            "multipart/form-data; boundary=x",
            '--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nAda\r\n--x\r\n'
            'Content-Disposition: form-data; name="password"\r\n\r\nhunter2\r\nhunter2\r\n--x--\r\n',
        ),
        ("text/plain", "Ada 0123456789abcdef password=hunter2"),
    ],
)
def test_secrets_are_masked_unless_asked_for(form: str, content_type: str, body: str) -> None:
    sent = secret(content_type, body, "/login/0123456789abcdef?name=Ada&api_key=hunter2")
    text = copy(sent, form)
    assert "hunter2" not in text and "0123456789abcdef" not in text
    assert MASK in text and "name=Ada" in text and "dark" not in text
    assert FORMS[form](sent) == copy(sent, form, secrets=True)
    assert "hunter2" in copy(sent, "httpx", secrets=True)


def test_what_is_no_secret_stays_as_it_was() -> None:
    sent = Sent(ORIGIN, "POST", "/a?b=%63", ((b"accept", b"*/*"), (b"x", b"\xff")), b"\xff\0{}")
    assert copy(sent, "httpx") == as_httpx(sent)
