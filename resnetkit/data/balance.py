"""Classes of unlike sizes."""

from torch import Tensor

from resnetkit.data.labels import are_multilabel, indicators


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """A weight a class (classes,) for the loss of the labels' task; every class has an image.

    With one class an image it makes all classes count the same, 1 on average over the images. With several it is that
    of a class's images against those without it, so that both count the same.
    """
    counts = indicators(labels, classes).sum(0)
    if are_multilabel(labels):
        return (len(labels) - counts).clamp(min=1) / counts  # 0 would switch off a class that every image has
    return len(labels) / (classes * counts)


def balanced_odds(labels: Tensor, classes: int) -> Tensor:
    """How often to draw each image (N,): as the rarest of its classes asks, and one of no class as the commonest."""
    present = indicators(labels, classes)
    rarity = len(labels) / (classes * present.sum(0))
    return (present * rarity).amax(1).clamp(min=float(rarity.min()))
