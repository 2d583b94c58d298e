"""Charts as numbers: scales, ticks and points in the units of an SVG, which the template draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320, 216
LEFT, RIGHT, TOP, BOTTOM = 44, 308, 10, 176  # the plotted area
LOGARITHMIC = 30.0  # ratio of the largest value to the smallest from which the axis is logarithmic


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


ACROSS, UP = Scale(0, 1, LEFT, RIGHT), Scale(0, 1, BOTTOM, TOP)  # of shares
SHARES_ACROSS, SHARES_UP = ([(scale(q / 4), f"{25 * q} %") for q in range(5)] for scale in (ACROSS, UP))
BAR = Scale(0, 1, 20, 380)  # of the verdict's line, 400 wide

Point = tuple[float, float]
Tick = tuple[float, str]


@dataclass(frozen=True)
class LineChart:
    """Lines by epoch: points and ticks (pixel, text) in pixels; `final` is the figure of the last test."""

    title: str
    summary: str
    lines: dict[str, list[Point]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    final: Point | None


def line_chart(
    title: str,
    lines: Mapping[str, Sequence[float]],
    *,
    share: bool = False,
    may_leap: bool = False,
    final: float | None = None,
) -> LineChart:
    """Values by epoch, counted from 1. Shares have an axis from 0 to 1; values that `may_leap`, and did, a logarithmic
    one."""
    values = [value for line in lines.values() for value in line] + ([] if final is None else [final])
    low, high = min(values), max(values)
    logarithmic = may_leap and low > 0 and high / low > LOGARITHMIC
    show = "{:.0%}" if share else "{:.3g}"
    place = math.log10 if logarithmic else float
    marks = [0, 0.25, 0.5, 0.75, 1] if share else decades(low, high) if logarithmic else ticks(min(0.0, low), high)
    epochs = max(map(len, lines.values()))
    x = Scale(1, max(epochs, 2), LEFT + 8, RIGHT - 8)
    y = Scale(place(marks[0]), place(marks[-1]), BOTTOM, TOP)
    ends = "; ".join(f"{name} from {show.format(line[0])} to {show.format(line[-1])}" for name, line in lines.items())
    return LineChart(
        title,
        summary=f"{title} over {epochs} epochs: {ends}",
        lines={name: [(x(i), y(place(v))) for i, v in enumerate(line, 1)] for name, line in lines.items()},
        x_ticks=[(x(epoch), str(epoch)) for epoch in epoch_ticks(epochs)],
        y_ticks=[(y(place(mark)), show.format(mark)) for mark in marks],
        final=None if final is None else (x(epochs), y(place(final))),
    )


def ticks(low: float, high: float) -> list[float]:
    """Four to eleven round values, a step of 1, 2 or 5 times a power of ten apart, around `low` to `high`."""
    rough = (high - low) / 5 or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if rough <= factor * power * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten around values above 0."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def epoch_ticks(epochs: int) -> list[int]:
    """The first and the last epoch, and round ones between where their numbers do not touch."""
    between = [int(mark) for mark in ticks(0, epochs) if mark == int(mark)]
    apart = epochs / 8
    return [1, *(mark for mark in between if 1 + apart < mark < epochs - apart), epochs][: max(epochs, 1)]
