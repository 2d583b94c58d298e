"""The network: stem, stages, head."""

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from resnetkit.architecture import layers
from resnetkit.architecture.blocks import Block, PreActBlock, ResidualBlock
from resnetkit.architecture.recompute import in_turn, recomputed, segments
from resnetkit.architecture.reversible import coupled, reversible_runs
from resnetkit.architecture.spec import STEM_STRIDE, NetworkSpec
from resnetkit.architecture.stages import plan
from resnetkit.architecture.stems import Stem
from resnetkit.errors import ResnetkitError
from resnetkit.garbage import without_collection

MEMORY_MODES = ("plain", "checkpoint")
# Compilations of the code that blocks share, one for every shape of a block, image size, precision and mode: as many as
# torch makes of any (accumulated_recompile_limit), and not 8.
RECOMPILE_LIMIT = 256


class FeatureInfo(NamedTuple):
    """One map of `ResNet.features`: the module that writes it, its channels, input pixels per position."""

    name: str
    channels: int
    stride: int


class Head(nn.Module):
    """Global average pool and classifier: (N, C, H, W) -> (N, num_classes), or (N, C) without a classifier."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(layers.global_average(x))


class ResNet(nn.Module):
    """A residual network: float (N, in_channels, H, W) -> logits (N, num_classes).

    `image_size` (height, width) is what `summary` measures with; the network takes any.
    """

    def __init__(self, spec: NetworkSpec, image_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.image_size = image_size or ((32, 32) if spec.stem == "3x3" else (224, 224))
        self.rows = plan(spec)
        make_block = PreActBlock if spec.preactivation else ResidualBlock
        self.stem = Stem(spec)
        blocks: list[list[nn.Module]] = [[] for _ in spec.depths]
        with without_collection():
            for row in self.rows:
                blocks[row.stage].append(make_block(spec, row))
        self.stages = nn.Sequential(*(nn.Sequential(*stage) for stage in blocks))
        channels = self.rows[-1].out_channels
        self.norm: nn.Module = nn.Identity()
        if spec.preactivation:
            self.norm = nn.Sequential(layers.norm(spec, channels), layers.activation(spec))
        self.head = Head(channels, spec.num_classes)
        self.memory = "plain"
        self._initialise()

    def _initialise(self) -> None:
        if next(self.parameters()).is_meta:  # no values; and normal_ there imports PyTorch's compiler, in a second
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015 (rectifiers), equation 14
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.spec.zero_init_residual:  # Goyal et al. 2017, section 5.1
            for block in self.modules():
                if isinstance(block, Block):
                    nn.init.zeros_(block.last_layer().get_parameter("weight"))
        if self.spec.branch_scale == "fixup":
            self._fixup()

    @torch.no_grad()
    def _fixup(self) -> None:
        """Zhang et al. 2019, section 3.2: a branch's convolutions smaller the more blocks there are, its last and the
        classifier zero. The convolutions' biases stand for the scalar ones of the paper."""
        for block in self.modules():
            if not isinstance(block, Block):
                continue
            convs = [module for module in block.branch.children() if isinstance(module, nn.Conv2d)]
            for conv in convs[:-1]:
                conv.weight *= len(self.rows) ** (-1 / (2 * len(convs) - 2))
            convs[-1].weight.zero_()
        if isinstance(self.head.classifier, nn.Linear):
            self.head.classifier.weight.zero_()
            self.head.classifier.bias.zero_()

    def place(self, device: str | torch.device) -> "ResNet":
        """Move to a device, in the memory layout that convolutions are fastest in."""
        return self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def set_memory(self, mode: str) -> "ResNet":
        """`plain` keeps for the backward pass what the forward pass writes; `checkpoint` keeps little of it and
        computes the rest again, for about a third more time, on a processor more where maps are large. Results,
        gradients and statistics are the same to the bit.

        A mode, no part of the spec. Raises ResnetkitError for another.
        """
        if mode not in MEMORY_MODES:
            raise ResnetkitError(f"memory mode {mode!r} is not known; it must be {' or '.join(MEMORY_MODES)}")
        self.memory = mode
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the stem and each block with `torch.compile`, whose arguments these are.

        Blocks of one shape share their code, so the time it takes does not grow with depth. Raises ResnetkitError for a
        network of stochastic depth or a reversible one, whose blocks are not run as they are.
        """
        if self.spec.drop_path_rate or self.spec.reversible:
            choice = "reversible" if self.spec.reversible else "drop_path_rate"
            raise ResnetkitError(
                f"a network with {choice} cannot be compiled block by block; build it without, or use torch.compile"
            )
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, RECOMPILE_LIMIT)
        for module in chain([self.stem], *self.stages):
            module.compile(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        x = recomputed([self.stem], x) if self.memory == "checkpoint" else self.stem(x)
        for i in range(len(self.stages)):
            x = self._stage(i, x)
        return self.head(self.norm(x))

    def _stage(self, i: int, x: Tensor) -> Tensor:
        if self.memory == "plain" and not self.spec.reversible:
            return self.stages[i](x)
        blocks = list(self.stages[i].children())
        for segment in self.segments[i]:
            x = self._segment(i, segment)(blocks[segment.start : segment.stop], x)
        return x

    def _segment(self, i: int, segment: range) -> Callable[[Sequence[Any], Tensor], Tensor]:
        """How its blocks are run."""
        if self.spec.reversible and self.rows[sum(self.spec.depths[:i]) + segment.start].shortcut == "identity":
            return coupled
        # What the backward pass begins with need not be computed again.
        return in_turn if self.memory == "plain" or segment is self.segments[-1][-1] else recomputed

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps that `feature_info` describes: the stem's before its pool, then each stage's last."""
        maps = [self.stem.convs(x)]
        x = self.stem.pool(maps[0])
        for i in range(len(self.stages)):
            x = self._stage(i, x)
            maps.append(x)
        maps[-1] = self.norm(x)
        return maps

    @cached_property
    def segments(self) -> list[list[range]]:
        """The blocks of each stage that are computed again, or back, together."""
        return reversible_runs(self.rows) if self.spec.reversible else segments(self.spec, self.rows)

    @property
    def feature_info(self) -> list[FeatureInfo]:
        """Name, channels and stride of each map that `features` gives."""
        stride = STEM_STRIDE[self.spec.stem]
        info = [FeatureInfo("stem.convs", self.spec.stem_width, 2 if stride == 4 else 1)]
        for row in self.rows:
            stride *= row.stride
            if row.block == self.spec.depths[row.stage] - 1:
                info.append(FeatureInfo(f"stages.{row.stage}", row.out_channels, stride))
        return info

    def summary(self) -> None:
        """Print the network as the paper's table: a line a stage part, repeated blocks folded."""
        from resnetkit.architecture.summary import summarise

        print(summarise(self))
