"""Serving over https: certificates, and clients that speak something else."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from rpyserve import Limits, Request, Site, cli, serve
from rpyserve.protocol import server_state
from rpyserve.serving import tls
from rpyserve.util import file_limits
from tests.support.real_process import serving

trustme = pytest.importorskip("trustme")


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("certificate")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = directory / "server.pem", directory / "server.key"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(certificate), append=True)
    issued.private_key_pem.write_to_path(str(key))
    return certificate, key


def page(request: Request) -> str:
    request.getSession()
    return f"{request.scheme} {request.getHeader('host')}"


@asynccontextmanager
async def served(
    context: ssl.SSLContext, resource: Callable[[Request], Any] = page
) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        start: Callable[..., Any] = lambda task_status: serve(  # noqa: E731
            Site(resource),
            port=0,
            ssl_context=context,
            limits=Limits(head_time=1),
            task_status=task_status,
        )
        listeners = await nursery.start(start)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def talk(port: int, sent: bytes, context: ssl.SSLContext | None = None) -> bytes:
    stream: Any = await trio.open_tcp_stream("127.0.0.1", port)
    if context is not None:
        stream = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
    async with stream:
        await stream.send_all(sent)
        return b"".join([part async for part in stream])


def trusting(authority: Any) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_over_https(authority: Any, files: tuple[Path, Path]) -> None:
    async with served(tls.from_files(*files)) as port:
        answer = await talk(port, GET, trusting(authority))
        assert answer.endswith(b"https localhost") and b"; Secure" in answer


def streamed(request: Request) -> Iterator[str]:
    yield "half"
    if request.query == "cut":
        raise ValueError("on purpose")
    yield " and half"


@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.0", b"GET / HTTP/1.1", b"nonsense", b"GET /?cut HTTP/1.0"]
)
async def test_only_what_is_whole_has_an_end(
    request_line: bytes, authority: Any, files: tuple[Path, Path]
) -> None:
    async with served(tls.from_files(*files), streamed) as port:
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(
            plain, trusting(authority), server_hostname="localhost"
        ) as stream:
            await stream.send_all(
                request_line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            received = b""
            with (
                pytest.raises(trio.BrokenResourceError) if b"cut" in request_line else nullcontext()
            ):
                while part := await stream.receive_some():
                    received += part
        assert received


@pytest.mark.parametrize("late", [b"\r\n", GET])
async def test_what_comes_while_the_last_answer_is_sent_does_not_cut_it(
    late: bytes, authority: Any, files: tuple[Path, Path]
) -> None:
    def large(request: Request) -> bytes:
        return bytes(10_000_000)

    async with served(tls.from_files(*files), large) as port:
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(
            plain, trusting(authority), server_hostname="localhost"
        ) as stream:
            await stream.send_all(GET)
            received = await stream.receive_some(1000)
            await stream.send_all(late)
            received += b"".join([part async for part in stream])
    assert len(received) > 10_000_000


async def test_who_says_nothing_at_all_makes_room(
    files: tuple[Path, Path], authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_state, "STALL_TIMEOUT", 0.0)
    monkeypatch.setattr(file_limits, "max_connections", lambda: 2)
    async with served(tls.from_files(*files)) as port:
        crowd = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        await crowd[1].send_all(b"\x16\x03\x01")
        with trio.fail_after(5):
            for _ in range(3):
                assert (await talk(port, GET, trusting(authority))).endswith(b"https localhost")
            for stream in crowd:
                assert not await stream.receive_some()
                await stream.aclose()


async def test_who_speaks_something_else_is_told_and_harms_nobody(
    authority: Any, files: tuple[Path, Path]
) -> None:
    async with served(tls.from_files(*files)) as port:
        for host in (b"localhost:%d" % port, b"[::1]"):
            answer = await talk(port, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            name = host.rpartition(b":")[0] if host.startswith(b"l") else host
            assert (
                answer.startswith(b"HTTP/1.1 400 ")
                and b"Use https://%s:%d/\n" % (name, port) in answer
            )
        assert b"Use https://127.0.0.1:" in await talk(port, b"\x00\xff\n<script>")
        assert await talk(port, b"") == b""
        assert not (await talk(port, b"\x16\x03garbage" * 100)).startswith(b"HTTP/")
        with pytest.raises(trio.BrokenResourceError):  # who does not trust the certificate
            await talk(port, GET, ssl.create_default_context())
        assert (await talk(port, GET, trusting(authority))).endswith(b"https localhost")


def test_a_certificate_for_the_run_is_for_all_its_names() -> None:
    context = tls.self_signed(
        ["localhost", "127.0.0.1", "::1", "fe80::1%eth0", "My-Machine.", ".example.test"]
    )
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_files_that_will_not_do(files: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = files
    other = tmp_path / "other.key"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(other))
    text = tmp_path / "text.pem"
    text.write_text("no certificate", encoding="utf-8")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        encoding="utf-8",
    )
    for pair in [
        (certificate, other),
        (text, key),
        (certificate, text),
        (key, certificate),
        (certificate, encrypted),
    ]:
        with pytest.raises(tls.NoCertificate, match="are not a certificate and its key"):
            tls.from_files(*pair)
    with pytest.raises(tls.NoCertificate, match="cannot be read"):
        tls.from_files(tmp_path / "missing.pem", key)


@pytest.mark.parametrize(
    ("given", "environment", "wanted"),
    [
        ([], {}, "no"), (["--tls"], {}, "made"), (["--tls", "."], {}, "made"), ([".", "--tls"], {}, "made"),
        (["--tls", "CERT", "KEY"], {}, "files"), (["--tls", "CERT", "KEY", "."], {}, "files"),
        (["-q", "--tls", "CERT", "KEY", "-p", "0"], {}, "files"), ([], {"RPYSERVE_TLS": "1"}, "made"),
        ([], {"RPYSERVE_TLS": "CERT KEY"}, "files"), (["--tls"], {"RPYSERVE_TLS": "no"}, "made"),
        (["--tls", "CERT"], {}, "two files"), (["--tls", "missing.pem", "missing.key"], {}, "cannot be read"),
        ([], {"RPYSERVE_TLS": "maybe"}, "two files"), (["--tls", ".", "CERT"], {}, "unexpected extra argument"),
    ],
)  # fmt: skip
def test_the_option(
    given: list[str], environment: dict[str, str], wanted: str, files: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "rpyserve.serving.run.run_with", lambda site, settings, **how: made.append(settings.tls)
    )
    monkeypatch.setattr("rpyserve.serving.signals.end_process", lambda status=0: None)
    names = {"CERT": str(files[0]), "KEY": str(files[1])}
    for name, path in names.items():
        given = [arg.replace(name, path) for arg in given]
        environment = {key: value.replace(name, path) for key, value in environment.items()}
    result = CliRunner().invoke(cli.main, given, env=environment)
    if wanted not in ("no", "made", "files"):
        assert result.exit_code != 0 and wanted in result.output and not made
        return
    assert result.exit_code == 0, result.output
    (context,) = made
    assert (context is None) == (wanted == "no")
    assert ("self-signed for this run" in result.output) == (wanted == "made")


def test_without_trustme_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "trustme", None)
    result = CliRunner().invoke(cli.main, ["--tls"])
    assert result.exit_code == 1 and "pip install trustme" in result.output


@pytest.mark.process
def test_the_real_command(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.rpy").write_text(
        "def resource(request):\n    return request.scheme\n", encoding="utf-8"
    )
    with serving(site, tmp_path, "--tls", scheme="https") as server:
        command = ["curl", "--silent", "--insecure", "--max-time", "20", server.url + "/"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"https"
        plain = [*command[:-1], server.url.replace("https", "http") + "/"]
        assert (
            b"Use https://127.0.0.1:"
            in subprocess.run(plain, capture_output=True, check=True).stdout
        )
        assert (
            "https://127.0.0.1:" in server.output()
            and "self-signed for this run" in server.output()
        )
