"""Receipts of edits under load: is a verdict wrong, does one need a sleep, how soon is it there?

``python -m benchmarks.livereload.receipts --edits 1000``. A played browser has a page of each
script open, and others load pages all the time, in a process of their own. Each edit is one save,
or a burst of 20 files; a fifth are broken, by their syntax, as they are executed, or as they
render; a tenth are half-written: the first half is judged, then the whole. After each save there is
one question, and its answer must have every file with the content that was saved, and the verdict
that this content deserves.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common.options import option_parser
from benchmarks.common.server_process import serving

SCRIPTS = 24
BURST = 20
GOOD = "cache()\n# {n}\ndef resource(request):\n    text = 'version {n}'\n    return text\n"
BROKEN = (
    "cache()\n# {n}\ndef resource(request:\n    return 'version {n}'\n",
    "cache()\n# {n}\n1 / 0\nresource = lambda request: 'version {n}'\n",
    "cache()\n# {n}\ndef resource(request):\n    return nothing_like_it_{n}\n",
)


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
        self.result = Result()
        self.count = 0

    def close(self) -> None:
        """Close its connection."""
        self._client.close()

    def edit(self, number: int) -> None:
        """Make one edit, and judge its receipt."""
        names = [f"p{n:02}.rpy" for n in self._random.sample(range(SCRIPTS), self._files())]
        texts = {name: self._text(number) for name in names}
        if self._random.random() < 0.1:
            self._save({name: text[: len(text) // 2] for name, text in texts.items()})
        self._save(texts)

    def _files(self) -> int:
        return BURST if self._random.random() < 0.05 else 1

    def _text(self, number: int) -> str:
        is_broken = self._random.random() < 0.2
        return (self._random.choice(BROKEN) if is_broken else GOOD).format(n=number)

    def _save(self, texts: dict[str, str]) -> None:
        for name, text in texts.items():
            (self._site / name).write_text(text)
        saved = time.perf_counter()
        answer = self._client.get("/-/edits.json", params={"after": self._after, "wait": 20})
        self.result.seconds.append(time.perf_counter() - saved)
        told = answer.json()
        self._after = told["number"]
        self.count += 1
        wanted = {name: _digest(text) for name, text in texts.items()}
        self._judge(told["items"], texts, wanted, answer.text)

    def _judge(
        self, receipts: list[Any], texts: dict[str, str], wanted: dict[str, str], told: str
    ) -> None:
        found = {each["name"]: each["sha256"] for one in receipts for each in one["files"]}
        if found != wanted and not any("left_out" in each for each in receipts):
            self.result.wrong.append(f"not what was saved: {told}")
        for receipt in receipts:
            saved = [each["name"] for each in receipt["files"]]
            if "left_out" in receipt:
                saved = [*texts]
            if not texts.keys() >= {*saved}:
                self.result.wrong.append(f"of an earlier save: {json.dumps(receipt)}")
                continue
            deserved = "broken" if any(_is_broken(texts[name]) for name in saved) else "ok"
            if receipt["verdict"] != deserved or not receipt["settled"]:
                self.result.wrong.append(f"not {deserved}: {json.dumps(receipt)}")
            if len(saved) == 1:
                self.result.longest = max(self.result.longest, len(json.dumps(receipt)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_broken(text: str) -> bool:
    """Whether its page fails, as a request would find out."""
    names: dict[str, Any] = {"cache": lambda: None}
    try:
        exec(compile(text, "page", "exec"), names)
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
        with serving(site, Path(directory, "console"), "--quiet") as server:
            names = [f"/p{n:02}" for n in range(SCRIPTS)]
            browser = Browser(server.url, names)
            thread = threading.Thread(target=browser.run, daemon=True)
            thread.start()
            author = Author(site, server.url, seed)
            while not re.search(r'"told":24', _warm_up(author, site)):
                pass
            author.result = Result()
            with loaded(server.url, clients):
                for number in range(1, edits + 1):
                    author.edit(number)
        thread.join(10)
        author.close()
        browser.close()
        return author.result


def _warm_up(author: Author, site: Path) -> str:
    """Save once more, until the browser listens; return what was told."""
    author._save({"p00.rpy": GOOD.format(n=time.perf_counter_ns())})
    return author._client.get("/-/edits/latest.json").text


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
