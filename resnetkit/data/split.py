"""Setting images apart."""

import torch
from torch import Tensor


def stratified(labels: Tensor, share: float, seed: int) -> Tensor:
    """A boolean mask over `labels`, True for about `share` of each class: one at least of two or more, never all."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        order = members[torch.randperm(len(members), generator=generator)]
        count = min(len(members) - 1, max(1, round(share * len(members))))
        chosen[order[:count]] = True
    return chosen
