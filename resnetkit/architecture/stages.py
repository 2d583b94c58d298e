"""The plan: pure arithmetic from a spec to one row a block. Everything that needs a shape reads it here."""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from resnetkit.architecture.spec import EXPANSION, STEM_STRIDE, NetworkSpec


@dataclass(frozen=True)
class Row:
    """One block. `dilation` is that of the maps it writes, `entry_dilation` that of the maps it reads."""

    stage: int
    block: int
    in_channels: int
    mid_channels: int
    out_channels: int
    stride: int
    entry_dilation: int
    dilation: int
    shortcut: str
    drop_rate: float


class Conv(NamedTuple):
    """One convolution, square in kernel, stride and dilation, and the max pool of side and stride `pool` after it."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    pool: int = 1


def plan(spec: NetworkSpec) -> list[Row]:
    """The blocks of a network in order, stages and blocks counted from 0.

    Past `output_stride` a stride turns into dilation. Drop rates rise linearly to `drop_path_rate` at the last
    block (Huang et al. 2016, equation 4).
    """
    rows: list[Row] = []
    in_channels, stride, dilation = spec.stem_width, STEM_STRIDE[spec.stem], 1
    for stage, (depth, width, stage_stride) in enumerate(zip(spec.depths, spec.widths, spec.strides)):
        mid_channels = width * spec.base_width // 64 * spec.cardinality
        out_channels = width * EXPANSION[spec.block]
        strided = depth - 1 if spec.stride_in_last_block else 0
        for block in range(depth):
            step, entry_dilation = stage_stride if block == strided else 1, dilation
            if stride * step > (spec.output_stride or inf):
                step, dilation = 1, dilation * step
            stride *= step
            kind = _shortcut(spec, in_channels, out_channels, step)
            drop_rate = spec.drop_path_rate * (len(rows) + 1) / sum(spec.depths)
            row = Row(
                stage, block, in_channels, mid_channels, out_channels, step, entry_dilation, dilation, kind, drop_rate
            )
            rows.append(row)
            in_channels = out_channels
    return rows


def _shortcut(spec: NetworkSpec, in_channels: int, out_channels: int, stride: int) -> str:
    if spec.shortcut != "none" and in_channels == out_channels:
        if stride == 1:
            return "identity"
        if spec.stride_in_last_block:  # keras.applications v2 subsamples there, with nothing to learn
            return "subsample"
    return spec.shortcut


def stem_convs(spec: NetworkSpec) -> list[Conv]:
    """The stem's convolutions; all but the CIFAR stem are followed by a 3x3 max pool of stride 2."""
    width, half = spec.stem_width, spec.stem_width // 2
    return {
        "7x7": [Conv(spec.in_channels, width, 7, 2)],
        "deep": [Conv(spec.in_channels, half, 3, 2), Conv(half, half, 3), Conv(half, width, 3)],
        "3x3": [Conv(spec.in_channels, width, 3)],
    }[spec.stem]


def branch_convs(spec: NetworkSpec, row: Row) -> list[Conv]:
    """The residual branch of a block: 3x3, 3x3 (basic) or 1x1, 3x3, 1x1 (bottleneck)."""
    convs = _strided_convs(spec, row)
    if spec.stride_by == "max_pool":
        return [conv._replace(stride=1, pool=conv.stride) for conv in convs]
    return convs


def _strided_convs(spec: NetworkSpec, row: Row) -> list[Conv]:
    if spec.block == "basic":
        return [
            Conv(row.in_channels, row.mid_channels, 3, row.stride, row.entry_dilation),
            Conv(row.mid_channels, row.out_channels, 3, 1, row.dilation),
        ]
    first, middle = (row.stride, 1) if spec.stride_in_1x1 else (1, row.stride)
    dilation = row.dilation if spec.stride_in_1x1 else row.entry_dilation
    return [
        Conv(row.in_channels, row.mid_channels, 1, first),
        Conv(row.mid_channels, row.mid_channels, 3, middle, dilation, spec.cardinality),
        Conv(row.mid_channels, row.out_channels, 1),
    ]
