"""One epoch: batches in, a better network out."""

import math
from collections.abc import Callable, Iterator
from time import perf_counter

import torch

from resnetkit.data.loaders import Batch
from resnetkit.data.preprocess import Preprocessing
from resnetkit.device import autocast, find_precision
from resnetkit.errors import Diverged
from resnetkit.tasks import classification
from resnetkit.training.recipe import Recipe
from resnetkit.training.schedule import learning_rate
from resnetkit.training.state import TrainingState

AfterStep = Callable[[TrainingState, float], None]


def train_epoch(
    state: TrainingState,
    batches: Iterator[Batch],
    recipe: Recipe,
    *,
    steps_per_epoch: int,
    preprocessing: Preprocessing,
    after_step: AfterStep,
) -> None:
    """Take a step on every batch. After each, `after_step(state, seconds_waited_for_data)`, which may raise.

    Raises Diverged at a loss that is not finite, before the step that it would spoil.
    """
    net, optimizer = state.net.train(), state.optimizer
    device = next(net.parameters()).device
    asked = perf_counter()
    for images, labels in batches:
        waited = perf_counter() - asked
        rate = learning_rate(recipe, state.step, steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(recipe.seed * 1_000_003 + state.step)  # stochastic depth, the same after a resume
        labels = labels.to(device, non_blocking=True)
        x = preprocessing.normalise(images.to(device, non_blocking=True))
        with autocast(device, find_precision(recipe.precision)):
            logits = net(x.contiguous(memory_format=torch.channels_last))
        loss = classification.loss(logits, labels, recipe.label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(
                f"the loss is {value} at step {state.step}; lower lr (it is {rate:.3g}) or lengthen warmup_epochs"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        state.average.update()
        state.step += 1
        state.tally.loss += value * len(labels)
        state.tally.right += int((logits.argmax(1) == labels).sum())
        state.tally.images += len(labels)
        after_step(state, waited)
        asked = perf_counter()
