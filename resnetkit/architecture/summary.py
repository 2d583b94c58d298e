"""What a network costs, part by part, measured on the modules themselves without computing anything."""

from dataclasses import asdict, dataclass
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import nn

from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.spec import STEM_STRIDE, NetworkSpec
from resnetkit.architecture.stages import Conv, Row, branch_convs, plan, stem_convs
from resnetkit.errors import ResnetkitError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """The stem, one block or the head: `output` is (C, H, W) or (classes,), costs are of one image."""

    name: str
    layers: str
    shortcut: str
    output: Shape
    parameters: int
    macs: int
    activation_bytes: int
    row: Row | None = None


def measure(net: ResNet) -> list[Cost]:
    """The parts of a network at its `image_size`.

    MACs are those of convolutions and linear layers. Activation bytes are what these layers write in float32
    (the count of Radosavovic et al. 2020, section 3, in bytes). Raises ResnetkitError for images that are too small.
    """
    with torch.device("meta"):
        twin = ResNet(net.spec).eval()
    # No image, and weights that nobody writes or reads: layers of tensors on "meta" would load PyTorch's compiler.
    with torch.device("cpu"):
        empty = {name: torch.empty(t.shape, dtype=t.dtype) for name, t in twin.state_dict().items()}
        x = torch.empty(0, net.spec.in_channels, *net.image_size)
    twin.load_state_dict(empty, assign=True)
    cost = {"macs": 0, "activations": 0}

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        cost["macs"] += prod(output.shape[2:]) * module.get_parameter("weight").numel()
        cost["activations"] += prod(output.shape[1:])

    for module in twin.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)

    parts = []
    for name, module, layers, row in _modules(twin):
        cost.update(macs=0, activations=0)
        try:
            with torch.no_grad():
                x = module(x)
        except RuntimeError as error:
            height, width = net.image_size
            raise ResnetkitError(
                f"{net.spec.name} takes no image of {height}x{width}: {str(error).splitlines()[0]}"
            ) from error
        parameters = sum(p.numel() for p in module.parameters())
        shortcut = row.shortcut if row else ""
        shape = tuple(x.shape[1:])
        parts.append(Cost(name, layers, shortcut, shape, parameters, cost["macs"], 4 * cost["activations"], row))
    return parts


def _modules(net: ResNet) -> list[tuple[str, nn.Module, str, Row | None]]:
    spec = net.spec
    pool = "" if isinstance(net.stem.pool, nn.Identity) else "; 3x3 max pool, /2"
    modules: list[tuple[str, nn.Module, str, Row | None]] = [("stem", net.stem, _layers(stem_convs(spec)) + pool, None)]
    for row in net.rows:
        name = f"stages.{row.stage}.{row.block}"
        modules.append((name, net.get_submodule(name), _layers(branch_convs(spec, row)), row))
    if spec.preactivation:
        modules.append(("norm", net.norm, f"{spec.norm} norm, {spec.activation}", None))
    head = "global average pool" + (f", {spec.num_classes} classes" if spec.num_classes else "")
    return [*modules, ("head", net.head, head, None)]


def _layers(convs: list[Conv]) -> str:
    return "; ".join(
        f"{c.kernel}x{c.kernel}, {c.out_channels}"
        + (f", /{c.stride}" if c.stride > 1 else "")
        + (f", {c.groups} groups" if c.groups > 1 else "")
        + (f", dilation {c.dilation}" if c.dilation > 1 and c.kernel > 1 else "")
        + (f"; {c.pool}x{c.pool} max pool, /{c.pool}" if c.pool > 1 else "")
        for c in convs
    )


def complexity(net: ResNet) -> dict[str, Any]:
    """Sizes and costs of a network for one image: the object that `resnet inspect --json` prints."""
    parts = measure(net)
    return {
        "name": net.spec.name,
        "image_size": list(net.image_size),
        "parameters": sum(part.parameters for part in parts),
        "macs": sum(part.macs for part in parts),
        "activation_bytes": sum(part.activation_bytes for part in parts),
        "receptive_field": receptive_field(net.spec),
        "output_stride": net.feature_info[-1].stride,
        "reversible": net.spec.reversible,
        "rows": [_as_row(part) for part in parts],
    }


def image_gradient_macs(net: ResNet) -> int:
    """MACs of the first convolution's gradient of its input, for one image: what a training step, which needs none of
    its images, takes less than three forward passes."""
    first = stem_convs(net.spec)[0]
    positions = prod(-(-side // first.stride) for side in net.image_size)
    return first.in_channels * first.out_channels * first.kernel**2 * positions


def _as_row(part: Cost) -> dict[str, Any]:
    fields = asdict(part)
    return fields | (fields.pop("row") or {})


def receptive_field(spec: NetworkSpec) -> int:
    """Side in pixels of what one position of the last map sees (Araujo et al. 2019, equation 2)."""
    convs = stem_convs(spec)
    if STEM_STRIDE[spec.stem] == 4:
        convs.append(Conv(spec.stem_width, spec.stem_width, 3, 2))  # the max pool
    for row in plan(spec):
        convs += branch_convs(spec, row)
    field, jump = 1, 1
    for conv in convs:
        field += (conv.kernel - 1) * conv.dilation * jump
        jump *= conv.stride
        field += (conv.pool - 1) * jump
        jump *= conv.pool
    return field


def repeated(parts: list[Cost]) -> list[list[Cost]]:
    """Blocks of a stage that are alike together, in order."""
    runs = groupby(parts, key=lambda p: (p.row and p.row.stage, p.layers, p.shortcut, p.output, p.parameters))
    return [list(same) for _, same in runs]


def summarise(net: ResNet) -> str:
    """The paper's table as text, blocks that repeat folded into one line."""
    parts = measure(net)
    lines = [("part", "output", "layers", "shortcut", "parameters", "MACs")]
    for same in repeated(parts):
        first = same[0]
        times = f" x{len(same)}" if len(same) > 1 else ""
        output = "x".join(map(str, first.output))
        parameters, macs = sum(p.parameters for p in same), sum(p.macs for p in same)
        lines.append((first.name + times, output, first.layers, first.shortcut, f"{parameters:,}", _short(macs)))
    widths = [max(map(len, column)) for column in zip(*lines)]
    table = [
        "  ".join(cell.rjust(w) if i > 3 else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        for line in lines
    ]
    table.insert(1, "-" * len(table[0]))
    parameters = sum(p.parameters for p in parts)
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    statistics = sum(b.numel() for b in net.buffers() if b.is_floating_point())
    kept = "numbers of frozen norms" if net.spec.norm == "frozen" else "running statistics"
    height, width = net.image_size
    table += [
        table[1],
        f"{net.spec.name}: {parameters:,} parameters ({trained:,} trained) and {statistics:,} {kept}",
        f"for one {height}x{width} image: {_short(sum(p.macs for p in parts))} MACs, "
        f"{sum(p.activation_bytes for p in parts) / 2**20:.1f} MiB of activations (float32)",
        f"receptive field {receptive_field(net.spec)}, output stride {net.feature_info[-1].stride}",
    ]
    if net.spec.reversible:
        table.append("reversible: training computes the inputs of blocks that keep their shape back from their outputs")
    return "\n".join(table)


def _short(count: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3f} {unit}"
    return str(count)
