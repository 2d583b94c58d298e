"""From the names and shapes of a network's tensors to what it is, and to what they cannot tell."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from math import inf
from typing import Any

import torch

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import EXPANSION, NetworkSpec
from resnetkit.architecture.stages import branch_convs, plan, stem_convs
from resnetkit.architecture.variants import spec, variants
from resnetkit.errors import ResnetkitError

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.")
SILENT = {  # fields that leave no trace in names and shapes, each with a value to compare by
    "name": "",
    "num_classes": 0,
    "in_channels": 3,
    "norm_eps": 1e-5,
    "norm_momentum": 0.1,
    "activation": "relu",
    "padding": "symmetric",
    "pool_padding": "lowest",
    "zero_pad": "sides",
    "stride_in_1x1": False,
    "stride_in_last_block": False,
    "stride_by": "conv",
    "output_stride": None,
    "drop_path_rate": 0.0,
    "zero_init_residual": False,
    "reversible": False,
}
OPEN = {
    "norm": "batch",
    "conv_bias": False,
    "attention": "none",
    "branch_scale": "none",
}  # what may be chosen in place of this and keep the name


def identify(shapes: Shapes, known: dict[str, Any]) -> tuple[NetworkSpec, tuple[str, ...]]:
    """The spec of the network whose tensors, in our names, have these shapes, and the names of all networks that have
    the same, the one taken first.

    `known` are choices that something else told, as a table's `only`. What nothing tells is as the first name has it.
    Raises ResnetkitError for what is no network of ours.
    """
    found = _choices(shapes)
    if any(name.endswith("shortcut.conv.weight") for name in shapes) and "shortcut" in known:
        found["shortcut"] = known["shortcut"]
    if found["norm"] == "none":  # where a pre-activation leaves no tensor
        found["preactivation"] = known.get("preactivation", False)
    silent = {name: value for name, value in known.items() if name in (*SILENT, "strides")}
    named = NetworkSpec(name=_unnamed(found), **found | silent)
    rows = list(_alike(named, silent, known.get("shortcut")))
    if not rows:  # of those that become it by choices, the ones that need the fewest
        rows = list(_alike(named, silent | {name: found[name] for name in OPEN}, known.get("shortcut")))
        least = min(map(_choices_made, rows), default=inf)
        rows = [row for row in rows if _choices_made(row) == least < inf]
    return (rows[0], tuple(row.name for row in rows)) if rows else (named, (named.name,))


def by_shapes(shapes: Iterable[Shape]) -> list[str]:
    """The networks that have tensors of just these shapes, whatever their names and order; scalars do not count."""
    wanted = Counter(shape for shape in shapes if shape)
    classes = [shape[0] for shape in wanted if len(shape) == 2]
    rows = (spec(name, classes[0] if classes else 0) for name in _all_names())
    kernels = sum(count for shape, count in wanted.items() if len(shape) == 4)
    return [row.name for row in rows if _kernels(row) == kernels and _shape_counts(row) == wanted]


def _choices(shapes: Shapes) -> dict[str, Any]:
    stem = _stem(shapes)
    depths = _depths(shapes)
    first = [_block(shapes, stage, 0) for stage in range(len(depths))]
    block = "bottleneck" if "branch.conv3.weight" in first[0] else "basic"
    last = f"branch.conv{3 if block == 'bottleneck' else 2}.weight"
    outs = [_shape(tensors, last)[0] for tensors in first]
    if any(out % EXPANSION[block] for out in outs):
        raise ResnetkitError(f"its stages have {outs} channels, which is not four times a width")
    widths = tuple(out // EXPANSION[block] for out in outs)
    choices: dict[str, Any] = {"depths": depths, "widths": widths, "block": block, **stem}
    choices["strides"] = (1,) + (2,) * (len(depths) - 1)
    if block == "bottleneck":
        mid, per_group = _shape(first[0], "branch.conv2.weight")[:2]
        choices["cardinality"] = mid // per_group
        choices["base_width"] = mid * 64 // (widths[0] * choices["cardinality"])
    choices["preactivation"] = "preact.0.weight" in first[0] or "norm.0.weight" in shapes
    choices["norm"] = _norm(shapes)
    choices["conv_bias"] = choices["norm"] != "none" and "branch.conv1.bias" in first[0]
    choices["attention"] = _attention(first[0])
    choices["branch_scale"] = "skipinit" if "branch.scale.weight" in first[0] else "none"  # fixup begins otherwise
    padded = [stem["stem_width"], *outs] == sorted([stem["stem_width"], *outs])
    return choices | _shortcut(first, padded, choices["norm"] != "none") | _head(shapes)


def _stem(shapes: Shapes) -> dict[str, Any]:
    convs = [_shape(shapes, f"stem.convs.conv{i}.weight") for i in (1, 2, 3) if f"stem.convs.conv{i}.weight" in shapes]
    if not convs:
        raise ResnetkitError("it has no first convolution")
    kind = {(3, 3): "deep", (1, 7): "7x7", (1, 3): "3x3"}.get((len(convs), convs[0][-1]))
    if kind is None:
        raise ResnetkitError(f"its stem has {len(convs)} convolutions, the first of {convs[0][-1]}x{convs[0][-1]}")
    return {"stem": kind, "stem_width": convs[-1][0], "in_channels": convs[0][1]}


def _depths(shapes: Shapes) -> tuple[int, ...]:
    blocks = {(int(match[1]), int(match[2])) for match in map(BLOCK.match, shapes) if match}
    stages = Counter(stage for stage, _ in blocks)
    depths = tuple(stages[stage] for stage in sorted(stages))
    if not depths or blocks != {(stage, block) for stage, depth in enumerate(depths) for block in range(depth)}:
        raise ResnetkitError("its blocks are not numbered without a gap")
    return depths


def _block(shapes: Shapes, stage: int, block: int) -> Shapes:
    start = f"stages.{stage}.{block}."
    return {name.removeprefix(start): shape for name, shape in shapes.items() if name.startswith(start)}


def _shape(shapes: Shapes, name: str) -> Shape:
    if name not in shapes:
        raise ResnetkitError(f"it has no {name}")
    return shapes[name]


def _norm(shapes: Shapes) -> str:
    if any(name.endswith("running_var") for name in shapes):
        return "batch"
    return "group" if any(re.search(r"norm\d?\.(0\.)?weight$", name) for name in shapes) else "none"


def _attention(block: Shapes) -> str:
    if "branch.attention.reduce.weight" in block:
        return "se"
    return "eca" if "branch.attention.conv.weight" in block else "none"


def _shortcut(first: list[Shapes], padded: bool, has_norms: bool) -> dict[str, Any]:
    """What the shortcuts of the stages' first blocks tell; without tensors there they are zero_pad, or none."""
    projected = [block for block in first if "shortcut.conv.weight" in block]
    if not projected:
        return {"shortcut": "zero_pad" if padded else "none"}
    bare = not any("shortcut.norm.weight" in block for block in projected)
    return {"shortcut_norm": not bare or not has_norms}


