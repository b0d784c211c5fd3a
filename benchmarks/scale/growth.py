"""Curves: what a request costs as connections, scripts, modules, sessions and open pages grow.

``python -m benchmarks.scale.growth [--curves NAME ...]``. Each curve is a section of docs/scale.md,
with a picture. The load is that of `benchmarks.performance`: wrk, and heads that vary. What counts
is CPU time; requests per second are beside it.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.docs import table
from benchmarks.common.options import add_write, option_parser
from benchmarks.common.server_process import ServerProcess, serving
from benchmarks.common.servers import BASELINE, start
from benchmarks.performance.load_generator import NUMBER, Request, generate_load
from benchmarks.performance.workload import BROWSER, COOKIE, VISITORS
from benchmarks.scale import followers, report
from benchmarks.scale.growth_chart import Line, chart
from rpyserve.livereload import change_feed

CONNECTIONS = (1, 10, 100, 1_000, 5_000)
SCRIPTS = (10, 100, 1_000, 10_000)
MODULES = (0, 10, 100, 1_000)
SESSIONS = (1, 10_000, 1_000_000)
PAGES = (1, 100, 1_000)
AT_ONCE = 16
"""Connections, unless they are what grows."""
SECONDS = 2
MANY, LONG = 1_000, 6
"""So many connections take a while to be made, so they are measured for so many seconds."""
SETTLE = 2.5
"""Seconds until files that were written for the site are no longer new."""
FOLDER = 100
"""How many scripts a folder has."""
TOLD_LIMIT, WAIT_LIMIT = 1000, 50
"""Milliseconds until the last page is told of an edit, and for which another request may wait."""

HELLO = "def resource(request): return 'Hello, world!'\n"
CACHED = f"cache()\n{HELLO}"
COUNTER = """cache()
def resource(request):
    session = request.getSession()
    session["visits"] = session.get("visits", 0) + 1
    return f"Visit {session['visits']:08}"
"""
FILL = """cache()
def resource(request):
    for _ in range(request.field("count", type=int)):
        request.site.sessions.make()
    return str(len(request.site.sessions))
"""
BATCH = 10_000
"""How many sessions one request makes."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests per second, microseconds of CPU time for each, how many had no answer in time."""

    rate: float
    cost: float
    failed: int = 0


Points = dict[int, list[Load]]
"""The rounds of each size."""


def requests_for(paths: Sequence[str], cookies: Sequence[str] = ()) -> list[Request]:
    """Requests as browsers send them, each with the cookie of one of `VISITORS` visitors."""
    cookies = cookies or [COOKIE.format(visitor) for visitor in range(VISITORS)]
    count = max(len(paths), len(cookies))
    return [
        Request(
            f"{paths[number % len(paths)]}?number={NUMBER}",
            BROWSER | {"Cookie": cookies[number % len(cookies)]},
        )
        for number in range(count)
    ]


def measure(server: ServerProcess, requests: Sequence[Request], connections: int = AT_ONCE) -> Load:
    """Ask for a while.

    Raises:
        AssertionError: nothing was answered, or something not well.
    """
    before = server.cpu_time()
    seconds = LONG if connections >= MANY else SECONDS
    done = generate_load(server.port, requests, connections, seconds)
    assert done.requests and not done.bad, done
    return Load(done.rate, (server.cpu_time() - before) / done.requests * 1e6, done.failed)


@contextmanager
def site_of(directory: Path, files: dict[str, str], *options: str) -> Iterator[ServerProcess]:
    """While inside, a site of *files* is served, whose scripts have all been asked for."""
    site = directory / f"site{len(list(directory.iterdir()))}"
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    with serving(site, directory / "console", *options) as server:
        yield server


def warm_up(server: ServerProcess, paths: Sequence[str]) -> None:
    """Ask for each of *paths* when it is new, and once more when it is not."""
    for _ in range(2):
        asked = [Request(path, {"Connection": "keep-alive"}) for path in paths]
        for begin in range(0, len(asked), FOLDER):
            exchange(server, asked[begin : begin + FOLDER])
        time.sleep(SETTLE)


