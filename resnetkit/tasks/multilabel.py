"""None, one or several labels an image: each class is a question of its own."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

NAME = "multilabel"
LEARNING = "label_accuracy"  # what `right` counts, as a share
CHOOSING = "map"  # mean average precision on held-out images


def loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in float32 of logits (N, classes) and targets, labels or shares (N, classes).

    It is summed over the classes, as an image's answers are many, and averaged over the images: averaged over classes
    too, its gradient would be as many times smaller than that of one label an image, and the recipes' rates too low.

    Smoothing draws targets to 1/2, as for one label an image of two classes; `weights` (classes,) weigh the positives.
    """
    wanted = targets.float() * (1 - label_smoothing) + label_smoothing / 2
    whole = F.binary_cross_entropy_with_logits(logits.float(), wanted, pos_weight=weights, reduction="sum")
    return whole / len(logits)


def right(logits: Tensor, targets: Tensor) -> Tensor:
    """How much of the targets, labels or shares (N, classes), decisions at probability 1/2 hit: a share an image."""
    wanted = targets.float()
    return wanted.where(logits > 0, 1 - wanted).mean(1).sum()


def describe(probabilities: Tensor, classes: list[str], top: int = 5, *, thresholds: Sequence[float]) -> dict[str, Any]:
    """One image's probabilities (classes,) -> its `labels`, likeliest first, those that reach their class's threshold.

    `top` has the likeliest [label, probability], whether or not they do. `label` and `probability` are those of the
    first of the labels; where there is none the label is None, and the probability the highest.
    """
    values, indices = probabilities.sort(descending=True)
    ranked = [[classes[i], p] for i, p in zip(indices.tolist(), values.tolist())]
    passing = [pair for pair, i in zip(ranked, indices.tolist()) if pair[1] >= thresholds[i]]
    return {
        "label": passing[0][0] if passing else None,
        "probability": (passing or ranked)[0][1],
        "top": ranked[:top],
        "labels": [name for name, _ in passing],
    }
