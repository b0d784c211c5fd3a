"""Bodies on their way to disk, and disks that are full."""

from __future__ import annotations

import errno
import io
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO

import pytest
import trio

from rpyserve import Request, Site
from rpyserve.http.errors import HTTPError
from rpyserve.http.forms import SPOOL_SIZE, disk_full_as_507, spooled_file
from tests.support.http_client import head
from tests.support.in_process import Visitor


async def pieces(size: int, piece: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, size, piece):
        await trio.lowlevel.checkpoint()
        yield b"x" * min(piece, size - start)


class Full(io.BytesIO):
    """A temporary file on a disk that has room for so many bytes, and says so when it likes."""

    files: list[Full]

    def __init__(self, room: int, number: int, when: str) -> None:
        super().__init__()
        self.room, self.number, self.when = room, number, when
        self.was_closed = False
        Full.files.append(self)

    def _full(self, when: str) -> None:
        if self.when == when and self.tell() > self.room:
            raise OSError(self.number, "No space left on device")

    def write(self, data: Any) -> int:
        count = super().write(data)
        self._full("write")
        return count

    def seek(self, *where: Any) -> int:
        self._full("seek")
        return super().seek(*where)

    def close(self) -> None:
        is_full = not self.was_closed and self.tell() > self.room
        self.was_closed = True
        super().close()
        if is_full:
            raise OSError(self.number, "No space left on device")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def fill(room: int = 600_000, number: int = errno.ENOSPC, when: str = "write") -> None:
        Full.files = []
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: Full(room, number, when))

    return fill


async def spooled(
    body: AsyncIterator[bytes], on_close: Callable[[Callable[[], object]], object]
) -> BinaryIO:
    file = spooled_file(on_close)
    with disk_full_as_507():
        async for chunk in body:
            file.write(chunk)
        file.seek(0)
    return file


@pytest.mark.parametrize("size", [0, 1, SPOOL_SIZE, SPOOL_SIZE + 1, 3_000_000])
async def test_a_body_arrives_whole(size: int) -> None:
    closers: list[Callable[[], object]] = []
    file = await spooled(pieces(size), closers.append)
    assert len(file.read()) == size
    for closer in closers:
        closer()
    assert file.closed


@pytest.mark.parametrize("known", [0, 1000, SPOOL_SIZE, 3_000_000, None])
async def test_only_a_body_that_is_known_to_be_small_has_no_file_that_may_go_to_disk(
    known: int | None,
) -> None:
    size = 700_000 if known is None else known
    request = Request("POST", "/", body=pieces(size), body_length=known)
    await request.load_body()
    content = request.content
    assert content.read() == b"x" * size
    assert isinstance(content, io.BytesIO) == (size <= SPOOL_SIZE)
    request.close()
    assert content.closed


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
@pytest.mark.parametrize("when", ["write", "seek"])
async def test_a_full_disk_is_a_507_and_nothing_is_left(
    number: int, when: str, full: Callable[..., None]
) -> None:
    full(number=number, when=when)
    closers: list[Callable[[], object]] = []
    with pytest.raises(HTTPError) as caught:
        await spooled(pieces(1_000_000), closers.append)
    assert caught.value.status == 507
    assert "No space left" in caught.value.private and "TMPDIR" in caught.value.private
    for closer in closers:
        closer()
    assert [file.was_closed for file in Full.files] == [True]


async def test_other_errors_of_the_disk_are_errors(full: Callable[..., None]) -> None:
    full(number=errno.EIO)
    closers: list[Callable[[], object]] = []
    with pytest.raises(OSError) as caught:
        await spooled(pieces(1_000_000), closers.append)
    assert caught.value.errno == errno.EIO
    for closer in closers:
        closer()


async def upload(request: Request) -> str:
    return str(len(request.content.read()))


async def test_a_site_answers_507_and_goes_on(
    full: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    full()
    caplog.set_level("INFO", "rpyserve")
    site = Site(upload)
    answer = await Visitor(site).post("/", b"x" * 1_000_000)
    assert answer.status == 507
    assert "No space left" in answer.text, "this machine may know"
    assert "TMPDIR" in caplog.text
    assert (
        "No space left"
        not in (await Visitor(site, client="203.0.113.7").post("/", b"x" * 1_000_000)).text
    )
    assert (await Visitor(site).post("/", b"x" * 1000)).text == "1000"
    assert [file.was_closed for file in Full.files] == [True, True]


async def test_a_form_whose_file_does_not_fit_is_a_507_too(full: Callable[..., None]) -> None:
    full()
    body = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        + b"x" * 1_000_000
        + b"\r\n--b--\r\n"
    )
    visitor = Visitor(Site(upload))
    answer = await visitor.post(
        "/", body, headers=[("Content-Type", "multipart/form-data; boundary=b")]
    )
    assert answer.status == 507
    assert [file.was_closed for file in Full.files] == [True]


async def test_many_files_of_a_form_do_not_stay_in_memory(full: Callable[..., None]) -> None:
    full(room=10**9)
    part = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        + b"x" * 1000
        + b"\r\n"
    )

    async def count(request: Request) -> str:
        return str(sum(upload.size for upload in request.files["f"]))

    visitor = Visitor(Site(count))
    kind = [("Content-Type", "multipart/form-data; boundary=b")]
    assert (await visitor.post("/", part * 1000 + b"--b--\r\n", headers=kind)).text == "1000000"
    assert [file.was_closed for file in Full.files] == [True]


async def test_on_the_wire_the_rest_of_the_body_is_not_taken_for_a_request(
    full: Callable[..., None], connect: Any, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    full()
    caplog.set_level("WARNING", "rpyserve")
    client = connect(Site(upload).respond)
    await client.send(head("POST", "/", "Content-Length: 100000000") + b"x" * 2_000_000)
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (507, "close")
    assert not caplog.records, "and the clean-up says nothing"
