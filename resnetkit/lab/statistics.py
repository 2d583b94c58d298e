"""What a few seeds say: a mean with its interval, a power law with the interval of its exponent."""

from collections.abc import Sequence
from math import exp, inf, isfinite, isnan, log, nan
from statistics import fmean
from typing import NamedTuple, Protocol

from scipy.stats import linregress, sem, t

LEVEL = 0.95


class Mean(NamedTuple):
    """A mean and its 95 % interval; of one value alone there is none, and `low` and `high` are None."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return number(self.value)
        return f"{number(self.value)} ({number(self.low)} to {number(self.high)})"


class Interval(Protocol):
    """What has ends, or None for them."""

    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def lies(found: Interval, low: float = -inf, high: float = inf) -> bool | None:
    """Whether a figure lies from `low` to `high`: True where its whole interval does, False where nothing of it does,
    None where the interval says neither, or there is none."""
    if found.low is None or found.high is None:
        return None
    if low <= found.low and found.high <= high:
        return True
    return False if found.high < low or found.low > high else None


def exceeds(found: Interval, limit: float) -> bool | None:
    """Whether a figure is above `limit`: a difference that is 0 at every seed is not above 0."""
    if found.low is None or found.high is None:
        return None
    return True if found.low > limit else False if found.high <= limit else None


def both(*held: bool | None) -> bool | None:
    """Whether all hold: False where one does not, else None where one does not say."""
    return False if False in held else None if None in held else True


def number(value: float) -> str:
    """Three digits, as people write them: 0.0269, 1,360; powers of ten beyond."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.12g}" if rounded == 0 or 1e-3 <= abs(rounded) < 1e6 else f"{rounded:.3g}"


def mean(values: Sequence[float]) -> Mean:
    """Student's interval of the mean over seeds: what other seeds would give."""
    centre = fmean(values)
    if len(values) < 2:
        return Mean(centre)
    reach = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * sem(values))
    return Mean(centre, centre - reach, centre + reach)


def geometric_mean(values: Sequence[float]) -> Mean:
    """Of sizes that differ by factors: the mean of the logarithms. Where some are 0, the plain mean, never below 0.
    Where some are infinite or no numbers there is no interval, but where all are infinite."""
    if not all(map(isfinite, values)):
        everywhere = len(values) > 1 and all(value == inf for value in values)
        return Mean(inf, inf, inf) if everywhere else Mean(nan if any(map(isnan, values)) else inf)
    if min(values) <= 0:
        plain = mean(values)
        return plain if plain.low is None else plain._replace(low=max(0.0, plain.low))
    logs = mean([log(value) for value in values])
    if logs.low is None or logs.high is None:
        return Mean(exp(logs.value))
    return Mean(exp(logs.value), exp(logs.low), exp(logs.high))


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
