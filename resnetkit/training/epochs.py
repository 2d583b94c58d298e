"""The epochs of one run: what its network learns from, epoch by epoch. Nothing is written, shown or tested here."""

from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from math import prod

import torch
from torch import Tensor

from resnetkit.data.balance import balanced_odds, balanced_weights
from resnetkit.data.loaders import Batch, TrainingBatches, evaluation_batches
from resnetkit.data.parts import Part
from resnetkit.data.photo_cache import PhotoCache
from resnetkit.data.preprocess import Preprocessing
from resnetkit.training.freezing import frozen_parts, set_training
from resnetkit.training.loop import AfterStep, EachLoss, train_epoch
from resnetkit.training.prepare import Prepared
from resnetkit.training.pruning import passed_over
from resnetkit.training.recipe import CROP_PCT
from resnetkit.training.schedule import learning_rate, training_size
from resnetkit.training.state import Tally, TrainingState
from resnetkit.user_cache import cache_folder

EVALUATION_BATCH = 256
FRAMED_IN_MEMORY = 2**28  # bytes of framed images that are kept from one evaluation to the next


def training_batches(prepared: Prepared, workers: int, device: torch.device | None = None) -> TrainingBatches:
    recipe, train = prepared.recipe, prepared.parts["train"]
    return TrainingBatches(
        train,
        prepared.preprocessing,
        prepared.augmentation,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        workers=workers,
        odds=balanced_odds(train.labels, len(prepared.dataset.classes)) if recipe.balance == "sampling" else None,
        repeats=recipe.repeats,
        cache=photo_cache(prepared) if recipe.cache else None,
        device=device,
    )


def photo_cache(prepared: Prepared) -> PhotoCache:
    """Where the training photos are kept decoded, by what they are: their content, size and channels."""
    preprocessing = prepared.preprocessing
    side = round(max(preprocessing.size) / CROP_PCT)
    subject = f"{preprocessing.channels} {side}\n{prepared.split_table}"
    key = blake2b(subject.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return PhotoCache(cache_folder() / "photos" / key, prepared.parts["train"], preprocessing.channels, side)


def class_weights(prepared: Prepared, device: torch.device) -> Tensor | None:
    """What the loss weighs the classes by, where the recipe asks for it."""
    if prepared.recipe.balance != "weights":
        return None
    return balanced_weights(prepared.parts["train"].labels, len(prepared.dataset.classes)).to(device)


def images_by_epoch(prepared: Prepared) -> Iterator[tuple[int, tuple[int, int]]]:
    """Of each epoch how many images it sees, and at what size."""
    recipe, images = prepared.recipe, len(prepared.parts["train"])
    for epoch in range(recipe.epochs):
        seen = images - passed_over(recipe.prune_easy, images, epoch, recipe.epochs)
        yield seen, training_size(recipe, prepared.preprocessing.size, epoch)


def pixels_by_epoch(prepared: Prepared) -> list[int]:
    return [seen * prod(size) for seen, size in images_by_epoch(prepared)]


class Epochs:
    """The epochs of `state` from the step where it is, `steps` an epoch and `total` in all."""

    def __init__(self, prepared: Prepared, state: TrainingState, workers: int) -> None:
        self.prepared, self.state = prepared, state
        recipe = prepared.recipe
        device = next(state.net.parameters()).device
        self.class_weights = class_weights(prepared, device)
        self.batches = training_batches(prepared, workers, device)
        self.steps = self.batches.steps
        self.total = recipe.epochs * self.steps

    def size(self, epoch: int) -> tuple[int, int]:
        """(height, width) that an epoch, counted from 0, trains at."""
        return training_size(self.prepared.recipe, self.prepared.preprocessing.size, epoch)

    def begin(self) -> int:
        """The epoch that comes, goes on or lacks its figures alone, counted from 0; of one that comes the tally is
        emptied, and the images that it passes over are drawn."""
        if self.state.ended is not None:
            return self.state.step // self.steps - 1
        epoch, first = divmod(self.state.step, self.steps)
        if first == 0:
            self.state.tally = Tally()
            recipe = self.prepared.recipe
            self.state.pruning.begin(epoch, recipe.epochs, recipe.seed)
        return epoch

    def train(self, after_step: AfterStep) -> None:
        """Train to the end of the epoch; see `train_epoch`. Its figures are then in the state's tally. Raises Diverged
        where the last step spoilt the network."""
        if self.state.ended is not None:
            return
        state, recipe = self.state, self.prepared.recipe
        epoch, first = divmod(state.step, self.steps)
        kept = state.pruning.kept if recipe.prune_easy else None
        set_training(state.net, frozen_parts(state.net, recipe, epoch))
        train_epoch(
            state,
            self.batches.epoch(epoch, self.size(epoch), first, kept),
            recipe,
            rate=partial(learning_rate, recipe, steps_per_epoch=self.steps),
            preprocessing=self.prepared.preprocessing,
            class_weights=self.class_weights,
            each_loss=None if kept is None else self._recorder(epoch, first, kept),
            after_step=after_step,
        )
        state.require_finite()

    def _recorder(self, epoch: int, first: int, kept: Tensor) -> EachLoss:
        """Notes the losses of one batch after another, from step `first` of the epoch on."""
        samples = iter(self.batches.samples(epoch, first, kept))
        return lambda losses: self.state.pruning.record(next(samples), losses)


class FramedBatches:
    """The evaluation batches of a part, as often as they are asked for; decoded once where they fit in memory."""

    def __init__(self, part: Part, preprocessing: Preprocessing, workers: int) -> None:
        self._read = partial(evaluation_batches, part, preprocessing, EVALUATION_BATCH, workers)
        self._fit = len(part) * prod(preprocessing.size) * len(preprocessing.mean) <= FRAMED_IN_MEMORY
        self._kept: list[Batch] = []

    def __iter__(self) -> Iterator[Batch]:
        if not self._fit:
            yield from self._read()
        elif self._kept:
            yield from self._kept
        else:
            kept = []
            for batch in self._read():
                kept.append(batch)
                yield batch
            self._kept = kept
