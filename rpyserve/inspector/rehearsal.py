"""A visit, rehearsed in a process of its own: what a test of it can count on.

`rehearse` runs this module as a program, twice. Each makes the requests of the visit with
`rpyserve.testing`, to a copy of the site. What a script takes from outside differs between the two:
in the second it is more than a year later, and chance falls another way. So what both agree on
depends on the site alone. Only the program imports the client, and the scripts.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rpyserve.inspector.copies import Sent
from rpyserve.util.text import install_command

if TYPE_CHECKING:
    from rpyserve.testing import Client

# Bytes of a response, and seconds of the client's time, after which a stream counts as endless.
MOST_BYTES: Final = 64 * 1024
MOST_SECONDS: Final = 30.0

# Seconds that a rehearsal may take, and characters of a value that a test compares.
TIME_LIMIT: Final = 60.0
LONGEST_VALUE: Final = 200

# How much later the second rehearsal is: no part of a date or time is as in the first.
LATER: Final = 400 * 86_400 + 7 * 3600 + 13 * 60 + 37

Plain = str | int | float | bool | None


class CannotRehearse(Exception):
    """There is no test of the visit; the text says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a visit.

    Args:
        sent: what the visitor sent.
        pause: seconds since the response before it.
    """

    sent: Sent
    pause: float = 0.0


@dataclass(slots=True)
class Heard:
    """What came of one request.

    Args:
        status: the status of the response; 0 if there was none.
        headers: the fields of its head that a test looks at, and their values.
        body: the whole body; None for an endless one.
        broken: whether a script failed after the head.
        error: the type of what the client raised; empty if it raised nothing.
        asks_others: whether a connection to another program was opened meanwhile.
        ended_before: whether the visitor's session has ended in the pause.
        ended: whether it has ended with the response.
        changed: values of the session that are new or have changed, by their keys.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = b""
    broken: bool = False
    error: str = ""
    asks_others: bool = False
    ended_before: bool = False
    ended: bool = False
    changed: dict[str, Plain] = field(default_factory=dict)


async def rehearse(
    site: str, steps: list[Step], session_timeout: float | None
) -> tuple[list[Heard], list[Heard]]:
    """Return what came of each step in two rehearsals.

    Args:
        site: the directory of the site; it is copied.
        steps: the visit.
        session_timeout: seconds that its idle sessions live; None for the usual.

    Raises:
        CannotRehearse: a rehearsal failed, or took too long.
    """
    visit = {
        "site": site,
        "timeout": session_timeout,
        "steps": [
            {"pause": min(step.pause, 1e9), "sent": _sent_as_json(step.sent)} for step in steps
        ],
    }
    found = [await _run_process(visit | {"later": later}) for later in (False, True)]
    return found[0], found[1]


async def _run_process(visit: dict[str, Any]) -> list[Heard]:
    import trio

    with tempfile.TemporaryDirectory(prefix="rpyserve-") as directory:
        answer = os.path.join(directory, "heard.json")
        command = [sys.executable, "-P", "-m", __name__, directory, answer]
        done = None
        with trio.move_on_after(TIME_LIMIT):
            done = await trio.run_process(
                command,
                stdin=json.dumps(visit).encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=os.environ | {"PYTHONPATH": _path_of_imports(visit["site"])},
            )
        if done is None:
            raise CannotRehearse(f"The rehearsal of this visit took more than {TIME_LIMIT:g} s.")
        return _read(answer, done.returncode, done.stderr)


def _read(answer: str, status: int, stderr: bytes) -> list[Heard]:
    path = Path(answer)
    if status or not path.exists():
        raise CannotRehearse(f"The rehearsal of this visit failed: {_last_line(stderr)}")
    return [_heard_from_json(each) for each in json.loads(path.read_text("utf-8"))]


def _path_of_imports(site: str) -> str:
    """What this process imports from, but for the site: there is a copy of it."""
    real = os.path.realpath(site)
    return os.pathsep.join(path for path in sys.path if path and os.path.realpath(path) != real)


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "its process ended early."


def _sent_as_json(sent: Sent) -> dict[str, Any]:
    fields = [[part.decode("latin-1") for part in pair] for pair in sent.fields]
    return asdict(sent) | {"fields": fields, "body": b64encode(sent.body).decode()}


def _sent_from_json(values: dict[str, Any]) -> Sent:
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in values["fields"]]
    return Sent(**values | {"fields": tuple(pairs), "body": b64decode(values["body"])})


def _heard_from_json(values: dict[str, Any]) -> Heard:
    body = values["body"]
    return Heard(**values | {"body": None if body is None else b64decode(body)})


# In the process


def main(directory: str, answer: str) -> None:
    """Rehearse the visit on stdin in *directory*; what came of it goes to the file *answer*."""
    visit = json.load(sys.stdin)
    _turn_chance(visit["later"])
    if visit["later"]:
        _move_clock(LATER)
    try:
        from rpyserve.testing import Client
        from rpyserve.testing.transport import copy_site
    except ImportError as exc:
        raise SystemExit(f"{exc}. A test needs httpx: {install_command('httpx')}") from None
    site = copy_site(Path(visit["site"]), Path(directory))
    with Client(site, session_timeout=visit["timeout"], raise_errors=False) as client:
        rehearsal = _Rehearsal(client)
        heard = [
            asdict(rehearsal.make(Step(_sent_from_json(step["sent"]), step["pause"])))
            for step in visit["steps"]
        ]
    for each in heard:
        each["body"] = None if each["body"] is None else b64encode(each["body"]).decode()
    Path(answer).write_text(json.dumps(heard), "utf-8")


