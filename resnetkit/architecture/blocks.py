"""The residual block, shortcut(x) + branch(x), with its activation after the sum or before the branch."""

from torch import Tensor, nn

from resnetkit.architecture import layers
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.stages import Conv, Row, branch_convs


class Block(nn.Module):
    """What both orders share: the branch's convolutions, the shortcut and stochastic depth."""

    def __init__(self, spec: NetworkSpec, row: Row) -> None:
        super().__init__()
        self.branch = nn.Sequential()
        self._fill_branch(spec, row)
        if spec.attention != "none":
            self.branch.add_module("attention", layers.ATTENTION[spec.attention](row.out_channels))
        if spec.branch_scale != "none":
            self.branch.add_module("scale", layers.Scale(layers.BRANCH_SCALE[spec.branch_scale]))
        self.shortcut = layers.shortcut(spec, row)
        self.drop_path = layers.DropPath(row.drop_rate) if row.drop_rate else nn.Identity()

    def _fill_branch(self, spec: NetworkSpec, row: Row) -> None:
        raise NotImplementedError

    def _add_conv(self, spec: NetworkSpec, shape: Conv, i: int) -> None:
        self.branch.add_module(f"conv{i}", layers.conv(spec, shape))
        if shape.pool > 1:
            self.branch.add_module(f"pool{i}", layers.BranchPool2d(shape.pool))

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def after_run(self, x: Tensor) -> Tensor:
        """The end of a reversible run, as the next part expects it."""
        raise NotImplementedError

    def drops(self) -> bool:
        """Whether stochastic depth leaves the branch out this time: its norms then see nothing."""
        return isinstance(self.drop_path, layers.DropPath) and self.drop_path.drops()

    def last_layer(self) -> nn.Module:
        """The last layer of the branch that has a scale of its own: zero there makes the block its shortcut."""
        norms = [m for name, m in self.branch.named_children() if name.startswith("norm") and hasattr(m, "weight")]
        convs = [m for m in self.branch if isinstance(m, nn.Conv2d)]
        return norms[-1] if len(norms) == len(convs) else convs[-1]


class ResidualBlock(Block):
    """activation(shortcut(x) + branch(x)), branch = conv norm act ... conv norm (He et al. 2015, figure 5)."""

    def __init__(self, spec: NetworkSpec, row: Row) -> None:
        super().__init__(spec, row)
        self.activation = layers.activation(spec)

    def _fill_branch(self, spec: NetworkSpec, row: Row) -> None:
        shapes = branch_convs(spec, row)
        for i, shape in enumerate(shapes, 1):
            self._add_conv(spec, shape, i)
            self.branch.add_module(f"norm{i}", layers.norm(spec, shape.out_channels))
            if i < len(shapes):
                self.branch.add_module(f"act{i}", layers.activation(spec))

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return self.activation(self.branch(x))
        if self.drops():
            return self.activation(self.shortcut(x).clone())  # not in the place of x
        residual = self.drop_path(self.branch(x))
        return self.activation(self.shortcut(x) + residual)

    def residual(self, x: Tensor) -> Tensor:
        """What a reversible run adds of x: activated before the branch, for an activated sum could not be undone."""
        return self.drop_path(self.branch(self.activation(x)))

    def after_run(self, x: Tensor) -> Tensor:
        return self.activation(x)


class PreActBlock(Block):
    """shortcut(x) + branch(act(norm(x))), branch = conv norm act ... conv (He et al. 2016, figure 1b).

    A shortcut that changes the shape reads the activated x; one that learns nothing and keeps the width reads x itself.
    """

    def __init__(self, spec: NetworkSpec, row: Row) -> None:
        super().__init__(spec, row)
        self.preact = nn.Sequential(layers.norm(spec, row.in_channels), layers.activation(spec))
        self.reads_x = row.shortcut in ("identity", "subsample")

    def _fill_branch(self, spec: NetworkSpec, row: Row) -> None:
        for i, shape in enumerate(branch_convs(spec, row), 1):
            if i > 1:
                self.branch.add_module(f"norm{i}", layers.norm(spec, shape.in_channels))
                self.branch.add_module(f"act{i}", layers.activation(spec))
            self._add_conv(spec, shape, i)

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return self.branch(self.preact(x))
        if self.drops():
            return self.shortcut(x if self.reads_x else self.preact(x))
        activated = self.preact(x)
        shortcut = self.shortcut(x if self.reads_x else activated)
        return shortcut + self.drop_path(self.branch(activated))

    def residual(self, x: Tensor) -> Tensor:
        """What a reversible run adds of x."""
        return self.drop_path(self.branch(self.preact(x)))

    def after_run(self, x: Tensor) -> Tensor:
        return x