def _head(shapes: Shapes) -> dict[str, Any]:
    return {"num_classes": shapes["head.classifier.weight"][0] if "head.classifier.weight" in shapes else 0}


def _unnamed(found: dict[str, Any]) -> str:
    """A name for a network of no paper: its layers are counted as the family counts them."""
    per_block = 3 if found["block"] == "bottleneck" else 2
    return f"custom_resnet{per_block * sum(found['depths']) + 2}"


def trace(network: NetworkSpec) -> NetworkSpec:
    """What of a spec shows in the names and shapes of its tensors: two networks of one trace cannot be told apart."""
    visible: dict[str, Any] = SILENT | {"strides": (1,) * len(network.depths), "shortcut": "projection"}
    if network.shortcut in ("zero_pad", "none"):
        # Scaled branches need a shortcut.
        visible |= {"shortcut": "none" if network.branch_scale == "none" else "zero_pad", "shortcut_norm": True}
    if network.norm == "frozen":
        visible["norm"] = "batch"
    return replace(network, **visible)


def _alike(network: NetworkSpec, choices: dict[str, Any], shortcut: str | None) -> Iterator[NetworkSpec]:
    """The named networks that, with `choices`, have the same tensors; and the `shortcut`, where it is told and has."""
    wanted = trace(network)
    told = None if wanted.shortcut in ("none", "zero_pad") else shortcut
    for name in sorted({*_all_names(), *_cifar_names(network)}, key=lambda name: ("plain" in name, name)):
        try:
            row = spec(name, network.num_classes, network.in_channels, **choices)
            if told in (None, row.shortcut) and trace(row) == wanted:
                yield row
        except ResnetkitError:
            continue


def _choices_made(row: NetworkSpec) -> float:
    """How many of OPEN a named network was given; one that has another value of its own is another network."""
    own = spec(row.name)
    changed = [name for name in OPEN if getattr(row, name) != getattr(own, name)]
    return len(changed) if all(getattr(own, name) == OPEN[name] for name in changed) else inf


@cache
def _all_names() -> list[str]:
    names = variants()
    return list(dict.fromkeys([*names, *map(_plain_twin, names)]))


def _plain_twin(name: str) -> str:
    if "plain" in name:
        return name
    return name.replace("resnet", "plain") if name.startswith("resnet") else f"plain_{name}"


def _cifar_names(network: NetworkSpec) -> list[str]:
    """The names by formula that a CIFAR network of these depths could have."""
    if network.stem != "3x3" or len(set(network.depths)) != 1 or len(network.depths) != 3:
        return []
    n, bottleneck = network.depths[0], network.block == "bottleneck"
    depth, wide = (9 if bottleneck else 6) * n + 2, network.widths[0] // 16
    names = [f"resnet{depth}_cifar", f"preact_resnet{depth}_cifar"]
    names += [f"wide_resnet{6 * n + 4}_{wide}_cifar"] if wide > 1 else []
    names.append(f"resnext{9 * n + 2}_{network.cardinality}x{network.base_width}d_cifar")
    return [other for name in names for other in (name, _plain_twin(name))]


def _kernels(row: NetworkSpec) -> int:
    """How many tensors of four sides a network has."""
    convs = len(stem_convs(row)) + sum(
        len(branch_convs(row, block)) + (block.shortcut in ("projection", "pooled")) for block in plan(row)
    )
    return convs + (2 * sum(row.depths) if row.attention == "se" else 0)


def _shape_counts(row: NetworkSpec) -> Counter[Shape]:
    with torch.device("meta"):
        return Counter(tuple(value.shape) for value in ResNet(row).state_dict().values() if value.ndim)
