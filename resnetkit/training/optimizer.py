"""Parameter groups and the optimizer."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from resnetkit.architecture.resnet import ResNet
from resnetkit.training.freezing import parts
from resnetkit.training.recipe import Recipe


def make_optimizer(net: ResNet, recipe: Recipe) -> Optimizer:
    """SGD with Nesterov momentum, or AdamW. Norms and biases are not decayed (Goyal et al. 2017, section 5.3).

    A group's `scale` is its share of the learning rate: 1 at the head, times `rate_decay` a part below it
    (discriminative rates, Howard & Ruder 2018, section 3.2).
    """
    pieces: list[nn.Module] = [net]
    if recipe.rate_decay != 1:
        pieces = [part for _, part in reversed(parts(net)) if any(True for _ in part.parameters())]
    groups = []
    for distance, piece in enumerate(pieces):
        scale = recipe.rate_decay**distance
        trained = list(piece.parameters())
        for chosen, decay in (
            ([p for p in trained if p.ndim > 1], recipe.weight_decay),
            ([p for p in trained if p.ndim <= 1], 0.0),
        ):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=recipe.lr, fused=True)
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
