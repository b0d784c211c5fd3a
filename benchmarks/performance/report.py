"""What the samples of a run say: ratios, their spread, the tables and the chart. Pure."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from statistics import median

from benchmarks.common.docs import table
from benchmarks.performance.workload import BASELINE, CONTESTANTS, OWN, OWN_WITH_MODULES, ROWS

INTRODUCTION = """\
# How fast it is

Written by `python -m benchmarks.performance.run`. Every figure is a ratio: requests a second,
divided by those of another server that was asked within the same round, on the same machine, by
the same load generator. Most are ratios to *the baseline loop*,
`benchmarks/performance/baseline_loop.py`: the smallest correct keep-alive loop on trio and h11,
without a framework, limits or a log. A figure is the median of {rounds} rounds, followed by the
lowest and the highest of them. *Processor time* compares what one request costs the server, which
is disturbed less by what else the machine does.

This server runs with its defaults: `rpyserve SITE` with its access log, its strict parsing, its
checks for edits, and live reload. Taken with {system}, Python {python}, {generator}; the baseline
loop answered {baseline} requests a second.
"""
CLOSING = """\
## How

- Identical request heads are parsed once and cached. A head that came before is held to the same
  rules, but h11 reads it only once, and a response head is reused within the second of its `Date`.
  h11 is told of a request only where the response needs it: for streams, request bodies, `HEAD`,
  the end of a connection.
- A name in a directory is looked up again when the directory's time stamps have changed, or are
  younger than 2 seconds. A script and the modules of the site are checked for each request, but
  once for all requests that came in the same turn of the event loop: each of them was sent before
  that turn began, so none was sent after a save that the check missed.
- One response is one write. Access lines are strings, written every 50 ms.
- Timeouts are assignments; one task looks at them once a second.

With one connection, each request pays for its own checks of files: about 2 microseconds for each
module of the site. An uncached script costs what its execution costs: a module, its namespace, its
classes. `cache()` saves that. When Python's garbage collector runs makes no difference here that
could be measured, with thresholds from 700 to never. [scale.md](scale.md) has what does: many
sessions, and many idle connections.
"""
WITHOUT_BARS = ("large", "stream", "small", "404")
"""Rows that the chart leaves out."""
OWN_COLOUR = "#c2410c"
OTHER_COLOUR = "#94a3b8"

Key = tuple[str, str]
"""A row and a contestant."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests a second, and seconds of processor time a request; 0 if that is not known."""

    rate: float
    cost: float


Results = dict[Key, list[Sample]]
"""A sample of each round."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure that is to be reached: *above* divided by *below* is at least *least*."""

    title: str
    above: Key
    below: Key
    least: float


