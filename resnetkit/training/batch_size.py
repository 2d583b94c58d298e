"""The largest batch that fits: planned on a processor, tried and remembered on a GPU; and the learning rate with it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from resnetkit.errors import ResnetkitError, ResourceExhausted
from resnetkit.sizes import written_bytes
from resnetkit.training.memory import (
    CPU_SHARE,
    GPU_SHARE,
    fits_on_gpu,
    free_gpu_memory,
    free_memory,
    planned_bytes,
    step_bytes,
)
from resnetkit.training.prepare import Prepared
from resnetkit.training.recipe import Recipe
from resnetkit.training.remembered import recall, remember
from resnetkit.training.state import TrainingState

STEPS = 20  # an epoch has as many at least
WORTHWHILE = 8  # images, where an epoch is shorter still: batch norm suffers from fewer (Wu & He 2018, figure 1)
# Times the recipe's batch. With the rate in proportion resnet8_cifar learned CIFAR-10 at 8 times its 64, to 78 % of the
# images held out after 5 epochs, and nothing at 32 times.
FARTHEST = 8
SMALLEST = 2  # images that batch norm takes
SAME_MEMORY = 0.05  # share by which a GPU's free memory may differ from what it was when a batch was found to fit


@dataclass(frozen=True)
class BatchSize:
    """Images a step, why not more, and whether an earlier run had measured it."""

    images: int
    why: str
    remembered: bool

    def __str__(self) -> str:
        return f"{self.images:,} images a step, {self.why}" + (
            ", remembered from an earlier run" if self.remembered else ""
        )


def find_batch_size(prepared: Prepared, state: TrainingState, budget: int | None = None) -> BatchSize:
    """The largest power of two that fits `budget` bytes, by default a share of the memory, leaves an epoch STEPS steps
    and is not far from the recipe's.

    `state` is spent by what is tried. Raises ResnetkitError where a search makes no sense, ResourceExhausted where
    not even SMALLEST images fit.
    """
    recipe = prepared.recipe
    if recipe.accumulate > 1:
        raise ResnetkitError(
            f"batch_size=auto finds a batch that fits whole, and accumulate={recipe.accumulate} is for one that does "
            "not; leave one of them out"
        )
    images = len(prepared.parts["train"])
    by_steps = _power_of_two(min(images, max(WORTHWHILE, images // STEPS)))
    ceiling = min(by_steps, _power_of_two(FARTHEST * recipe.batch_size))
    device = next(state.net.parameters()).device
    if device.type == "cpu":
        (size, limit), remembered = _on_cpu(prepared, state, ceiling, budget), False
    else:
        size, limit, remembered = _on_gpu(prepared, state, device, ceiling, budget)
    if size < SMALLEST:
        where, cure = f"{device} has too little memory", "lower img_size"
        if budget is not None:
            where, cure = f"{written_bytes(budget)} are too few", "raise memory_budget, or give batch_size a number"
        raise ResourceExhausted(f"{where} for {SMALLEST} images a step; {cure}")
    if size == by_steps:
        limit = f"the most that leaves an epoch {-(-images // size)} steps"
    elif size == ceiling:
        limit = f"no more than {FARTHEST} times the recipe's {recipe.batch_size}"
    return BatchSize(size, limit, remembered)


def scaled_rate(recipe: Recipe, images: int) -> float:
    """The recipe's learning rate for another batch size: in proportion with SGD (Goyal et al. 2017, section 2.1), by
    the square root where a step's length does not depend on the gradient's (You et al. 2020, section 4)."""
    share = images / recipe.batch_size
    return float(f"{recipe.lr * (share if recipe.optimizer == 'sgd' else share**0.5):.6g}")


def _on_cpu(prepared: Prepared, state: TrainingState, ceiling: int, budget: float | None = None) -> tuple[int, str]:
    if budget is None:
        free = free_memory()
        budget, limit = CPU_SHARE * free, f"the most in {CPU_SHARE:.0%} of the {free / 1e9:.1f} GB free"
    else:
        limit = f"the most in {written_bytes(budget)}"
    if ceiling < SMALLEST or step_bytes(state, prepared, SMALLEST) > budget:  # with what the optimizer makes
        return 0, limit
    few, many = (planned_bytes(prepared, state.net, images) for images in (SMALLEST, ceiling))
    if many <= budget:
        return ceiling, limit
    # Between the two a step takes no more than the line through them says.
    most = SMALLEST + (ceiling - SMALLEST) * (budget - few) / (many - few) if many > few else SMALLEST
    return max(SMALLEST, _power_of_two(int(most))), limit


def _on_gpu(
    prepared: Prepared, state: TrainingState, device: torch.device, ceiling: int, budget: int | None = None
) -> tuple[int, str, bool]:
    properties = torch.cuda.get_device_properties(device)
    subject = _subject(prepared, state) | {"device": properties.name, "memory": properties.total_memory}
    subject |= {} if budget is None else {"budget": budget}
    free = free_gpu_memory(device)
    known = recall(subject)
    if known is not None and abs(known.get("free", 0) - free) > SAME_MEMORY * free:
        known = None
    within = f"{GPU_SHARE:.0%} of the memory of {properties.name}" if budget is None else written_bytes(budget)
    limit = f"the most in {within}"
    # What an earlier run's ceiling cut short says nothing of more.
    if known is not None and (known["fits"] < known["ceiling"] or ceiling <= known["ceiling"]):
        return min(ceiling, known["fits"]), limit, True
    fits = largest(lambda images: fits_on_gpu(state, prepared, images, budget), ceiling)
    if fits:
        remember(subject, {"fits": fits, "ceiling": ceiling, "free": free})
    return fits, limit, False


def largest(fits: Callable[[int], bool], ceiling: int) -> int:
    """The largest power of two from SMALLEST to `ceiling` that `fits`, found by doubling; 0 where none does."""
    found, images = 0, SMALLEST
    while images <= ceiling and fits(images):
        found, images = images, images * 2
    return found


def _power_of_two(limit: int) -> int:
    """The largest power of two up to `limit`, 0 below 1."""
    return 1 << (limit.bit_length() - 1) if limit >= 1 else 0


def _subject(prepared: Prepared, state: TrainingState) -> dict[str, Any]:
    """What the memory of a step depends on."""
    recipe = prepared.recipe
    return {
        "network": asdict(state.net.spec),
        "memory": state.net.memory,
        "image_size": prepared.training_size,
        "precision": recipe.precision,
        "optimizer": recipe.optimizer,
        "averaged": recipe.ema_decay > 0,
        "frozen": [recipe.freeze, recipe.thaw_epochs, recipe.epochs] if recipe.freeze else None,
        "torch": torch.__version__,
    }
