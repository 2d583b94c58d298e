"""Batch norms as part of the convolutions before them, for inference."""

from copy import deepcopy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from resnetkit.architecture.resnet import ResNet


def folded(net: ResNet) -> ResNet:
    """A copy of `net` that gives what it gives in evaluation mode, but for rounding, without the batch norms that
    follow a convolution: there each is a scale and a shift of its channels (Jacob et al. 2018, section 3.2)."""
    replaced: dict[int, nn.Module] = {}  # by the id of what is copied, as deepcopy keeps what it has copied
    for part in net.modules():
        if isinstance(part, nn.Sequential):
            for conv, norm in pairwise(part):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    replaced |= {id(conv): _with_norm(conv, norm), id(norm): nn.Identity()}
    return deepcopy(net, replaced).eval()


def _with_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    copy: nn.Conv2d = deepcopy(conv, {id(conv.weight): weight})
    copy.bias = bias
    return copy
