"""Tests made of visits: each passes under pytest, and fails when the script that it visits is
broken.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from rpyserve.inspector.copies import Sent
from rpyserve.inspector.rehearsal import CannotRehearse, Heard, Step, rehearse
from rpyserve.inspector.visit_tests import as_test, prepared

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent.parent
SAMPLE_SITE = ROOT / "sample_site"
BROWSER = (
    (b"host", b"127.0.0.1:8080"),
    (b"user-agent", b"Mozilla/5.0"),
    (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"sec-fetch-mode", b"navigate"),
    (b"cookie", b"rpyserve_8080=0123456789abcdef0123456789abcdef"),
)


def ask(target: str, pause: float = 0, method: str = "GET", body: str = "", **fields: str) -> Step:
    extra = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    if body and "content_type" not in fields:
        extra.append((b"content-type", b"application/x-www-form-urlencoded"))
    sent = Sent("http://127.0.0.1:8080", method, target, (*BROWSER, *extra), body.encode())
    return Step(prepared(sent), pause)


def visit_of(page: str) -> list[Step]:
    """Look at a page, and once more after three seconds; then what else one does there."""
    path = "/" if page == "index" else f"/{page}"
    more = {
        "login": [ask("/login", 2, "POST", "user=Ada"), ask("/login"), ask("/login", 901)],
        "guestbook": [ask("/guestbook", 2, "POST", "text=Hi"), ask("/guestbook")],
        "virtual_hosts": [ask("/virtual_hosts", host="shop.localhost:8080")],
        "server_sent_events": [ask("/server_sent_events?events")],
        "json_api": [ask("/json_api", 0, "POST", '{"text": "a"}', content_type="application/json")],
        "basic_auth": [ask("/basic_auth/", authorization="Basic YWRhOmxvdmVsYWNl")],
        "hello": [ask("/hello?name=%3Cb%3E"), ask("/nothing/here")],
    }
    return [ask(path), ask(path, 3), *more.get(page, [])]


PAGES = sorted(path.stem for path in SAMPLE_SITE.glob("*.rpy") if path.stem != "404")


async def made(site: Path, steps: list[Step], lifetime: float | None = None) -> str:
    first, second = await rehearse(str(site), steps, lifetime)
    return as_test(steps, first, second, timeout=lifetime)


def run_pytest(tests: Path, site: Path) -> tuple[str, dict[str, int]]:
    """The output, and how many passed and failed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tests),
         "-c", os.devnull, "-o", f"rpyserve_site={site}", "--tb=line", str(tests)],
        env=environment, cwd=tests, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    counts = re.findall(r"(\d+) (passed|failed|error)", done.stdout.splitlines()[-1])
    return done.stdout + done.stderr, {what: int(count) for count, what in counts}


def broken(site: Path, where: Path) -> Path:
    """A copy of the site in which each script fails."""
    copy = shutil.copytree(site, where)
    for path in copy.glob("*.rpy"):
        path.write_text("raise RuntimeError('it is broken')\n")
    return copy


