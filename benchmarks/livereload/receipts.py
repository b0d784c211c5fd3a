"""Receipts of edits under load: is a verdict wrong, does one need a sleep, how soon is it there?

``python -m benchmarks.livereload.receipts --edits 1000``. A played browser has a page of each
script open, and others load pages all the time, in a process of their own. Files are saved in
place, by a rename, or slowly. Most edits are of one script, some are bursts of 20, of a module, of
a style sheet, or a new script that is removed again. A fifth of the code is broken: by its syntax,
as it is executed, or as it renders. A tenth is half-written: the first half is judged, then the
whole; or the second half follows within some hundredths of a second. After each save there is one
question, and its answer must have every file with the content that was saved last, no other files,
and the verdicts that the contents deserve.
"""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from benchmarks.common.options import option_parser
from benchmarks.common.server_process import serving

SCRIPTS = 24
BURST = 20
GOOD = """\
cache()
# {n}
import words
def resource(request):
    text = words.of({n})
    return text
"""
BROKEN = (
    "cache()\n# {n}\ndef resource(request:\n    return 'version {n}'\n",
    "cache()\n# {n}\n1 / 0\nresource = lambda request: 'version {n}'\n",
    "cache()\n# {n}\ndef resource(request):\n    return nothing_like_it_{n}\n",
)
MODULE = "def of(n):\n    return f'version {{n}} of {n}'\n"
STYLE = "p {{ margin: {n}px }}\n"

Files = dict[str, str | None]
"""Texts of files by their names; None for one that is gone."""


class Browser:
    """Has a page of each script open, and says what they show."""

    def __init__(self, url: str, names: list[str]) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)
        self._names = names
        self.stream = httpx.Client(base_url=url, timeout=httpx.Timeout(30, read=None))

    def run(self) -> None:
        """Follow changes until the server ends the stream."""
        for path in self._names:
            self._client.get(path)
        query = {"name": "tab", "shared": ""}
        with self.stream.stream("GET", "/-/events", params=query) as answer:
            cursor = ""
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    cursor = line[4:]
                elif line.startswith('data: {"urls"'):
                    self._show(json.loads(line[6:]), cursor)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()
        self.stream.close()

    def _show(self, change: dict[str, Any], cursor: str) -> None:
        urls = {url.removesuffix(".rpy") for url in change["urls"]}
        pages = [name for name in self._names if change["all"] or name in urls]
        for path in pages:
            self._client.get(path)
        told = {
            "name": "tab",
            "since": cursor,
            "tabs": len(self._names),
            "shown": len(pages),
            "unchanged": len(self._names) - len(pages),
        }
        self._client.post("/-/events", data=told)


@dataclass
class Result:
    """What was measured.

    Attributes:
        wrong: verdicts that were not what the content deserved, with what was told.
        seconds: from each save to the answer.
        longest: the most characters of a receipt of one file.
    """

    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    longest: int = 0


