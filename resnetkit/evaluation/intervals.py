"""Between which values a figure lies: 95 % intervals of proportions, and of figures that have no formula for one."""

from math import sqrt
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from resnetkit.evaluation.metrics import BINS, ClassCounts, confidence_bin

LEVEL = 0.95
DRAWS = 1000  # the ends then move by less than a tenth of the interval's width from seed to seed


def wilson_interval(hits: int, n: int, level: float = LEVEL) -> list[float]:
    """Interval of a proportion that holds at small n and near 0 or 1 (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = hits / n, z * z / n
    centre = share + spread / 2
    reach = z * sqrt(share * (1 - share) / n + spread / (4 * n))
    low, high = (centre - reach) / (1 + spread), (centre + reach) / (1 + spread)
    return [0.0 if hits == 0 else low, 1.0 if hits == n else high]


def difference_interval(only_first: int, only_second: int, n: int, level: float = LEVEL) -> list[float]:
    """Interval of the difference of two paired shares, second minus first (Agresti and Min 2005, Wald with +2)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    a, b, n = only_first + 0.5, only_second + 0.5, n + 2
    centre = (b - a) / n
    reach = z * sqrt(a + b - (b - a) ** 2 / n) / n
    return [max(-1.0, centre - reach), min(1.0, centre + reach)]


def resampled_counts(confusion: Tensor, draws: int = DRAWS, seed: int = 0) -> ClassCounts:
    """Class counts (draws, classes) of as many images drawn anew, with replacement, from a confusion matrix.

    A bootstrap sample of the images has multinomial counts in the cells, so the images themselves are not needed.
    """
    classes, n = len(confusion), int(confusion.sum())
    true, called = confusion.nonzero(as_tuple=True)
    shares = confusion[true, called].double().numpy() / n
    cells = torch.from_numpy(np.random.default_rng(seed).multinomial(n, shares, draws)).double()
    empty = torch.zeros(draws, classes, dtype=torch.float64)
    return ClassCounts(
        empty.index_add(1, true, cells * (true == called)),
        empty.index_add(1, true, cells),
        empty.index_add(1, called, cells),
    )


def percentile_interval(values: Tensor, level: float = LEVEL) -> list[float]:
    """The middle of bootstrap values (draws,): Efron's percentile interval."""
    low, high = (1 - level) / 2, (1 + level) / 2
    return values.quantile(values.new_tensor([low, high])).tolist()


def calibration_interval(
    confidence: Tensor, right: Tensor, level: float = LEVEL, bins: int = BINS, draws: int = 10_000, seed: int = 0
) -> list[float]:
    """Interval of the expected calibration error that holds the true one at least as often as `level` says.

    The gap of a bin is the true one plus chance, near to normal. Chance makes gaps where there are none, so the error
    is too large on average, and bootstrap intervals miss a small one half the time. It cannot lie above the true one by
    more than the sizes of all chance gaps together, which bounds it below, nor below by more than their signed sum.
    Where every answer is right, or none, no chance is seen: the gap is then that to the ends of Wilson's interval.
    """
    n, hits = len(right), int(right.sum())
    if hits in (0, n):
        most, least = (float(confidence.mean()) - end for end in wilson_interval(hits, n, level))
        return [max(0.0, least, -most), max(most, -least)]
    index = confidence_bin(confidence, bins)
    gaps = confidence.double() - right.double()
    mean, square = (index.bincount(values, minlength=bins) / n for values in (gaps, gaps.square()))
    spread = ((square - mean.square()).clamp(min=0) / n).sqrt()
    chance = torch.randn(draws, bins, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * spread
    error, tail = float(mean.abs().sum()), (1 + level) / 2
    low = error - float(chance.abs().sum(1).quantile(tail))
    high = error + NormalDist().inv_cdf(tail) * float(spread.square().sum().sqrt())
    return [max(0.0, low), min(1.0, high)]
