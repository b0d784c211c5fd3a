"""A million objects in the registry, a hundred modules, and an edit: how long does all else wait?

``python -m benchmarks.scale.edits``. The registry is filled in four shapes: one list, one dict,
rooms that are objects themselves, and as many rows of plain data beside a few objects. A module is
edited, and a page is asked for that uses a few of the objects. The longest CPU time for which a
task waits that sleeps 1 ms says how long all others waited. Each shape is measured in a process of
its own, in which garbage is collected as the command does it.

``--base DIRECTORY`` measures the package in another directory as well, for comparison; one whose
modules have other names is measured by a copy of this file. The figures of `docs/scale.md` are
beside those of a version from before objects were brought up to date in parts.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time

import trio

from benchmarks.common.docs import ROOT, table
from benchmarks.common.options import add_write, option_parser
from benchmarks.scale import report
from benchmarks.scale.sessions import Figures, measuring_pauses
from rpyserve import Directory, Site
from rpyserve.http.request import Request
from rpyserve.serving import gc_tuning
from rpyserve.sessions import migration  # noqa: F401  # as the command does before an edit

OBJECTS = 1_000_000
MODULES = 100
PAUSE_LIMIT = 50
"""Milliseconds."""

SHAPES = {
    "1,000 objects only": "registry['all'] = [Player(n) for n in range(1_000)]",
    "one list": "registry['all'] = [Player(n) for n in range({count})]",
    "one dict": "registry['all'] = {{n: Player(n) for n in range({count})}}",
    "100 in each room": (
        "registry['all'] = [Room([Player(n) for n in range(100)]) for _ in range({count} // 100)]"
    ),
    "rows of plain data": (
        "registry['all'] = [Player(1), [{{'id': n, 'name': 'x'}} for n in range({count})]]"
    ),
}
USES = {
    "one dict": "registry['all'][n]",
    "100 in each room": "registry['all'][n].players[n]",
    "rows of plain data": "registry['all'][0]",
}
MODELS = """
class Room:
    def __init__(self, players): self.players = players
class Player:
    def __init__(self, n): self.n = n
    def greet(self): return "{word}"
"""
PAGE = """
from rpyserve import cache, registry
cache()
from models import Player, Room
{imports}
def resource(request):
    if "all" not in registry:
        {fill}
    it = [{use} for n in range(10)]
    assert all(isinstance(each, Player) for each in it)
    return it[0].greet()
"""


async def measure(shape: str, count: int, modules: int, root: Path) -> Figures:
    """Edit a module of a site whose registry holds *count* objects.

    Returns:
        ``pause``, ``request`` and ``done``, in milliseconds.
    """
    for n in range(modules):
        (root / f"helper{n}.py").write_text(f"class Helper{n}:\n    pass\n")
    page = PAGE.format(
        imports="\n".join(f"import helper{n}" for n in range(modules)),
        fill=SHAPES[shape].format(count=count),
        use=USES.get(shape, "registry['all'][n]"),
    )
    (root / "page.rpy").write_text(page)
    (root / "models.py").write_text(MODELS.format(word="hello"))
    site = Site(Directory(root))
    async with site.running():
        assert await _get(site) == b"hello"
        gc.collect()
        gc.freeze()
        await trio.sleep(2.5)  # a file that is younger is read again at each request
        (root / "models.py").write_text(MODELS.format(word="goodbye"))
        figures: Figures = {}
        async with measuring_pauses(figures, "pause"):
            began = process_time()
            assert await _get(site) == b"goodbye"
            figures["request"] = (process_time() - began) * 1000
            for _ in range(20):
                assert await _get(site) == b"goodbye"
                await trio.sleep(0.01)
            await _until_idle()
        figures["done"] = (process_time() - began) * 1000
    return figures


async def _get(site: Site) -> bytes:
    request = Request("GET", "/page", [], client=("127.0.0.1", 1), server=("127.0.0.1", 8080))
    try:
        response = await site.respond(request)
    finally:
        request.close()
    assert response.status == 200, response.body
    return bytes(response.body)  # type: ignore[arg-type]


async def _until_idle() -> None:
    """Wait until the loop has had nothing to do for a while."""
    quiet = 0
    while quiet < 20:
        began = process_time()
        await trio.sleep(0.005)
        quiet = quiet + 1 if process_time() - began < 0.001 else 0


def measure_here(shape: str, count: int, modules: int) -> Figures:
    with tempfile.TemporaryDirectory() as directory, gc_tuning.tuned_gc():
        return trio.run(measure, shape, count, modules, Path(directory))


def measure_in(package: Path, shape: str, count: int, modules: int) -> Figures:
    """Measure the package in the directory *package*, in a process of its own."""
    command = [sys.executable, __file__, "--own", shape, "--objects", str(count)]
    command += ["--modules", str(modules)]
    environment = os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def section(own: dict[str, Figures], base: dict[str, Figures], count: int, modules: int) -> str:
    rows = []
    for shape, figures in own.items():
        before = [f"{base[shape][name]:.0f}" for name in ("pause", "request") if shape in base]
        pause = report.marked(figures["pause"], PAUSE_LIMIT)
        rows.append([shape, pause, f"{figures['request']:.0f}", f"{figures['done']:.0f}", *before])
    titles = ["", "longest pause, ms", "first request, ms", "all is done, ms"]
    titles += ["pause before", "first request before"] if base else []
    return f"""\
{count:,} objects in the registry, and a page that imports {modules} modules of the site. One of
them is edited, and the page is asked for. CPU time, of the longest iteration of the event loop and
of the first request, and until every object is up to date. {report.machine()}

{table(titles, rows)}

The first line is what it takes to import the modules again, in one iteration of the loop. A
registry that holds very much is looked through in slices of 5 ms, before the first request for a
page that may use it, so that all other requests are answered meanwhile. The nearest 1,000 objects
are then brought up to date at once, the others when they are first used and in slices between
requests. What is over {PAUSE_LIMIT} ms is in bold."""


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--modules", type=int, default=MODULES)
    parser.add_argument("--base", type=Path, help="where the package to compare with is")
    parser.add_argument("--own", metavar="SHAPE", help="only one shape, as JSON, of this process")
    add_write(parser, report.DOCUMENT)
    options = parser.parse_args()
    count, modules = options.objects, options.modules
    if options.own:
        print(json.dumps(measure_here(options.own, count, modules)))
        return
    own = {shape: measure_in(ROOT, shape, count, modules) for shape in SHAPES}
    base = {}
    if options.base:
        base = {shape: measure_in(options.base, shape, count, modules) for shape in SHAPES}
    text = section(own, base, count, modules)
    report.write_section(report.EDITS, text, options.write)
    print(text)
    sys.exit(any(figures["pause"] > PAUSE_LIMIT for figures in own.values()))


if __name__ == "__main__":
    main()
