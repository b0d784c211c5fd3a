"""Files: conditions and ranges, compared with a naive model, and the resource that opens them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rpyserve import HTTPError, Request, Resource, Site
from rpyserve.files.conditional import (
    CONDITIONS,
    MAX_RANGES,
    YOUNG,
    Plan,
    etag_of,
    evaluate,
    parse_ranges,
)
from rpyserve.files.safe_open import open_checked
from rpyserve.files.static_file import SMALL, StaticFile
from rpyserve.http.response import FileBody
from tests.support.in_process import Answer, ask

MODIFIED = 1_700_000_000
NOW = (MODIFIED + 1000) * 10**9
DATE = formatdate(MODIFIED, usegmt=True)


class Stat:
    """Of a file, as far as `plan` looks."""

    def __init__(self, size: int = 10, mtime_ns: int = MODIFIED * 10**9 + 5, **more: int) -> None:
        self.st_size = size
        self.st_mtime_ns = mtime_ns
        self.st_ctime_ns = more.get("ctime_ns", mtime_ns)
        self.st_ino = more.get("ino", 7)


def planned(method: str = "GET", stat: Any = None, now: int = NOW, **headers: str) -> Plan:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return evaluate(method, named, stat or Stat(), "text/plain", now=now, boundary="B")


def etag(stat: Any = None) -> str:
    return dict(planned(stat=stat).headers)["ETag"]


# Conditions


def test_a_plain_answer() -> None:
    answer = planned()
    headers = dict(answer.headers)
    assert (answer.status, answer.parts) == (200, (range(10),))
    assert headers["Last-Modified"] == DATE
    assert re.fullmatch(r'"[0-9a-f-]+"', headers["ETag"])
    assert headers["Cache-Control"] == "no-cache"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Type"] == "text/plain"


@pytest.mark.parametrize("field", ["size", "mtime_ns", "ino", "ctime_ns"])
def test_any_trace_of_a_change_is_another_etag(field: str) -> None:
    old: dict[str, int] = {
        "size": 10,
        "mtime_ns": MODIFIED * 10**9,
        "ino": 7,
        "ctime_ns": MODIFIED * 10**9,
    }
    assert etag(Stat(**old)) != etag(Stat(**{**old, field: old[field] + 1}))


def test_if_none_match() -> None:
    held = etag()
    for value in (held, f"W/{held}", f'"x", {held}', f'"a,b",W/{held} , "y"', "*"):
        answer = planned(if_none_match=value)
        assert answer.status == 304, value
        assert not answer.parts
        assert dict(answer.headers)["ETag"] == held
        assert "Content-Type" not in dict(answer.headers)
    for value in ('"x"', held.strip('"'), "", "nonsense", held[:-2] + '"'):
        assert planned(if_none_match=value).status == 200, value
    assert planned("HEAD", if_none_match=held).status == 304


def test_if_modified_since_in_the_three_forms_of_a_date() -> None:
    for date in (
        DATE,
        "Tuesday, 14-Nov-23 22:13:20 GMT",
        "Tue Nov 14 22:13:20 2023",
        formatdate(MODIFIED + 9, usegmt=True),
    ):
        assert planned(if_modified_since=date).status == 304, date
    for date in (
        formatdate(MODIFIED - 1, usegmt=True),
        "nonsense",
        "",
        "0",
        "Tue, 99 Nov 2023 99:99:99 GMT",
    ):
        assert planned(if_modified_since=date).status == 200, date


def test_an_etag_goes_before_a_date() -> None:
    assert planned(if_none_match='"x"', if_modified_since=DATE).status == 200
    assert planned(if_match=etag(), if_unmodified_since=formatdate(0)).status == 200


def test_if_match_compares_strongly() -> None:
    held = etag()
    assert (
        planned(if_match=held).status
        == planned(if_match="*").status
        == planned(if_match=f'"x", {held}').status
        == 200
    )
    for value in ('"x"', f"W/{held}", ""):
        answer = planned(if_match=value)
        assert (answer.status, answer.parts) == (412, ()), value
    assert planned(if_match='"x"', if_none_match=held).status == 412


def test_if_unmodified_since() -> None:
    assert planned(if_unmodified_since=DATE).status == 200
    assert planned(if_unmodified_since="nonsense").status == 200
    assert planned(if_unmodified_since=formatdate(MODIFIED - 1, usegmt=True)).status == 412


def test_if_range() -> None:
    held = etag()
    assert planned(range="bytes=0-0", if_range=held).status == 206
    assert planned(range="bytes=0-0", if_range=DATE).status == 206
    for value in (f"W/{held}", '"x"', formatdate(MODIFIED + 1, usegmt=True), "nonsense", ""):
        assert planned(range="bytes=0-0", if_range=value).status == 200, value
        assert planned(range="bytes=99-", if_range=value).status == 200, value


@pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns"])
@pytest.mark.parametrize("age", [-(10**12), 0, YOUNG - 1])
def test_a_young_file_has_no_tag_by_its_stamps_and_equals_no_date(field: str, age: int) -> None:
    stat = Stat(**{"mtime_ns": NOW - 10**12, "ctime_ns": NOW - 10**12, field: NOW - age})
    told = dict(planned(stat=stat).headers)
    assert "ETag" not in told
    assert planned(stat=stat, if_modified_since=told["Last-Modified"]).status == 200
    much_later = NOW + abs(age) + YOUNG
    assert planned(stat=stat, now=much_later, if_modified_since=told["Last-Modified"]).status == 200
    assert (
        planned(stat=stat, now=much_later, range="bytes=0-0", if_range=told["Last-Modified"]).status
        == 200
    )
    assert parsedate_to_datetime(told["Last-Modified"]).timestamp() < NOW / 10**9
    old_tag = etag(Stat())
    future = formatdate(NOW // 10**9 + 10**4, usegmt=True)
    assert planned(stat=stat, if_none_match=old_tag).status == 200
    assert planned(stat=stat, if_none_match="None").status == 200
    assert planned(stat=stat, if_modified_since=future).status == 200
    assert planned(stat=stat, if_match=old_tag).status == 412
    assert planned(stat=stat, range="bytes=0-0", if_range=future).status == 200
    assert planned(stat=stat, range="bytes=0-0").status == 206


def test_a_tag_handed_out_always_belongs_to_a_file_that_was_left_alone_for_a_while() -> None:
    assert "ETag" in dict(planned(stat=Stat(mtime_ns=NOW - YOUNG)).headers)


def test_a_file_whose_bytes_are_at_hand_is_known_by_them() -> None:
    def answer(content: bytes, now: int = NOW, **headers: str) -> Plan:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        size, etag = len(content), etag_of(content)
        return evaluate(
            "GET", named, Stat(), "text/plain", now=now, boundary="B", size=size, etag=etag
        )

    young = MODIFIED * 10**9 + 6
    tag = dict(answer(b"one", young).headers)["ETag"]
    assert tag == dict(answer(b"one").headers)["ETag"]
    assert answer(b"one", young, if_none_match=tag).status == 304
    assert answer(b"two", young, if_none_match=tag).status == 200
    assert answer(b"two", if_none_match=tag).status == 200
    assert answer(b"four", range="bytes=0-").parts == (range(4),)


def test_a_date_that_another_file_may_have_had_equals_none() -> None:
    moved_here = Stat(ctime_ns=(MODIFIED + 60) * 10**9)
    assert dict(planned(stat=moved_here).headers)["Last-Modified"] == DATE
    for date in (DATE, formatdate(MODIFIED + 60, usegmt=True)):
        assert planned(stat=moved_here, if_modified_since=date).status == 200
        assert planned(stat=moved_here, range="bytes=0-0", if_range=date).status == 200


# Ranges


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", [range(0, 1)]),
        ("bytes=0-", [range(0, 10)]),
        ("bytes=5-99", [range(5, 10)]),
        ("bytes=-3", [range(7, 10)]),
        ("bytes=-99", [range(0, 10)]),
        ("BYTES = 1-2", [range(1, 3)]),
        ("bytes=0-1,5-6", [range(0, 2), range(5, 7)]),
        ("bytes=5-6 , ,0-1,", [range(5, 7), range(0, 2)]),
        ("bytes=0-1,99-", [range(0, 2)]),
        ("bytes=0-99999999999999999999999999999999", [range(0, 10)]),
        ("bytes=000000000000000000000000000000002-3", [range(2, 4)]),
        ("bytes=10-", []),
        ("bytes=-0", []),
        ("bytes=10-20,30-40", []),
        ("bytes=9999999999999999999999999-", []),
        ("bytes=3-2", None),
        ("bytes=0-1,3-2", None),
        ("bytes=", None),
        ("bytes=,", None),
        ("bytes=-", None),
        ("bytes", None),
        ("bytes=a-b", None),
        ("bytes=1", None),
        ("bytes=+1-2", None),
        ("bytes=0x1-2", None),
        ("bytes=٣-٤", None),
        ("bytes=1-2-3", None),
        ("lines=0-1", None),
        ("bytes=0-5,5-9", None),
        ("bytes=0-,0-", None),
        ("bytes=-5,-5", None),
        ("", None),
    ],
)
def test_range_headers(value: str, expected: list[range] | None) -> None:
    assert parse_ranges(value, 10) == expected


def test_an_empty_file_has_no_ranges() -> None:
    assert parse_ranges("bytes=0-", 0) == []
    assert parse_ranges("bytes=-5", 0) is None
    assert parse_ranges("bytes=-0", 0) == []


def test_sixteen_ranges_are_served_and_more_are_the_whole_file() -> None:
    def many(count: int) -> str:
        return "bytes=" + ",".join(f"{2 * i}-{2 * i}" for i in range(count))

    assert len(parse_ranges(many(MAX_RANGES), 10**6) or ()) == 16
    assert parse_ranges(many(MAX_RANGES + 1), 10**6) is None
    assert parse_ranges("bytes=" + "0-," * 20000, 10**6) is None
    assert parse_ranges("bytes=" + "," * 60000 + "0-1", 10**6) is None


def test_one_range() -> None:
    answer = planned(range="bytes=2-4")
    assert (answer.status, answer.parts) == (206, (range(2, 5),))
    assert dict(answer.headers)["Content-Range"] == "bytes 2-4/10"
    assert dict(answer.headers)["Content-Type"] == "text/plain"


def test_several_ranges() -> None:
    answer = planned(range="bytes=0-1,-1")
    assert answer.status == 206
    assert dict(answer.headers)["Content-Type"] == "multipart/byteranges; boundary=B"
    assert "Content-Range" not in dict(answer.headers)
    assert answer.parts == (
        b"--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n",
        range(0, 2),
        b"\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 9-9/10\r\n\r\n",
        range(9, 10),
        b"\r\n--B--\r\n",
    )


def test_no_satisfiable_range() -> None:
    answer = planned(range="bytes=10-")
    assert (answer.status, answer.parts) == (416, ())
    assert dict(answer.headers)["Content-Range"] == "bytes */10"


def test_head_takes_no_ranges() -> None:
    assert planned("HEAD", range="bytes=0-0").status == 200
    assert planned("HEAD", range="bytes=99-").status == 200


SPECS = st.one_of(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    st.integers(0, 30).map("{}-".format),
    st.integers(0, 30).map("-{}".format),
)


def naive(specs: list[str], content: bytes) -> list[bytes] | None:
    """What the ranges are, byte by byte; None for a header to be ignored."""
    found = []
    for spec in specs:
        first, last = spec.split("-")
        if first and last and int(first) > int(last):
            return None
        low = int(first) if first else len(content) - int(last)
        high = int(last) if first and last else len(content)
        found.append([i for i in range(len(content)) if low <= i <= high])
    return [bytes(content[i] for i in indexes) for indexes in found if indexes]


@given(st.lists(SPECS, min_size=1, max_size=6), st.integers(1, 25))
def test_ranges_are_those_of_a_naive_model(specs: list[str], size: int) -> None:
    content = bytes(range(size))
    ranges = parse_ranges("bytes=" + ",".join(specs), size)
    expected = naive(specs, content)
    if expected is None:
        assert ranges is None
    elif len(set(b"".join(expected))) < len(b"".join(expected)):
        assert ranges is None  # they overlap
    else:
        assert ranges is not None
        assert [content[part.start : part.stop] for part in ranges] == expected


@given(st.text(alphabet="bytes=-, 0123456789\t", max_size=40), st.integers(0, 20))
def test_any_range_header_gives_ranges_within_the_file(value: str, size: int) -> None:
    for part in parse_ranges(value, size) or ():
        assert 0 <= part.start < part.stop <= size


HEADERS = st.text(max_size=40) | st.text(alphabet="TueMonNov GMT+-:, 0123456789", max_size=40)


@given(st.dictionaries(st.sampled_from(CONDITIONS), HEADERS))
def test_no_header_breaks_the_plan(headers: dict[str, str]) -> None:
    assert evaluate("GET", headers, Stat(), "text/plain", now=NOW, boundary="B").status in (
        200,
        206,
        304,
        412,
        416,
    )


# The resource

CONTENT = bytes(i % 251 for i in range(1000))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of 1,000 bytes whose time stamps are old enough for validators."""
    path = tmp_path / "data.txt"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every file is an hour old."""
    now = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr("rpyserve.files.static_file.time.time_ns", lambda: now)
    yield


async def get(path: Path, method: str = "GET", **headers: str) -> Answer:
    root = Resource()
    root.putChild("f", StaticFile(path))
    return await ask(
        Site(root), "/f", method, headers=[(k.replace("_", "-"), v) for k, v in headers.items()]
    )


async def test_a_file_is_sent(old: Path) -> None:
    answer = await get(old)
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("cache-control") == "no-cache"
    assert answer.header("accept-ranges") == "bytes"


async def test_a_visit_with_what_the_last_answer_said(old: Path) -> None:
    first = await get(old)
    tag, date = first.header("etag") or "", first.header("last-modified") or ""
    for headers in ({"If_None_Match": tag}, {"If_Modified_Since": date}):
        again = await get(old, **headers)
        assert (again.status, again.body) == (304, b"")
        assert again.header("content-type") is None
    await trio.Path(old).write_bytes(b"new")
    assert (await get(old, If_None_Match=tag)).body == b"new"


def edit(path: Path, way: str, content: bytes) -> None:
    stamp = os.stat(path).st_mtime_ns
    if way == "replaced by an older file":
        other = path.with_name("other")
        other.write_bytes(content)
        os.utime(other, ns=(stamp - 10**12, stamp - 10**12))
        os.replace(other, path)
    else:
        path.write_bytes(content)
    if way == "time set back":
        os.utime(path, ns=(stamp, stamp))


@pytest.mark.parametrize("age", [0, 1, 3600], ids=["young", "one second", "settled"])
@pytest.mark.parametrize("way", ["in place", "time set back", "replaced by an older file"])
async def test_no_edit_is_answered_with_304(
    old: Path, way: str, age: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rpyserve.files.static_file.time.time_ns", lambda: os.stat(old).st_ctime_ns + age * 10**9
    )
    first = await get(old)
    new = CONTENT[::-1]
    edit(old, way, new)
    tag, date = first.header("etag") or "", first.header("last-modified") or ""
    assert (await get(old, If_None_Match=tag)).body == new
    assert (await get(old, Range="bytes=0-9", If_Range=tag)).status == 200
    assert (await get(old, If_None_Match=tag, If_Modified_Since=date)).body == new
    if age != 3600:  # a settled file's edit comes in another second
        assert (await get(old, If_Modified_Since=date)).body == new


async def test_a_young_file_has_a_tag_and_a_date(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpyserve.files.static_file.time.time_ns", lambda: os.stat(old).st_ctime_ns)
    first = await get(old)
    assert first.header("last-modified")
    assert (await get(old, If_None_Match=first.header("etag") or "")).status == 304


async def test_a_large_file_is_streamed_and_known_by_its_stamps(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(bytes(SMALL + 1))
    response, request = request_for(path)
    assert isinstance(response.body, FileBody)
    request.close()
    tag = (await get(path)).header("etag") or ""
    assert (await get(path, If_None_Match=tag)).status == 304
    path.write_bytes(bytes(SMALL) + b"x")
    assert (await get(path, If_None_Match=tag)).status == 200


async def test_parts(old: Path) -> None:
    assert (await get(old, Range="bytes=10-19")).body == CONTENT[10:20]
    answer = await get(old, Range="bytes=0-0,-5")
    boundary = (answer.header("content-type") or "").partition("boundary=")[2].encode()
    assert answer.body.count(b"--" + boundary) == 3
    assert CONTENT[:1] in answer.body.split(boundary)[1]
    assert answer.body.split(boundary)[2].endswith(CONTENT[-5:] + b"\r\n--")
    assert (await get(old, Range="bytes=1000-")).header("content-range") == "bytes */1000"
    assert (await get(old, If_Match='"x"')).status == 412


async def test_options(old: Path) -> None:
    answer = await get(old, "OPTIONS")
    assert (answer.status, answer.header("allow"), answer.body) == (204, "GET, HEAD, OPTIONS", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "FOO"])
async def test_only_get_and_head(old: Path, method: str) -> None:
    answer = await get(old, method)
    assert answer.status == 405
    assert answer.header("allow") == "GET, HEAD, OPTIONS"
    assert CONTENT not in answer.body


async def test_a_file_has_no_children(old: Path) -> None:
    root = Resource()
    root.putChild("f", StaticFile(old))
    answer = await ask(Site(root), "/f/")
    assert answer.status == 404
    assert "is a file" in answer.text


async def test_a_name_without_extension_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("plain " * 1000)
    (tmp_path / "program").write_bytes(b"\x00\x01")
    text = await get(tmp_path / "README")
    assert text.header("content-type") == "text/plain; charset=utf-8"
    assert text.text == "plain " * 1000
    assert (await get(tmp_path / "program")).header("content-type") == "application/octet-stream"


async def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.css").touch()
    answer = await get(tmp_path / "empty.css")
    assert (answer.status, answer.body) == (200, b"")


async def test_a_missing_file_and_what_is_none(tmp_path: Path) -> None:
    assert (await get(tmp_path / "none.txt")).status == 404
    assert (await get(tmp_path)).status == 404
    assert (await get(tmp_path / ("x" * 300))).status == 404


def request_for(path: Path, **headers: str) -> tuple[Any, Request]:
    request = Request("GET", "/f", [(k.encode(), v.encode()) for k, v in headers.items()])
    return StaticFile(path).render_GET(request), request


def test_nothing_is_read_before_it_is_sent(tmp_path: Path) -> None:
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(2**40)  # sparse, if the file system can
    response, request = request_for(tmp_path / "large.bin")
    assert isinstance(response.body, FileBody)
    assert response.body.length == 2**40
    assert next(response.body.chunks(1000)) == bytes(1000)
    request.close()


@pytest.mark.parametrize(
    "headers", [{}, {"range": "bytes=0-1,4-5"}, {"if-modified-since": formatdate(2**33)}]
)
def test_the_file_is_closed_with_the_request_though_nobody_sent_it(
    old: Path, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *a, **k: opened.append(fdopen(*a, **k)) or opened[-1])
    _, request = request_for(old, **headers)
    request.close()
    assert [file.closed for file in opened] == [True]


@pytest.mark.parametrize("headers", [{"range": "bytes=1000-"}, {"if-match": '"x"'}])
def test_the_file_is_closed_when_the_answer_is_an_error(
    old: Path, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *a, **k: opened.append(fdopen(*a, **k)) or opened[-1])
    with pytest.raises(HTTPError):
        request_for(old, **headers)
    assert [file.closed for file in opened] == [True]


# Opening


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_what_is_judged_is_the_name_of_the_open_file(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    asked: list[str] = []
    file, status = open_checked(tmp_path / "link.txt", lambda real: asked.append(real) or "")  # type: ignore[func-returns-value]
    with file:
        assert asked == [os.path.realpath(tmp_path / "real.txt")]
        assert status.st_size == 1


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize("known", [True, False], ids=["name known", "name unknown"])
def test_a_directory_swapped_for_a_link_in_between(
    tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is there while the file is opened, and gone before and after."""
    site, away, outside = tmp_path / "site", tmp_path / "away", tmp_path / "outside"
    for folder in (site / "d", outside):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(folder.name)
    real_open = os.open

    def swapped_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if os.fspath(path) != str(site / "d" / "a.txt"):
            return real_open(path, flags, *rest, **more)
        (site / "d").rename(away)
        (site / "d").symlink_to(outside)
        try:
            return real_open(path, flags, *rest, **more)
        finally:
            (site / "d").unlink()
            away.rename(site / "d")

    monkeypatch.setattr(os, "open", swapped_open)
    if not known:
        monkeypatch.setattr(os, "readlink", unreadable(os.readlink))
    inside = str(site) + os.sep
    with pytest.raises(HTTPError) as info:
        open_checked(
            site / "d" / "a.txt", lambda real: "" if real.startswith(inside) else "outside"
        )
    assert info.value.status == 404


