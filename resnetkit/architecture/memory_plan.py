"""What a training step needs of memory, found by taking it on tensors without values: nothing is computed."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from resnetkit.architecture.live_memory import LiveMemory
from resnetkit.architecture.resnet import MEMORY_MODES, ResNet
from resnetkit.architecture.spec import NetworkSpec
from resnetkit.architecture.variants import spec
from resnetkit.device import autocast, find_precision
from resnetkit.errors import ResnetkitError, require_number


def plan_memory(
    network: str | ResNet,
    *,
    batch_size: int,
    image_size: int | tuple[int, int] | None = None,
    precision: str = "float32",
) -> dict[str, Any]:
    """The memory of a training step on `batch_size` images of (height, width), in bytes.

    `weights` (with running statistics) and `gradients` stand between two steps, as does what the optimizer keeps.
    `live` is, by mode, the most that tensors hold beyond that: as it is built, in the memory mode `checkpoint`, and as
    a reversible network, where that is possible. What a kernel needs for itself is not counted, nor what the C
    library keeps of what was freed. Stochastic depth leaves nothing out here. Raises ResnetkitError.
    """
    require_number("batch_size", batch_size, 1)
    net = network if isinstance(network, ResNet) else None
    network_spec = net.spec if net is not None else spec(str(network))
    with torch.device("meta"):
        like = net or ResNet(network_spec)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size or like.image_size
    if len(size) != 2 or min(size) < 1:
        raise ResnetkitError(f"image_size={image_size!r} is impossible; it must be 1 or more, or (height, width)")
    trained = {name for name, p in like.named_parameters() if p.requires_grad}
    shape = (batch_size, network_spec.in_channels, *size)
    need = partial(live_bytes, trained=trained, shape=shape, precision=precision)
    live = {mode: need(network_spec, mode) for mode in MEMORY_MODES}
    if not network_spec.reversible:
        try:
            live["reversible"] = need(replace(network_spec, reversible=True), "plain")
        except ResnetkitError:  # it cannot be one
            pass
    return {
        "name": network_spec.name,
        "reversible": network_spec.reversible,
        "batch_size": batch_size,
        "image_size": list(size),
        "precision": precision,
        "weights": sum(tensor.nbytes for tensor in like.state_dict().values()),
        "gradients": sum(p.nbytes for p in like.parameters() if p.requires_grad),
        "live": live,
    }


def live_bytes(network: NetworkSpec, mode: str, *, trained: set[str], shape: tuple[int, ...], precision: str) -> int:
    """The most that is live in a step above what it starts with: weights, gradients and the images."""
    arithmetic = find_precision(precision)
    with FakeTensorMode():
        net = ResNet(replace(network, drop_path_rate=0.0)).set_memory(mode)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in trained)
            parameter.grad = torch.zeros_like(parameter) if name in trained else None
        x, labels = torch.empty(shape), torch.zeros(shape[0], dtype=torch.long)
        with LiveMemory() as memory:
            try:
                with autocast(x.device, arithmetic):
                    logits = net(x)
            except (ValueError, RuntimeError) as error:
                height, width = shape[2:]
                raise ResnetkitError(
                    f"{network.name} cannot train on {shape[0]} images of {height}x{width}: "
                    f"{str(error).splitlines()[0]}; "
                    "raise batch_size or img_size"
                ) from error
            F.cross_entropy(logits.float(), labels).backward()
    return memory.peak
