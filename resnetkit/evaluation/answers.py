"""What a network answered to labelled images, and how good that was."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.data.labels import are_multilabel, indicators, written
from resnetkit.data.loaders import Batch
from resnetkit.data.preprocess import Preprocessing
from resnetkit.device import autocast
from resnetkit.errors import Diverged
from resnetkit.evaluation import metrics, multilabel
from resnetkit.evaluation.intervals import (
    calibration_interval,
    percentile_interval,
    resampled_counts,
    wilson_interval,
)
from resnetkit.evaluation.ranking import Ranking
from resnetkit.evaluation.views import Forward, once
from resnetkit.weights.calibration import Calibration, MultilabelCalibration

INTERVALS = {  # which kind each is, at 95 %
    "top1": "Wilson",
    "top5": "Wilson",
    "recall": "Wilson",
    "balanced_accuracy": "bootstrap, percentiles; Wilson where every answer is right, or none",
    "macro_f1": "bootstrap, percentiles; Wilson where every answer is right, or none",
    "ece": "normal, at least 95 %; from Wilson's of top1 where every answer is right, or none",
}
MULTILABEL_INTERVALS = {
    "map": "bootstrap, percentiles; Wilson where no image is ranked wrongly",
    "exact_match": "Wilson",
    "recall": "Wilson",
}


@dataclass(frozen=True)
class Answers:
    """Logits (N, classes) in float32 and labels (N,) of one part, in its order; `calibration` makes probabilities.

    HEADLINE is the figure that is the share of images answered rightly, SUMMARY what the model file keeps, CALIBRATED
    what of that is another with another calibration, DECIDED what `decisions` are about, WORST the column of `table` by
    which mistakes are the worse.
    """

    HEADLINE: ClassVar[str] = "top1"
    SUMMARY: ClassVar[tuple[str, ...]] = ("top1", "top1_interval", "top5", "top5_interval", "loss", "ece", "n")
    CALIBRATED: ClassVar[tuple[str, ...]] = ("loss", "ece")
    DECIDED: ClassVar[str] = "images"
    WORST: ClassVar[str] = "probability"

    logits: Tensor
    labels: Tensor
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def probabilities(self) -> Tensor:
        """In float64, at the calibration's temperature."""
        return self.calibration.probabilities(self.logits)

    def require_finite(self, which: str, cure: str) -> None:
        """Raise Diverged where the network's answers to `which` images are no numbers."""
        if not self.logits.isfinite().all():
            raise Diverged(f"the network's answers to {which} images are not finite; {cure}")

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(1)

    @property
    def right(self) -> Tensor:
        """Whether each image is answered rightly (N,)."""
        return self.predicted == self.labels

    @property
    def decisions(self) -> tuple[Tensor, Tensor]:
        """The probability of everything that is said, and whether it is so: what calibration is measured on."""
        return self.probabilities.max(1).values, self.right

    def table(self, names: Sequence[str], classes: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each of the images called `names`."""
        columns = zip(
            names, written(self.labels, classes), written(self.predicted, classes), self.decisions[0].tolist()
        )
        return [
            {"path": name, "class": true, "predicted": guess, "probability": round(p, 6)}
            for name, true, guess, p in columns
        ]

    def metrics(self) -> dict[str, Any]:
        """top1, top5, loss, ece and n; fractions, weighted by image, the first two with 95 % Wilson intervals."""
        n = len(self.labels)
        right, among = int(self.right.sum()), metrics.top_k(self.logits, self.labels, 5)
        return {
            "top1": right / n,
            "top1_interval": wilson_interval(right, n),
            "top5": among / n,
            "top5_interval": wilson_interval(among, n),
            "loss": float(F.cross_entropy(self.logits.double() / self.calibration.temperature, self.labels)),
            "ece": metrics.expected_calibration_error(self.probabilities, self.labels),
            "n": n,
        }

    def details(self, classes: list[str]) -> dict[str, Any]:
        """The figures that `judge` adds. `average_precision` and `roc_auc` are means over the classes that have images,
        each against all others."""
        probabilities, labels = self.probabilities, self.labels
        confidence, right = self.decisions
        confusion = metrics.confusion_matrix(self.predicted, labels, len(classes))
        counts, resampled = metrics.ClassCounts.of(confusion), resampled_counts(confusion)
        per_class = _per_class(classes, counts, probabilities, indicators(labels, len(classes)))
        figures = {
            "balanced_accuracy": float(counts.balanced_accuracy),
            "balanced_accuracy_interval": _resampled_interval(resampled.balanced_accuracy, confusion),
            "macro_f1": float(counts.macro_f1),
            "macro_f1_interval": _resampled_interval(resampled.macro_f1, confusion),
            "average_precision": _mean([row["average_precision"] for row in per_class]),
            "roc_auc": _mean([row["roc_auc"] for row in per_class]),
            "brier": metrics.brier_score(probabilities, labels),
            "ece_interval": calibration_interval(confidence, right),
        }
        return figures | {"intervals": INTERVALS, "per_class": per_class, "confusion_matrix": confusion.tolist()}


@dataclass(frozen=True)
class MultilabelAnswers(Answers):
    """Logits of one part and labels (N, classes): an image may have none or several."""

    HEADLINE: ClassVar[str] = "exact_match"
    SUMMARY: ClassVar[tuple[str, ...]] = (
        "map", "map_interval", "micro_f1", "macro_f1", "exact_match", "exact_match_interval", "loss", "ece", "n",
    )  # fmt: skip
    CALIBRATED: ClassVar[tuple[str, ...]] = (
        "micro_f1", "macro_f1", "exact_match", "exact_match_interval", "loss", "ece",
    )  # fmt: skip
    DECIDED: ClassVar[str] = "label decisions"
    WORST: ClassVar[str] = "loss"

    calibration: MultilabelCalibration = field(default_factory=MultilabelCalibration)

    @property
    def thresholds(self) -> Tensor:
        """The least probability with which an image is said to have each class."""
        return torch.tensor(self.calibration.decision_thresholds(self.logits.shape[1]), dtype=torch.float64)

    @property
    def predicted(self) -> Tensor:
        """Which classes each image is said to have, bool (N, classes)."""
        return self.probabilities >= self.thresholds

    @property
    def right(self) -> Tensor:
        """Whether an image is said to have its classes and no other (N,)."""
        return (self.predicted == self.labels.bool()).all(1)

    @property
    def decisions(self) -> tuple[Tensor, Tensor]:
        return self.probabilities.flatten(), self.labels.bool().flatten()

    @property
    def losses(self) -> Tensor:
        """Of each image (N,)."""
        return multilabel.image_losses(self.logits.double() / self.calibration.temperature, self.labels)

    def table(self, names: Sequence[str], classes: Sequence[str]) -> list[dict[str, Any]]:
        """`probability` is that of the likeliest class."""
        likeliest = self.probabilities.max(1).values.tolist()
        columns = zip(
            names, written(self.labels, classes), written(self.predicted, classes), likeliest, self.losses.tolist()
        )
        return [
            {"path": name, "class": true, "predicted": guess, "probability": round(p, 6), "loss": round(loss, 6)}
            for name, true, guess, p, loss in columns
        ]

    def metrics(self) -> dict[str, Any]:
        """map, micro_f1, macro_f1, exact_match with its interval, loss and ece over all label decisions, and n."""
        n, probabilities, right = len(self.labels), self.probabilities, int(self.right.sum())
        counts = multilabel.label_counts(self.predicted, self.labels)
        return {
            "map": _number(multilabel.mean_average_precision(probabilities, self.labels)),
            "micro_f1": _number(multilabel.micro_f1(counts)),
            "macro_f1": _number(counts.macro_f1),
            "exact_match": right / n,
            "exact_match_interval": wilson_interval(right, n),
            "loss": float(self.losses.mean()),
            "ece": metrics.calibration_gap(*self.decisions),
            "n": n,
        }

    def details(self, classes: list[str]) -> dict[str, Any]:
        counts = multilabel.label_counts(self.predicted, self.labels)
        per_class = _per_class(classes, counts, self.probabilities, self.labels.bool())
        for row, threshold in zip(per_class, self.thresholds.tolist()):
            row["threshold"] = threshold
        return {"map_interval": self._map_interval(), "intervals": MULTILABEL_INTERVALS, "per_class": per_class}

    def _map_interval(self) -> list[float] | None:
        """The bootstrap's, but where no image is ranked wrongly: resamples then know of no mistake."""
        reached, n = multilabel.mean_average_precision(self.probabilities, self.labels), len(self.labels)
        if isnan(reached):
            return None
        if reached > 1 - 1e-12:  # but for rounding
            return wilson_interval(n, n)
        return percentile_interval(multilabel.resampled_map(self.probabilities, self.labels))


@torch.inference_mode()
def answer(
    net: nn.Module,
    batches: Iterable[Batch],
    preprocessing: Preprocessing,
    precision: torch.dtype = torch.float32,
    calibration: Calibration | None = None,
    *,
    forward: Forward = once,
) -> Answers:
    """Run `net` in evaluation mode over batches of uint8 images, whose logits `forward` takes from it; its mode is
    restored."""
    device = next(net.parameters()).device
    was_training = net.training
    net.eval()
    logits, labels = [], []
    try:
        with autocast(device, precision):
            for images, batch_labels in batches:
                x = preprocessing.normalise(images.to(device)).contiguous(memory_format=torch.channels_last)
                logits.append(forward(net, x).cpu())
                labels.append(batch_labels)
    finally:
        net.train(was_training)
    truth = torch.cat(labels)
    if are_multilabel(truth):
        assert calibration is None or isinstance(calibration, MultilabelCalibration)
        return MultilabelAnswers(torch.cat(logits), truth, calibration or MultilabelCalibration())
    return Answers(torch.cat(logits), truth, calibration or Calibration())


def judge(answers: Answers, classes: list[str]) -> dict[str, Any]:
    """The figures of `Answers.metrics` and those that take longer or more room; what is undefined is None.

    `intervals` says which kind each `_interval` is. `ece_uncalibrated` is the calibration error at temperature 1.
    """
    figures = answers.metrics() | {"temperature": answers.calibration.temperature}
    if answers.calibration.n:
        raw = replace(answers, calibration=replace(answers.calibration, temperature=1.0))
        figures["ece_uncalibrated"] = metrics.calibration_gap(*raw.decisions)
    return figures | answers.details(classes)


def _per_class(
    classes: list[str], counts: metrics.ClassCounts, probabilities: Tensor, present: Tensor
) -> list[dict[str, Any]]:
    rows = []
    for i, name in enumerate(classes):
        ranking = Ranking.of(probabilities[:, i], present[:, i])
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
    """The bootstrap's, but where all answers are right, or none: resamples then all have one figure, top1's."""
    right, n = int(confusion.trace()), int(confusion.sum())
    return wilson_interval(right, n) if right in (0, n) else percentile_interval(values)


def _number(value: Tensor | float) -> float | None:
    return None if isnan(value) else float(value)


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
