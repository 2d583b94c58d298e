"""The smallest parts: convolution, norm, shortcuts, attention, stochastic depth."""

from collections.abc import Callable
from functools import partial
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.architecture.convolution import Conv2d, channels_last
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.stages import Conv, Row


def global_average(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C)."""
    if channels_last(x):
        return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)
    return x.mean((2, 3))


def conv(spec: NetworkSpec, shape: Conv) -> nn.Conv2d:
    """A convolution that keeps ceil(size / stride); with a bias where the spec asks or has no norms."""
    make = SameConv2d if spec.padding != "symmetric" and shape.stride > 1 else Conv2d
    in_channels, out_channels, kernel, stride, dilation, groups, _ = shape
    padding = dilation * (kernel // 2)
    bias = spec.conv_bias or spec.norm == "none"
    return make(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=bias)


def norm(spec: NetworkSpec, channels: int) -> nn.Module:
    if spec.norm == "none":
        return nn.Identity()
    if spec.norm == "group":
        groups = next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)
        return nn.GroupNorm(groups, channels, spec.norm_eps)
    make = FrozenBatchNorm2d if spec.norm == "frozen" else nn.BatchNorm2d
    return make(channels, spec.norm_eps, spec.norm_momentum)


def activation(spec: NetworkSpec) -> nn.Module:
    # Without norms a pre-activation would overwrite the shortcut's own tensor, in a reversible run a stream.
    inplace = spec.norm != "none" and not spec.reversible
    kinds: dict[str, Callable[[], nn.Module]] = {
        "relu": partial(nn.ReLU, inplace),
        "silu": partial(nn.SiLU, inplace),
        "gelu": nn.GELU,
    }
    return kinds[spec.activation]()


def shortcut(spec: NetworkSpec, row: Row) -> nn.Module | None:
    """The other path of a block; None in a plain network."""
    if row.shortcut == "none":
        return None
    if row.shortcut == "identity":
        return nn.Identity()
    if row.shortcut in ("zero_pad", "subsample"):
        return ZeroPadShortcut(row.out_channels - row.in_channels, row.stride, spec.zero_pad)
    parts, stride = nn.Sequential(), row.stride
    if row.shortcut == "pooled":  # He et al. 2018 (bag of tricks), section 4.2, ResNet-D
        stride = 1
        if row.stride > 1:
            pool = nn.AvgPool2d(row.stride, row.stride, ceil_mode=True, count_include_pad=False)
            parts.add_module("pool", pool)
        elif row.dilation > row.entry_dilation:
            parts.add_module("pool", DensePool2d(row.entry_dilation))
    parts.add_module("conv", conv(spec, Conv(row.in_channels, row.out_channels, 1, stride)))
    if spec.shortcut_norm:
        parts.add_module("norm", norm(spec, row.out_channels))
    return parts


class DensePool2d(nn.Module):
    """The 2x2 average pool of stride 2 at every place: means of neighbours `dilation` apart, within the map."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        if channels_last(x):
            return self._means(x.permute(0, 2, 3, 1), (1, 2)).permute(0, 3, 1, 2)
        return self._means(x, (2, 3))

    def _means(self, x: Tensor, axes: tuple[int, int]) -> Tensor:
        for axis in axes:
            inside = max(0, x.shape[axis] - self.dilation)
            neighbour = torch.cat(
                [x.narrow(axis, x.shape[axis] - inside, inside), x.narrow(axis, inside, x.shape[axis] - inside)], axis
            )
            x = (x + neighbour) / 2
        return x


class ZeroPadShortcut(nn.Module):
    """He et al. 2015, section 3.3, option A: subsample, and fill the new channels with zeros.

    They stand half on each side (`sides`: akamaster) or after the old ones (`end`:
    fb.resnet.torch, shortcut type A).
    """

    def __init__(self, new_channels: int, stride: int, place: str) -> None:
        super().__init__()
        self.stride = stride
        self.before = new_channels // 2 if place == "sides" else 0
        self.after = new_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        if channels_last(x):
            pixels = x.permute(0, 2, 3, 1)[:, :: self.stride, :: self.stride]
            return F.pad(pixels, (self.before, self.after)).permute(0, 3, 1, 2)
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def pad_same(x: Tensor, kernel: int, stride: int, value: float) -> Tensor:
    """TensorFlow's `same`: what padding is needed, with the odd pixel at the bottom and the right."""
    needed = [max(0, (-(-size // stride) - 1) * stride + kernel - size) for size in x.shape[2:]]
    top, left = needed[0] // 2, needed[1] // 2
    return F.pad(x, (left, needed[1] - left, top, needed[0] - top), value=value)


class SameConv2d(nn.Conv2d):
    """A strided convolution padded as TensorFlow pads it."""

    def forward(self, x: Tensor) -> Tensor:
        reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1
        x = pad_same(x, reach, self.stride[0], 0.0)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def stem_pool(spec: NetworkSpec) -> nn.Module:
    """The 3x3 max pool of stride 2 that ends the ImageNet stems."""
    if spec.pool_padding == "none":
        return nn.MaxPool2d(3, 2)
    if spec.pool_padding == "zeros":
        return nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2))
    return SameMaxPool2d() if spec.padding == "same" else nn.MaxPool2d(3, 2, 1)


class BranchPool2d(nn.MaxPool2d):
    """The max pool that strides in a convolution's place, and keeps ceil(size / side) as that does."""

    def __init__(self, side: int) -> None:
        super().__init__(side, ceil_mode=True)
        self.side = side


class SameMaxPool2d(nn.Module):
    """3x3 max pool of stride 2 padded as TensorFlow pads it, with minus infinity."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad_same(x, 3, 2, float("-inf")), 3, 2)


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics, scale and offset never change, in training mode either: all are buffers."""

    def __init__(self, channels: int, eps: float, momentum: float) -> None:
        super().__init__(channels, eps, momentum)
        for name, parameter in list(self.named_parameters()):
            delattr(self, name)
            self.register_buffer(name, parameter.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class DropPath(nn.Module):
    """Stochastic depth: in training a branch is left out for a whole batch, which saves its time, or else scaled so
    that its expectation stays (Huang et al. 2016, section 3)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def drops(self) -> bool:
        """Draw for a batch. The draw is the CPU's for every device: a GPU would be waited for."""
        return self.training and torch.rand(()).item() < self.rate

    def forward(self, x: Tensor) -> Tensor:
        return x / (1 - self.rate) if self.training else x


class Scale(nn.Module):
    """A learnt factor."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class SqueezeExcite(nn.Module):
    """Channel gates from pooled features, through channels / 16 (Hu et al. 2018), which timm rounds to eights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = max(8, (channels // 16 + 4) // 8 * 8)
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = global_average(x)[:, :, None, None]
        return x * self.expand(self.reduce(pooled).relu()).sigmoid()


class EfficientChannelAttention(nn.Module):
    """Channel gates from a convolution along the channels, of kernel |log2(channels) + 1| / 2 made odd.

    Wang et al. 2020, equation 12.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int(abs(log2(channels) + 1) / 2)
        kernel = max(3, size if size % 2 else size + 1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = global_average(x)[:, None]
        return x * self.conv(pooled).sigmoid()[:, 0, :, None, None]


ATTENTION: dict[str, type[nn.Module]] = {"se": SqueezeExcite, "eca": EfficientChannelAttention}
BRANCH_SCALE = {"skipinit": 0.0, "fixup": 1.0}  # where it begins
