"""Graphs of an experiment as numbers: lines over any axis, and maps of a plane, in the units of an SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from resnetkit.reporting.charts import BOTTOM, LEFT, RIGHT, TOP, Point, Scale, Tick, decades, ticks

FEW = 1.5  # decades from which an axis names powers of ten alone
MOST_MARKS = 7

Series = Sequence[tuple[float, float]]
Spread = Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Graph:
    """Lines and the bars of their intervals (x, top, bottom) in pixels; `kind` tells the template what to draw."""

    title: str
    summary: str
    x_label: str
    lines: dict[str, list[Point]]
    bars: dict[str, list[tuple[float, float, float]]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    dots: bool = False
    kind: str = field(default="graph", init=False)


@dataclass(frozen=True)
class Heat:
    """A plane in squares: `cells` are (x, y, width, height, share of the strongest colour, text) in pixels."""

    title: str
    summary: str
    cells: list[tuple[float, float, float, float, float, str]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    x_label: str
    kind: str = field(default="heat", init=False)


def graph(
    title: str,
    lines: Mapping[str, Series],
    *,
    x_label: str,
    log_x: bool = False,
    log_y: bool = False,
    share: bool = False,
    spreads: Mapping[str, Spread] | None = None,
    dots: bool = False,
) -> Graph:
    """Lines through (x, y); one without points keeps its colour free. Shares have an axis in percent, and a logarithmic
    axis leaves out what is not above 0."""
    spreads = spreads or {}
    lines = {name: [p for p in line if _drawn(p[0], log_x) and _drawn(p[1], log_y)] for name, line in lines.items()}
    bars = {name: [b for b in own if _drawn(b[0], log_x) and _drawn(b[1], log_y)] for name, own in spreads.items()}
    points = [point for line in lines.values() for point in line]
    points += [(x, end) for own in bars.values() for x, *ends in own for end in ends]
    x, x_ticks = _axis([p[0] for p in points], log_x, LEFT + 8, RIGHT - 8, tight=True)
    y, y_ticks = _axis([p[1] for p in points], log_y, BOTTOM, TOP, share=share)
    return Graph(
        title,
        _summary(title, lines, share),
        x_label,
        {name: [(x(a), y(b)) for a, b in line] for name, line in lines.items()},
        {name: [(x(a), y(high), y(low)) for a, low, high in own] for name, own in bars.items()},
        x_ticks,
        y_ticks,
        dots,
    )


def _drawn(value: float, logarithmic: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not logarithmic)


def _summary(title: str, lines: Mapping[str, Series], share: bool) -> str:
    show = "{:.0%}" if share else "{:.3g}"
    drawn = {name: line for name, line in lines.items() if line}
    ends = [f"{name} from {show.format(p[0][1])} to {show.format(p[-1][1])}" for name, p in drawn.items()]
    return f"{title}: {'; '.join(ends) or 'nothing to draw'}"


@dataclass(frozen=True)
class _Axis:
    scale: Scale
    logarithmic: bool

    def __call__(self, value: float) -> float:
        return self.scale(math.log10(value) if self.logarithmic else value)


def _axis(
    values: Sequence[float], logarithmic: bool, start: float, end: float, *, share: bool = False, tight: bool = False
) -> tuple[_Axis, list[Tick]]:
    """From the least value to the largest (`tight`), or from mark to mark."""
    low, high = (min(values), max(values)) if values else (1.0, 10.0)
    if logarithmic:
        marks = _log_marks(low, high)
        first, last = (math.log10(low), math.log10(high)) if tight else (math.log10(marks[0]), math.log10(marks[-1]))
    else:
        marks = ticks(low if tight else min(0.0, low), high)
        first, last = (low, high) if tight else (marks[0], marks[-1])
    axis = _Axis(Scale(first, last if last > first else first + 1, start, end), logarithmic)
    near = 1e-9 * max(abs(low), abs(high))
    inside = [mark for mark in marks if not tight or low - near <= mark <= high + near] or sorted({low, high})
    if all(value == int(value) for value in values if math.isfinite(value)):
        inside = [mark for mark in inside if mark == int(mark)] or inside
    inside = inside[:: -(-len(inside) // MOST_MARKS)]
    show = (lambda v: f"{100 * v:g} %") if share else _text
    return axis, [(axis(mark), show(mark)) for mark in inside]


def _text(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.10g}"


def _log_marks(low: float, high: float) -> list[float]:
    if math.log10(high / low) > FEW:
        return decades(low, high)
    return [step * power for power in decades(low, high) for step in (1, 2, 5) if low / 2.5 < step * power < high * 2.5]


def heat(title: str, values: Sequence[Sequence[float]], places: Sequence[float], *, x_label: str) -> Heat:
    """A square of values, rows from the top, over `places` each way; the stronger the more, by the logarithm."""
    finite = [math.log10(v) for row in values for v in row if math.isfinite(v) and v > 0]
    low, high = min(finite), max(finite)
    side = min((RIGHT - LEFT) / len(places), (BOTTOM - TOP) / len(places))
    cells = []
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            level = math.log10(value) if math.isfinite(value) and value > 0 else high
            depth = (level - low) / ((high - low) or 1)
            cells.append((LEFT + j * side, TOP + i * side, side, side, round(depth, 3), f"{value:.3g}"))
    middles = [(place, LEFT + (j + 0.5) * side, TOP + (j + 0.5) * side) for j, place in enumerate(places)]
    shown = [middles[0], middles[len(middles) // 2], middles[-1]]
    summary = f"{title}: from {10**low:.3g} to {10**high:.3g}"
    return Heat(
        title,
        summary,
        cells,
        [(x, f"{place:g}") for place, x, _ in shown],
        [(y, f"{0.0 - place:g}") for place, _, y in shown],
        x_label,
    )
