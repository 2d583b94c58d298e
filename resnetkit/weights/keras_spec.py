"""The spec of the network that a Keras graph looks like. `keras_match` then holds every layer of the graph to it."""

from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

from resnetkit.architecture.spec import EXPANSION, STEM_STRIDE, NetworkSpec
from resnetkit.architecture.variants import spec as variant
from resnetkit.architecture.variants import variants
from resnetkit.errors import ModelFileRefused, ResnetkitError
from resnetkit.weights.keras_graph import Block, Graph
from resnetkit.weights.keras_operations import Operation
from resnetkit.weights.keras_tensors import KerasTensors

STEMS = {(7,): "7x7", (3, 3, 3): "deep", (3,): "3x3"}
SHAPE = ("block", "depths", "widths", "stem", "stem_width", "preactivation", "cardinality", "base_width", "attention")


@dataclass(frozen=True)
class _Seen:
    """What a block shows: its convolutions, what strides, its output channels, the stride and dilation that it adds."""

    block: Block
    convs: list[Operation]
    striding: list[Operation]
    out_channels: int
    stride: int
    dilation: int

    @property
    def projects(self) -> bool:
        return any(op.kind == "conv" for op in self.block.shortcut)


def infer(graph: Graph, stem: list[Operation], tensors: KerasTensors) -> NetworkSpec:
    """The spec, from the graph without its preprocessing. Raises ModelFileRefused where no spec comes near."""
    if not graph.blocks:
        raise ModelFileRefused("the graph has no Add layer, so no shortcut: it is no residual network")
    seen = [_look(block, tensors) for block in graph.blocks]
    stem_convs = [op for op in stem if op.kind == "conv"]
    everything = [*stem, *(op for b in graph.blocks for op in (*b.branch, *b.shortcut, *b.after))]
    dense = [op for op in graph.blocks[-1].after if op.kind == "dense"]
    choices: dict[str, Any] = {
        **_stem(stem, stem_convs, tensors),
        **(blocks := _blocks(graph, seen, tensors)),
        **_stages(seen, blocks["block"] == "bottleneck" and not blocks["stride_in_1x1"]),
        **_norms(everything),
        "conv_bias": any(op.values["bias"] for op in everything if op.kind == "conv"),
        "num_classes": tensors.of(dense[0].layer)["kernel"].shape[1] if dense else 0,
    }
    if choices["norm"] == "none":
        choices["conv_bias"] = False  # without a norm every convolution has one
    choices |= _padding(stem, stem_convs, seen, choices)
    if any(one.dilation > 1 for one in seen):
        stride = STEM_STRIDE[choices["stem"]]
        for one in seen:
            stride *= one.stride
        choices["output_stride"] = stride
    try:
        return _named(choices)
    except ResnetkitError as error:
        raise ModelFileRefused(f"the graph is no network of ours: {error}") from error


def _look(block: Block, tensors: KerasTensors) -> _Seen:
    convs = [op for op in block.branch if op.kind == "conv"]
    if len(convs) not in (2, 3):
        raise block.add.refuse(f"a branch of {len(convs)} convolutions; ours have 2 (basic) or 3 (bottleneck)")
    striding = [op for op in block.branch if op.kind in ("conv", "max_pool")]
    stride = prod(op.values["stride"] for op in striding)
    dilation = max(conv.values["dilation"] for conv in convs)
    return _Seen(block, convs, striding, tensors.of(convs[-1].layer)["kernel"].shape[3], stride, dilation)


def _stem(stem: list[Operation], convs: list[Operation], tensors: KerasTensors) -> dict[str, Any]:
    kernels = tuple(conv.values["kernel"] for conv in convs)
    if kernels not in STEMS:
        raise ModelFileRefused(
            f"before the first shortcut stand convolutions of kernels {kernels}; "
            f"ours have {', '.join(map(str, STEMS))} there"
        )
    return {
        "stem": STEMS[kernels],
        "in_channels": tensors.of(convs[0].layer)["kernel"].shape[2],
        "stem_width": tensors.of(convs[-1].layer)["kernel"].shape[3],
    }