def test_visits_to_every_page_of_the_sample_site(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    limit = trio.CapacityLimiter(2)
    texts: dict[str, str] = {}

    async def make(page: str) -> None:
        async with limit:
            texts[page] = await made(SAMPLE_SITE, visit_of(page))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for page in PAGES:
                nursery.start_soon(make, page)

    trio.run(main)
    for page, text in texts.items():
        (tests / f"test_{page}.py").write_text(text, encoding="utf-8")
    output, counts = run_pytest(tests, SAMPLE_SITE)
    assert counts == {"passed": len(PAGES)}, output
    output, counts = run_pytest(tests, broken(SAMPLE_SITE, tmp_path / "broken"))
    assert counts == {"failed": len(PAGES)}, output
    assert "Visit #2 for you!" in texts["counter"]
    assert "client.sleep(3)" in texts["counter"] and "client.sleep(901)" in texts["login"]
    assert "assert client.session is None" in texts["login"]
    assert "assert client.session['user'] == 'Ada'" in texts["login"]
    assert "assert client.session['visits'] == 2" in texts["session"]
    assert (
        "with client.stream('GET', '/server_sent_events?events', headers="
        in texts["server_sent_events"]
    )
    assert "lovelace" not in texts["basic_auth"]


# What differs from run to run, and what ends

HARD = {
    "clock": "import datetime, time\n\n\ndef resource(request):\n    now = datetime.datetime.now()\n"
    "    assert isinstance(now, datetime.datetime) and isinstance(now, datetime.date)\n"
    "    assert datetime.date.today().year == now.year == time.localtime().tm_year\n"
    "    return f'{now.year} {time.strftime(\"%A\")} {datetime.date(2020, 5, 1)}'\n",
    "chance": "import random\nfrom random import choice\n\n\ndef resource(request):\n"
    "    return choice('ab') + random.choice('ab') + str(random.random() < 0.5)\n",
    "order": "def resource(request):\n    return ' '.join({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})\n",
    "fails": "def resource(request):\n    return 1 / 0\n",
    "endless": "import trio\n\n\nasync def more():\n    while True:\n        yield 'a'\n        await trio.sleep(1)\n"
    "\n\ndef resource(request):\n    return more()\n",
    "breaks": "import trio\n\n\nasync def more():\n    yield 'a'\n    await trio.sleep(1)\n    raise ValueError\n\n\ndef resource(request):\n    return more()\n",
    "kill": "import os\n\n\ndef resource(request):\n    os._exit(3)\n",
    "forever": "import time\n\n\ndef resource(request):\n    time.sleep(3600)\n",
    "quotes": "def resource(request):\n    request.setHeader('Content-Type', 'text/plain; charset=utf-8')\n"
    "    return '\"\"\"\\'\\'\\' \\\\ {} \\u202e \\x00\\nnext' + request.content.read().decode()\n",
    "keep": "def resource(request):\n    session = request.getSession()\n    session['a b\\'\"'] = request.field('v')\n"
    "    session['password'] = 'hunter2'\n    session['n'] = session.get('n', 0) + 1\n    return 'kept'\n",
    "leave": "def resource(request):\n    request.getSession().expire()\n    return 'left'\n",
}  # fmt: skip


@pytest.fixture
def hard_site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    for name, text in HARD.items():
        (site / f"{name}.rpy").write_text(text)
    return site


def passes(text: str, site: Path, tmp_path: Path) -> bool:
    tests = tmp_path / "tests"
    tests.mkdir(exist_ok=True)
    (tests / "test_made.py").write_text(text, encoding="utf-8")
    output, counts = run_pytest(tests, site)
    assert counts == {"passed": 1}, output + text
    return True


@pytest.mark.parametrize("page", ["clock", "chance", "order"])
def test_what_differs_from_run_to_run_is_a_comment(
    page: str, hard_site: Path, tmp_path: Path
) -> None:
    text = trio.run(made, hard_site, [ask(f"/{page}")])
    assert "# The body differs from run to run." in text and "response.text" not in text
    assert "assert response.status_code == 200" in text
    assert passes(text, hard_site, tmp_path)


def test_a_visit_with_an_error_a_stream_and_strange_texts(hard_site: Path, tmp_path: Path) -> None:
    strange = "'''\"\"\"\n\\x{}%s\u202e\x00\ud800".encode("utf-8", "surrogatepass")
    steps = [
        ask("/fails"),
        ask("/endless"),
        ask("/breaks"),
        ask("//keep?v=%22"),
        ask("/keep?v='\"[](){}%22%0a", 5.04),
        Step(prepared(Sent("", "POST", "/quotes", (*BROWSER, (b"x-a", b"'\"\\\xff")), strange[:20]))),
        ask("/leave"),
        ask("/keep?v=a"),
        ask("/fails", 1e6, "PATCH", "a"),
    ]  # fmt: skip
    text = trio.run(made, hard_site, steps)
    assert passes(text, hard_site, tmp_path)
    assert "raise_errors=False" in text and "hunter2" not in text
    assert "assert response.status_code == 500" in text
    assert "with client.stream('GET', '/endless', headers=" in text
    assert "assert client.session['n'] == 1" in text
    assert text.count("assert client.session is None") == 2
    assert "\u202e" not in text and "\0" not in text


def test_a_response_that_breaks_off(hard_site: Path, tmp_path: Path) -> None:
    text = trio.run(made, hard_site, [ask("/breaks")])
    assert passes(text, hard_site, tmp_path) and "raise_errors=False" in text


def test_sessions_that_live_for_another_time(hard_site: Path, tmp_path: Path) -> None:
    text = trio.run(made, hard_site, [ask("/keep?v=a"), ask("/keep?v=b", 6)], 5.0)
    assert "client.sleep(6)\n    assert client.session is None" in text
    assert passes(text, hard_site, tmp_path)


def test_a_rehearsal_changes_nothing_of_the_site(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "write.rpy").write_text(
        "def resource(request):\n    open('told.txt', 'a').write('a')\n    return 'written'\n"
    )
    before = sorted(path.name for path in site.rglob("*"))
    assert "assert response.text == 'written'" in trio.run(made, site, [ask("/write")])
    assert sorted(path.name for path in site.rglob("*")) == before


def test_a_site_that_ends_the_process(hard_site: Path) -> None:
    with pytest.raises(CannotRehearse, match="its process ended early"):
        trio.run(rehearse, str(hard_site), [ask("/kill")], None)


def test_a_script_that_never_ends(hard_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpyserve.inspector.rehearsal.TIME_LIMIT", 2.0)
    with pytest.raises(CannotRehearse, match=r"more than 2 s\."):
        trio.run(rehearse, str(hard_site), [ask("/forever")], None)


def test_one_that_fails_in_one_run_only_is_not_asserted() -> None:
    step = ask("/a")
    good, bad = Heard(200, body=b"a"), Heard(500, body=b"b", changed={"n": 1})
    text = as_test([step], [good], [bad])
    assert "# The status differs from run to run: 200, 500." in text
    assert "assert" not in text