def unreadable(readlink: Any) -> Any:
    def patched(path: Any) -> str:
        if os.fspath(path).startswith("/proc/"):
            raise FileNotFoundError(path)
        return str(readlink(path))

    return patched


@pytest.mark.parametrize("known", [True, False], ids=["name known", "name unknown"])
def test_a_file_replaced_while_it_is_opened_is_opened_again(
    tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    saves = ["new"]
    fdopen = os.fdopen

    def save_after_open(*args: Any, **more: Any) -> Any:
        if saves:
            (tmp_path / "a.tmp").write_text(saves.pop())
            os.replace(tmp_path / "a.tmp", path)
        return fdopen(*args, **more)

    monkeypatch.setattr(os, "fdopen", save_after_open)
    if not known:
        monkeypatch.setattr(os, "readlink", unreadable(os.readlink))
    file, _ = open_checked(path, lambda real: "")
    with file:
        assert file.read() == b"new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no FIFOs")
def test_a_fifo_that_takes_the_place_of_a_file_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    before = os.lstat(path)
    path.unlink()
    os.mkfifo(path)
    real_lstat = os.lstat
    monkeypatch.setattr(
        os,
        "lstat",
        lambda p, **more: before if os.fspath(p) == str(path) else real_lstat(p, **more),
    )
    with pytest.raises(HTTPError) as info:
        open_checked(path, lambda real: "")
    assert info.value.status == 404


def test_what_may_not_be_read_is_403(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(HTTPError) as info:
        open_checked(old, lambda real: "")
    assert info.value.status == 403
    assert str(old) in info.value.private
