"""What is secret: by its name, and by its value."""

from __future__ import annotations

import pytest

from rpyserve import Request, Site
from rpyserve.diagnostics.redaction import MASK, Redactor, is_secret, secrets_of
from tests.support.in_process import ask

SECRET = [
    "password", "passwd", "PASSWORD", "db_password", "dbPassword", "myPasswd", "pwd", "secret",
    "client_secret", "SECRET_KEY", "token", "access_token", "accessToken", "csrf_token", "api_key",
    "apikey", "API-KEY", "authorization", "Authorization", "auth", "cookie", "Cookie",
    "set-cookie", "cookies", "session_id", "sessionid", "sid", "uid", "private_key", "credentials",
    "jwt", b"authorization", b"cookie",
]  # fmt: skip
PLAIN = [
    "", "name", "user", "value", "passage", "compass", "author", "side", "fluid", "key", "keys",
    "tokenize", "tokenizer", "session", "pinned", "spin", None, 3, ("password",),
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET)
def test_secret_names(name: object) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names(name: object) -> None:
    assert not is_secret(name)


def test_a_long_name_costs_nothing() -> None:
    assert not is_secret("x" * 10_000_000)


def test_secret_texts_are_redacted() -> None:
    redactor = Redactor(["0123456789", "0123456789abc", "dark", ""])
    assert redactor.redact("a 0123456789abc b 0123456789 dark") == f"a {MASK} b {MASK} dark"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2&x=1", f"password={MASK}&x=1"),
        ("?a=1&access_token=abc.def", f"?a=1&access_token={MASK}"),
        ("Authorization: Bearer abc", f"Authorization: Bearer {MASK}"),
        ('{"api_key": "abc"}', f'{{"api_key": "{MASK}"}}'),
        ("postgres://localhost/db?sslmode=on", "postgres://localhost/db?sslmode=on"),
        ("compass=north", "compass=north"),
    ],
)
def test_values_within_texts(text: str, shown: str) -> None:
    assert Redactor().redact_value(text) == shown


def test_the_proofs_of_a_request() -> None:
    fields = [
        (b"cookie", b"login=abcdefgh1; theme=dark"),
        (b"authorization", b"Basic dXNlcjpwYXNz"),
    ]
    request = Request("GET", "/", fields)
    redactor = secrets_of(request)
    for text in ("abcdefgh1", "Basic dXNlcjpwYXNz", "dXNlcjpwYXNz", "login=abcdefgh1; theme=dark"):
        assert redactor.redact(text) == MASK
    assert redactor.redact("dark") == "dark"


async def test_the_id_of_the_session() -> None:
    redactors = []

    def page(request: Request) -> str:
        uid = request.getSession().uid
        redactors.append((secrets_of(request), uid))
        return ""

    await ask(Site(page), "/")
    [(redactor, uid)] = redactors
    assert redactor.redact(f"it is {uid}.") == f"it is {MASK}."
