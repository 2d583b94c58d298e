"""From the tensors of a foreign checkpoint to a network of ours: whose names they are, what it is, what is assumed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.variants import spec as named_spec
from resnetkit.errors import ResnetkitError
from resnetkit.weights import from_huggingface, from_timm, from_torchvision
from resnetkit.weights.identify import by_shapes, identify
from resnetkit.weights.recognised import Recognised
from resnetkit.weights.rename import Table, Template, rename
from resnetkit.weights.untrusted import bare, shown

OURS = Table("resnetkit", {name: name for name in (
    "stem.convs.conv{i}", "stem.convs.norm{i}",
    *(f"stages.{{stage}}.{{block}}.{part}" for part in (
        "preact.0", "branch.conv{i}", "branch.norm{i}", "shortcut.conv", "shortcut.norm",
        "branch.attention.reduce", "branch.attention.expand", "branch.attention.conv", "branch.scale",
    )),
    "norm.0", "head.classifier",
)}, {})  # fmt: skip
TABLES = (OURS, *from_torchvision.TABLES, *from_timm.TABLES, from_huggingface.TABLE)
TAKEN_FIRST = ("ema", "teacher", "encoder_q")  # of several networks in one file: the averaged, the trained one
SHOWN = 5
COUNTERS = ("num_batches_tracked", "total_ops", "total_params")  # the last two of profilers such as thop


@dataclass(frozen=True)
class Reading:
    """One table's view of a checkpoint below one prefix: their name -> ours."""

    table: Table
    prefix: str
    names: dict[str, str]

    def in_our_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {ours: tensors[theirs] for theirs, ours in self.names.items()}
        if self.table.pointwise and "head.classifier.weight" in found:
            found["head.classifier.weight"] = found["head.classifier.weight"].flatten(1)
        return found


def recognise(tensors: dict[str, Tensor], known: dict[str, Any] | None = None) -> Recognised:
    """The network of a foreign state dict.

    `known` are choices that a config beside it or the user tells, in the words of NetworkSpec. Raises ResnetkitError
    that says what the names are like, and what networks have tensors of these shapes, where no table knows them.
    """
    reading = read_names(tensors)
    if reading is None:
        alike = by_shapes(tuple(value.shape) for value in tensors.values())
        hint = f"its shapes are those of {' or '.join(alike)}, but which is which cannot be told" if alike else (
            "no network of the family has these shapes"
        )  # fmt: skip
        raise ResnetkitError(f"no library we know names tensors like {shown(next(iter(tensors), 'nothing'))}; {hint}")
    _require_expressible(reading, tensors)
    found = reading.in_our_names(tensors)
    told = {**reading.table.only, **(known or {})}
    usual = {name: value for name, value in reading.table.usual.items() if name not in told}
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    spec, names = identify(shapes, usual | told)
    _require_no_twin(spec, reading.table, known)
    left = [name for name in tensors if name not in reading.names]
    _require_no_part_of_a_block(reading, left)
    notes = [f"left out: {_some(left)}"] if left else []
    if reading.prefix:
        notes.insert(0, f"names begin with {shown(reading.prefix)}, which is dropped")
    assumed = assumptions(spec, names, told)
    if spec.stem == "3x3" and "stem" not in told and reading.table.library in ("torchvision", "timm"):
        assumed["stem pool"] = "none behind the 3x3 convolution, which has stride 1, as CIFAR's networks begin"
    assumed |= {name: f"{value}, as {reading.table.library} has it" for name, value in usual.items()}
    return Recognised(spec, found, " or ".join(libraries(tensors)), names, assumed, notes)


def read_names(names: Collection[str]) -> Reading | None:
    """The table and prefix that know the most of these names, where one knows a first convolution."""
    readings = [
        Reading(table, prefix, _below(table, prefix, names)) for table in TABLES for prefix in _prefixes(table, names)
    ]
    # A network alone in its file has no rival; a student beside its teacher is as large and comes second, though a copy
    # may lack counters.
    return max(readings, key=lambda found: (_size(found), _rank(found.prefix), len(found.names)), default=None)


def _size(reading: Reading) -> int:
    return sum(not ours.endswith(COUNTERS) for ours in reading.names.values())


def _prefixes(table: Table, names: Collection[str]) -> list[str]:
    stem, block = (f"{table.to_theirs(ours)}.weight" for ours in ("stem.convs.conv1", "stages.0.0.branch.conv1"))
    starts = [name.removesuffix(stem) for name in names if name.endswith(stem)]
    return [start for start in starts if (not start or start.endswith(".")) and start + block in names]


