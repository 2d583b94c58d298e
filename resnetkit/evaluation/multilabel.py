"""Figures of merit where an image has none, one or several classes: pure functions of probabilities and labels, both
(N, classes), in float64.

What a class has no images for is undefined and comes as NaN, and means leave it out: scikit-learn's
`zero_division=nan`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resnetkit.evaluation.intervals import DRAWS
from resnetkit.evaluation.metrics import ClassCounts
from resnetkit.evaluation.ranking import Ranking


def label_counts(predicted: Tensor, labels: Tensor) -> ClassCounts:
    """Images by class from decisions (N, classes)."""
    called, present = predicted.double(), labels.double()
    return ClassCounts((called * present).sum(0), present.sum(0), called.sum(0))


def micro_f1(counts: ClassCounts) -> float:
    """F1 of all label decisions together."""
    return float(2 * counts.right.sum() / (counts.support.sum() + counts.called.sum()))


def image_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of each image (N,), the sum over its classes."""
    return F.binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="none").sum(1)


def mean_average_precision(probabilities: Tensor, labels: Tensor) -> float:
    """Mean of the classes' average precisions, not interpolated, over the classes that have images."""
    each = [Ranking.of(scores, present).average_precision for scores, present in zip(probabilities.T, labels.T.bool())]
    return float(torch.tensor(each, dtype=torch.float64).nanmean())


def resampled_map(probabilities: Tensor, labels: Tensor, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """The mean average precision of as many images drawn anew, with replacement: (draws,) but for those that have no
    class at all.

    The images are ranked once: a resample only changes how often each counts. A class that a resample has no image of
    is left out of its mean.
    """
    n, classes = probabilities.shape
    scores, order = probabilities.T.sort(dim=1, descending=True)
    # The last place of the score at each place: a threshold takes all images of one score.
    last = torch.searchsorted(-scores.contiguous(), -scores.contiguous(), right=True) - 1
    column, place = labels.T.bool().gather(1, order).nonzero(as_tuple=True)
    end = last[column, place]
    present = torch.zeros(classes, n, dtype=torch.float64)
    present[column, place] = 1
    random = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        times = torch.from_numpy(np.bincount(random.integers(n, size=n), minlength=n)).double()[order]
        hits, called = (times * present).cumsum(1), times.cumsum(1)
        precision = hits[column, end] / called[column, end].clamp(min=1)
        sums = torch.zeros(classes, dtype=torch.float64).index_add(0, column, times[column, place] * precision)
        found.append((sums / hits[:, -1]).nanmean())
    values = torch.stack(found)
    return values[~values.isnan()]
