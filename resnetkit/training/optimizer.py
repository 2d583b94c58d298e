"""Parameter groups and the optimizer."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from resnetkit.training.recipe import Recipe


def make_optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    """SGD with Nesterov momentum, or AdamW. Norms and biases are not decayed (Goyal et al. 2017, section 5.3)."""
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=recipe.lr, fused=True)
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
