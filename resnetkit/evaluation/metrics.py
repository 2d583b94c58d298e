"""Figures of merit: pure functions of probabilities (N, classes) and labels (N,)."""

from math import sqrt
from statistics import NormalDist

import torch
from torch import Tensor


def top_k(probabilities: Tensor, labels: Tensor, k: int) -> int:
    """How many labels are among the k likeliest."""
    k = min(k, probabilities.shape[1])
    return int((probabilities.topk(k).indices == labels[:, None]).any(1).sum())


def wilson_interval(hits: int, n: int, level: float = 0.95) -> list[float]:
    """Interval of a proportion that holds at small n and near 0 or 1 (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = hits / n, z * z / n
    centre = share + spread / 2
    reach = z * sqrt(share * (1 - share) / n + spread / (4 * n))
    low, high = (centre - reach) / (1 + spread), (centre + reach) / (1 + spread)
    return [0.0 if hits == 0 else low, 1.0 if hits == n else high]


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean gap of confidence and accuracy over equal-width bins, weighted by size (Guo et al. 2017, equation 3)."""
    confidence, predicted = probabilities.max(1)
    right = (predicted == labels).double()
    index = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1  # bins are open below, closed above
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, confidence.double() - right)
    return float(gaps.abs().sum() / len(labels))


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts (true, predicted)."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
