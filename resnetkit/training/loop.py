"""One epoch: batches in, a better network out."""

import math
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.data.augment import epoch_generator
from resnetkit.data.loaders import Batch
from resnetkit.data.mixing import Mixing, mix
from resnetkit.data.preprocess import Preprocessing
from resnetkit.device import autocast, find_precision
from resnetkit.errors import Diverged
from resnetkit.tasks import classification
from resnetkit.tasks.task import Task, task_of
from resnetkit.training.recipe import Recipe
from resnetkit.training.state import TrainingState

LOOK_EVERY = 50  # steps between looks at the loss on a GPU, which would have to be waited for at each

AfterStep = Callable[[TrainingState, float], None]
EachLoss = Callable[[Tensor], None]


def train_epoch(
    state: TrainingState,
    batches: Iterator[Batch],
    recipe: Recipe,
    *,
    rate: Callable[[int], float],
    preprocessing: Preprocessing,
    class_weights: Tensor | None = None,
    each_loss: EachLoss | None = None,
    after_step: AfterStep,
) -> None:
    """Take a step on every batch. After each, `after_step(state, seconds_waited_for_data)`, which may raise.

    `rate` gives the learning rate of a step; `class_weights` (classes,) weigh the loss; `each_loss` is told the plain
    cross-entropy (n,) of the images of a batch, which have one label each, unmixed. The network is in the mode that the
    epoch trains in. Raises Diverged at a loss that is not finite: on a CPU before the step that it would spoil, on
    a GPU, where the sums of the tally are left on the device, within LOOK_EVERY steps.
    """
    net, optimizer = state.net, state.optimizer
    device = next(net.parameters()).device
    mixing = Mixing(recipe.mixup, recipe.cutmix)
    asked = perf_counter()
    for images, labels in batches:
        waited = perf_counter() - asked
        for group in optimizer.param_groups:
            group["lr"] = rate(state.step) * group["scale"]
        torch.manual_seed(recipe.seed * 1_000_003 + state.step)  # stochastic depth, the same after a resume
        task, targets = task_of(labels), labels.to(device, non_blocking=True)
        x = preprocessing.normalise(images.to(device, non_blocking=True))
        if any(mixing):
            generator = epoch_generator(recipe.seed, state.step, purpose=2)
            x, targets = mix(x, targets, net.spec.num_classes, mixing, generator)
        x = x.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        loss, right = _gradients(net, task, x, targets, recipe, class_weights, each_loss)
        if device.type == "cpu":
            loss, right = float(loss), float(right)
        looked_at = device.type == "cpu" or state.step % LOOK_EVERY == 0
        if looked_at and not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} at step {state.step}; "
                f"lower lr (it is {recipe.lr:g}, and {rate(state.step):.3g} at this step) or lengthen warmup_epochs"
            )
        if recipe.drop_path_rate:
            _fill_gradients(net)
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
        optimizer.step()
        state.average.update(state.step)
        state.step += 1
        # Not in place: on a GPU a sum is a tensor, which whoever looked at it before may still hold.
        state.tally.loss = state.tally.loss + loss * len(labels)
        state.tally.right = state.tally.right + right
        state.tally.images += len(labels)
        after_step(state, waited)
        asked = perf_counter()
    state.tally = state.tally.read()


def _fill_gradients(net: nn.Module) -> None:
    """Gradients of zero for the blocks that stochastic depth left out: the optimizer moves all parameters alike."""
    for parameter in net.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def _divisor(targets: Tensor, weights: Tensor | None) -> Any:
    """What the mean loss of these targets is divided by: how many they are, or for labels (N,) their weights' sum."""
    return len(targets) if weights is None or targets.ndim > 1 else weights[targets].sum()


def _gradients(
    net: nn.Module,
    task: Task,
    x: Tensor,
    targets: Tensor,
    recipe: Recipe,
    class_weights: Tensor | None,
    each_loss: EachLoss | None = None,
) -> tuple[Any, Any]:
    """Leave the gradient of the batch's mean loss in the parameters; the loss and how much was right, on the device."""
    pieces = min(recipe.accumulate, max(1, len(x) // 2))  # of two images or more, for batch norm
    weights = class_weights if recipe.loss == "softmax" else None
    whole = _divisor(targets, weights)
    loss: Any = 0.0
    right: Any = 0.0
    each = []
    for images, wanted in zip(x.tensor_split(pieces), targets.tensor_split(pieces)):
        with autocast(x.device, find_precision(recipe.precision)):
            logits = net(images)
        measure = classification.binary_loss if recipe.loss == "binary" and task is classification else task.loss
        piece = measure(logits, wanted, recipe.label_smoothing, class_weights) * (_divisor(wanted, weights) / whole)
        piece.backward()
        loss += piece.detach().double()
        right += task.right(logits, wanted)
        if each_loss is not None:
            each.append(F.cross_entropy(logits.detach().float(), wanted, reduction="none"))
    if each_loss is not None:
        each_loss(torch.cat(each))
    return loss, right
