"""The family: a name to a spec. A row says only what differs from the plain ImageNet network.

Suffix letters (He et al. 2018, "Bag of tricks"; GluonCV's names): c, a stem of three 3x3; d, c with pooled
projections; s, c with a stem twice as wide. `resnext50_32x4d`: cardinality 32, base width 4. `wide_resnet50_2`:
the 3x3 twice as wide. `_cifar`: a 3x3 stem and three stages at 32, 16 and 8 pixels. "plain" in place of "resnet"
names the same network without shortcuts, as does the prefix "plain_" (plain_resnext50_32x4d).
"""

import re
from collections.abc import Callable
from dataclasses import fields
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any

from resnetkit.architecture.spec import NetworkSpec
from resnetkit.errors import ResnetkitError, did_you_mean

Choices = dict[str, Any]

BASIC, BOTTLENECK = {"block": "basic"}, {"block": "bottleneck"}
DEEP_STEM = {"stem": "deep"}
POOLED = DEEP_STEM | {"shortcut": "pooled"}
PREACT = {"preactivation": True, "shortcut_norm": False}
CIFAR = {"stem": "3x3", "stem_width": 16, "widths": (16, 32, 64), "strides": (1, 2, 2)}
# The notebook's Keras layers: biased convolutions, TensorFlow padding, and no stride after the stem.
NOTEBOOK = {"conv_bias": True, "padding": "same", "norm_eps": 1e-3, "norm_momentum": 0.01, "strides": (1, 1, 1, 1)}
# Three basic blocks of the widths, pools and activation of airbench94 (Jordan 2024), which has no shortcuts. The stem
# is to be whitened, by 16 of the 27 directions of an rgb patch and their negatives: all of them are no better on
# CIFAR-10, and a tenth slower.
FAST = BASIC | {
    "depths": (1, 1, 1),
    "widths": (64, 256, 256),
    "strides": (2, 2, 2),
    "stem_width": 32,
    "shortcut": "pooled",
    "stride_by": "max_pool",
    "activation": "gelu",
}

DEPTHS = {  # He et al. 2015, table 1; 200: He et al. 2016, section 4
    18: BASIC | {"depths": (2, 2, 2, 2)},
    34: BASIC | {"depths": (3, 4, 6, 3)},
    50: BOTTLENECK | {"depths": (3, 4, 6, 3)},
    101: BOTTLENECK | {"depths": (3, 4, 23, 3)},
    152: BOTTLENECK | {"depths": (3, 8, 36, 3)},
    200: BOTTLENECK | {"depths": (3, 24, 36, 3)},
}

TABLE: dict[str, Choices] = {
    **{f"resnet{depth}": row for depth, row in DEPTHS.items()},
    **{f"resnet{depth}c": row | DEEP_STEM for depth, row in DEPTHS.items()},
    **{f"resnet{depth}d": row | POOLED for depth, row in DEPTHS.items()},
    **{f"resnet{depth}s": row | DEEP_STEM | {"stem_width": 128} for depth, row in DEPTHS.items()},
    **{f"preact_resnet{depth}": row | PREACT for depth, row in DEPTHS.items()},
    "resnext50_32x4d": DEPTHS[50] | {"cardinality": 32, "base_width": 4},  # Xie et al. 2017
    "resnext101_32x8d": DEPTHS[101] | {"cardinality": 32, "base_width": 8},
    "resnext101_64x4d": DEPTHS[101] | {"cardinality": 64, "base_width": 4},
    "wide_resnet50_2": DEPTHS[50] | {"base_width": 128},  # Zagoruyko & Komodakis 2016
    "wide_resnet101_2": DEPTHS[101] | {"base_width": 128},
    "seresnet50": DEPTHS[50] | {"attention": "se"},  # Hu et al. 2018
    "ecaresnet50d": DEPTHS[50] | POOLED | {"attention": "eca"},  # Wang et al. 2020
    "fast_resnet8_cifar": CIFAR | FAST,
    "wide_fast_resnet8_cifar": CIFAR | FAST | {"widths": (128, 384, 512)},  # ours, about those of airbench95 and 96
    "resnet34_notebook": DEPTHS[34] | NOTEBOOK,
    # Depth 164 fits the basic block too; the paper's has bottlenecks (He et al. 2016, section 3).
    "preact_resnet164_cifar": CIFAR | PREACT | BOTTLENECK | {"depths": (18, 18, 18)},
}
OTHER_NAMES = (  # with published figures; any CIFAR depth that fits its formula, and any plain twin, builds
    *(f"resnet{depth}_cifar" for depth in (20, 32, 44, 56, 110, 1202)),
    *("preact_resnet110_cifar", "preact_resnet1001_cifar"),
    *("plain34", "plain56_cifar"),
    *("wide_resnet28_10_cifar", "wide_resnet16_8_cifar", "resnext29_8x64d_cifar"),
)


