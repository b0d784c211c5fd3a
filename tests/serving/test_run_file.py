"""One server a site: who may have the run file, what is in it, and what is as good as none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rpyserve.serving import run_file
from rpyserve.serving.run_file import Claim, Running, Unusable, claim, find

pytest.importorskip("fcntl", reason="run files need POSIX locks")

ROOT = Path(__file__).parent.parent.parent
SITE = Path("/home/ada/site")

# Claims the site until a line comes on stdin, and publishes the URL in it.
OTHER = """
import sys
from pathlib import Path
from rpyserve.serving.run_file import claim
found = claim(Path(sys.argv[1]))
print(type(found).__name__, flush=True)
for line in sys.stdin:
    found.publish(line.strip())
    print("published", flush=True)
found.release()
"""


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory for what this user's programs leave while they run."""
    where = tmp_path / "runtime"
    where.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(where))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return where


@pytest.fixture
def start() -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """``start()`` is another process that has claimed the site."""
    others = []

    def start() -> subprocess.Popen[str]:
        other = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(SITE)], cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        others.append(other)
        assert read(other) == "Claim"
        return other

    yield start
    for other in others:
        other.kill()
        other.communicate()


def claimed(site: Path = SITE) -> Claim:
    found = claim(site)
    assert isinstance(found, Claim)
    return found


def read(other: subprocess.Popen[str]) -> str:
    assert other.stdout is not None
    return other.stdout.readline().strip()


def publish(other: subprocess.Popen[str], url: str) -> None:
    assert other.stdin is not None
    other.stdin.write(f"{url}\n")
    assert read(other) == "published"


def the_file(runtime: Path) -> Path:
    (found,) = (runtime / "rpyserve").iterdir()
    return found


def test_only_its_user_can_read_it(runtime: Path) -> None:
    found = claimed()
    found.publish("http://127.0.0.1:8080/")
    assert (runtime / "rpyserve").stat().st_mode & 0o777 == 0o700
    assert the_file(runtime).stat().st_mode & 0o777 == 0o600
    pid, since, url = the_file(runtime).read_text().splitlines()
    assert (int(pid), url) == (os.getpid(), "http://127.0.0.1:8080/")
    assert since.startswith("20")
    found.release()
    assert not list((runtime / "rpyserve").iterdir())
    found.release()


def test_another_process_is_told_where_it_is(start: Callable[[], subprocess.Popen[str]]) -> None:
    other = start()
    publish(other, "unix:/tmp/ä socket")
    found = claim(SITE)
    assert isinstance(found, Running)
    assert (found.url, found.pid) == ("unix:/tmp/ä socket", other.pid)
    mine = claimed(SITE / "other")
    mine.release()
    other.communicate()
    mine = claimed()
    mine.release()


def test_one_that_does_not_know_its_url_yet_is_waited_for(
    start: Callable[[], subprocess.Popen[str]],
) -> None:
    other, found = start(), []
    waiting = threading.Thread(target=lambda: found.append(claim(SITE)))
    waiting.start()
    publish(other, "http://127.0.0.1:8081/")
    waiting.join(run_file.MAX_WAIT)
    assert found[0].url == "http://127.0.0.1:8081/"