PROMISES = [
    Promise("cached hello, log on / baseline loop", ("hello", OWN), ("hello", BASELINE), 0.9),
    Promise(
        "cached counter with session / baseline loop", ("counter", OWN), ("counter", BASELINE), 0.75
    ),
    Promise(
        "cached hello with 10 site modules / without",
        ("hello", OWN_WITH_MODULES),
        ("hello", OWN),
        0.95,
    ),
    Promise(
        "the series' counter / the same script on Twisted",
        ("series", OWN),
        ("series", "Twisted Web"),
        3.0,
    ),
    Promise(
        "uncached hello / Twisted's uncached", ("uncached", OWN), ("uncached", "Twisted Web"), 2.0
    ),
    Promise("file of 10 MiB / nginx", ("large", OWN), ("large", "nginx"), 0.75),
]


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of all rounds, the lowest and the highest; the median of processor times."""

    median: float
    lowest: float
    highest: float
    processor_time: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


def ratio(results: Results, above: Key, below: Key) -> Ratio | None:
    """Return *above* divided by *below*, round by round; None if one was not measured."""
    pairs = list(zip(results.get(above, ()), results.get(below, ()), strict=False))
    if not pairs:
        return None
    rates = [a.rate / b.rate for a, b in pairs]
    costs = [b.cost / a.cost for a, b in pairs if a.cost and b.cost]
    return Ratio(median(rates), min(rates), max(rates), median(costs) if costs else 0)


def unmet(results: Results) -> list[str]:
    """The titles of the promises whose figures are known and not reached."""
    found = [(promise, ratio(results, promise.above, promise.below)) for promise in PROMISES]
    return [
        promise.title
        for promise, value in found
        if value is not None and value.median < promise.least
    ]


# The tables


def promises_table(results: Results) -> str:
    rows = []
    for promise in PROMISES:
        value = ratio(results, promise.above, promise.below)
        cells = ["not there", ""] if value is None else [str(value), f"{value.processor_time:.2f}"]
        rows.append([promise.title, f"{promise.least:g}", *cells])
    return table(["figure", "at least", "measured", "processor time"], rows)


def rows_table(results: Results) -> str:
    """Each row, with all that took part, the fastest first."""
    rows = []
    for row in ROWS:
        # The baseline loop has no 404.
        below = ("hello" if row.status >= 400 else row.key, BASELINE)
        for name, value in ranked(results, row.key, below):
            rows.append([row.title, name, str(value), f"{value.processor_time:.2f}"])
    return table(["request", "server", "ratio to the baseline loop", "processor time"], rows)


def ranked(results: Results, row: str, below: Key) -> list[tuple[str, Ratio]]:
    """The ratios of all contestants to *below*, the highest first."""
    found = []
    for contestant in CONTESTANTS:
        value = ratio(results, (row, contestant.name), below)
        if value is not None and not contestant.is_baseline:
            found.append((contestant.name, value))
    return sorted(found, key=lambda pair: -pair[1].median)


def document(results: Results, absent: list[str]) -> str:
    own_generator = any("wrk" in name for name in absent)
    rates = [sample.rate for sample in results["hello", BASELINE]]
    parts = [
        INTRODUCTION.format(
            rounds=len(rates),
            system=platform.system(),
            python=platform.python_version(),
            generator="a generator other than wrk"
            if own_generator
            else "wrk, one thread, 16 connections",
            baseline=f"{min(rates):,.0f} to {max(rates):,.0f}",
        ),
        "![Requests a second, as ratios to the baseline loop](pictures/performance.svg)\n",
        "## What is promised\n",
        promises_table(results) + "\n",
        *_unless_empty("Not reached in this run", unmet(results), "; "),
        "## All rows\n",
        "The baseline loop always answers `Hello, world!`, whatever it is asked for.\n",
        rows_table(results) + "\n",
        *_unless_empty("Not there when this was written", absent, ", "),
        CLOSING,
    ]
    return "\n".join(parts)


def _unless_empty(text: str, names: Iterable[str], separator: str) -> list[str]:
    joined = separator.join(names)
    return [f"{text}: {joined}.\n"] if joined else []


# The chart


def chart(results: Results) -> str:
    """Bars for each row, with the spread as a line."""
    parts: list[str] = []
    top = 30
    for row in ROWS:
        if row.key in WITHOUT_BARS:
            continue
        parts.append(f'<text class="row" x="8" y="{top}">{escape(row.title)}</text>')
        top += 8
        for name, value in ranked(results, row.key, (row.key, BASELINE)):
            parts += bar(name, value, top)
            top += 18
        top += 22
    one = x_of(1)
    bars = "\n".join(parts)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {top}" width="760" height="{top}" \
role="img" aria-label="Requests a second, as ratios to the baseline loop">
<style>
text {{ font: 12px system-ui, sans-serif; fill: #1e293b }} .row {{ font-weight: 600 }}
.name {{ text-anchor: end }}
.baseline {{ stroke: #64748b; stroke-dasharray: 3 3 }}
.spread {{ stroke: #0f172a; stroke-width: 1.5 }}
rect.paper {{ fill: #fff }}
</style>
<rect class="paper" width="760" height="{top}"/>
<line class="baseline" x1="{one}" x2="{one}" y1="12" y2="{top - 30}"/>
<text x="{one + 4}" y="14">the baseline loop</text>
{bars}
</svg>
"""


def bar(name: str, value: Ratio, top: int) -> list[str]:
    colour = OWN_COLOUR if name.startswith(OWN) else OTHER_COLOUR
    left, right = x_of(0), x_of(value.median)
    lowest, highest = x_of(value.lowest), x_of(value.highest)
    text, middle = top + 11, top + 7
    return [
        f'<text class="name" x="192" y="{text}">{escape(name)}</text>',
        f'<rect x="{left}" y="{top}" width="{right - left}" height="14" fill="{colour}"/>',
        f'<line class="spread" x1="{lowest}" x2="{highest}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{max(right, highest) + 6}" y="{text}">{value.median:.2f}</text>',
    ]


def x_of(value: float) -> int:
    """Where *value* is, from left to right."""
    return round(200 + 340 * min(value, 1.5))
