"""One label an image."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

NAME = "classification"
LEARNING = CHOOSING = "top1"
MIXED_IN = 0.2  # timm's threshold in the recipes of ResNet strikes back


def loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy in float32 of logits (N, classes) and targets, which are labels (N,) or shares (N, classes).

    Targets are smoothed (Szegedy et al. 2016, section 7); `weights` (classes,) weigh the classes.
    """
    return F.cross_entropy(logits.float(), targets, weights, label_smoothing=label_smoothing)


def binary_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy in float32, each class a question of its own, summed over the classes and averaged over the
    images. Both classes of a mixture are there (Wightman et al. 2021, section 3), but for one of a smaller share than
    MIXED_IN. Arguments as for `loss`; `weights` weigh the classes' questions."""
    classes = logits.shape[1]
    shares = F.one_hot(targets, classes) if targets.ndim == 1 else targets
    wanted = (shares > MIXED_IN).float() * (1 - label_smoothing) + label_smoothing / classes
    whole = F.binary_cross_entropy_with_logits(logits.float(), wanted, weights, reduction="sum")
    return whole / len(logits)


def right(logits: Tensor, targets: Tensor) -> Tensor:
    """How many of the targets, labels (N,) or shares (N, classes), the likeliest classes hit."""
    predicted = logits.argmax(1)
    if targets.ndim == 1:
        return (predicted == targets).sum()
    return targets.gather(1, predicted[:, None]).sum()


def describe(
    probabilities: Tensor,
    classes: list[str],
    top: int = 5,
    *,
    answer_threshold: float = 0.0,
    set_threshold: float | None = None,
) -> dict[str, Any]:
    """One image's probabilities (classes,) -> its label, probability and the `top` likeliest [label, probability].

    The label is None, for none of these, where its probability is below `answer_threshold`. With `set_threshold`, `set`
    has the classes whose probability reaches it, likeliest first; none may.
    """
    values, indices = probabilities.sort(descending=True)
    ranked = [[classes[i], p] for i, p in zip(indices[:top].tolist(), values[:top].tolist())]
    label, probability = ranked[0]
    answer = {"label": label if probability >= answer_threshold else None, "probability": probability, "top": ranked}
    if set_threshold is not None:
        answer["set"] = [classes[i] for i in indices[values >= set_threshold].tolist()]
    return answer
