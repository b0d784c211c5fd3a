"""Which Content Security Policies block the script of live reload, or its stream."""

from __future__ import annotations

import pytest

from rpyserve.livereload.csp import blocking_directive, policies_in
from rpyserve.resources import pages


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "img-src 'none'; style-src 'self'",
        "default-src 'self'",
        "default-src 'none'; script-src 'self'; connect-src 'self'",
        "default-src 'none'; script-src-elem 'self'; script-src 'none'; connect-src 'self'",
        "script-src *; connect-src *",
        "DEFAULT-SRC 'SELF'",
        "default-src 'self' 'nonce-abc' https://cdn.example",
        "script-src 'self'; script-src 'none'",  # of two with one name the first counts
        pages.CONTENT_SECURITY_POLICY,
    ],
)
def test_nothing_in_the_way(policy: str) -> None:
    assert blocking_directive([policy]) == ""


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("default-src 'none'", "default-src 'none'"),
        ("script-src", "script-src"),
        ("script-src 'nonce-abc'", "script-src 'nonce-abc'"),
        ("script-src 'unsafe-inline'", "script-src 'unsafe-inline'"),
        (
            "script-src 'self' 'strict-dynamic' 'nonce-abc'",
            "script-src 'self' 'strict-dynamic' 'nonce-abc'",
        ),
        ("script-src https:", "script-src https:"),
        ("script-src https://cdn.example", "script-src https://cdn.example"),
        ("script-src localhost", "script-src localhost"),
        ("script-src localhost:8081", "script-src localhost:8081"),
        ("script-src localhost:8080/js/", "script-src localhost:8080/js/"),
        ("script-src *.localhost:8080", "script-src *.localhost:8080"),
        ("default-src 'self'; connect-src 'none'", "connect-src 'none'"),
        ("sandbox", "sandbox"),
        ("sandbox allow-scripts", "sandbox allow-scripts"),
        ("default-src 'self', script-src 'none'", "script-src 'none'"),
        ("script-src 'self' ; connect-src https://api.example", "connect-src https://api.example"),
    ],
)
def test_what_is_in_the_way(policy: str, why: str) -> None:
    assert blocking_directive([policy]) == why


def test_every_policy_counts() -> None:
    assert blocking_directive(["default-src 'self'", "script-src 'none'"]) == "script-src 'none'"


def test_only_plain_words_count_as_allowing() -> None:
    for sources in ("http://localhost:*", "localhost:8080", "*.localhost:8080", "http:"):
        policy = f"default-src {sources}"
        assert blocking_directive([policy]) == policy


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<p>none</p>", []),
        (
            '<meta http-equiv="Content-Security-Policy"'
            ' content="default-src &#39;self&#39;; img-src *">',
            ["default-src 'self'; img-src *"],
        ),
        ("<META content='script-src x' HTTP-EQUIV=content-security-policy />", ["script-src x"]),
        (
            '<meta name="x" content="a > b"><meta http-equiv=Content-Security-Policy content="y">',
            ["y"],
        ),
        ('<meta http-equiv="refresh" content="1">', []),
    ],
)
def test_policies_policies_ins(text: str, found: list[str]) -> None:
    assert policies_in(text) == found