class _Rehearsal:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._connections = 0
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, args: object) -> None:
        self._connections += event == "socket.connect"

    def make(self, step: Step) -> Heard:
        client, heard = self._client, Heard()
        session = client.session
        if step.pause > 1:
            client.sleep(step.pause)
        heard.ended_before = session is not None and client.session is None
        session, before, connections = client.session, self._values(), self._connections
        try:
            self._ask(step.sent, heard)
        except Exception as exc:
            heard.error = type(exc).__name__
        heard.asks_others = self._connections > connections
        heard.ended = session is not None and client.session is None
        heard.changed = {
            key: value
            for key, value in self._values().items()
            if key not in before or before[key] != value or type(before[key]) is not type(value)
        }
        return heard

    def _ask(self, sent: Sent, heard: Heard) -> None:
        import httpx
        import trio

        client = self._client
        request = client.build_request(
            sent.method, sent.target, headers=[*sent.fields], content=sent.body or None
        )
        response = client.send(request, stream=True)
        heard.status = response.status_code
        heard.headers = {
            name: response.headers[name]
            for name in ("content-type", "location")
            if name in response.headers
        }

        async def time() -> float:
            return trio.current_time()

        end, body = client.run(time) + MOST_SECONDS, b""
        try:
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > MOST_BYTES or client.run(time) > end:
                    heard.body = None
                    return
        except httpx.ReadTimeout:
            heard.body = None
            return
        finally:
            response.close()
        heard.body = body
        heard.broken = not response.extensions.get("complete", True)

    def _values(self) -> dict[str, Plain]:
        """The plain values that the visitor's session holds by texts."""
        session = self._client.session
        values = {} if session is None else dict(session)
        return {key: value for key, value in values.items() if _is_plain(key, value)}


def _is_plain(key: object, value: object) -> bool:
    if type(key) is not str or type(value) not in (str, int, float, bool, type(None)):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, int) and abs(value) > 10**LONGEST_VALUE:
        return False
    return not isinstance(value, str) or len(value) <= LONGEST_VALUE


def _turn_chance(other: bool) -> None:
    """Have `random` give the same in each process; if *other*, each time something else."""
    import random

    random.seed(0)
    if not other:
        return
    usual: Any = random.Random
    below, fraction = usual._randbelow, usual.random

    def other_below(self: Any, n: int) -> Any:
        return (below(self, n) + n // 2) % n if n > 1 else below(self, n)

    def other_fraction(self: Any) -> Any:
        return (fraction(self) + 0.5) % 1.0

    usual._randbelow, usual.random = other_below, other_fraction
    random.random = lambda: other_fraction(random._inst)


def _move_clock(seconds: float) -> None:
    """Have the clock on the wall go *seconds* fast, for whatever is imported from now on."""
    import datetime
    import time

    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)
    for name in ("localtime", "gmtime", "ctime"):
        setattr(time, name, _of_now(getattr(time, name), time.time))
    strftime, asctime = time.strftime, time.asctime
    time.strftime = lambda form, *of: strftime(form, *(of or (time.localtime(),)))
    time.asctime = lambda *of: asctime(*(of or (time.localtime(),)))
    datetime.date, datetime.datetime = _later_dates(datetime.date, datetime.datetime, seconds)  # type: ignore[misc]


def _of_now(function: Any, now: Any) -> Any:
    return lambda at=None: function(now() if at is None else at)


def _later_dates(date: Any, moment: Any, seconds: float) -> tuple[Any, Any]:
    """The two classes with a clock that goes fast; what they make is of the true ones."""
    import datetime

    ahead = datetime.timedelta(seconds=seconds)

    def like(true: Any) -> Any:
        class AnyOf(type):
            def __instancecheck__(cls, value: object) -> bool:
                return isinstance(value, true)

            def __subclasscheck__(cls, other: type) -> bool:
                return issubclass(other, true)

        return AnyOf

    class Date(date, metaclass=like(date)):  # type: ignore[misc, metaclass]
        def __new__(cls, *args: Any, **options: Any) -> Any:
            return date(*args, **options)

        @classmethod
        def today(cls) -> Any:
            return (moment.now() + ahead).date()

    class Moment(moment, metaclass=like(moment)):  # type: ignore[misc, metaclass]
        def __new__(cls, *args: Any, **options: Any) -> Any:
            return moment(*args, **options)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moment.now(tz) + ahead

        @classmethod
        def today(cls) -> Any:
            return moment.today() + ahead

        @classmethod
        def utcnow(cls) -> Any:
            return moment.now(datetime.UTC).replace(tzinfo=None) + ahead

    return Date, Moment


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # threads of scripts may never end
