"""Access lines: what they say, what they never let through, and where they go."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpyserve.http.request import Request, RequestRecord
from rpyserve.serving import access_log
from rpyserve.serving.access_log import AccessLog
from rpyserve.util.text import escape_for_log
from tests.support.records import finished_record


def record(target: str = "/", status: int = 200, **changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request": None, "method": "GET", "target": target, "client": ("127.0.0.1", 1), "status": status, "sent": 19,
        "seconds": 0.0012, "complete": True,
    }  # fmt: skip
    return finished_record(**{**values, **changes})


def line_of(given: RequestRecord, **options: Any) -> str:
    written: list[str] = []
    log = AccessLog(written.append, **options)
    log(given)
    return "".join(written)


def test_a_line() -> None:
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d GET /counter\?a=1 200 19 B 1\.2 ms\n", line_of(record("/counter?a=1"))
    )


def test_a_session_is_named_shortly() -> None:
    uid = "abcdefghijklmnop"
    request = SimpleNamespace(_logged=True, _session=SimpleNamespace(uid=uid, short_id=uid[:6]))
    line = line_of(record(request=request))
    assert line.endswith(" abcdef\n")
    assert uid not in line


@pytest.mark.parametrize(
    ("address", "end"),
    [("192.168.1.7", " ms from 192.168.1.7\n"), ("2001:db8::7", " ms from 2001:db8::7\n"), ("_hidden\n", " ms from _hidden%0A\n"),
     ("127.0.0.1", " ms\n"), ("::1", " ms\n"), ("::ffff:127.0.0.1", " ms\n"), ("", " ms\n")],
)  # fmt: skip
def test_who_is_elsewhere_is_named(address: str, end: str) -> None:
    assert line_of(record(client=(address, 5000))).endswith(end)


def test_no_session_is_looked_for() -> None:
    assert line_of(record(request=SimpleNamespace(_logged=True, _session=None))).endswith(" ms\n")


def test_what_pages_ask_of_the_server_to_follow_is_shown_on_request_only() -> None:
    request = SimpleNamespace(_logged=False, _session=None)
    assert line_of(record("/-/events", request=request)) == ""
    assert "/-/events" in line_of(record("/-/events", request=request), probes=True)


def test_a_response_that_was_broken_off() -> None:
    assert line_of(record(complete=False)).endswith("ms (cut off)\n")


def test_a_request_that_could_not_be_read() -> None:
    assert " - - 400 " in line_of(record("", 400, method=""))


@pytest.mark.parametrize(
    "target",
    [
        "/favicon.ico",
        "/apple-touch-icon-120x120.png",
        "/.well-known/appspecific/com.chrome.devtools.json",
    ],
)
def test_probes_of_browsers(target: str) -> None:
    assert line_of(record(target, 404)) == ""
    assert target in line_of(record(target, 200))
    assert target in line_of(record(target, 404), probes=True)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/plain?x=1&y=%20", "/plain?x=1&y=%20"),
        ("/gr%C3%BC%C3%9Fe", "/grüße"),
        ("/gr\xc3\xbc\xc3\x9fe", "/grüße"),  # bytes as they came, read as Latin-1
        ("/a%0d%0ab", "/a%0D%0Ab"),
        ("/%1b[31mred", "/%1B[31mred"),
        ("/\x1b[31m\r\n\x00", "/%1B[31m%0D%0A%00"),
        ("/100%25", "/100%25"),
        ("/%E2%80%AEtxt", "/%E2%80%AEtxt"),  # turns the direction of writing
        ("/%ff%fe", "/%FF%FE"),
        ("/a b", "/a%20b"),
        ("/\u2028", "/%E2%80%A8"),
    ],
)
def test_targets(target: str, text: str) -> None:
    assert escape_for_log(target) == text


def test_a_long_target_is_cut() -> None:
    assert len(escape_for_log("/" + "x" * 10_000)) < 400


@given(st.text(max_size=40))
def test_whatever_was_sent_is_one_harmless_word(target: str) -> None:
    assert re.fullmatch(r"\S+", escape_for_log(target))
    assert escape_for_log(target).isprintable()


def test_colours_only_when_wanted() -> None:
    assert "\x1b" not in line_of(record(status=500))
    assert "\x1b[31m500\x1b[0m" in line_of(record(status=500), colour=True)


@pytest.fixture
def configured() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    before = access_log.log.level, access_log.log.propagate
    access_log.log.addHandler(handler)
    access_log.log.setLevel(logging.INFO)
    access_log.log.propagate = False
    yield records
    access_log.log.removeHandler(handler)
    access_log.log.setLevel(before[0])
    access_log.log.propagate = before[1]


def test_a_configured_logger_gets_the_lines(configured: list[logging.LogRecord]) -> None:
    assert line_of(record("/100%25/%s"), colour=True) == ""
    assert len(configured) == 1
    assert "GET /100%25/%25s 200" in configured[0].getMessage()
    assert "\x1b" not in configured[0].getMessage()


def asked(**headers: str) -> Request:
    fields = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in headers.items()
    ]
    return Request("GET", "/a?b=1", fields)


COMBINED = re.compile(
    r'(\S+) - (\S+) \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "((?:[^"\\]|\\.)*)" '
    r'(\d{3}) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"\n'
)


def test_combined() -> None:
    request = asked(referer="http://localhost/", user_agent="curl/8")
    found = COMBINED.fullmatch(line_of(record("/a?b=1", request=request), layout="combined"))
    assert found
    assert found.group(1, 2) == ("127.0.0.1", "-")
    assert found.groups()[3:] == ("GET /a?b=1 HTTP/1.1", "200", "19", "http://localhost/", "curl/8")


def test_combined_without_a_request_or_a_body() -> None:
    found = COMBINED.fullmatch(
        line_of(record("", 400, method="", sent=0, client=("", 0)), layout="combined")
    )
    assert found and found.group(1, 4, 5, 6, 7, 8) == ("-", "-", "400", "-", "-", "-")


@given(st.text(st.characters(max_codepoint=255), max_size=60), st.text(max_size=20))
def test_no_client_forges_a_combined_line(sent: str, target: str) -> None:
    line = line_of(record(target, request=asked(referer=sent, user_agent=sent)), layout="combined")
    assert COMBINED.fullmatch(line) and line.isascii()


def test_combined_has_what_the_short_lines_leave_out() -> None:
    assert "favicon" in line_of(record("/favicon.ico", 404), layout="combined", colour=True)


# JSON


def test_json() -> None:
    request = asked(referer="http://localhost/", user_agent="curl/8")
    request.id, request.user = "4f1c", "ada"
    line = line_of(record("/a?b=1", request=request), layout="json")
    found = json.loads(line)
    assert line.endswith("}\n") and line.count("\n") == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "id": "4f1c", "client": "127.0.0.1", "method": "GET", "target": "/a?b=1", "status": 200, "bytes": 19,
        "seconds": 0.0012, "complete": True, "session": None, "user": "ada", "user_agent": "curl/8",
        "referer": "http://localhost/",
    }  # fmt: skip


def test_json_without_a_request() -> None:
    given = record("", 400, method="", client=("", 0), complete=False)
    found = json.loads(line_of(given, layout="json"))
    assert (found["id"], found["client"], found["user_agent"]) == (None, None, None)
    assert (found["method"], found["status"], found["complete"]) == ("", 400, False)


@given(st.text(st.characters(max_codepoint=255), max_size=60), st.text(max_size=20))
def test_no_client_forges_a_line_of_json(sent: str, target: str) -> None:
    line = line_of(record(target, request=asked(referer=sent, user_agent=sent)), layout="json")
    assert line.isascii() and line.removesuffix("\n").isprintable()
    found = json.loads(line)
    assert (found["target"], found["referer"], found["user_agent"]) == (target, sent, sent)


def test_json_names_a_session_shortly_and_cuts_what_is_long() -> None:
    request = asked(user_agent="x" * 10_000)
    request._session = SimpleNamespace(uid="abcdefghijkl", short_id="abcdef")
    line = line_of(record(request=request), layout="json")
    assert json.loads(line)["session"] == "abcdef" and "abcdefg" not in line
    assert len(line) < 3000


def test_json_has_all_but_what_load_balancers_ask() -> None:
    assert "favicon" in line_of(record("/favicon.ico", 404), layout="json")
    asks = SimpleNamespace(_logged=False, _session=None)
    assert line_of(record("/-/ready", request=asks), layout="json") == ""


def test_who_keeps_records_gets_all_but_the_servers_own() -> None:
    kept: list[RequestRecord] = []
    access = AccessLog(None)
    access.keep = kept.append
    own, of_site = Request("GET", "/-/events"), Request("GET", "/favicon.ico")
    own._logged = False
    for request in (own, of_site, None):
        access(record(request=request, status=404))
    assert [each.request for each in kept] == [of_site, None]
    assert access.responses == 3
