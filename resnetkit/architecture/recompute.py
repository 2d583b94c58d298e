"""Recomputation: a backward pass that keeps the inputs of a few segments and computes the rest again.

Chen et al. 2016 (sublinear memory cost). Unlike PyTorch's own it leaves no trace: batch norm counts a batch once.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.stages import Conv, Row, branch_convs


class StatisticsKept:
    """A context, to be entered as often as is wanted, in which batch norms normalise as ever and from which their
    running statistics come out as they were: copies take the updates."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules

    def __enter__(self) -> None:
        norms = [m for module in self.modules for m in module.modules() if isinstance(m, _BatchNorm)]
        self.own = [(norm, dict(norm._buffers)) for norm in norms]
        for norm, buffers in self.own:
            norm._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})

    def __exit__(self, *error: object) -> None:
        for norm, buffers in self.own:
            norm._buffers.update(buffers)
        self.own = []


def in_turn(modules: Sequence[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x


def recomputed(modules: Sequence[nn.Module], x: Tensor) -> Tensor:
    """`in_turn`, of which only `x` is kept for the backward pass: values, gradients, randomness and statistics are the
    same to the bit."""
    if not torch.is_grad_enabled():
        return in_turn(modules, x)
    contexts = nullcontext(), StatisticsKept(modules)
    return checkpoint(in_turn, modules, x, use_reentrant=False, context_fn=lambda: contexts)


def segments(spec: NetworkSpec, rows: list[Row]) -> list[list[range]]:
    """The blocks of each stage, cut where the most memory that a backward pass ever holds is least.

    While a segment is computed again the inputs of those before it are held, and all that its blocks keep. So the first
    segments are the longest, and n equal blocks hold sqrt(2n) times what one does.
    """
    costs = _costs(spec, rows)
    low, high = 0.0, sum(kept for _, kept in costs) + costs[0][0]
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _cut(rows, costs, middle) else (middle, high)
    found = _cut(rows, costs, high)
    assert found is not None
    return found


def _costs(spec: NetworkSpec, rows: list[Row]) -> list[tuple[float, float]]:
    """Of each block the elements of its input, and those that it keeps: what each convolution and its norm write, at
    most where a block strides late.

    An element of the stem's map counts 1.
    """
    area, costs = 1.0, []
    for row in rows:
        entry, area = area, area / row.stride**2
        convs = branch_convs(spec, row)
        if row.shortcut in ("projection", "pooled"):
            convs.append(Conv(row.in_channels, row.out_channels, 1))
        kept = sum(conv.out_channels for conv in convs) * (1 if spec.norm == "none" else 2)
        strides_late = spec.block == "bottleneck" or spec.stride_by == "max_pool"
        costs.append((row.in_channels * entry, kept * (entry if strides_late else area)))
    return costs


def _cut(rows: list[Row], costs: list[tuple[float, float]], limit: float) -> list[list[range]] | None:
    """The longest segments one after the other that stay within `limit`; None where a single block does not."""
    stages: list[list[range]] = []
    inputs = inside = 0.0
    for row, (entry, kept) in zip(rows, costs):
        if row.block == 0:
            stages.append([])
        if row.block > 0 and inputs + inside + kept <= limit:
            inside += kept
            stages[-1][-1] = range(stages[-1][-1].start, row.block + 1)
            continue
        inputs, inside = inputs + entry, kept
        if inputs + inside > limit:
            return None
        stages[-1].append(range(row.block, row.block + 1))
    return stages
