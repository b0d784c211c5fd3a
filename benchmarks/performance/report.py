"""What the samples of `compare` say: ratios, their spread, the tables and the chart. Pure."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from html import escape
from statistics import median

from benchmarks.performance.pages import BARE, CONTESTANTS, OWN, ROWS

INTRODUCTION = """\
# How fast it is

Written by `python benchmarks/compare.py`. Every figure is a ratio: requests a second, divided by those of another
server that was asked within the same round, on the same machine, by the same driver. The measure of most is *the bare
loop*, `benchmarks/baseline_loop.py`: the smallest correct keep-alive loop on trio and h11, without a framework, limits or a
log. A figure is the median of {rounds} rounds, and after it stand the lowest and the highest of them. *By processor
time* compares what one request costs the server, which the other things that a machine does disturb less.

This server runs as it comes: `rpyserve SITE` with its access log, its checks of what clients send, its look-out for
edits, and hot reload. Taken with {system}, Python {python}, {driver}; the bare loop answered {bare}
requests a second.
"""
CLOSING = """\
## How

- What equal bytes mean is the same. A head that came before is judged by the same rules, but h11 reads it only once,
  and a head that was written within this second is not written anew. h11 hears of a request where the answer needs it:
  for streams, bodies of requests, `HEAD`, the end of a connection.
- A name in a directory is looked up again when the directory's time stamps have changed, or are younger than 2 seconds.
  A script and the modules of the site are looked at for each request, but once for all requests that came in the same
  round of the loop: each of them was sent before that round began, so none was sent after a save that the look missed.
- One response is one write. Access lines are strings, written every 50 ms.
- Time limits are assignments; one task looks at them once a second.

With one connection, each request pays for its own looks at the disk: about 2 microseconds for each module of the site.
An uncached script costs what its execution costs: a module, its namespace, its classes. `cache()` saves that.
When Python looks for garbage makes no difference here that could be measured, with thresholds from 700 to never.
[scale.md](scale.md) has what does: many sessions, and many connections that rest.
"""
PALETTE = {OWN: "#c2410c", BARE: "#64748b"}
OTHERS = "#94a3b8"

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests a second, and seconds of processor time a request; 0 if that is not known."""

    rate: float
    cost: float


Results = dict[Key, list[Sample]]
"""By row and contestant: a sample of each round."""


@dataclass(frozen=True, slots=True)
class Must:
    """One figure that is to be reached: *above* divided by *below* is at least *least*."""

    title: str
    above: Key
    below: Key
    least: float


