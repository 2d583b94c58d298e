"""How well a score ranks the images of one class above all others: scores (N,), whether each is positive (N,)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranking:
    """From the highest score down, one entry a distinct score: images at or above it that are positive, and not."""

    thresholds: Tensor
    hits: Tensor
    false_alarms: Tensor

    @classmethod
    def of(cls, scores: Tensor, positive: Tensor) -> "Ranking":
        order = scores.argsort(descending=True)
        scores, hits = scores[order], positive[order].double().cumsum(0)
        last = torch.cat((scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool))).nonzero()[:, 0]
        return cls(scores[last], hits[last], last + 1 - hits[last])

    def roc_curve(self) -> tuple[Tensor, Tensor]:
        """False and true positive rates, from (0, 0) to (1, 1); NaN where there is no such image."""
        rates = [torch.cat((counts.new_zeros(1), counts / counts[-1])) for counts in (self.false_alarms, self.hits)]
        return rates[0], rates[1]

    def precision_recall_curve(self) -> tuple[Tensor, Tensor]:
        """Recall and precision, from (0, 1) on; recall is NaN where no image is positive."""
        recall, precision = self.hits / self.hits[-1], self.hits / (self.hits + self.false_alarms)
        return torch.cat((recall.new_zeros(1), recall)), torch.cat((precision.new_ones(1), precision))

    @property
    def roc_auc(self) -> float:
        """The chance that a positive scores above a negative, ties half; NaN where one of them is missing."""
        return float(torch.trapezoid(*reversed(self.roc_curve())))

    @property
    def average_precision(self) -> float:
        """Precision weighted by the recall each threshold adds, not interpolated; NaN where no image is positive."""
        recall, precision = self.precision_recall_curve()
        return float((recall.diff() * precision[1:]).sum())
