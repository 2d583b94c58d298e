"""The record of one residual network: what changes its graph, and nothing else."""

from dataclasses import dataclass, fields
from math import prod
from typing import Any

from resnetkit.errors import ResnetkitError

ALLOWED = {
    "block": ("basic", "bottleneck"),
    "stem": ("7x7", "deep", "3x3"),
    "shortcut": ("projection", "pooled", "zero_pad", "none"),
    "norm": ("batch", "group", "frozen", "none"),
    "activation": ("relu", "silu", "gelu"),
    "attention": ("none", "se", "eca"),
    "branch_scale": ("none", "skipinit", "fixup"),
    "padding": ("symmetric", "same", "same_in_stages"),
    "pool_padding": ("lowest", "zeros", "none"),
    "stride_by": ("conv", "max_pool"),
    "zero_pad": ("sides", "end"),
}
TYPES: dict[Any, tuple[Any, str]] = {
    str: (str, "a word"),
    bool: (bool, "True or False"),
    int: (int, "a whole number"),
    int | None: ((int, type(None)), "a whole number or None"),
    float: ((int, float), "a number"),
    tuple[int, ...]: (tuple, "whole numbers, one a stage"),
}
STEM_STRIDE = {"7x7": 4, "deep": 4, "3x3": 1}
EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """One network. `depths` counts blocks a stage; `widths` are channels before the block's expansion.

    Momentum is PyTorch's: the weight of the new batch, so Keras's 0.99 is 0.01 here. `padding="same"` is
    TensorFlow's, asymmetric at stride 2; `same_in_stages` is that after a symmetric stem. The stem's max pool is padded
    as its convolutions with minus infinity (`lowest`), with one zero on each side (`zeros`), or not at all (`none`).
    With `stride_by="max_pool"` the convolution that would stride sees every place, and a max pool after it chooses.
    The channels that a zero_pad shortcut adds stand half on each side of the old ones, or all after them (`end`).
    `branch_scale` ends each branch in a learnt factor, for networks without norms: from 0 (`skipinit`), or from 1 after
    convolutions that begin small (`fixup`). `reversible` couples the blocks that keep their shape, so that training
    holds none of their activations. Raises ResnetkitError for a combination that is no network.
    """

    name: str
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    num_classes: int = 1000
    in_channels: int = 3
    stem: str = "7x7"
    stem_width: int = 64
    block: str = "basic"
    preactivation: bool = False
    shortcut: str = "projection"
    shortcut_norm: bool = True
    norm: str = "batch"
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    activation: str = "relu"
    cardinality: int = 1
    base_width: int = 64
    attention: str = "none"
    conv_bias: bool = False
    padding: str = "symmetric"
    pool_padding: str = "lowest"
    zero_pad: str = "sides"
    stride_in_1x1: bool = False
    stride_in_last_block: bool = False
    stride_by: str = "conv"
    output_stride: int | None = None
    drop_path_rate: float = 0.0
    zero_init_residual: bool = False
    branch_scale: str = "none"
    reversible: bool = False

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "NetworkSpec":
        """A spec from JSON, where tuples are lists."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
        return cls(**values)

    def __post_init__(self) -> None:
        for field in fields(self):
            kinds, allowed = TYPES[field.type]
            value = getattr(self, field.name)
            right = isinstance(value, kinds) and isinstance(value, bool) == (kinds is bool)
            self._require(right, field.name, ALLOWED.get(field.name, allowed))
        for name, choices in ALLOWED.items():
            self._require(getattr(self, name) in choices, name, choices)
        counts = f"{len(self.depths)} positive whole numbers, one a stage"
        for name in ("depths", "widths", "strides"):
            values = getattr(self, name)
            whole = all(isinstance(value, int) and value >= 1 for value in values)
            self._require(whole and len(values) == len(self.depths) >= 1, name, counts)
        for name in ("in_channels", "stem_width", "cardinality", "base_width"):
            self._require(getattr(self, name) >= 1, name, "a positive whole number")
        self._require(self.num_classes >= 0, "num_classes", "0 (no classifier) or more")
        self._require(self.norm_eps > 0, "norm_eps", "above 0")
        self._require(0 < self.norm_momentum <= 1, "norm_momentum", "above 0 and at most 1")
        self._require(0 <= self.drop_path_rate < 1, "drop_path_rate", "at least 0 and below 1")
        self._require_that_parts_fit()

    def _require_that_parts_fit(self) -> None:
        self._require(self.stem != "deep" or self.stem_width >= 2, "stem_width", "2 at least with the deep stem")
        narrowest = min(self.widths) * self.base_width // 64
        self._require(narrowest >= 1, "base_width", f"{-(-64 // min(self.widths))} at least with these widths")
        if self.block == "basic":
            self._require(self.cardinality == 1, "cardinality", "1 with the basic block")
            self._require(self.base_width == 64, "base_width", "64 with the basic block (set widths)")
            self._require(not self.stride_in_1x1, "stride_in_1x1", "False with the basic block, which has no 1x1")
        if self.shortcut == "none":
            self._require(self.drop_path_rate == 0, "drop_path_rate", "0 without shortcuts, or nothing is left")
            self._require(not self.zero_init_residual, "zero_init_residual", "False without shortcuts")
            self._require(not self.reversible, "reversible", "False without shortcuts, which carry the streams")
        if self.branch_scale != "none":
            self._require(self.norm == "none", "branch_scale", "none with norms, which scale the branch themselves")
            self._require(self.shortcut != "none", "branch_scale", "none without shortcuts, or nothing is left")
            self._require(
                not self.zero_init_residual, "branch_scale", "none with zero_init_residual, or nothing learns"
            )
        if max(self.depths) < 2:
            self._require(not self.reversible, "reversible", "False where no stage has two blocks")
        if self.norm == "frozen":
            self._require(not self.zero_init_residual, "zero_init_residual", "False with frozen norms, which stay 0")
        if self.shortcut == "zero_pad":
            first = self.widths[0] * EXPANSION[self.block]
            self._require(self.stem_width <= first, "stem_width", f"{first} at most with the zero_pad shortcut")
            rising = list(self.widths) == sorted(self.widths)
            self._require(rising, "widths", "never falling with the zero_pad shortcut")
        if self.stride_by == "max_pool":
            self._require(self.output_stride is None, "output_stride", "None with stride_by='max_pool'")
            self._require(max(self.strides) <= 2, "strides", "1 or 2 with stride_by='max_pool'")
        if self.shortcut == "pooled" and self.output_stride not in (None, STEM_STRIDE[self.stem] * prod(self.strides)):
            self._require(max(self.strides) <= 2, "strides", "1 or 2 where pooled shortcuts are dilated")
        strides = {STEM_STRIDE[self.stem] * prod(self.strides[:stages]) for stages in range(len(self.strides) + 1)}
        self._require(self.output_stride in (None, *strides), "output_stride", sorted(strides))

    def _require(self, holds: bool, field: str, allowed: object) -> None:
        if not holds:
            among = f"one of {', '.join(map(str, allowed))}" if isinstance(allowed, (tuple, list)) else allowed
            raise ResnetkitError(f"{self.name}: {field}={getattr(self, field)!r} is impossible; it must be {among}")