class Author:
    """Saves files, and asks what came of it."""

    def __init__(self, site: Path, url: str, seed: int) -> None:
        self._site = site
        self._client = httpx.Client(base_url=url, timeout=40)
        self._random = random.Random(seed)
        self._after = self._client.get("/-/edits.json").json()["number"]
        self._saved: Files = {}
        self.result = Result()

    def close(self) -> None:
        """Close its connection."""
        self._client.close()

    def warm_up(self) -> int:
        """Save once more; return how many pages were told."""
        self.save({"p00.rpy": GOOD.format(n=time.perf_counter_ns())})
        told: int = self._client.get("/-/edits/latest.json").json()["pages"]["told"]
        return told

    def edit(self, number: int) -> None:
        """Make one edit, and judge its receipts."""
        kind = self._random.choices(
            ("script", "burst", "module", "style", "new"), (82, 5, 3, 5, 5)
        )[0]
        if kind == "style":
            self.save({"style.css": STYLE.format(n=number)})
        elif kind == "new":
            self.save({f"new{number}.rpy": GOOD.format(n=number)})
            self.save({f"new{number}.rpy": None})
        elif kind == "module":
            self.save({"words.py": MODULE.format(n=number)})
        else:
            self._save_scripts(number, BURST if kind == "burst" else 1)

    def _save_scripts(self, number: int, count: int) -> None:
        names = [f"p{n:02}.rpy" for n in self._random.sample(range(SCRIPTS), count)]
        texts: Files = {name: self._text(number) for name in names}
        half: Files = {name: text[: len(text) // 2] for name, text in texts.items() if text}
        written = self._random.choices(("whole", "half", "in halves"), (90, 5, 5))[0]
        if written == "half":
            self.save(half)
        if written == "in halves":
            self.save(half, texts)
        else:
            self.save(texts)

    def _text(self, number: int) -> str:
        is_broken = self._random.random() < 0.2
        return (self._random.choice(BROKEN) if is_broken else GOOD).format(n=number)

    def save(self, *steps: Files) -> None:
        """Save the files of all *steps*, one soon after the other, and judge what is told."""
        put = self._random.choices((_put_at_once, _put_by_rename, _put_slowly), (66, 30, 4))[0]
        for number, files in enumerate(steps):
            if number:
                time.sleep(self._random.random() * 0.03)
            for name, text in files.items():
                put(self._site / name, text)
        saved = time.perf_counter()
        answer = self._client.get("/-/edits.json", params={"after": self._after, "wait": 20})
        self.result.seconds.append(time.perf_counter() - saved)
        told = answer.json()
        self._after = told["number"]
        emptied: Files = dict.fromkeys(steps[0], "")  # for as long as a process may be held up
        if what := self._mistake(told["items"], (emptied, *steps)):
            self.result.wrong.append(f"{what}: {answer.text} of {json.dumps(steps)}")
        if len(told["items"]) == 1 and len(steps[-1]) == 1:
            self.result.longest = max(self.result.longest, len(answer.text))
        self._saved |= steps[-1]

    def _mistake(self, receipts: list[Any], steps: tuple[Files, ...]) -> str:
        """What is wrong in *receipts* of what was saved in *steps*; empty if nothing is."""
        if not all(each["settled"] for each in receipts):
            return "not settled"
        found = {each["name"]: each["sha256"] for one in receipts for each in one["files"]}
        if any("left_out" in each for each in receipts):  # not all files are named
            found = {**_digests(steps[-1]), **found}
        if found != _digests(steps[-1]):
            return "not what was saved"
        for number, receipt in enumerate(receipts):
            deserved = self._deserved(receipt, steps)
            # Nobody may have asked for what was there between two saves only.
            is_last = number == len(receipts) - 1
            if receipt["verdict"] not in deserved + ([] if is_last else ["not run"]):
                return f"not {' or '.join(deserved)}"
        return ""

    def _deserved(self, receipt: dict[str, Any], steps: tuple[Files, ...]) -> list[str]:
        told = {(each["name"], each["sha256"]) for each in receipt["files"]}
        saved = [
            (name, text)
            for step in steps
            for name, text in step.items()
            if (name, _digests(step)[name]) in told
        ]
        if len(saved) < len(told):
            return ["nothing of the kind"]
        if any(_is_broken(text) for name, text in saved if name.endswith("y")):
            return ["broken"]
        if len(steps[-1]) == BURST and "left_out" in receipt:
            return ["ok", "broken"]  # by a file that it does not name
        if any(name.startswith("new") and text for name, text in saved):
            return ["not run"]  # no page of it is open
        if saved[0][0] == "words.py" and any(map(_fails, self._saved.values())):
            return ["broken"]  # pages that it might have mended fail still
        return ["ok"]


def _put_at_once(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def _put_by_rename(path: Path, text: str | None) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    _put_at_once(beside, text or "")
    _put_at_once(path, None) if text is None else beside.replace(path)


def _put_slowly(path: Path, text: str | None) -> None:
    """The file is empty for a while, which is longer than the watch waits at times."""
    if text is None:
        path.unlink()
    else:
        with path.open("w") as file:
            time.sleep(0.1 * (len(text) % 7) / 7)
            file.write(text)


def _digests(files: Files) -> dict[str, str | None]:
    return {
        name: None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]
        for name, text in files.items()
    }


def _is_broken(text: str | None) -> bool:
    """Whether it is there, and does not compile, or its page fails."""
    return _fails(text) or not _compiles(text or "")


def _compiles(text: str) -> bool:
    try:
        compile(text, "page", "exec")
    except SyntaxError:
        return False
    return True


def _fails(text: str | None) -> bool:
    """Whether it is there and compiles, and its page fails."""
    if text is None or not _compiles(text):
        return False
    names: dict[str, Any] = {"cache": lambda: None}
    words = types.ModuleType("words")
    exec(MODULE.format(n=0), words.__dict__)
    try:
        with patch.dict(sys.modules, words=words):
            exec(text, names)
        if not text or "cache()" in text:  # a script, or an empty file: nothing can use that
            names["resource"](None)
    except Exception:
        return True
    return False


LOAD = """
import sys, itertools, httpx
with httpx.Client(base_url=sys.argv[1], timeout=60) as client:
    for n in itertools.count():
        try:
            client.get(f"/p{n * 7 % int(sys.argv[2]):02}")
        except httpx.HTTPError:
            break
"""


@contextmanager
def loaded(url: str, clients: int) -> Iterator[None]:
    """While inside, so many clients load pages one after the other."""
    command = [sys.executable, "-c", LOAD, url, str(SCRIPTS)]
    processes = [subprocess.Popen(command) for _ in range(clients)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(edits: int, clients: int, seed: int) -> Result:
    """Make so many *edits* while so many *clients* load pages."""
    with tempfile.TemporaryDirectory() as directory:
        site = Path(directory, "site")
        site.mkdir()
        for n in range(SCRIPTS):
            (site / f"p{n:02}.rpy").write_text(GOOD.format(n=0))
        (site / "words.py").write_text(MODULE.format(n=0))
        (site / "style.css").write_text(STYLE.format(n=0))
        with serving(site, Path(directory, "console"), "--quiet") as server:
            names = [f"/p{n:02}" for n in range(SCRIPTS)]
            browser = Browser(server.url, names)
            thread = threading.Thread(target=browser.run, daemon=True)
            thread.start()
            author = Author(site, server.url, seed)
            while author.warm_up() < SCRIPTS:
                pass
            author.result = Result()
            with loaded(server.url, clients):
                for number in range(1, edits + 1):
                    author.edit(number)
        thread.join(10)
        author.close()
        browser.close()
        return author.result


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = measure(options.edits, options.clients, options.seed)
    seconds = sorted(result.seconds)
    print(f"{len(seconds)} saves, one question each; {len(result.wrong)} verdicts wrong")
    print(f"median {statistics.median(seconds) * 1000:.0f} ms after the save, "
          f"99 in 100 within {seconds[int(len(seconds) * 0.99)] * 1000:.0f} ms, "
          f"longest receipt of one file {result.longest} characters")  # fmt: skip
    for each in result.wrong[:5]:
        print(each[:3000])
    raise SystemExit(bool(result.wrong))


if __name__ == "__main__":
    main()