def test_one_that_never_says_where_it_is(
    start: Callable[[], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start()
    monkeypatch.setattr(run_file, "MAX_WAIT", 0)
    found = claim(SITE)
    assert isinstance(found, Running) and (found.url, found.pid) == ("", other.pid)


def test_what_a_killed_server_leaves_is_replaced(
    start: Callable[[], subprocess.Popen[str]], runtime: Path
) -> None:
    other = start()
    publish(other, "http://127.0.0.1:8080/")
    other.send_signal(signal.SIGKILL)
    other.wait()
    # As if another process had the number of the dead one by now.
    the_file(runtime).write_text(f"{os.getppid()}\n2026-05-01 10:00:00\nhttp://127.0.0.1:8080/\n")
    found = claimed()
    assert the_file(runtime).read_text().splitlines()[0] == str(os.getpid())
    found.release()


@pytest.mark.parametrize("content", ["", "\n\n\n", "x\ny\nhttp://127.0.0.1/\n", "\0" * 9999])
def test_whatever_is_in_a_stale_file(content: str, runtime: Path) -> None:
    first = claimed()
    path = the_file(runtime)
    first.release()
    path.write_text(content)
    found = claimed()
    found.release()


def test_a_file_that_is_removed_after_it_was_opened_is_no_claim(
    start: Callable[[], subprocess.Popen[str]], runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, open_file = start(), os.open

    def open_and_wait(path: str, *rest: int) -> int:
        descriptor = open_file(path, *rest)
        if other.poll() is None:
            other.communicate()  # it removes the file, and gives back the lock
        return descriptor

    monkeypatch.setattr(os, "open", open_and_wait)
    found = claimed()
    assert the_file(runtime).read_text().splitlines()[0] == str(os.getpid())
    found.release()


def test_of_many_that_begin_at_once_one_has_it(runtime: Path) -> None:
    """Some end while others begin: at no time are there two."""
    code = (
        "import sys, os\nfrom pathlib import Path\nfrom rpyserve.serving.run_file import *\n"
        "for _ in range(300):\n"
        "    found = claim(Path(sys.argv[1]))\n"
        "    if isinstance(found, Claim):\n"
        "        os.mkdir(sys.argv[2])\n"  # fails if another is within
        "        found.publish('http://127.0.0.1/')\n"
        "        os.rmdir(sys.argv[2])\n"
        "        found.release()\n"
    )
    command = [sys.executable, "-c", code, str(SITE), str(runtime / "within")]
    others = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [other.wait(60) for other in others] == [0] * 4
    assert not list((runtime / "rpyserve").iterdir())


def test_a_file_that_is_another_servers_by_now_is_left(runtime: Path) -> None:
    found = claimed()
    path = the_file(runtime)
    path.unlink()
    path.write_text("of another server")
    found.release()
    assert path.read_text() == "of another server"


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_process_that_a_script_forks_gives_nothing_back(runtime: Path) -> None:
    found = claimed()
    child = os.fork()
    if child == 0:
        found.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert the_file(runtime)
    found.release()


def test_without_a_runtime_directory_it_is_in_the_temporary_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    found = claimed()
    (place,) = tmp_path.glob("rpyserve-*")
    assert place.stat().st_mode & 0o777 == 0o700 and len(list(place.iterdir())) == 1
    found.release()


@pytest.mark.parametrize("trick", ["open to others", "a link", "a file"])
def test_a_place_that_others_can_reach_is_not_used(
    trick: str, runtime: Path, tmp_path: Path
) -> None:
    place = runtime / "rpyserve"
    if trick == "a file":
        place.write_text("")
    elif trick == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.mkdir()
        place.chmod(0o777)
    found = claimed()
    assert len(list(next(tmp_path.glob("rpyserve-*")).iterdir())) == 1
    found.release()


def test_where_nothing_can_be_written_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert claim(SITE) is None


def test_where_there_are_no_such_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    assert claim(SITE) is None


# Finding servers


def test_a_server_is_found_from_within_its_site(start: Callable[[], subprocess.Popen[str]]) -> None:
    other = start()
    assert find(SITE) == []  # it does not know its URL yet
    publish(other, "http://127.0.0.1:8080/")
    for directory in (SITE, SITE / "a" / "b"):
        ((url, pid),) = [(each.url, each.pid) for each in find(directory)]
        assert (url, pid) == ("http://127.0.0.1:8080/", other.pid)
    assert find(SITE.parent) == []


def test_a_further_server_is_found_too(
    start: Callable[[], subprocess.Popen[str]], runtime: Path
) -> None:
    publish(start(), "http://127.0.0.1:8080/")
    mine = claim(SITE, further=True)
    assert isinstance(mine, Claim)
    mine.publish("http://127.0.0.1:8081/", "secret")
    code = (
        "import sys\nfrom pathlib import Path\nfrom rpyserve.serving.run_file import find\n"
        "print([(each.url, each.token) for each in find(Path(sys.argv[1]))])\n"
    )
    command = [sys.executable, "-c", code, str(SITE)]  # one does not see locks of one's own
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    known = [("http://127.0.0.1:8080/", ""), ("http://127.0.0.1:8081/", "secret")]
    assert done.stdout == f"{known}\n"
    mine.release()


def test_what_a_dead_server_has_left_is_no_server(
    start: Callable[[], subprocess.Popen[str]], runtime: Path
) -> None:
    other = start()
    publish(other, "http://127.0.0.1:8080/")
    other.kill()
    other.wait()
    assert find(SITE) == []
    # As if another process had its number by now.
    the_file(runtime).write_text(f"{os.getppid()}\n2026-05-01 10:00:00\nhttp://127.0.0.1:8080/\n")
    assert find(SITE) == []


@pytest.mark.parametrize("content", ["", "1\n2\n3\n", "\0" * 9999, "x\ny\nhttp://127.0.0.1/\n"])
def test_a_file_that_does_not_say_who_holds_it(
    content: str, start: Callable[[], subprocess.Popen[str]], runtime: Path
) -> None:
    other = start()
    publish(other, "http://127.0.0.1:8080/")
    the_file(runtime).write_text(content)
    assert find(SITE) == []


@pytest.mark.parametrize("trick", ["a link", "a directory"])
def test_what_is_no_run_file_is_said(trick: str, runtime: Path, tmp_path: Path) -> None:
    found = claimed()
    path = the_file(runtime)
    found.release()
    if trick == "a link":
        (tmp_path / "elsewhere").write_text("")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    with pytest.raises(Unusable, match="it is a link" if trick == "a link" else "directory"):
        find(SITE)
    told: list[str] = []
    assert claim(SITE, tell=told.append) is None
    assert len(told) == 1 and "cannot be written" in told[0]


def test_a_server_without_a_place_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_file, "_place", lambda: None)
    told: list[str] = []
    assert claim(SITE, tell=told.append) is None and find(SITE) == []
    assert told == ["No place for a run file: rpyserve --inspect does not find this server."]


def test_where_there_are_no_locks_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with pytest.raises(Unusable, match="Windows"):
        find(SITE)
