"""The learning-rate range test: let the rate grow until the loss explodes, and stay well below (Smith 2017)."""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from resnetkit.data.loaders import Batch, TrainingBatches
from resnetkit.errors import Diverged
from resnetkit.training.epochs import class_weights
from resnetkit.training.freezing import frozen_parts, set_training
from resnetkit.training.loop import train_epoch
from resnetkit.training.prepare import Prepared
from resnetkit.training.state import Tally, TrainingState

LOWEST, HIGHEST = 1e-5, 10.0
STEPS = 100
SMOOTHING = 0.9  # of the running mean of the loss
EXPLODED = 4.0  # times the lowest loss
BELOW = 10.0  # the rate of the lowest loss is at the edge; a tenth of it is far enough away


class RangeTest(NamedTuple):
    """Rates tried, the smoothed loss after each, and the rate to train with."""

    rates: list[float]
    losses: list[float]
    chosen: float


class _Ended(Exception):
    """Enough has been seen."""


def range_test(state: TrainingState, batches: TrainingBatches, prepared: Prepared) -> RangeTest:
    """Train `state`, which is spent by it, on rates that grow from LOWEST to HIGHEST in at most STEPS steps.

    What Muon leaves to AdamW keeps the rate that it has whatever Muon's.
    """
    growth = (HIGHEST / LOWEST) ** (1 / (STEPS - 1))
    rates = [LOWEST * growth**step for step in range(STEPS)]
    losses: list[float] = []
    mean = 0.0
    groups = state.optimizer.param_groups
    of_adamw = [(group, group["scale"] * prepared.recipe.lr) for group in groups if group.get("rule") == "adamw"]

    def hold_adamw(step: int) -> None:
        for group, peak in of_adamw:
            group["scale"] = peak / rates[step]

    def after_step(state: TrainingState, waited: float) -> None:
        nonlocal mean
        mean = SMOOTHING * mean + (1 - SMOOTHING) * float(state.tally.loss) / state.tally.images
        state.tally = Tally()
        losses.append(mean / (1 - SMOOTHING ** (len(losses) + 1)))
        if len(losses) == STEPS or losses[-1] > EXPLODED * min(losses):
            raise _Ended
        hold_adamw(len(losses))

    hold_adamw(0)
    set_training(state.net, frozen_parts(state.net, prepared.recipe, epoch=0))
    try:
        train_epoch(
            state,
            _endless(batches, prepared.training_size),
            prepared.recipe,
            rate=rates.__getitem__,
            preprocessing=prepared.preprocessing,
            class_weights=class_weights(prepared, next(state.net.parameters()).device),
            after_step=after_step,
        )
    except (_Ended, Diverged):
        pass
    best = losses.index(min(losses)) if losses else 0
    return RangeTest(rates[: len(losses)], losses, rates[best] / BELOW)


def _endless(batches: TrainingBatches, size: tuple[int, int]) -> Iterator[Batch]:
    for epoch in count():
        yield from batches.epoch(epoch, size)
