"""What a few seeds say: a mean with its interval, a power law with the interval of its exponent."""

from collections.abc import Sequence
from math import exp, log
from statistics import fmean
from typing import NamedTuple

from scipy.stats import linregress, sem, t

LEVEL = 0.95


class Mean(NamedTuple):
    """A mean and its 95 % interval; of one value alone there is none, and `low` and `high` are None."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None:
            return f"{self.value:.3g}"
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def mean(values: Sequence[float]) -> Mean:
    """Student's interval of the mean over seeds: what other seeds would give."""
    centre = fmean(values)
    if len(values) < 2:
        return Mean(centre)
    reach = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * sem(values))
    return Mean(centre, centre - reach, centre + reach)


def geometric_mean(values: Sequence[float]) -> Mean:
    """Of sizes that differ by factors: the mean of the logarithms. Where some are 0, the plain mean, never below 0."""
    if min(values) <= 0:
        plain = mean(values)
        return plain if plain.low is None else plain._replace(low=max(0.0, plain.low))
    return Mean(*(None if end is None else exp(end) for end in mean([log(value) for value in values])))


class PowerLaw(NamedTuple):
    """y = factor * x ** exponent, and the 95 % interval of the exponent; None where two points leave no doubt."""

    factor: float
    exponent: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return str(Mean(self.exponent, self.low, self.high))


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """The straight line through the logarithms, by least squares."""
    line = linregress([log(value) for value in x], [log(value) for value in y])
    exponent, factor = float(line.slope), exp(float(line.intercept))
    if len(x) < 3:
        return PowerLaw(factor, exponent, None, None)
    reach = float(t.ppf((1 + LEVEL) / 2, len(x) - 2) * line.stderr)
    return PowerLaw(factor, exponent, exponent - reach, exponent + reach)
