"""Our own pages: safe whatever is in them, with a plain-text twin."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rpyserve import HTTPError, Request, Resource, Site
from rpyserve.diagnostics.editor import EditorLink
from rpyserve.diagnostics.error_page import script_error_page, truncation_notice
from rpyserve.diagnostics.model import ErrorReport, ExceptionReport, Frame, Line, Variable
from rpyserve.http.response import Response
from rpyserve.resources import pages
from tests.support.in_process import ask

BROWSER = [(b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8")]
EVIL = '<script>alert("1")</script>\'javascript:\udc80'


def text(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


def evil_failure() -> ErrorReport:
    frame = Frame(
        f"/{EVIL}",
        3,
        1,
        EVIL,
        True,
        (Line(3, EVIL, True, (2, 5)), Line(4, EVIL)),
        (Variable(EVIL, EVIL),),
        2,
    )
    foreign = Frame(EVIL, 3, 1, EVIL, False, (Line(3, EVIL, True),))
    inner = ExceptionReport(EVIL, f"{EVIL}\n{EVIL}", (EVIL,), (foreign, frame))
    return ErrorReport(
        EVIL,
        f"{EVIL}\n{EVIL}",
        (ExceptionReport(EVIL, branches=((inner,),), left_out=1), inner),
        EVIL,
    )


def every_page(request: Request) -> list[Response]:
    failure = evil_failure()
    entry = pages.ListingEntry(EVIL, False, 10, 0.0)
    return [
        pages.error_page(request, HTTPError(404, EVIL, private=EVIL), trusted=True),
        script_error_page(request, failure, trusted=True, editor=EditorLink("x:{path}")),
        pages.listing(request, f"/{EVIL}/", [entry]),
        pages.empty_site(request, Path("/tmp") / "<script>"),
    ]


def test_no_page_lets_markup_in() -> None:
    request = Request("GET", "/%3Cscript%3Ealert(1)%3C/script%3E?<script>", BROWSER)
    for page in every_page(request):
        assert "<script" not in text(page)
        assert b"Content-Security-Policy" in dict(page.headers)


def test_no_page_asks_the_network_for_anything() -> None:
    for page in every_page(Request("GET", "/", BROWSER)):
        assert not re.search(r"(src|@import|url\()", text(page))
        assert "prefers-color-scheme: dark" in text(page)


def test_other_clients_get_plain_text() -> None:
    for page in every_page(Request("GET", "/")):
        assert dict(page.headers)[b"Content-Type"] == b"text/plain; charset=utf-8"
        assert "<html" not in text(page)


def test_a_client_that_asks_for_json_gets_json() -> None:
    for page in every_page(Request("GET", "/", [(b"accept", b"application/json")])):
        assert dict(page.headers)[b"Content-Type"] == b"application/json"
        told = json.loads(text(page))
        assert told["status"] == page.status and told["title"] and told["detail"]


def test_the_truncation_notice_lets_no_markup_in() -> None:
    assert "<script" not in truncation_notice(evil_failure())


def test_the_policy_lets_in_our_own_script_and_nothing_else() -> None:
    sources = dict(part.split(" ", 1) for part in pages.CONTENT_SECURITY_POLICY.split("; "))
    assert sources["default-src"] == "'none'"
    assert sources["script-src"] == sources["connect-src"] == "'self'"


def test_details_are_for_trusted_clients_only() -> None:
    request = Request("GET", "/", BROWSER)
    failure = ErrorReport(
        "ValueError: secret",
        "secret",
        (ExceptionReport("secret", frames=(Frame("/secret.rpy", 1),)),),
        "secret",
    )
    bare = script_error_page(request, failure, trusted=False, editor=EditorLink())
    assert "secret" not in text(bare)
    assert "secret" in text(script_error_page(request, failure, trusted=True, editor=EditorLink()))
    error = HTTPError(404, "Nothing.", private="secret")
    assert "secret" not in text(pages.error_page(request, error, trusted=False))


def test_a_listing_tells_sizes_and_links() -> None:
    entries = [
        pages.ListingEntry("sub", True, 4096, 0.0),
        pages.ListingEntry("a b", False, 12_345, 0.0),
    ]
    page = text(pages.listing(Request("GET", "/x/", BROWSER), "/x/", entries))
    assert '<a href="a%20b">a b</a></td><td>12 kB</td>' in page
    assert '<a href="../">' in page
    assert '<a href="../">' not in text(pages.listing(Request("GET", "/", BROWSER), "/", entries))


def test_the_first_script_of_the_welcome_compiles() -> None:
    compile(pages.FIRST_SCRIPT, "index.rpy", "exec")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
async def test_this_machine_sees_details(address: str) -> None:
    assert "ZeroDivisionError" in await fail_for(address)


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1", "fe80::1%eth0", "", "localhost"])
async def test_others_see_a_bare_500(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert "ZeroDivisionError" not in await fail_for(address)
    assert "ZeroDivisionError" in caplog.text
    assert f"--trust {address}" in caplog.text or not address
    assert ("--trust" in caplog.text) is bool(address)  # a client that has left has none


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For"])
async def test_what_was_forwarded_is_not_from_this_machine(header: str) -> None:
    assert "ZeroDivisionError" not in await fail_for("127.0.0.1", [(header, "for=127.0.0.1")])


async def fail_for(address: str, headers: list[tuple[str, str]] | None = None) -> str:
    from tests.support.in_process import Visitor

    def fails(request: Request) -> float:
        return 1 / 0

    answer = await Visitor(Site(fails), address).get("/", headers=headers or [])
    assert answer.status == 500
    return answer.text


async def test_a_failure_shows_the_authors_line() -> None:
    class Broken(Resource):
        def render_GET(self, request: Request) -> str:
            return "" + request.missing  # type: ignore[attr-defined]

    answer = await ask(Site(Broken()), "/")
    assert "test_pages.py" in answer.text
    assert 'return "" + request.missing' in answer.text
    assert "rendering.py" not in answer.text


async def test_the_cause_of_a_failure_is_told() -> None:
    def fails(request: Request) -> str:
        try:
            {}["key"]
        except KeyError as exc:
            raise RuntimeError("no such word") from exc
        return ""

    answer = await ask(Site(fails), "/")
    assert "RuntimeError: no such word" in answer.text
    assert "caused by KeyError: 'key'" in answer.text


def test_error_pages_differ_in_all_that_they_tell() -> None:
    def page(
        target: str = "/here", error: HTTPError | None = None, *, trusted: bool = True
    ) -> Response:
        request = Request("GET", target, BROWSER)
        return pages.error_page(request, error or HTTPError(404, private="Why."), trusted=trusted)

    told = [
        page("/here"),
        page("/there"),
        page(trusted=False),
        page(error=HTTPError(404, "Gone.", private="Why.")),
        page(error=HTTPError(404, private="Why.", headers={"X-Note": "1"})),
        page(error=HTTPError(403, private="Why.")),
        pages.error_page(
            Request("PUT", "/here", BROWSER), HTTPError(404, private="Why."), trusted=True
        ),
        pages.error_page(Request("GET", "/here"), HTTPError(404, private="Why."), trusted=True),
    ]
    assert len({(each.status, each.headers, each.body) for each in told}) == len(told)
