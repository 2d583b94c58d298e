"""A folded network for a GPU: convolution, sum and ReLU in one kernel of cuDNN, which eager PyTorch runs one by one."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from resnetkit.architecture.blocks import ResidualBlock
from resnetkit.architecture.layers import SameConv2d
from resnetkit.architecture.resnet import ResNet

AMPERE = (8, 0)  # compute capability


class FusedConv(nn.Module):
    """relu(conv(x)), or relu(conv(x) + other), in the precision of its weights."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, precision: torch.dtype) -> None:
        super().__init__()
        weight = conv.weight.detach().to(precision)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().to(precision))
        assert isinstance(conv.padding, tuple)
        self.geometry = conv.stride, conv.padding, conv.dilation, conv.groups

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x = x.to(self.weight.dtype)
        if other is None:
            return torch.cudnn_convolution_relu(x, self.weight, self.bias, *self.geometry)
        other = other.to(self.weight.dtype)
        return torch.cudnn_convolution_add_relu(x, self.weight, other, 1.0, self.bias, *self.geometry)


class FusedBlock(nn.Module):
    """A residual block whose last convolution adds the shortcut and activates the sum."""

    def __init__(self, block: ResidualBlock, precision: torch.dtype) -> None:
        super().__init__()
        *first, last = _layers(block.branch)
        assert block.shortcut is not None and isinstance(last, nn.Conv2d)
        self.branch, self.shortcut = nn.Sequential(*first), block.shortcut
        self.last = FusedConv(last, precision)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        return self.last(self.branch(x), shortcut)


def can_fuse(device: torch.device, precision: torch.dtype) -> bool:
    """Whether cuDNN is there, and computes so: in bfloat16 from Ampere on."""
    cudnn = torch.backends.cudnn
    if device.type != "cuda" or torch.version.cuda is None or not (cudnn.is_available() and cudnn.enabled):
        return False
    return precision == torch.float32 or torch.cuda.get_device_capability(device) >= AMPERE


def fused(net: ResNet, precision: torch.dtype) -> ResNet:
    """A network in evaluation mode, changed in place, whose convolutions compute in `precision` with what follows them,
    where one `can_fuse` and no gradient is wanted."""
    for chain in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        for (name, conv), (following, activation) in pairwise(_named_layers(chain)):
            if isinstance(conv, nn.Conv2d) and _fusable(conv) and isinstance(activation, nn.ReLU):
                setattr(chain, name, FusedConv(conv, precision))
                setattr(chain, following, nn.Identity())
    if not net.spec.reversible:
        for stage in net.stages:
            for name, block in list(stage.named_children()):
                if isinstance(block, ResidualBlock) and _ends_in_relu(block):
                    setattr(stage, name, FusedBlock(block, precision))
    return net


def _named_layers(chain: nn.Sequential) -> list[tuple[str, nn.Module]]:
    return [(name, layer) for name, layer in chain.named_children() if not isinstance(layer, nn.Identity)]


def _layers(chain: nn.Sequential) -> list[nn.Module]:
    return [layer for _, layer in _named_layers(chain)]


def _fusable(layer: nn.Module) -> bool:
    """Grouped convolutions are left out: cuDNN has no kernel for them in every precision."""
    if not isinstance(layer, nn.Conv2d) or isinstance(layer, SameConv2d):
        return False
    return layer.groups == 1 and isinstance(layer.padding, tuple)


def _ends_in_relu(block: ResidualBlock) -> bool:
    return block.shortcut is not None and isinstance(block.activation, nn.ReLU) and _fusable(_layers(block.branch)[-1])