def _blocks(graph: Graph, seen: list[_Seen], tensors: KerasTensors) -> dict[str, Any]:
    kinds = {len(one.convs) for one in seen}
    if len(kinds) > 1:
        odd = next(one for one in seen if len(one.convs) != len(seen[0].convs))
        raise odd.block.add.refuse("basic and bottleneck blocks in one network; ours have one kind")
    block = "basic" if kinds == {2} else "bottleneck"
    choices: dict[str, Any] = {
        "block": block,
        "preactivation": _is_preactivated(graph),
        "activation": next((op.values["function"] for op in graph.blocks[0].branch if op.kind == "activation"), "relu"),
        "stride_by": "max_pool" if any(op.kind == "max_pool" for one in seen for op in one.striding) else "conv",
        "attention": next((op.kind for op in seen[0].block.branch if op.kind in ("se", "eca")), "none"),
        "drop_path_rate": max(op.values["rate"] for op in drops) if (drops := _drops(graph)) else 0.0,
    }
    if block == "bottleneck":
        middle = seen[0].convs[1]
        cardinality, mid = middle.values["groups"], tensors.of(middle.layer)["kernel"].shape[3]
        base_width = mid * 64 * EXPANSION[block] / (seen[0].out_channels * cardinality)
        if not base_width.is_integer():
            raise middle.refuse(f"{mid} channels in a block of {seen[0].out_channels} fit no base width")
        first = any(_strides_early(one) for one in seen)
        choices |= {"cardinality": cardinality, "base_width": int(base_width), "stride_in_1x1": first}
    return choices | _shortcut(seen, choices["preactivation"])


def _strides_early(one: _Seen) -> bool:
    return any(op.values["stride"] > 1 for op in one.striding[: one.striding.index(one.convs[1])])


def _drops(graph: Graph) -> list[Operation]:
    return [op for block in graph.blocks for op in block.branch if op.kind == "drop"]


def _is_preactivated(graph: Graph) -> bool:
    """A norm after a sum, or a branch that does not begin with its convolution."""
    return any(
        block.branch[0].kind in ("norm", "activation") or any(op.kind == "norm" for op in block.after)
        for block in graph.blocks
    )


def _shortcut(seen: list[_Seen], preactivation: bool) -> dict[str, Any]:
    projections = [one.block.shortcut for one in seen if one.projects]
    kinds = {op.kind for path in projections for op in path}
    if not projections:
        sides = [op.values["sides"] for one in seen for op in one.block.shortcut if op.kind == "pad"]
        changed = any(one.block.shortcut for one in seen)
        return {
            "shortcut": "zero_pad" if changed else "projection",
            "shortcut_norm": not preactivation,
            "zero_pad": "end" if sides and all(left == 0 for _, _, left, _ in sides) else "sides",
        }
    return {"shortcut": "pooled" if "average_pool" in kinds else "projection", "shortcut_norm": "norm" in kinds}