def _cifar_depths(name: str, depth: int, formulas: dict[str, tuple[int, int]], block: str | None) -> Choices:
    """Three equal stages whose depth is a*n + b, (a, b) by block; the first that fits, or the `block` asked for."""
    formulas = {block: formulas[block]} if block in formulas else formulas
    for kind, (a, b) in formulas.items():
        if depth > b and (depth - b) % a == 0:
            return {"block": kind, "depths": ((depth - b) // a,) * 3}
    fit = sorted({a * n + b for a, b in formulas.values() for n in range(1, depth // a + 2)})
    nearest = sorted({max([d for d in fit if d < depth], default=fit[0]), min(d for d in fit if d > depth)})
    rules = " nor ".join(f"{a}n+{b} ({kind})" for kind, (a, b) in formulas.items())
    raise ResnetkitError(
        f"{name}: depth {depth} does not fit {rules}; the nearest that do are {' and '.join(map(str, nearest))}"
    )


def _cifar(name: str, match: re.Match[str], block: str | None) -> Choices:
    shortcut = PREACT if match[1] else {"shortcut": "zero_pad"}
    return CIFAR | shortcut | _cifar_depths(name, int(match[2]), {"basic": (6, 2), "bottleneck": (9, 2)}, block)


def _wide_cifar(name: str, match: re.Match[str], block: str | None) -> Choices:
    widths = tuple(width * int(match[2]) for width in (16, 32, 64))
    return CIFAR | PREACT | {"widths": widths} | _cifar_depths(name, int(match[1]), {"basic": (6, 4)}, block)


def _resnext_cifar(name: str, match: re.Match[str], block: str | None) -> Choices:
    groups = {"stem_width": 64, "widths": (64, 128, 256), "cardinality": int(match[2]), "base_width": int(match[3])}
    return CIFAR | groups | _cifar_depths(name, int(match[1]), {"bottleneck": (9, 2)}, block)


CIFAR_PATTERNS: dict[str, Callable[[str, re.Match[str], str | None], Choices]] = {
    r"(preact_)?resnet(\d+)_cifar": _cifar,
    r"wide_resnet(\d+)_(\d+)_cifar": _wide_cifar,
    r"resnext(\d+)_(\d+)x(\d+)d_cifar": _resnext_cifar,
}


def variants(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern. Any other CIFAR depth that fits, and plain twins, build too."""
    return sorted((name for name in (*TABLE, *OTHER_NAMES) if fnmatchcase(name, pattern)), key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part or 0), word) for word, part in re.findall(r"(\D+)(\d*)", name)]


def spec(name: str, num_classes: int | None = None, in_channels: int = 3, **choices: Any) -> NetworkSpec:
    """The spec of a named network with `choices` (any field of NetworkSpec) in place of the row's.

    `num_classes` None is 1000, or 10 for `_cifar` names. Raises ResnetkitError for an unknown name, choice or value.
    """
    if not isinstance(name, str):
        raise ResnetkitError(f"the name of a network, such as 'resnet50', is wanted, not {type(name).__name__}")
    allowed = {field.name for field in fields(NetworkSpec)} - {"name"}
    for choice in choices:
        if choice == "features_only":
            raise ResnetkitError(f"{name}: every network gives its maps, by net.features(x); leave {choice} out")
        if choice not in allowed:
            known = did_you_mean(choice, allowed | {"weights"})  # `build` takes these
            raise ResnetkitError(f"{name}: no choice is called {choice!r}; {known}")
    choices = {key: _plain_number(value) for key, value in choices.items()}
    plain = {"shortcut": "none"} if "plain" in name else {}
    row = _row(name, name.removeprefix("plain_").replace("plain", "resnet"), choices.get("block"))
    if num_classes is None:
        num_classes = 10 if name.endswith("_cifar") else 1000
    counts = {"num_classes": _plain_number(num_classes), "in_channels": _plain_number(in_channels)}
    return NetworkSpec(name=name, **counts, **row | plain | choices)


def _plain_number(value: Any) -> Any:
    """A whole number of another library as Python's, a list of them as a tuple; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain_number, value))
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def _row(asked: str, name: str, block: str | None) -> Choices:
    for pattern, row in CIFAR_PATTERNS.items():
        if (block or name not in TABLE) and (match := re.fullmatch(pattern, name)):
            return row(asked, match, block)
    if name in TABLE:
        return TABLE[name]
    raise ResnetkitError(f"no network is called {asked!r}; {did_you_mean(asked, (*TABLE, *OTHER_NAMES), n=2)}")
