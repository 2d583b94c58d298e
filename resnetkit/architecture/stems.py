"""The first layers: 7x7, deep (three 3x3) or the CIFAR 3x3."""

from dataclasses import replace

from torch import Tensor, nn

from resnetkit.architecture import layers
from resnetkit.architecture.spec import STEM_STRIDE, NetworkSpec
from resnetkit.architecture.stages import stem_convs


class Stem(nn.Module):
    """Convolutions, then the max pool of the ImageNet stems.

    A pre-activation network's last stem convolution is bare: its first block begins with the norm.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        if spec.padding == "same_in_stages":
            spec = replace(spec, padding="symmetric")
        self.convs = nn.Sequential()
        shapes = stem_convs(spec)
        for i, shape in enumerate(shapes, 1):
            self.convs.add_module(f"conv{i}", layers.conv(spec, shape))
            if i < len(shapes) or not spec.preactivation:
                self.convs.add_module(f"norm{i}", layers.norm(spec, shape.out_channels))
                self.convs.add_module(f"act{i}", layers.activation(spec))
        self.pool: nn.Module = nn.Identity()
        if STEM_STRIDE[spec.stem] == 4:
            self.pool = layers.stem_pool(spec)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.convs(x))
