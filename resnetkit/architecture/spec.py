"""The record of one residual network: what changes its graph, and nothing else."""

from dataclasses import dataclass

from resnetkit.errors import ResnetkitError

ALLOWED = {
    "block": ("basic", "bottleneck"),
    "stem": ("7x7", "deep", "3x3"),
    "shortcut": ("projection", "pooled", "zero_pad", "none"),
    "norm": ("batch", "group", "frozen", "none"),
    "activation": ("relu", "silu", "gelu"),
    "attention": ("none", "se", "eca"),
    "padding": ("symmetric", "same"),
}
STEM_STRIDE = {"7x7": 4, "deep": 4, "3x3": 1}
EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """One network. `depths` counts blocks a stage; `widths` are channels before the block's expansion.

    Momentum is PyTorch's: the weight of the new batch, so Keras's 0.99 is 0.01 here. `padding="same"` is
    TensorFlow's, asymmetric at stride 2. Raises ResnetkitError for a combination that is no network.
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
    stride_in_1x1: bool = False
    stride_in_last_block: bool = False
    output_stride: int | None = None
    drop_path_rate: float = 0.0
    zero_init_residual: bool = False

    def __post_init__(self) -> None:
        for field, allowed in ALLOWED.items():
            self._require(getattr(self, field) in allowed, field, "one of " + ", ".join(allowed))
        for field in ("depths", "widths", "strides"):
            values = getattr(self, field)
            counts = all(isinstance(v, int) and v >= 1 for v in values) and len(values) == len(self.depths) >= 1
            self._require(counts, field, f"{len(self.depths)} positive whole numbers, one a stage")
        for field in ("in_channels", "stem_width", "cardinality", "base_width"):
            value = getattr(self, field)
            self._require(isinstance(value, int) and value >= 1, field, "a positive whole number")
        self._require(
            isinstance(self.num_classes, int) and self.num_classes >= 0, "num_classes", "0 (no classifier) or more"
        )
        self._require(self.norm_eps > 0, "norm_eps", "above 0")
        self._require(0 < self.norm_momentum <= 1, "norm_momentum", "above 0 and at most 1")
        self._require(0 <= self.drop_path_rate < 1, "drop_path_rate", "at least 0 and below 1")
        if self.block == "basic":
            self._require(self.cardinality == 1, "cardinality", "1 with the basic block")
            self._require(self.base_width == 64, "base_width", "64 with the basic block (set widths)")
            self._require(not self.stride_in_1x1, "stride_in_1x1", "False with the basic block, which has no 1x1")
        if self.shortcut == "none":
            self._require(
                self.drop_path_rate == 0, "drop_path_rate", "0 without shortcuts: a dropped block leaves nothing"
            )
            self._require(
                not self.zero_init_residual, "zero_init_residual", "False without shortcuts: the output would be 0"
            )
        if self.shortcut == "zero_pad":
            self._require(
                self.stem_width <= self.widths[0] * EXPANSION[self.block], "stem_width", "at most the first stage's"
            )
            self._require(
                list(self.widths) == sorted(self.widths), "widths", "never falling with the zero_pad shortcut"
            )
        strides = [STEM_STRIDE[self.stem]]
        for stride in self.strides:
            strides.append(strides[-1] * stride)
        allowed_strides = sorted(set(strides))
        self._require(self.output_stride in (None, *allowed_strides), "output_stride", f"one of {allowed_strides}")

    def _require(self, holds: bool, field: str, allowed: str) -> None:
        if not holds:
            raise ResnetkitError(f"{self.name}: {field}={getattr(self, field)!r} is impossible; it must be {allowed}")
