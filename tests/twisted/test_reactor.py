"""What Twisted's own tests of reactors do not ask: the reactor as a part of a site, and trio's."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

pytest.importorskip("twisted")

from twisted.internet import defer, error, protocol, threads
from twisted.internet.abstract import FileDescriptor
from twisted.web import server
from twisted.web.resource import Resource

from rpyserve import Site
from rpyserve.diagnostics.reporter import ConsoleReporter
from rpyserve.scripts.background import SiteNursery
from rpyserve.twisted import reactor as reactor_module
from rpyserve.twisted.program import Program
from rpyserve.twisted.program_reactor import ProgramReactor
from rpyserve.twisted.reactor import SiteReactor


@asynccontextmanager
async def running(reactor: SiteReactor | None = None) -> AsyncIterator[SiteReactor]:
    """A reactor that runs as a part of a site."""
    reactor = SiteReactor() if reactor is None else reactor
    nursery = SiteNursery(ConsoleReporter())
    async with nursery.open():
        reactor.attach(nursery)
        await wait_all_tasks_blocked()
        assert reactor.running
        yield reactor


async def result_of(deferred: defer.Deferred[Any]) -> Any:
    done = trio.Event()
    results: list[Any] = []
    deferred.addBoth(lambda result: (results.append(result), done.set()))
    await done.wait()
    return results[0]


# Time


async def test_timed_calls_follow_the_clock_of_trio(autojump_clock: MockClock) -> None:
    calls: list[tuple[str, float]] = []
    async with running() as reactor:
        began = reactor.seconds()

        def call(name: str) -> None:
            calls.append((name, round(reactor.seconds() - began, 6)))

        late = reactor.callLater(3600, call, "never")
        reactor.callLater(5, call, "five")
        reactor.callLater(1, call, "one")
        sooner = reactor.callLater(100, call, "sooner")
        delayed = reactor.callLater(2, call, "delayed")
        sooner.reset(3)
        delayed.delay(5)
        await trio.sleep(20)
        late.cancel()
    assert calls == [("one", 1), ("sooner", 3), ("five", 5), ("delayed", 7)]


async def test_a_timed_call_that_raises_is_not_the_end(autojump_clock: MockClock) -> None:
    async with running() as reactor:
        called = trio.Event()
        reactor.callLater(1, lambda: 1 / 0)
        reactor.callLater(2, called.set)
        await called.wait()


async def test_what_is_called_does_not_keep_the_request() -> None:
    seen = []
    request: ContextVar[str] = ContextVar("request", default="none")
    async with running() as reactor:
        token = request.set("that of somebody")
        reactor.callLater(0, lambda: seen.append(request.get()))
        read, write = os.pipe()
        reactor.addReader(Pipe(reactor, read, lambda: seen.append(request.get())))
        request.reset(token)
        os.write(write, b"x")
        await wait_all_tasks_blocked(0.01)
        os.close(write)
    assert seen == ["none", "none"]


# Threads


async def test_threads() -> None:
    async with running() as reactor:
        here = threading.get_ident()

        def work() -> tuple[int, int]:
            inner = threads.blockingCallFromThread(reactor, threading.get_ident)
            return threading.get_ident(), inner

        pool = reactor.getThreadPool()
        other, inner = await result_of(threads.deferToThreadPool(reactor, pool, work))
        assert inner == here != other


async def test_a_thread_that_does_not_end_is_left_alone(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    async with running() as reactor:
        begun = threading.Event()
        reactor.callInThread(lambda: (begun.set(), release.wait()))
        while not begun.is_set():
            await wait_all_tasks_blocked(0.01)
        began = trio.current_time()
    release.set()
    assert trio.current_time() - began == pytest.approx(reactor_module.GRACE)
    assert "A call in the reactor's thread pool has not ended" in caplog.text


async def test_a_thread_that_calls_when_the_loop_has_ended() -> None:
    async with running() as reactor:
        pass
    reactor.callFromThread(lambda: None)


# Descriptors


class Pipe(FileDescriptor):
    """The end of a pipe that is read."""

    def __init__(self, reactor: Any, number: int, notice: Callable[[], object]) -> None:
        super().__init__(reactor)
        self._number = number
        self._notice = notice

    def fileno(self) -> int:
        return self._number

    def doRead(self) -> Any:
        if not os.read(self._number, 100):
            return error.ConnectionDone()
        self._notice()
        return None

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        os.close(self._number)


async def test_an_echo_over_tcp() -> None:
    class Echo(protocol.Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(data.upper())

    async with running() as reactor:
        port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
        stream = await trio.open_tcp_stream("127.0.0.1", port.getHost().port)
        async with stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"HELLO"
        await result_of(port.stopListening())
        assert not reactor.getReaders()


async def test_a_descriptor_that_is_closed_in_the_turn_in_which_it_is_ready() -> None:
    heard: list[str] = []
    async with running() as reactor:
        pipes = [os.pipe() for _ in range(2)]
        readers: list[Pipe] = []

        def close_both() -> None:
            heard.append("read")
            for reader in readers:
                reader.stopReading()
                os.close(reader.fileno())

        readers += [Pipe(reactor, read, close_both) for read, _ in pipes]
        for reader in readers:
            reactor.addReader(reader)
        await wait_all_tasks_blocked()
        for _, write in pipes:
            os.write(write, b"x")
        await wait_all_tasks_blocked(0.01)
        for _, write in pipes:
            os.close(write)
    assert heard == ["read"]


async def test_a_file_on_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("hello")
    heard, ended = trio.Event(), trio.Event()

    class Ending(Pipe):
        def connectionLost(self, reason: Any) -> None:
            super().connectionLost(reason)
            ended.set()

    async with running() as reactor:
        reader = Ending(reactor, os.open(path, os.O_RDONLY), heard.set)
        reader.startReading()
        await heard.wait()
        await ended.wait()
        assert not reactor.getReaders()


async def test_a_descriptor_that_somebody_has_closed() -> None:
    lost: list[Any] = []

    class Closed(Pipe):
        def connectionLost(self, reason: Any) -> None:
            lost.append(reason.value)

    async with running() as reactor:
        read, write = os.pipe()
        os.close(read)
        os.close(write)
        Closed(reactor, read, lambda: None).startReading()
        await wait_all_tasks_blocked(0.01)
        assert not reactor.getReaders()
    assert [type(each) for each in lost] == [error.ConnectionFdescWentAway]


# Processes


class Output(protocol.ProcessProtocol):
    def __init__(self) -> None:
        self.data = b""
        self.ended: defer.Deferred[Any] = defer.Deferred()

    def outReceived(self, data: bytes) -> None:
        self.data += data

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(reason.value.exitCode)


@pytest.mark.skipif(os.name == "nt", reason="needs pywin32 there")
@pytest.mark.parametrize("thread", ["main", "another"])
def test_processes(thread: str) -> None:
    outputs: list[Output] = []

    async def main() -> None:
        async with running() as reactor:
            for status in (3, 4):
                outputs.append(Output())
                code = f"import sys; print('hello'); sys.stdout.close(); sys.exit({status})"
                reactor.spawnProcess(outputs[-1], sys.executable, [sys.executable, "-c", code])
            assert [await result_of(each.ended) for each in outputs] == [3, 4]

    if thread == "main":
        trio.run(main)
    else:
        other = threading.Thread(target=trio.run, args=(main,))
        other.start()
        other.join()
    assert [each.data for each in outputs] == [b"hello\n"] * 2


# The end


async def test_triggers_of_the_end(autojump_clock: MockClock) -> None:
    events: list[str] = []
    async with running() as reactor:
        pause = partial_sleep(reactor, 2, lambda: events.append("after two seconds"))
        reactor.addSystemEventTrigger("before", "shutdown", pause)
        reactor.addSystemEventTrigger("during", "shutdown", events.append, "during")
        reactor.callWhenRunning(events.append, "at once")
        assert events == ["at once"]
        began = trio.current_time()
    assert events == ["at once", "after two seconds", "during"]
    assert trio.current_time() - began == pytest.approx(2)


def partial_sleep(
    reactor: SiteReactor, seconds: float, then: Callable[[], object]
) -> Callable[[], defer.Deferred[None]]:
    def trigger() -> defer.Deferred[None]:
        done: defer.Deferred[None] = defer.Deferred()
        reactor.callLater(seconds, lambda: (then(), done.callback(None)))
        return done

    return trigger


async def test_a_trigger_that_waits_for_ever(autojump_clock: MockClock) -> None:
    async with running() as reactor:
        reactor.addSystemEventTrigger("before", "shutdown", defer.Deferred)
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(reactor_module.GRACE)


async def test_the_next_site_has_the_same_reactor_anew(autojump_clock: MockClock) -> None:
    reactor = SiteReactor()
    called: list[str] = []
    async with running(reactor):
        reactor.callLater(5, called.append, "of the first site")
        reactor.addSystemEventTrigger("before", "shutdown", called.append, "end")
    assert not reactor.running
    async with running(reactor):
        reactor.callLater(5, called.append, "of the second site")
        await trio.sleep(10)
    assert called == ["end", "of the second site"]


async def test_a_second_site_leaves_the_reactor_to_the_first() -> None:
    async with running() as reactor:
        other = SiteNursery(ConsoleReporter())
        async with other.open():
            reactor.attach(other)
            await wait_all_tasks_blocked()
        assert reactor.running


async def test_a_script_does_not_stop_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "rpyserve")
    async with running() as reactor:
        reactor.stop()
        reactor.crash()
        await wait_all_tasks_blocked()
        assert reactor.running
    first, second = caplog.messages
    assert "test_reactor.py, line " in first
    assert first.endswith(
        "reactor.stop() does nothing: the reactor runs as long as the server, which Ctrl-C stops."
    )
    assert "reactor.crash() does nothing" in second


async def test_a_script_does_not_run_it() -> None:
    async with running() as reactor:
        with pytest.raises(error.ReactorAlreadyRunning, match="Leave the call out"):
            reactor.run()
        with pytest.raises(NotImplementedError, match="go on in a callback"):
            reactor.iterate()


async def test_a_call_that_is_made_before_the_reactor_runs_waits(autojump_clock: MockClock) -> None:
    reactor, called = SiteReactor(), trio.Event()
    began = trio.current_time()
    reactor.callLater(5, called.set)
    async with running(reactor):
        await called.wait()
    assert trio.current_time() - began == pytest.approx(5, abs=0.1)


# In a program


def test_a_port_of_a_program_that_stops_before_the_reactor_runs() -> None:
    served: list[list[Any]] = []

    class Server:
        make_site = staticmethod(Site)

        def open_port(self, host: str, port: int) -> list[Any]:
            opened = trio.socket.from_stdlib_socket(socket.create_server((host, port)))
            return [trio.SocketListener(opened)]

        def serve(self, site: Any, listeners: list[Any], work: Any) -> None:
            served.append(listeners)

    reactor = ProgramReactor(Program(Path("program.py"), cast(Any, Server())))
    factory = server.Site(Resource())
    ports = [reactor.listenTCP(0, factory, interface="127.0.0.1") for _ in range(2)]
    ports[0].stopListening()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0].getHost().port))
    reactor.run()
    assert [each.socket.getsockname()[1] for each in served[0]] == [ports[1].getHost().port]
    ports[0].stopListening()  # again
    for listener in served[0]:
        socket.close(listener.socket.detach())