MUSTS = [
    Must("cached hello, log on / bare loop", ("hello", OWN), ("hello", BARE), 0.9),
    Must("cached counter with session / bare loop", ("counter", OWN), ("counter", BARE), 0.75),
    Must("cached hello with 10 site modules / without", ("hello", f"{OWN}, 10 modules"), ("hello", OWN), 0.95),
    Must("the series' counter / the same script on Twisted", ("series", OWN), ("series", "Twisted Web"), 3.0),
    Must("uncached hello / Twisted's uncached", ("uncached", OWN), ("uncached", "Twisted Web"), 2.0),
    Must("file of 10 MiB / nginx", ("large", OWN), ("large", "nginx"), 0.75),
]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of requests a second: the median of all rounds, the lowest and the highest; the median of processor time."""

    middle: float
    low: float
    high: float
    by_cost: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(results: Results, above: Key, below: Key) -> Ratio | None:
    pairs = list(zip(results.get(above, ()), results.get(below, ()), strict=False))
    if not pairs:
        return None
    rates = [a.rate / b.rate for a, b in pairs]
    costs = [b.cost / a.cost for a, b in pairs if a.cost and b.cost]
    return Ratio(median(rates), min(rates), max(rates), median(costs) if costs else 0)


def missed(results: Results) -> list[str]:
    """The figures that are known and not reached."""
    found = [(must, ratio(results, must.above, must.below)) for must in MUSTS]
    return [must.title for must, value in found if value is not None and value.middle < must.least]


def table_of_musts(results: Results) -> list[str]:
    lines = ["| figure | at least | is | by processor time |", "|---|---|---|---|"]
    for must in MUSTS:
        value = ratio(results, must.above, must.below)
        cells = ("not there", "") if value is None else (str(value), f"{value.by_cost:.2f}")
        lines.append(f"| {must.title} | {must.least:g} | {' | '.join(cells)} |")
    return lines


def table_of_rows(results: Results) -> list[str]:
    """Each row: all that took part, the fastest first."""
    lines = ["| request | server | ratio to the bare loop | by processor time |", "|---|---|---|---|"]
    for row in ROWS:
        measure = ("hello" if row.status >= 400 else row.key, BARE)
        for name, value in ranked(results, row.key, measure):
            lines.append(f"| {row.title} | {name} | {value} | {value.by_cost:.2f} |")
    return lines


def ranked(results: Results, row: str, measure: Key) -> list[tuple[str, Ratio]]:
    names = [contestant.name for contestant in CONTESTANTS if contestant.name != BARE]
    found = [(name, ratio(results, (row, name), measure)) for name in names]
    return sorted([(name, value) for name, value in found if value is not None], key=lambda pair: -pair[1].middle)


def document(results: Results, absent: list[str]) -> str:
    bare = [sample.rate for sample in results["hello", BARE]]
    text = INTRODUCTION.format(
        rounds=len(bare),
        system=platform.system(),
        python=platform.python_version(),
        driver="another driver than wrk"
        if any("wrk" in name for name in absent)
        else "wrk, one thread, 16 connections",
        bare=f"{min(bare):,.0f} to {max(bare):,.0f}",
    )
    lines = [text, "![Requests a second, as ratios to the bare loop](pictures/performance.svg)", ""]
    lines += ["## What is promised", "", *table_of_musts(results), ""]
    if failures := missed(results):
        lines += [f"Not reached in this run: {'; '.join(failures)}.", ""]
    lines += ["## All rows", "", "The bare loop always answers `Hello, world!`, whatever it is asked for.", ""]
    lines += [*table_of_rows(results), ""]
    if absent:
        lines += [f"Not there when this was written: {', '.join(absent)}.", ""]
    return "\n".join([*lines, CLOSING])


# The chart


def chart(results: Results) -> str:
    """Bars for each row, with the spread as a line."""
    parts: list[str] = []
    top = 30
    rows = [row for row in ROWS if row.key not in ("large", "stream", "small", "404")]
    for row in rows:
        parts.append(f'<text class="row" x="8" y="{top}">{escape(row.title)}</text>')
        top += 8
        for name, value in ranked(results, row.key, (row.key, BARE)):
            parts += bar(name, value, top)
            top += 18
        top += 22
    line = f'<line class="bare" x1="{place(1)}" x2="{place(1)}" y1="12" y2="{top - 30}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {top}" width="760" height="{top}" role="img" '
        'aria-label="Requests a second, as ratios to the bare loop">\n<style>\n'
        "text { font: 12px system-ui, sans-serif; fill: #1e293b } .row { font-weight: 600 }\n"
        ".name { text-anchor: end }\n"
        ".bare { stroke: #64748b; stroke-dasharray: 3 3 } .spread { stroke: #0f172a; stroke-width: 1.5 }\n"
        "rect.paper { fill: #fff }\n</style>\n"
        f'<rect class="paper" width="760" height="{top}"/>\n{line}\n'
        f'<text x="{place(1) + 4}" y="14">the bare loop</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def bar(name: str, value: Ratio, top: int) -> list[str]:
    colour = PALETTE[OWN] if name.startswith(OWN) else OTHERS
    middle = top + 7
    return [
        f'<text class="name" x="192" y="{top + 11}">{escape(name)}</text>',
        f'<rect x="{place(0)}" y="{top}" width="{place(value.middle) - place(0)}" height="14" fill="{colour}"/>',
        f'<line class="spread" x1="{place(value.low)}" x2="{place(value.high)}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{place(max(value.high, value.middle)) + 6}" y="{top + 11}">{value.middle:.2f}</text>',
    ]


def place(value: float) -> int:
    """Where *value* is, from left to right."""
    return round(200 + 340 * min(value, 1.5))
