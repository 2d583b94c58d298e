"""Figures of merit: pure functions of probabilities (N, classes) and labels (N,), in float64.

What a class has no images for is undefined and comes as NaN, and means leave it out: scikit-learn's
`zero_division=nan`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15  # of confidence, as in Guo et al. 2017


def top_k(probabilities: Tensor, labels: Tensor, k: int) -> int:
    """How many labels are among the k likeliest; equals are in the order of the classes, as argmax has them."""
    own, places = probabilities.gather(1, labels[:, None]), torch.arange(probabilities.shape[1])
    ahead = (probabilities > own) | ((probabilities == own) & (places < labels[:, None]))
    return int((ahead.sum(1) < k).sum())


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts (true, predicted)."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class ClassCounts:
    """Images by class, each (..., classes): how many were rightly called it, are of it, and were called it."""

    right: Tensor
    support: Tensor
    called: Tensor

    @classmethod
    def of(cls, confusion: Tensor) -> "ClassCounts":
        """The counts of a confusion matrix (true, predicted)."""
        counts = confusion.double()
        return cls(counts.diagonal(), counts.sum(1), counts.sum(0))

    @property
    def precision(self) -> Tensor:
        return self.right / self.called

    @property
    def recall(self) -> Tensor:
        return self.right / self.support

    @property
    def f1(self) -> Tensor:
        """Harmonic mean of precision and recall; 0 where one of them is undefined and the class is not absent."""
        return 2 * self.right / (self.support + self.called)

    @property
    def balanced_accuracy(self) -> Tensor:
        """Mean recall of the classes that have images (...,)."""
        return self.recall.nanmean(-1)

    @property
    def macro_f1(self) -> Tensor:
        """Mean F1 of the classes that have images or were answered (...,)."""
        return self.f1.nanmean(-1)


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Mean squared distance of the probabilities from the truth, 0 to 2 (Brier 1950)."""
    truth = torch.zeros_like(probabilities).scatter_(1, labels[:, None], 1.0)
    return float((probabilities - truth).square().sum(1).mean())


@dataclass(frozen=True)
class Reliability:
    """Images by confidence in equal bins, each (bins,): how many, their mean confidence, the share answered rightly."""

    n: Tensor
    confidence: Tensor
    accuracy: Tensor


def confidence_bin(confidence: Tensor, bins: int = BINS) -> Tensor:
    """Which of the equal bins each confidence lies in; they are open below and closed above."""
    return (confidence * bins).ceil().long().clamp(1, bins) - 1


def reliability(confidence: Tensor, right: Tensor, bins: int = BINS) -> Reliability:
    """The reliability diagram of confidences (N,) and whether each answer is right (N,); an empty bin is NaN."""
    index = confidence_bin(confidence, bins)
    n = index.bincount(minlength=bins).double()
    sums = [index.bincount(values.double(), minlength=bins) for values in (confidence, right)]
    return Reliability(n, sums[0] / n, sums[1] / n)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Mean gap of confidence and accuracy over the bins, weighted by size (Guo et al. 2017, equation 3)."""
    confidence, predicted = probabilities.double().max(1)
    return calibration_gap(confidence, predicted == labels, bins)


def calibration_gap(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """The same of confidences (N,) and whether each is of something right (N,)."""
    found = reliability(confidence, right, bins)
    return float((found.n * (found.confidence - found.accuracy).abs()).nansum() / len(right))
