"""How much memory there is, and how much of it a training step takes."""

from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from resnetkit.errors import ResnetkitError
from resnetkit.training.freezing import frozen_parts, set_training
from resnetkit.training.loop import train_epoch
from resnetkit.training.prepare import Prepared
from resnetkit.training.state import TrainingState

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def free_memory() -> int:
    """Bytes of main memory that can be had without swapping, in a container those it may use. Raises ResnetkitError
    where the system does not say."""
    try:
        lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError) as error:
        raise ResnetkitError(
            "batch_size=auto: this system does not say how much memory is free; give a number"
        ) from error
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        pages = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    # Cached files count as used and are dropped when memory is short.
    cached = int(pages.get("inactive_file", 0)) + int(pages.get("active_file", 0))
    return free if limit == "max" else min(free, int(limit) - used + cached)


def trial_step(state: TrainingState, prepared: Prepared, images: int) -> None:
    """Take a step on so many blank images that leaves the weights as they are: with the images at their largest and as
    much of the network learning as ever does."""
    recipe, preprocessing, net = prepared.recipe, prepared.preprocessing, state.net
    set_training(net, frozen_parts(net, recipe, recipe.epochs - 1))
    pixels = torch.zeros(images, len(preprocessing.mean), *preprocessing.size, dtype=torch.uint8)
    labels = torch.zeros(images, dtype=torch.long)
    train_epoch(
        state,
        iter([(pixels, labels)]),
        recipe,
        rate=lambda step: 0.0,
        preprocessing=preprocessing,
        after_step=lambda state, waited: None,
    )


def step_bytes(state: TrainingState, prepared: Prepared, images: int) -> int:
    """Bytes that live when a step on so many images is through its forward pass, which is when most do: what the
    backward pass needs, the weights, their gradients, the optimizer's memory and the average."""
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would keep its graph alive

    with saved_tensors_hooks(note, lambda tensor: tensor):
        trial_step(state, prepared, images)
    weights = list(state.net.state_dict().values())
    for weight in weights:
        saved.pop(weight.untyped_storage().data_ptr(), None)  # counted below
    gradients = [p.grad for p in state.net.parameters() if p.grad is not None]
    memory = [v for values in state.optimizer.state.values() for v in values.values() if isinstance(v, Tensor)]
    standing = chain(weights, gradients, memory, state.average.values.values())
    return sum(saved.values()) + sum(tensor.nbytes for tensor in standing)


def fits_on_gpu(state: TrainingState, prepared: Prepared, images: int, share: float) -> bool:
    """Whether a step on so many images stays within a share of the GPU memory that is not others'."""
    device = next(state.net.parameters()).device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    ours = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        trial_step(state, prepared, images)
    except torch.OutOfMemoryError:
        return False
    finally:
        state.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    return torch.cuda.max_memory_reserved(device) <= share * ours
