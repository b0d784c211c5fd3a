"""What SECURITY.md promises is tested, and the documents say the same."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from rpyserve import Directory, HTTPError, Request, Site
from rpyserve.http.forms import CHARSETS, FIELD_LIMIT, NAME_LENGTH, SPOOL_SIZE, STRAY_PERCENT_LIMIT
from rpyserve.protocol.server_state import Limits
from rpyserve.sessions.store import MOST_CHANGED_IDS
from rpyserve.site import MOST_SESSIONS
from tests.support.in_process import Visitor

ROOT = Path(__file__).parent.parent.parent
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def promises(text: str) -> list[list[str]]:
    section = text.partition("\n## Guarantees\n")[2].partition("\n## ")[0]
    return [
        line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")
    ][1:]


def test_both_documents_promise_the_same() -> None:
    assert promises(SECURITY) == promises(DOCUMENT)
    assert len(promises(SECURITY)) > 10


@pytest.mark.parametrize("promise", promises(SECURITY), ids=lambda promise: promise[0][:40])
def test_the_tests_of_a_promise_exist(promise: list[str]) -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", promise[2])
    assert named
    for file, function in named:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        there = {
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }
        assert function in there, f"{file} has no {function}"


# The first version of each without a known vulnerability.
SAFE = {
    "multipart": "1.3.1",  # CVE-2026-28356: a header of 83 bytes took seconds
    "Jinja2": "3.1.6",  # CVE-2024-22195, CVE-2024-34064, CVE-2025-27516
    "click": "8.3.3",  # CVE-2026-7246, in click.edit()
    "h11": "0.16",  # CVE-2025-43859: chunked bodies
    "httpx": "0.23",  # CVE-2021-41945
}


def test_no_version_with_a_known_vulnerability_is_accepted() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    found = set()
    for requirement in [*project["dependencies"], *(each for extra in extras for each in extra)]:
        name, _, floor = requirement.partition(">=")
        if name in SAFE:
            found.add(name)
            assert as_numbers(floor) >= as_numbers(SAFE[name]), requirement
    assert found == set(SAFE)


def as_numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def test_the_limits_are_those_of_the_code() -> None:
    assert f"| {FIELD_LIMIT} |" in DOCUMENT and f"| {STRAY_PERCENT_LIMIT:,} |" in DOCUMENT
    assert f"under way | {MOST_CHANGED_IDS:,} |" in DOCUMENT
    assert f"UTF-8 and {len(CHARSETS)} that" in DOCUMENT and f"{NAME_LENGTH} bytes" in DOCUMENT
    limits = Limits()
    assert f"`--max-sessions`, {MOST_SESSIONS:,}" in DOCUMENT
    assert (limits.head, limits.line, limits.body, SPOOL_SIZE) == (
        64 * 2**10,
        16 * 2**10,
        2 * 2**30,
        2**19,
    )
    assert (limits.head_time, limits.body_stall, limits.write_stall, limits.idle) == (
        15,
        60,
        60,
        75,
    )


@pytest.mark.parametrize(
    "target", ["/", "/page", "/a.txt", "/none", "/fails", "/moved", "/-/", "/-/events"]
)
async def test_nothing_of_ours_is_for_other_origins(target: str, tmp_path: Path) -> None:
    (tmp_path / "page.rpy").write_text("def resource(request): return 'page'\n")
    (tmp_path / "fails.rpy").write_text("raise ValueError\n")
    (tmp_path / "moved.rpy").write_text(
        "from rpyserve import Redirect\ndef resource(request): return Redirect('/')\n"
    )
    (tmp_path / "a.txt").write_text("a")
    site = Site(Directory(tmp_path))
    for method in ("GET", "HEAD", "OPTIONS", "POST"):
        fields = [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "GET")]
        answer = await Visitor(site).ask(method, target, headers=fields)
        assert not [
            name for name, _ in answer.headers if name.lower().startswith("access-control-")
        ]
    site.close()


async def test_an_error_page_has_a_policy_that_lets_nothing_in() -> None:
    async def fails(request: Request) -> str:
        raise HTTPError(404)

    answer = await Visitor(Site(fails)).get("/", headers=[("Accept", "text/html")])
    policy = answer.header("content-security-policy") or ""
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert answer.header("x-content-type-options") == "nosniff"