def _stages(seen: list[_Seen], stride_in_3x3: bool) -> dict[str, Any]:
    """A stage begins where width, stride or dilation changes; where the last block strides, after it."""
    late = any(_strides_last(one) for one in seen) and any(one.projects for one in seen)
    stages = [[seen[0]]]
    for before, one in zip(seen, seen[1:]):
        strides = _strides_last(before) if late else one.stride > 1
        if strides or one.out_channels != before.out_channels:
            stages.append([])
        stages[-1].append(one)
    expansion = EXPANSION["basic" if len(seen[0].convs) == 2 else "bottleneck"]
    steps, dilation = [], 1
    for stage, following in zip(stages, [*stages[1:], None]):
        reached = stage[-1].dilation
        if following and stride_in_3x3 and len(stage) == 1 and following[0].stride == 1:
            # A lone bottleneck's 3x3 shows the dilation that it reads; what it writes shows in the next.
            reached = max(reached, following[0].convs[1].values["dilation"])
        steps.append(max(one.stride for one in stage) * max(1, reached // dilation))
        dilation = max(dilation, reached)
        if stage[0].out_channels % expansion:
            raise stage[0].convs[-1].refuse(f"{stage[0].out_channels} channels are no multiple of the expansion, 4")
    return {
        "depths": tuple(map(len, stages)),
        "widths": tuple(stage[0].out_channels // expansion for stage in stages),
        "strides": tuple(steps),
        "stride_in_last_block": late,
    }


def _strides_last(one: _Seen) -> bool:
    """Whether a block subsamples with nothing to learn and no channels to add: the shortcut is a pool alone."""
    return one.stride > 1 and not one.projects and all(op.kind != "pad" for op in one.block.shortcut)


def _norms(operations: list[Operation]) -> dict[str, Any]:
    norms = [op for op in operations if op.kind == "norm"]
    if not norms:
        return {"norm": "none"}
    first = norms[0].values
    convs_train = any(op.layer.config.get("trainable", True) for op in operations if op.kind == "conv")
    frozen = first["type"] == "batch" and convs_train and not any(op.values.get("trained") for op in norms)
    choices = {"norm": "frozen" if frozen else first["type"], "norm_eps": first["eps"]}
    return choices | ({"norm_momentum": first["momentum"]} if 0 < first.get("momentum", 0) <= 1 else {})


def _padding(
    stem: list[Operation], stem_convs: list[Operation], seen: list[_Seen], choices: dict[str, Any]
) -> dict[str, Any]:
    """From the convolutions where it matters: strided, wider than 1x1."""
    in_stem = _paddings(stem_convs)
    in_stages = _paddings([conv for one in seen for conv in one.convs])
    pools = [op for op in stem if op.kind == "max_pool"]
    same_pool = bool(pools) and pools[0].values["padding"] == "same" and pools[0].values["stride"] == 2
    if in_stem == {"symmetric"} and in_stages == {"same"}:
        padding = "same_in_stages"
    else:
        padding = "same" if "same" in in_stem | in_stages or (same_pool and not in_stem) else "symmetric"
    return {"padding": padding, "pool_padding": _pool_padding(stem, pools, padding, choices)}


def _paddings(convs: list[Operation]) -> set[str]:
    return {
        "same" if conv.values["padding"] == "same" else "symmetric"
        for conv in convs
        if conv.values["stride"] > 1 and conv.values["kernel"] > 1
    }


def _pool_padding(stem: list[Operation], pools: list[Operation], padding: str, choices: dict[str, Any]) -> str:
    if not pools or pools[0].values["padding"] == "same":
        return "lowest"
    at = stem.index(pools[0])
    if not at or stem[at - 1].kind != "pad":
        return "none"
    # Zeros beside values that are never below zero change no maximum.
    harmless = at > 1 and stem[at - 2].values.get("function") == "relu" and padding != "same"
    return "lowest" if harmless and not choices["preactivation"] else "zeros"


def _named(choices: dict[str, Any]) -> NetworkSpec:
    """With the name of the network that it is, or of the one whose blocks it has."""
    spec = NetworkSpec(name="resnet", **choices)
    depth = sum(spec.depths) * {"basic": 2, "bottleneck": 3}[spec.block] + 2
    cifar = [f"{prefix}resnet{depth}_cifar" for prefix in ("", "preact_")]
    candidates = [variant(name, spec.num_classes, spec.in_channels) for name in variants() if "plain" not in name]
    for name in cifar:
        try:
            candidates.append(variant(name, spec.num_classes, spec.in_channels, block=spec.block))
        except ResnetkitError:
            continue
    ranked = max(candidates, key=lambda row: _likeness(row, spec))
    name = ranked.name if all(getattr(ranked, field) == getattr(spec, field) for field in SHAPE) else f"resnet{depth}"
    return replace(spec, name=name)


def _likeness(row: NetworkSpec, spec: NetworkSpec) -> tuple[bool, int]:
    same_shape = all(getattr(row, field) == getattr(spec, field) for field in SHAPE)
    return same_shape, sum(getattr(row, f.name) == getattr(spec, f.name) for f in fields(NetworkSpec))
