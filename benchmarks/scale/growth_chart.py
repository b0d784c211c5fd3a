"""A curve as a picture: what grows from left to right, in powers of ten, and a figure upwards.

Text only, and pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 70, 560, 30, 210
COLOURS = ("#c2410c", "#64748b")


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: its name, and its points, the smallest size first."""

    name: str
    points: Sequence[tuple[float, float]]


def chart(lines: Sequence[Line], grows: str, unit: str) -> str:
    """Return an SVG of *lines*; *unit* says what their figures are, and *grows* of what."""
    sizes = sorted({size for line in lines for size, _ in line.points})
    top = _round_up(max(figure for line in lines for _, figure in line.points))
    parts = [_text(LEFT, 16, unit)]
    for step in range(5):
        figure = top * step / 4
        y = _y(figure, top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{figure:,g}", "end"))
    parts += [_text(_x(size, sizes), BOTTOM + 18, f"{size:,}", "middle") for size in sizes]
    parts.append(_text((LEFT + RIGHT) // 2, BOTTOM + 40, grows, "middle"))
    for number, line in enumerate(lines):
        parts += _curve(line, sizes, top, COLOURS[number % len(COLOURS)])
        parts.append(_legend(line, number))
    body = "\n".join(parts)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" \
height="{HEIGHT}" role="img" aria-label="{escape(unit)}, by {escape(grows)}">
<style>
text {{ font: 12px system-ui, sans-serif; fill: #1e293b }}
.grid {{ stroke: #cbd5e1 }}
rect.paper {{ fill: #fff }}
</style>
<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>
{body}
</svg>
"""


def _curve(line: Line, sizes: Sequence[float], top: float, colour: str) -> list[str]:
    places = [(_x(size, sizes), _y(figure, top)) for size, figure in line.points]
    path = " ".join(f"{x},{y}" for x, y in places)
    dots = [f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for x, y in places]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _legend(line: Line, number: int) -> str:
    y = TOP + 10 + 20 * number
    colour = COLOURS[number % len(COLOURS)]
    dot = f'<circle cx="{RIGHT + 20}" cy="{y - 4}" r="3.5" fill="{colour}"/>'
    return dot + _text(RIGHT + 30, y, line.name)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _x(size: float, sizes: Sequence[float]) -> int:
    """The place of *size*: by its power of ten; 0 is as far left as 1 would be."""
    low, high = (math.log10(max(each, 1)) for each in (sizes[0], sizes[-1]))
    share = (math.log10(max(size, 1)) - low) / (high - low) if high > low else 0.5
    return round(LEFT + share * (RIGHT - LEFT))


def _y(figure: float, top: float) -> int:
    return round(BOTTOM - figure / top * (BOTTOM - TOP))


def _round_up(figure: float) -> float:
    """The next number of one digit and zeros that is no smaller, of 1, 2, 4 and 8."""
    power = 10.0 ** math.floor(math.log10(figure)) if figure > 0 else 1.0
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= figure)
