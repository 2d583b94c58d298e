"""One label an image."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in float32 of logits (N, classes), targets smoothed (Szegedy et al. 2016, section 7)."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def describe(probabilities: Tensor, classes: list[str], top: int = 5) -> dict[str, Any]:
    """One image's probabilities (classes,) -> its label, probability and the `top` likeliest [label, probability]."""
    values, indices = probabilities.topk(min(top, len(classes)))
    ranked = [[classes[i], p] for i, p in zip(indices.tolist(), values.tolist())]
    return {"label": ranked[0][0], "probability": ranked[0][1], "top": ranked}