def exchange(server: ServerProcess, requests: Sequence[Request]) -> list[tuple[str, str]]:
    """Send *requests*; return the cookie of each response, empty if it sets none, and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    found = []
    for request in requests:
        connection.request("GET", request.path, headers=request.headers)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, (request.path, response.status, body[:300])
        cookie = response.getheader("Set-Cookie", "").partition(";")[0]
        found.append((cookie, body.decode()))
    connection.close()
    return found


# What grows


def by_connections(directory: Path, rounds: int) -> dict[str, Points]:
    requests = requests_for(["/page"])
    points: dict[str, Points] = {"rpyserve": {}, BASELINE.name: {}}
    with site_of(directory, {"page.rpy": CACHED}) as server:
        warm_up(server, ["/page"])
        baseline = start(BASELINE, {}, directory / "baseline", directory)
        try:
            for _ in range(rounds):
                for count in CONNECTIONS:
                    for name, each in (("rpyserve", server), (BASELINE.name, baseline)):
                        points[name].setdefault(count, []).append(measure(each, requests, count))
        finally:
            baseline.stop()
    return points


def by_scripts(directory: Path, rounds: int) -> dict[str, Points]:
    points: Points = {}
    for count in SCRIPTS:
        paths = [f"/folder{number // FOLDER}/page{number}" for number in range(count)]
        with site_of(directory, {f"{path[1:]}.rpy": CACHED for path in paths}) as server:
            warm_up(server, paths)
            requests = requests_for(paths)
            points[count] = [measure(server, requests) for _ in range(rounds)]
    return {"rpyserve": points}


def by_modules(directory: Path, rounds: int) -> dict[str, Points]:
    points: Points = {}
    for count in MODULES:
        names = [f"module{number}" for number in range(count)]
        files = {f"{name}.py": "N = 1\n" for name in names}
        imports = "".join(f"import {name}\n" for name in names)
        with site_of(directory, files | {"page.rpy": f"cache()\n{imports}{HELLO}"}) as server:
            warm_up(server, ["/page"])
            points[count] = [measure(server, requests_for(["/page"])) for _ in range(rounds)]
    return {"rpyserve": points}


def by_sessions(directory: Path, rounds: int) -> dict[str, Points]:
    points: Points = {}
    files = {"counter.rpy": COUNTER, "fill.rpy": FILL}
    most = str(max(SESSIONS) + 10 * VISITORS)
    for count in SESSIONS:
        with site_of(directory, files, "--max-sessions", most) as server:
            warm_up(server, ["/fill?count=0"])
            visitors = min(VISITORS, count)
            answers = exchange(server, [Request("/counter")] * visitors)
            more = [min(BATCH, count - begin) for begin in range(visitors, count, BATCH)]
            fill = [Request(f"/fill?count={each}") for each in (*more, 0)]
            assert exchange(server, fill)[-1][1] == str(count)
            time.sleep(SETTLE)
            requests = requests_for(["/counter"], [cookie for cookie, _ in answers])
            points[count] = [measure(server, requests) for _ in range(rounds)]
    return {"rpyserve": points}


# What is written


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve of loads.

    Args:
        heading: that of its section.
        name: that of its picture.
        grows: what grows, in the words of the picture.
        text: what is asked for.
        measure: measures it, so many rounds.
    """

    heading: str
    name: str
    grows: str
    text: str
    measure: Callable[[Path, int], dict[str, Points]]


CURVES = [
    Curve(
        report.BY_CONNECTIONS,
        "connections",
        "connections",
        "A cached page, asked for by so many connections at once, each of which sends its next "
        "request when it has its response; the baseline loop beside it.",
        by_connections,
    ),
    Curve(
        report.BY_SCRIPTS,
        "scripts",
        "scripts in the site",
        f"A site of so many cached scripts, {FOLDER} in a folder, all of which are asked for in "
        f"turn, over {AT_ONCE} connections.",
        by_scripts,
    ),
    Curve(
        report.BY_MODULES,
        "modules",
        "modules of the site",
        "A cached page that imports so many modules of the site. Each request looks at the files "
        f"of all of them, so that it never gets old code. {AT_ONCE} connections.",
        by_modules,
    ),
    Curve(
        report.BY_SESSIONS,
        "sessions",
        "living sessions",
        f"A counter in the sessions of {VISITORS} visitors, while so many sessions live (of one, "
        f"all requests are that visitor's). {AT_ONCE} connections.",
        by_sessions,
    ),
]


TITLES = ("requests per second", "µs of CPU time per request", "no answer in 2 s")


