"""Views of an image at test time, whose logits are averaged."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.data.ingest import SMALL
from resnetkit.errors import ResnetkitError
from resnetkit.weights.files import Model

Forward = Callable[[nn.Module, Tensor], Tensor]  # a network and normalised images (N, C, H, W) -> logits (N, K)


def forward_of(model: Model, *, tta: bool) -> Forward:
    """One look at each image, or, with `tta`, the average over its views; mirrored ones are left out for a network that
    was trained without. Raises ResnetkitError where that leaves no view but the image."""
    if tta not in (True, False):
        raise ResnetkitError(f"tta={tta!r} is impossible; it must be True or False")
    if not tta:
        return once
    mirrored = model.provenance.get("recipe", {}).get("flip", True)
    if not mirrored and max(model.preprocessing.size) > SMALL:
        name = model.network.spec.name
        raise ResnetkitError(f"this {name} was trained with flip = false: no mirror image to average; leave --tta out")
    return partial(averaged, mirrored=mirrored)


def once(net: nn.Module, x: Tensor) -> Tensor:
    """Logits (N, K) of normalised images x (N, C, H, W) as they are."""
    return net(x).float()


def averaged(net: nn.Module, x: Tensor, *, mirrored: bool) -> Tensor:
    """Logits (N, K) of normalised images x (N, C, H, W), where `mirrored` the mean of each image's and its mirror
    image's.

    Inputs of at most SMALL pixels a side are also seen moved by a pixel to the upper left and to the lower right
    (airbench94: Jordan 2024, section 3.5): a quarter each, and a half in place.
    """
    see = _both_ways if mirrored else once
    if max(x.shape[2:]) > SMALL or min(x.shape[2:]) == 1:  # of one pixel there is no reflection
        return see(net, x)
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    moved = see(net, padded[:, :, :-2, :-2]) + see(net, padded[:, :, 2:, 2:])
    return see(net, x) / 2 + moved / 4


def _both_ways(net: nn.Module, x: Tensor) -> Tensor:
    return (once(net, x) + once(net, x.flip(-1))) / 2
