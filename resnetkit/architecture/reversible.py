"""Reversible runs of blocks: the backward pass computes their inputs back from their outputs and keeps none.

The coupling of Gomez et al. 2017 (RevNet, equation 6), between two streams of the full width in place of two halves of
the channels: blocks add in turn to the one what they make of the other, and the run ends in their mean.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from resnetkit.architecture.blocks import Block
from resnetkit.architecture.recompute import StatisticsKept
from resnetkit.architecture.stages import Row
from resnetkit.errors import ResnetkitError


def reversible_runs(rows: list[Row]) -> list[list[range]]:
    """The blocks of each stage: those in a row that keep their shape together, the others alone."""
    stages: list[list[range]] = []
    before = None
    for row in rows:
        if row.block == 0:
            stages.append([])
        if row.block > 0 and row.shortcut == before == "identity":
            stages[-1][-1] = range(stages[-1][-1].start, row.block + 1)
        else:
            stages[-1].append(range(row.block, row.block + 1))
        before = row.shortcut
    return stages


def coupled(blocks: Sequence[Block], x: Tensor) -> Tensor:
    """A run of blocks that keep the shape. The streams are float32 at least, or they would not come back. Raises
    ResnetkitError where weights are in half precision."""
    if next(blocks[0].parameters()).dtype.itemsize < 4:
        raise ResnetkitError("a reversible network has float32 weights; for bfloat16 run it under torch.autocast")
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    streams, trail = [x, x], _Trail()
    add = rebuilt if torch.is_grad_enabled() else plain
    for number, block in enumerate(blocks):
        if not block.drops():
            streams[number % 2] = add(block, trail, number, *streams)
    return blocks[-1].after_run((streams[0] + streams[1]) / 2)


class _Trail:
    """The streams of a run where it ended, and where its backward pass is. `last` numbers the block that ended it."""

    def __init__(self) -> None:
        self.last = -1
        self.ends: list[Tensor] = []
        self.streams: list[Tensor] = []


def plain(block: Block, trail: _Trail, number: int, *streams: Tensor) -> Tensor:
    """The stream that a block adds to, after it, by ordinary autograd."""
    return streams[number % 2] + block.residual(streams[1 - number % 2])


def rebuilt(block: Block, trail: _Trail, number: int, *streams: Tensor) -> Tensor:
    """`plain`, with nothing kept for the backward pass but the ends of the run."""
    learnt = [p for p in block.parameters() if p.requires_grad]
    return _Coupling.apply(block, trail, number, *streams, *learnt)


class _Coupling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Block, trail: _Trail, number: int, *tensors: Tensor) -> Tensor:
        streams = [stream.detach() for stream in tensors[:2]]
        device = streams[0].device.type
        ctx.block, ctx.trail, ctx.number, ctx.learnt = block, trail, number, tensors[2:]
        ctx.precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        written = plain(block, trail, number, *streams)
        streams[number % 2] = written.detach()
        trail.ends, trail.last = streams, number
        return written

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        block, trail, written = ctx.block, ctx.trail, ctx.number % 2
        if ctx.number == trail.last:
            trail.streams = list(trail.ends)
        read = trail.streams[1 - written].detach().requires_grad_()
        arithmetic = torch.autocast(
            read.device.type, ctx.precision, enabled=ctx.precision is not None, cache_enabled=False
        )
        with StatisticsKept([block]), torch.enable_grad(), arithmetic:
            residual = block.residual(read)
        trail.streams[written] = trail.streams[written] - residual.detach()
        through, *learnt = torch.autograd.grad(residual, [read, *ctx.learnt], gradient.to(residual.dtype))
        streams = (gradient, through) if written == 0 else (through, gradient)
        return None, None, None, *streams, *learnt
