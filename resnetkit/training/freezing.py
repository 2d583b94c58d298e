"""Which parts of a network learn, and when."""

from torch import nn

from resnetkit.architecture.resnet import ResNet
from resnetkit.errors import ResnetkitError
from resnetkit.training.recipe import Recipe

BACKBONE = "backbone"  # all but the head: a linear probe


def parts(net: ResNet) -> list[tuple[str, nn.Module]]:
    """The network's parts that have weights, by name, from input to output."""
    stages = [(f"stages.{i}", stage) for i, stage in enumerate(net.stages)]
    whole = [("stem", net.stem), *stages, ("norm", net.norm), ("head", net.head)]
    return [(name, part) for name, part in whole if any(True for _ in part.parameters())]


def frozen_parts(net: ResNet, recipe: Recipe, epoch: int) -> int:
    """How many parts, from the input on, keep their weights in an epoch, counted from 0.

    With `thaw_epochs` the last frozen one learns again after each so many (gradual unfreezing, Howard & Ruder 2018,
    section 3.3). Raises ResnetkitError for a part that the network does not have.
    """
    if recipe.freeze is None:
        return 0
    names = [name for name, _ in parts(net)][:-1]
    if recipe.freeze not in (*names, BACKBONE):
        known = ", ".join(name for name in names if name != "norm")
        raise ResnetkitError(f"setting freeze={recipe.freeze!r}: {recipe.model} has {known} and {BACKBONE}")
    count = len(names) if recipe.freeze == BACKBONE else names.index(recipe.freeze) + 1
    return max(0, count - epoch // recipe.thaw_epochs) if recipe.thaw_epochs else count


def set_training(net: ResNet, frozen: int) -> None:
    """Training mode, but for the first `frozen` parts: no gradients there, and batch norm neither uses the batch's
    statistics nor updates its own."""
    net.train()
    for i, (_, part) in enumerate(parts(net)):
        part.requires_grad_(i >= frozen).train(i >= frozen)
