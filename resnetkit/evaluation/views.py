"""Views of an image at test time, whose logits are averaged."""

import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.data.ingest import SMALL


def averaged(net: nn.Module, x: Tensor) -> Tensor:
    """Logits (N, K) of normalised images x (N, C, H, W), the mean of each image's and its mirror image's.

    Inputs of at most SMALL pixels a side are also seen moved by a pixel to the upper left and to the lower right
    (airbench94: Jordan 2024, section 3.5): a quarter each, and a half in place.
    """
    if max(x.shape[2:]) > SMALL:
        return _both_ways(net, x)
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    moved = _both_ways(net, padded[:, :, :-2, :-2]) + _both_ways(net, padded[:, :, 2:, 2:])
    return _both_ways(net, x) / 2 + moved / 4


def _both_ways(net: nn.Module, x: Tensor) -> Tensor:
    return (net(x).float() + net(x.flip(-1)).float()) / 2
