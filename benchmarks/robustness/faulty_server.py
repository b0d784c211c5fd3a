"""``rpyserve``, in a process whose calls to the system fail by a plan.

``python -m benchmarks.robustness.faulty_server SITE --port 0``; `faults` starts it. Commands come
line by line on stdin: ``SEED KIND...`` begins a plan with these kinds of faults, an empty line ends
it. After each, one line of JSON on stdout says how often each fault was injected since the last.

Functions of ``os``, ``socket`` and ``time`` are replaced here before anything imports trio, which
keeps some of them. What Python itself uses to import modules is not touched. A plan says, for each
function apart, which calls fail and how, so that it is the same for the same seed; which request
meets a fault depends on the order in which they come.
"""

from __future__ import annotations

import builtins
import errno
import functools
import io
import json
import os
import random
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

SHORT: Final = "short"
"""A fault: fewer bytes than could have been."""
MEMORY: Final = "MemoryError"

Faults = tuple[float, tuple[str, ...]]
"""One in how many calls fails, and the names of the faults: of ``errno``, or the two above."""

PLANS: Final[dict[str, dict[str, Faults]]] = {
    "network": {
        "accept": (6, ("EMFILE", "ENFILE", "ECONNABORTED", "ENOMEM", "ENOBUFS", "EAGAIN")),
        "recv": (20, (SHORT, SHORT, "EAGAIN", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH")),
        "send": (20, (SHORT, SHORT, "EAGAIN", "EPIPE", "ECONNRESET", "ENOBUFS")),
        "write": (8, (SHORT, SHORT, "EAGAIN", "EPIPE", "ECONNRESET")),
        "sendfile": (4, (SHORT, SHORT, "EAGAIN", "EPIPE", "ECONNRESET")),
    },
    "files": {
        "stat": (60, ("EIO", "ESTALE", "ENOMEM")),
        "open": (20, ("EIO", "ESTALE", "ENOMEM", "EMFILE", "ENFILE")),
        "list": (6, ("EIO", "ENOMEM", "EMFILE")),
        "sendfile": (4, (SHORT, "EIO", "EINVAL", "ENOMEM")),
    },
    "memory": {
        "accept": (20, (MEMORY,)),
        "recv": (80, (MEMORY,)),
        "write": (40, (MEMORY,)),
        "stat": (200, (MEMORY,)),
        "open": (60, (MEMORY,)),
    },
    "descriptors": {},
    "disk": {},
    "clock": {},
}
"""What each kind of faults does to which functions. Some set limits, or the clock, as well."""

MEMORY_LEFT: Final = 200 * 2**20
"""Bytes that the process may still grow by under ``memory``."""
LARGEST_FILE: Final = 64 * 2**10
"""Bytes of a file that may be written under ``disk``."""
MOST_DESCRIPTORS: Final = 6
"""How many may still be opened under ``descriptors``, at most."""
YEARS: Final = 365 * 86400.0


class Injector:
    """Decides which calls fail, from the plan that was given last."""

    def __init__(self) -> None:
        self.injected: Counter[str] = Counter()
        self._faults: dict[str, Faults] = {}
        self._chances: dict[str, random.Random] = {}
        self._calls_left: dict[str, float] = {}
        self._clock_offset = 0.0
        self._limits: dict[int, tuple[int, int]] = {}

    # The plan

    def begin(self, seed: str, kinds: Sequence[str]) -> None:
        """Begin a plan; the one before has ended."""
        chance = random.Random(f"{seed} limits")
        faults: dict[str, Faults] = {}
        for kind in kinds:
            for name, (gap, names) in PLANS[kind].items():
                other_gap, other_names = faults.get(name, (gap, ()))
                faults[name] = (min(gap, other_gap), other_names + names)
        self._chances = {name: random.Random(f"{seed} {name}") for name in faults}
        self._calls_left = {name: self._gap(name, faults[name]) for name in faults}
        self._limits = {name: resource.getrlimit(name) for name in _LIMITED}
        if "descriptors" in kinds:
            in_use = 1 + max(map(int, os.listdir("/proc/self/fd")))
            spare = chance.randint(0, MOST_DESCRIPTORS)
            self._limit(resource.RLIMIT_NOFILE, in_use + spare)
        if "disk" in kinds:
            self._limit(resource.RLIMIT_FSIZE, LARGEST_FILE)
        if "memory" in kinds:
            self._limit(resource.RLIMIT_AS, _address_space() + MEMORY_LEFT)
        if "clock" in kinds:
            self._clock_offset = chance.uniform(-50, 80) * YEARS
        self._faults = faults

    def end(self) -> None:
        """End the plan, if there is one."""
        self._faults = {}
        self._clock_offset = 0.0
        for name, limits in self._limits.items():
            resource.setrlimit(name, limits)
        self._limits = {}

    def _limit(self, name: int, value: int) -> None:
        resource.setrlimit(name, (value, self._limits[name][1]))

    def _gap(self, function: str, faults: Faults) -> float:
        return 1 + self._chances[function].expovariate(1 / faults[0])

    def _next_fault(self, function: str) -> str | None:
        """The fault of this call of *function*; it is counted."""
        faults = self._faults.get(function)
        if faults is None:
            return None
        self._calls_left[function] -= 1
        if self._calls_left[function] > 0:
            return None
        self._calls_left[function] = self._gap(function, faults)
        fault = self._chances[function].choice(faults[1])
        self.injected[f"{function} {fault}"] += 1
        return fault

    # The functions

    def install(self) -> None:
        """Replace the functions, for the rest of this process."""
        for owner, name, function in (
            (os, "stat", "stat"), (os, "lstat", "stat"), (os, "fstat", "stat"),
            (os, "open", "open"), (io, "open", "open"), (builtins, "open", "open"),
            (os, "listdir", "list"), (os, "scandir", "list"), (os, "readlink", "list"),
        ):  # fmt: skip
            setattr(owner, name, self._failing(function, getattr(owner, name)))
        os.write = self._failing("write", os.write, _write_short)
        os.sendfile = self._failing("sendfile", os.sendfile, _sendfile_short)
        for name, short in (("accept", None), ("recv", _receive_short), ("send", _send_short)):
            real = getattr(socket.socket, name)
            setattr(socket.socket, name, _of_the_network(real, self._failing(name, real, short)))
        real_time = time.time
        time.time = lambda: real_time() + self._clock_offset
        time.time_ns = lambda: int(time.time() * 1e9)

    def _failing(
        self, function: str, real: Callable[..., Any], short: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        @functools.wraps(real)
        def called(*args: Any, **kwargs: Any) -> Any:
            is_open_already = function == "open" and isinstance(args[0], int)
            fault = None if is_open_already else self._next_fault(function)
            if fault is None:
                return real(*args, **kwargs)
            if fault == SHORT and short is not None:
                return short(real, *args)
            if fault == MEMORY:
                raise MemoryError
            code = getattr(errno, fault)
            raise OSError(code, os.strerror(code))

        return called

    # The commands

    def obey(self) -> None:
        """Do what stdin says, until it ends."""
        for line in sys.stdin:
            self.end()
            report = json.dumps(dict(self.injected))
            self.injected.clear()
            print(report, flush=True)
            if words := line.split():
                self.begin(words[0], words[1:])


_LIMITED: Final = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS)


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _write_short(real: Callable[..., int], fd: int, data: Any) -> int:
    return real(fd, memoryview(data)[: 1 + len(data) // 3])


def _sendfile_short(real: Callable[..., int], out: int, file: int, start: int, count: int) -> int:
    return real(out, file, start, 1 + count // 3)


def _receive_short(
    real: Callable[..., bytes], sock: socket.socket, size: int, *flags: int
) -> bytes:
    return real(sock, min(size, 7), *flags)


def _send_short(real: Callable[..., int], sock: socket.socket, data: Any, *flags: int) -> int:
    return real(sock, memoryview(data)[: 1 + len(data) // 3], *flags)


def _of_the_network(real: Callable[..., Any], failing: Callable[..., Any]) -> Callable[..., Any]:
    """*failing* for connections; *real* for trio's own sockets, which never leave the process."""

    @functools.wraps(real)
    def called(sock: socket.socket, *args: Any) -> Any:
        is_unix = sock.family == socket.AF_UNIX
        return (real if is_unix else failing)(sock, *args)

    return called


def main() -> None:
    injector = Injector()
    injector.install()
    threading.Thread(target=injector.obey, daemon=True).start()
    from rpyserve.cli import main

    with suppress(BrokenPipeError):
        main(prog_name="rpyserve")


if __name__ == "__main__":
    main()