def _below(table: Table, prefix: str, names: Collection[str]) -> dict[str, str]:
    """Names under the prefix, and those beside it that are known too: a classifier on a wrapped backbone."""
    below = rename(table, [name.removeprefix(prefix) for name in names if name.startswith(prefix)])
    found = {prefix + theirs: ours for theirs, ours in below.items()}
    if prefix:
        beside = rename(table, [name for name in names if not name.startswith(prefix)])
        found |= {theirs: ours for theirs, ours in beside.items() if ours.startswith("head.")}
    return found


def _require_expressible(reading: Reading, names: Collection[str]) -> None:
    for theirs, feature in {what: why for table in TABLES for what, why in table.beyond.items()}.items():
        template = Template(theirs)
        for name in names:
            module = name.removeprefix(reading.prefix).rpartition(".")[0]
            if template.read(module) is not None:
                raise ResnetkitError(f"{bare(name)}: {feature}, which no network here has")


def _require_no_twin(spec: NetworkSpec, table: Table, known: Mapping[str, Any] | None) -> None:
    """Networks whose tensors have names and shapes of ours, and compute something else."""
    if spec.shortcut == "pooled" and spec.output_stride:
        raise ResnetkitError(
            f"pooled shortcuts in {table.library} with output_stride {spec.output_stride} pool as TensorFlow pads, "
            "which no network here does"
        )
    if not known and table.library == "timm" and spec.preactivation and spec.norm == "group" and spec.stem == "7x7":
        raise ResnetkitError(
            "a pre-activation network of timm with group norm and a 7x7 stem is BiT, whose weight standardisation no "
            "network here has; where it has none, put timm's config.json beside it"
        )


def _require_no_part_of_a_block(reading: Reading, left: list[str]) -> None:
    """Whatever stands in a block beside its convolutions and norms changes the function, unless it only counts."""
    conv = next(theirs for theirs, ours in reading.table.modules.items() if ours.endswith("branch.conv{i}"))
    block = Template(conv[: conv.index("{block}") + len("{block}")])
    for name in left:
        words = name.removeprefix(reading.prefix).split(".")
        inside = any(block.read(".".join(words[:end])) is not None for end in range(1, len(words)))
        if inside and words[-1] not in COUNTERS:
            raise ResnetkitError(
                f"{bare(name)}: a part of a block that no network here has, and it changes what comes out"
            )


def _rank(prefix: str) -> int:
    return next((len(TAKEN_FIRST) - i for i, word in enumerate(TAKEN_FIRST) if word in prefix), 0)


def libraries(names: Collection[str]) -> list[str]:
    """All whose tables would read these names alike: torchvision and timm share most. None where no table does."""
    reading = read_names(names)
    if reading is None:
        return []
    same = [t for t in TABLES if reading.prefix in _prefixes(t, names)]
    return list(dict.fromkeys(t.library for t in same if _below(t, reading.prefix, names) == reading.names))


def assumptions(spec: NetworkSpec, names: tuple[str, ...], told: Collection[str]) -> dict[str, str]:
    """What names and shapes do not tell of a network, and nothing else told: the value taken, and why."""
    row = _row(spec, names)
    assumed = {}
    if spec.block == "bottleneck" and "stride_in_1x1" not in told:
        assumed["stride_in_1x1"] = (
            "False: strides stand on the 3x3, as in torchvision and timm; the paper's on the first 1x1"
        )
    if spec.shortcut == "zero_pad":
        assumed["zero-pad placement"] = "half of the new channels on each side (He et al. 2015, option A)"
    if len(names) > 1:
        assumed["shortcut"] = f"{spec.shortcut}: {' and '.join(names)} have the same tensors"
    if "padding" not in told:
        assumed["padding"] = (
            f"{spec.padding}; TensorFlow's `same` differs at strides" if spec.padding == "symmetric" else spec.padding
        )
        if spec.stem != "3x3":
            assumed["pool padding"] = "minus infinity, as PyTorch and TensorFlow pad"
    if "norm_eps" not in told and spec.norm != "none":
        assumed["norm_eps"] = f"{spec.norm_eps:g}, as {row or 'PyTorch'} has it"
    if "strides" not in told:
        assumed["strides"] = ", ".join(map(str, spec.strides))
    if "activation" not in told:
        assumed["activation"] = spec.activation
    return assumed


def _row(spec: NetworkSpec, names: tuple[str, ...]) -> str:
    try:
        return spec.name if named_spec(spec.name) and spec.name in names else ""
    except ResnetkitError:
        return ""


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(bare, names[:SHOWN])) + more