def section(curve: Curve, points: dict[str, Points]) -> str:
    """The text of *curve*, with its table."""
    rows = [
        [
            f"{size:,}",
            name,
            f"{statistics.median(load.rate for load in loads):,.0f}",
            f"{statistics.median(load.cost for load in loads):.0f}",
            f"{sum(load.failed for load in loads)}",
        ]
        for size in next(iter(points.values()))
        for name, loads in ((name, found[size]) for name, found in points.items())
    ]
    rounds = len(next(iter(next(iter(points.values())).values())))
    return f"""\
{curve.text} Medians of {report.count_of(rounds, "round")} of {SECONDS} seconds.
{report.machine()}

![Microseconds of CPU time per request, by {curve.grows}]({picture_of(curve.name)})

{table([curve.grows, "server", *TITLES], rows)}"""


def picture_of(name: str) -> str:
    return f"pictures/growth-{name}.svg"


def lines_of(points: dict[str, Points]) -> list[Line]:
    return [
        Line(
            name,
            [(size, statistics.median(each.cost for each in loads)) for size, loads in of.items()],
        )
        for name, of in points.items()
    ]


def pages_section(found: dict[int, list[followers.Figures]]) -> str:
    rows = []
    for pages, rounds in found.items():
        told = statistics.median(each.told for each in rounds)
        waited = statistics.median(each.waited for each in rounds)
        before = statistics.median(each.waited_before for each in rounds)
        marked = [report.marked(told, TOLD_LIMIT), report.marked(waited, WAIT_LIMIT)]
        rows.append([f"{pages:,}", *marked, f"{before:.2f}"])
    titles = ["open pages", "last is told after, ms", "longest wait of others, ms", "before, ms"]
    rounds_text = report.count_of(len(next(iter(found.values()))), "round")
    return f"""\
So many open pages follow a script, each in a browser of its own, and it is saved once. The last of
them is to be told within {TOLD_LIMIT:,} ms. Meanwhile, and for a second, somebody else asks for
another page all the time: none of those requests is to wait more than {WAIT_LIMIT} ms. Beside it
is the longest wait in the second before the save, which is what the machine does anyway. Medians of
{rounds_text}. What pages fetch when they have been told is not in the figures. {report.machine()}

![Milliseconds, by open pages]({picture_of("pages")})

{table(titles, rows)}

Pages are told {change_feed.AT_ONCE} at a time, so that requests have their turn in between."""


def pages_lines(found: dict[int, list[followers.Figures]]) -> list[Line]:
    told = [(size, statistics.median(each.told for each in of)) for size, of in found.items()]
    waited = [(size, statistics.median(each.waited for each in of)) for size, of in found.items()]
    return [Line("the last page is told", told), Line("longest wait of others", waited)]


def is_good(found: dict[int, list[followers.Figures]]) -> bool:
    return all(
        statistics.median(each.told for each in of) <= TOLD_LIMIT
        and statistics.median(each.waited for each in of) <= WAIT_LIMIT
        for of in found.values()
    )


def write(
    heading: str, text: str, name: str, lines: Sequence[Line], grows: str, unit: str, document: Path
) -> None:
    picture = document.parent / picture_of(name)
    picture.parent.mkdir(exist_ok=True)
    picture.write_text(chart(lines, grows, unit), encoding="utf-8")
    report.write_section(heading, text, document)
    print(f"\n{heading}\n\n{text}", flush=True)


def main() -> None:
    parser = option_parser(__doc__)
    names = [*(curve.name for curve in CURVES), "pages"]
    parser.add_argument("--curves", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    add_write(parser, report.DOCUMENT)
    options = parser.parse_args()
    good = True
    for curve in CURVES:
        if curve.name in options.curves:
            with tempfile.TemporaryDirectory() as directory:
                points = curve.measure(Path(directory), options.rounds)
            text = section(curve, points)
            unit = "µs of CPU time per request"
            lines = lines_of(points)
            write(curve.heading, text, curve.name, lines, curve.grows, unit, options.write)
    if "pages" in options.curves:
        found: dict[int, list[followers.Figures]] = {}
        for _ in range(options.rounds):
            for pages in PAGES:
                with tempfile.TemporaryDirectory() as directory:
                    found.setdefault(pages, []).append(followers.measure(Path(directory), pages))
        lines, text = pages_lines(found), pages_section(found)
        write(report.BY_PAGES, text, "pages", lines, "open pages", "milliseconds", options.write)
        good = is_good(found)
    sys.exit(not good)


if __name__ == "__main__":
    main()
