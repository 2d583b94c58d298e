"""How much memory there is, and how much of it a training step takes."""

from itertools import chain
from math import inf, prod
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from resnetkit.architecture.live_memory import LiveMemory
from resnetkit.architecture.memory_plan import live_bytes
from resnetkit.architecture.resnet import MEMORY_MODES, ResNet
from resnetkit.cgroups import own_cgroups
from resnetkit.errors import ResnetkitError
from resnetkit.sizes import written_bytes
from resnetkit.training.allocator import give_back_freed_memory
from resnetkit.training.freezing import frozen_parts, parts, set_training
from resnetkit.training.loop import train_epoch
from resnetkit.training.prepare import Prepared
from resnetkit.training.state import TrainingState

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")
CPU_SHARE = 0.5  # of the free memory; what one operation needs for itself and other programs have the rest
GPU_SHARE = 0.9  # of the GPU's; pieces that are free but too small take some


def free_memory() -> int:
    """Bytes of main memory that can be had without swapping, in a container or a job those it may use. Raises
    ResnetkitError where the system does not say."""
    give_back_freed_memory()
    try:
        lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError) as error:
        raise ResnetkitError(
            "this system does not say how much memory is free; give batch_size a number, or memory=auto a memory_budget"
        ) from error
    return int(min(free, *map(_left, own_cgroups())))


def _left(cgroup: Path) -> float:
    """Bytes that a control group may use and does not, infinitely many where it has no limit."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        pages = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except OSError:
        return inf
    # Cached files count as used and are dropped when memory is short.
    cached = int(pages.get("inactive_file", 0)) + int(pages.get("active_file", 0))
    return inf if limit == "max" else int(limit) - used + cached


def trial_step(state: TrainingState, prepared: Prepared, images: int) -> None:
    """Take a step on so many blank images that leaves the weights as they are: with the images at their largest and as
    much of the network learning as ever does."""
    recipe, preprocessing, net = prepared.recipe, prepared.preprocessing, state.net
    set_training(net, frozen_parts(net, recipe, recipe.epochs - 1))
    pixels = torch.zeros(images, len(preprocessing.mean), *prepared.training_size, dtype=torch.uint8)
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
    """Bytes that live in a step on so many images when most do: what the step makes, the weights, the optimizer's
    memory and the average."""
    optimizer, found = state.optimizer, [0]
    begun = _kept_bytes(optimizer)
    hook = optimizer.register_step_pre_hook(lambda *_: found.append(memory.peak))
    with LiveMemory() as memory:
        trial_step(state, prepared, images)
    hook.remove()
    optimizer.zero_grad(set_to_none=True)
    kept = _kept_bytes(optimizer)
    # What an optimizer's first step makes and keeps stands beside the gradients of every later one.
    peak = max(*found, memory.peak - (kept - begun))
    standing = chain(state.net.state_dict().values(), state.average.values.values())
    return peak + kept + sum(tensor.nbytes for tensor in standing)


def _kept_bytes(optimizer: Optimizer) -> int:
    """The memory that an optimizer has made so far."""
    kept = [v for values in optimizer.state.values() for v in values.values() if isinstance(v, Tensor)]
    return sum(tensor.nbytes for tensor in kept)


def resident_bytes() -> int:
    """Main memory that this process occupies, 0 where the system does not say."""
    try:
        lines = dict(line.split(":") for line in STATUS.read_text().splitlines())
    except OSError:
        return 0
    return int(lines["VmRSS"].split()[0]) * 1024


def planned_bytes(prepared: Prepared, net: ResNet, images: int, mode: str | None = None) -> int:
    """About what `step_bytes` would find in a memory mode, by default the network's, thought through instead of
    measured: the weights, gradients and the optimizer's memory for those that learn when most do, the average, the
    images, and what the step makes before the optimizer's turn."""
    recipe = prepared.recipe
    shape = (images, net.spec.in_channels, *prepared.training_size)
    learning = parts(net)[frozen_parts(net, recipe, recipe.epochs - 1) :]
    trained = {f"{part}.{name}": p.nbytes for part, module in learning for name, p in module.named_parameters()}
    weights = sum(tensor.nbytes for tensor in net.state_dict().values())
    moments = 2 if recipe.optimizer in ("adamw", "lamb", "muon") else int(recipe.momentum > 0)
    standing = weights * (1 + (recipe.ema_decay > 0)) + sum(trained.values()) * (1 + moments)
    made = live_bytes(net.spec, mode or net.memory, trained=set(trained), shape=shape, precision=recipe.precision)
    return standing + 4 * prod(shape) * recipe.accumulate + made


def choose_memory(prepared: Prepared, net: ResNet, memory: str, budget: int | None) -> tuple[str, list[str]]:
    """The memory mode of a run, and a line on it where it is another than plain as asked.

    `auto` is plain where a step fits `budget`, by default a share of the free memory, as planned; else checkpoint.
    """
    if memory != "auto":
        return memory, [] if memory == "plain" else [f"memory {memory}"]
    recipe, device = prepared.recipe, next(net.parameters()).device
    limit = f"the budget of {written_bytes(budget)}" if budget is not None else "what is free"
    if budget is None:
        budget = int(GPU_SHARE * free_gpu_memory(device) if device.type == "cuda" else CPU_SHARE * free_memory())
        limit = f"{written_bytes(budget)}, a share of {limit}"
    images = -(-prepared.largest_batch // recipe.accumulate)
    needs = {}
    for mode in MEMORY_MODES:
        needs[mode] = planned_bytes(prepared, net, images, mode)
        if needs[mode] <= budget:
            break
    told = ", ".join(f"{mode} needs {written_bytes(need)}" for mode, need in needs.items())
    over = "" if needs[mode] <= budget else ", which is over it too: lower batch_size or img_size"
    return mode, [f"memory {mode}: a step in {told}, of {limit}{over}"]


def free_gpu_memory(device: torch.device) -> int:
    """Bytes of its memory that are not others'."""
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


def fits_on_gpu(state: TrainingState, prepared: Prepared, images: int, budget: int | None) -> bool:
    """Whether a step on so many images stays within `budget` bytes and GPU_SHARE of the GPU memory that is not
    others'."""
    device = next(state.net.parameters()).device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    most = min(GPU_SHARE * free_gpu_memory(device), inf if budget is None else budget)
    try:
        trial_step(state, prepared, images)
    except torch.OutOfMemoryError:
        return False
    finally:
        state.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    return torch.cuda.max_memory_reserved(device) <= most
