"""Batch norms as part of the convolutions before them."""

from copy import deepcopy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnetkit.architecture.resnet import ResNet


def folded(net: ResNet) -> ResNet:
    """A copy of `net`, which is in evaluation mode, with the same outputs but for rounding, and without the batch norms
    that follow a convolution: there each is a scale and a shift of its channels (Jacob et al. 2018, section 3.2)."""
    replaced: dict[int, nn.Module] = {}  # by the id of what is copied, as deepcopy keeps what it has copied
    for part in net.modules():
        if isinstance(part, nn.Sequential):
            for conv, norm in pairwise(part):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    replaced |= {id(conv): fuse_conv_bn_eval(conv, norm), id(norm): nn.Identity()}
    return deepcopy(net, replaced)
