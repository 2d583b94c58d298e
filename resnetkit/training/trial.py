"""One trial of a search: a recipe trained and judged on the images held out. It is handed no others."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from time import perf_counter
from typing import Any, Literal

import torch

from resnetkit.device import find_precision
from resnetkit.errors import Diverged
from resnetkit.evaluation.answers import answer
from resnetkit.training.display import Display
from resnetkit.training.epochs import Epochs, FramedBatches, pixels_by_epoch
from resnetkit.training.loop import AfterStep
from resnetkit.training.prepare import Prepared
from resnetkit.training.run import new_state
from resnetkit.training.state import TrainingState


@dataclass(frozen=True)
class Trial:
    """What was tried and how it went; the figures are those of the held-out images after the last of its `epochs`.

    One that diverged has none: top1 and loss are None.
    """

    number: int
    settings: dict[str, Any]
    outcome: Literal["complete", "pruned", "diverged"]
    epochs: int
    seconds: float
    top1: float | None
    loss: float | None

    def to_dict(self) -> dict[str, Any]:
        return {"trial": self.number} | {k: v for k, v in asdict(self).items() if k != "number"}


def score(figures: dict[str, Any]) -> float:
    """What a trial is ranked by: top1, and where as many images are right the lower loss."""
    return figures["top1"] + 1 / (1 + figures["loss"]) / figures["n"]


def run_trial(
    prepared: Prepared,
    held: FramedBatches,
    device: torch.device,
    workers: int,
    *,
    number: int,
    settings: dict[str, Any],
    go_on: Callable[[int, float], bool],
    after_step: AfterStep,
) -> Trial:
    """Train `prepared` with `settings` and judge it on `held` after every epoch.

    `go_on(epoch, score)`, epochs counted from 1, says whether the trial may; `after_step` is as in `train_epoch`.
    """
    began = perf_counter()
    prepared = prepared.with_settings(**settings)
    state, _ = new_state(prepared, device)
    epochs = Epochs(prepared, state, workers)
    outcome: Literal["complete", "pruned", "diverged"] = "complete"
    figures: dict[str, Any] = {"top1": None, "loss": None}
    epoch = 0
    with Display(pixels_by_epoch(prepared), epochs.steps, 0, prepared.task.LEARNING) as display:

        def show(state: TrainingState, waited: float) -> None:
            display.step(state, waited)
            after_step(state, waited)

        while state.step < epochs.total:
            epoch = epochs.begin() + 1
            display.begin_epoch(state)
            try:
                epochs.train(show)
                figures = _judge(state, held, prepared)
            except Diverged:
                outcome, figures = "diverged", {"top1": None, "loss": None}
                break
            if not go_on(epoch, score(figures)) and state.step < epochs.total:
                outcome = "pruned"
                break
    seconds = round(perf_counter() - began, 1)
    return Trial(number, settings, outcome, epoch, seconds, figures["top1"], figures["loss"])


def _judge(state: TrainingState, held: FramedBatches, prepared: Prepared) -> dict[str, Any]:
    """Figures of the network as it would be delivered now, in the arithmetic that it trains in."""
    precision = find_precision(prepared.recipe.precision)
    figures = answer(state.delivered(), held, prepared.preprocessing, precision).metrics()
    if not isfinite(figures["loss"]):
        raise Diverged(f"the loss on the images held out is {figures['loss']}")
    return figures
