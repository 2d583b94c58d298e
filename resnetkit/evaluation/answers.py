"""What a network answered to labelled images, and how good that was."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.data.loaders import Batch
from resnetkit.data.preprocess import Preprocessing
from resnetkit.device import autocast
from resnetkit.evaluation import metrics
from resnetkit.evaluation.intervals import (
    calibration_interval,
    percentile_interval,
    resampled_counts,
    wilson_interval,
)
from resnetkit.evaluation.ranking import Ranking
from resnetkit.weights.calibration import Calibration

INTERVALS = {  # which kind each is, at 95 %
    "top1": "Wilson",
    "recall": "Wilson",
    "balanced_accuracy": "bootstrap, percentiles; Wilson where every answer is right",
    "macro_f1": "bootstrap, percentiles; Wilson where every answer is right",
    "ece": "normal, at least 95 %",
}


@dataclass(frozen=True)
class Answers:
    """Logits (N, classes) in float32 and labels (N,) of one part, in its order; `calibration` makes probabilities."""

    logits: Tensor
    labels: Tensor
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def probabilities(self) -> Tensor:
        """In float64, at the calibration's temperature."""
        return self.calibration.probabilities(self.logits)

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(1)

    def metrics(self) -> dict[str, Any]:
        """top1, top5, loss, ece and n; fractions, weighted by image, top1 with its 95 % Wilson interval."""
        n, probabilities = len(self.labels), self.probabilities
        right = metrics.top_k(self.logits, self.labels, 1)
        return {
            "top1": right / n,
            "top1_interval": wilson_interval(right, n),
            "top5": metrics.top_k(self.logits, self.labels, 5) / n,
            "loss": float(F.cross_entropy(self.logits.double() / self.calibration.temperature, self.labels)),
            "ece": metrics.expected_calibration_error(probabilities, self.labels),
            "n": n,
        }


@torch.inference_mode()
def answer(
    net: nn.Module,
    batches: Iterable[Batch],
    preprocessing: Preprocessing,
    precision: torch.dtype = torch.float32,
    calibration: Calibration | None = None,
    *,
    tta: bool = False,
) -> Answers:
    """Run `net` in evaluation mode over batches of uint8 images; its mode is restored.

    `tta` averages the logits of every image and of its mirror image.
    """
    device = next(net.parameters()).device
    was_training = net.training
    net.eval()
    logits, labels = [], []
    with autocast(device, precision):
        for images, batch_labels in batches:
            x = preprocessing.normalise(images.to(device)).contiguous(memory_format=torch.channels_last)
            found = net(x).float()
            if tta:
                found = (found + net(x.flip(-1)).float()) / 2
            logits.append(found.cpu())
            labels.append(batch_labels)
    net.train(was_training)
    return Answers(torch.cat(logits), torch.cat(labels), calibration or Calibration())


def judge(answers: Answers, classes: list[str]) -> dict[str, Any]:
    """The figures of `Answers.metrics` and those that take longer or more room; what is undefined is None.

    `intervals` says which kind each `_interval` is. `average_precision` and `roc_auc` are means over the classes that
    have images, each against all others. `ece_uncalibrated` is the calibration error at temperature 1.
    """
    probabilities, labels = answers.probabilities, answers.labels
    confidence, predicted = probabilities.max(1)
    confusion = metrics.confusion_matrix(answers.predicted, labels, len(classes))
    counts, resampled = metrics.ClassCounts.of(confusion), resampled_counts(confusion)
    per_class = _per_class(classes, counts, probabilities, labels)
    figures = answers.metrics() | {
        "balanced_accuracy": float(counts.balanced_accuracy),
        "balanced_accuracy_interval": _resampled_interval(resampled.balanced_accuracy, confusion),
        "macro_f1": float(counts.macro_f1),
        "macro_f1_interval": _resampled_interval(resampled.macro_f1, confusion),
        "average_precision": _mean([row["average_precision"] for row in per_class]),
        "roc_auc": _mean([row["roc_auc"] for row in per_class]),
        "brier": metrics.brier_score(probabilities, labels),
        "ece_interval": calibration_interval(confidence, predicted == labels),
        "temperature": answers.calibration.temperature,
    }
    if answers.calibration.n:
        raw = answers.logits.double().softmax(1)
        figures["ece_uncalibrated"] = metrics.expected_calibration_error(raw, labels)
    return figures | {"intervals": INTERVALS, "per_class": per_class, "confusion_matrix": confusion.tolist()}


def _per_class(
    classes: list[str], counts: metrics.ClassCounts, probabilities: Tensor, labels: Tensor
) -> list[dict[str, Any]]:
    rows = []
    for i, name in enumerate(classes):
        ranking = Ranking.of(probabilities[:, i], labels == i)
        right, n = int(counts.right[i]), int(counts.support[i])
        rows.append(
            {
                "class": name,
                "n": n,
                "precision": _number(counts.precision[i]),
                "recall": _number(counts.recall[i]),
                "recall_interval": wilson_interval(right, n) if n else None,
                "f1": _number(counts.f1[i]),
                "average_precision": _number(ranking.average_precision),
                "roc_auc": _number(ranking.roc_auc),
            }
        )
    return rows


def _resampled_interval(values: Tensor, confusion: Tensor) -> list[float]:
    """The bootstrap's, but where every answer is right: resamples then know of no mistake, and the figure is top1's."""
    right, n = int(confusion.trace()), int(confusion.sum())
    return wilson_interval(right, n) if right == n else percentile_interval(values)


def _number(value: Tensor | float) -> float | None:
    return None if isnan(value) else float(value)


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
