"""Parts to batches of uint8 images. The order is a function of (seed, epoch) and nothing is kept between batches."""

import signal
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnetkit.data.augment import (
    Augmentation,
    crop_and_flip,
    draws,
    epoch_generator,
    random_resized_crop,
    recolour_and_erase,
)
from resnetkit.data.datasets import Part
from resnetkit.data.preprocess import Preprocessing, resize

Batch = tuple[Tensor, Tensor]


class TrainingBatches:
    """Augmented batches of a part, epoch by epoch.

    The batches of an epoch lose no sample and differ in size by one at most, so no short one is left over. With `odds`
    (N,) an epoch draws as many samples by them, with replacement. With `repeats` a batch has so many copies of each of
    its images, augmented each in its own way, and an epoch sees as many images fewer (Hoffer et al. 2020).
    """

    def __init__(
        self,
        part: Part,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        odds: Tensor | None = None,
        repeats: int = 1,
    ) -> None:
        self.part = part
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed
        self.workers = workers
        self.odds = odds
        self.repeats = repeats
        self.steps = -(-len(part) // batch_size)

    def epoch(self, epoch: int, size: tuple[int, int], first: int = 0) -> Iterator[Batch]:
        """uint8 (n, C, *size) and labels (n,) from step `first` of the epoch on."""
        batches = self._order(epoch).tensor_split(self.steps)[first:]
        drawn = draws(self.seed, epoch, len(self.part) * self.repeats)
        if isinstance(self.part.images, Tensor):
            for chosen in batches:
                samples = chosen % len(self.part)
                yield self._small_images(samples, drawn[chosen], size), self.part.labels[samples]
        else:
            augment = partial(_augment_photo, size, self.augmentation, self.preprocessing.framing)
            yield from _load(_Photos(self.part, self.preprocessing, augment, drawn), batches, self.workers)

    def _order(self, epoch: int) -> Tensor:
        """The draws of an epoch, in order: that of sample i's copy c is c times the samples plus i."""
        generator = epoch_generator(self.seed, epoch, purpose=0)
        count = len(self.part)
        if self.odds is not None:
            order = torch.multinomial(self.odds, count, replacement=True, generator=generator)
        else:
            order = torch.randperm(count, generator=generator)
        copies = torch.arange(self.repeats) * count
        return (order[:, None] + copies).flatten()[:count]

    def _small_images(self, chosen: Tensor, drawn: Tensor, size: tuple[int, int]) -> Tensor:
        assert isinstance(self.part.images, Tensor)
        images = crop_and_flip(self.part.images[chosen], drawn, self.augmentation)
        if self.augmentation.changes_pixels:
            changed = [recolour_and_erase(image, own, self.augmentation) for image, own in zip(images, drawn)]
            images = torch.stack(changed)
        return images if tuple(images.shape[2:]) == size else resize(images, list(size))


def _augment_photo(
    size: tuple[int, int], augmentation: Augmentation, framing: str, image: Tensor, drawn: Tensor
) -> Tensor:
    box = random_resized_crop(image, drawn, size=size, augmentation=augmentation, framing=framing)
    return recolour_and_erase(box, drawn, augmentation) if augmentation.changes_pixels else box


def evaluation_batches(part: Part, preprocessing: Preprocessing, batch_size: int, workers: int) -> Iterator[Batch]:
    """The part in order, framed as `preprocessing` says."""
    batches = torch.arange(len(part)).split(batch_size)
    if isinstance(part.images, Tensor):
        for chosen in batches:
            yield preprocessing.frame(part.images[chosen]), part.labels[chosen]
    else:
        yield from _load(_Photos(part, preprocessing), batches, workers)


class _Photos(Dataset[Batch]):
    """Encoded images, decoded one by one in the workers; augmented by the draw asked for, or framed without any."""

    def __init__(
        self,
        part: Part,
        preprocessing: Preprocessing,
        augment: Callable[[Tensor, Tensor], Tensor] | None = None,
        drawn: Tensor | None = None,
    ) -> None:
        self.part, self.preprocessing, self.augment, self.drawn = part, preprocessing, augment, drawn

    def __getitem__(self, index: int) -> Batch:
        sample = index % len(self.part)
        image = self.preprocessing.decode(self.part.images[sample])
        if self.augment is None or self.drawn is None:
            return self.preprocessing.frame(image), self.part.labels[sample]
        return self.augment(image, self.drawn[index]), self.part.labels[sample]


def _load(photos: _Photos, batches: tuple[Tensor, ...], workers: int) -> Iterator[Batch]:
    yield from DataLoader(
        photos,
        batch_sampler=[chosen.tolist() for chosen in batches],
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_run,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, and a scheduler's SIGTERM every process of the job; a worker that
    died of it would spoil the step in progress."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
