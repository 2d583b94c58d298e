"""Trained networks with blocks taken out, in another order, or open to one path only; put right again afterwards."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.stages import Row


class _Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros((), dtype=x.dtype, device=x.device)


class _Detached(nn.Module):
    """The same output, through which no gradient goes back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).detach()


def droppable(rows: Sequence[Row]) -> list[int]:
    """Blocks, counted from 0, that can be left out: all that have a shortcut, else those that keep the shape."""
    return [i for i, row in enumerate(rows) if row.shortcut != "none" or keeps_shape(row)]


def keeps_shape(row: Row) -> bool:
    return row.stride == 1 and row.in_channels == row.out_channels


@contextmanager
def without(net: ResNet, blocks: Collection[int]) -> Iterator[ResNet]:
    """Leave blocks out: what has a shortcut is that alone, a plain block passes on what it gets."""
    whole = [list(stage) for stage in net.stages]  # type: ignore[call-overload]
    branches = {i: _block(net, i).branch for i in blocks if net.rows[i].shortcut != "none"}
    try:
        for i in blocks:
            if i in branches:
                _block(net, i).branch = _Nothing()
            else:
                assert keeps_shape(net.rows[i]), "a plain block that changes the shape cannot be left out"
                net.stages[net.rows[i].stage][net.rows[i].block] = nn.Identity()  # type: ignore[operator]
        yield net
    finally:
        _put(net, whole)
        for i, branch in branches.items():
            _block(net, i).branch = branch


@contextmanager
def reordered(net: ResNet, order: Sequence[int]) -> Iterator[ResNet]:
    """Put block order[i] in the place of block i; those that change places must be of one shape."""
    whole = [list(stage) for stage in net.stages]  # type: ignore[call-overload]
    blocks = [block for stage in whole for block in stage]
    try:
        for i, other in enumerate(order):
            net.stages[net.rows[i].stage][net.rows[i].block] = blocks[other]  # type: ignore[operator]
        yield net
    finally:
        _put(net, whole)


@contextmanager
def one_path(net: ResNet, through: Collection[int]) -> Iterator[ResNet]:
    """Let gradients back through the branch of the blocks `through` and through the shortcut of all others.

    The output stays as it is, and the gradients of all paths add up to the whole gradient (Veit et al. 2016,
    section 4.3).
    """
    kept = []
    try:
        for i in range(len(net.rows)):
            block, part = _block(net, i), "shortcut" if i in through else "branch"
            kept.append((block, part, getattr(block, part)))
            setattr(block, part, _Detached(getattr(block, part)))
        yield net
    finally:
        for block, part, module in kept:
            setattr(block, part, module)


def _block(net: ResNet, i: int) -> nn.Module:
    return net.stages[net.rows[i].stage][net.rows[i].block]  # type: ignore[index]


def _put(net: ResNet, whole: list[list[nn.Module]]) -> None:
    for stage, blocks in zip(net.stages, whole):
        for i, block in enumerate(blocks):
            stage[i] = block  # type: ignore[operator]
