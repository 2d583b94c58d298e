"""Parts to batches of uint8 images. The order is a function of (seed, epoch) and nothing is kept between batches."""

import signal
from collections.abc import Iterator
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
    spare,
)
from resnetkit.data.datasets import Part
from resnetkit.data.photo_cache import PhotoCache
from resnetkit.data.preprocess import Preprocessing, decode, resize

Batch = tuple[Tensor, Tensor]


class TrainingBatches:
    """Augmented batches of a part, epoch by epoch.

    The batches of an epoch lose no sample and differ in size by one at most, so no short one is left over. With `odds`
    (N,) an epoch draws as many samples by them, with replacement. Photos come from `cache` where there is one, else are
    decoded no larger than their crop needs.
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
        cache: PhotoCache | None = None,
    ) -> None:
        self.part = part
        self.cache = cache
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed
        self.workers = workers
        self.odds = odds
        self.steps = -(-len(part) // batch_size)

    def epoch(self, epoch: int, size: tuple[int, int], first: int = 0) -> Iterator[Batch]:
        """uint8 (n, C, *size) and labels (n,) from step `first` of the epoch on."""
        batches = self._order(epoch).tensor_split(self.steps)[first:]
        drawn = draws(self.seed, epoch, len(self.part))
        if isinstance(self.part.images, Tensor):
            for chosen in batches:
                yield self._small_images(chosen, drawn[chosen], size), self.part.labels[chosen]
        else:
            photos = _AugmentedPhotos(self.part, self.preprocessing, self.augmentation, size, drawn, self.cache)
            yield from _load(photos, batches, self.workers)

    def _order(self, epoch: int) -> Tensor:
        generator = epoch_generator(self.seed, epoch, purpose=0)
        if self.odds is not None:
            return torch.multinomial(self.odds, len(self.part), replacement=True, generator=generator)
        return torch.randperm(len(self.part), generator=generator)

    def _small_images(self, chosen: Tensor, drawn: Tensor, size: tuple[int, int]) -> Tensor:
        assert isinstance(self.part.images, Tensor)
        images = crop_and_flip(self.part.images[chosen], drawn, self.augmentation)
        if self.augmentation.changes_pixels:
            changed = [recolour_and_erase(image, own, self.augmentation) for image, own in zip(images, drawn)]
            images = torch.stack(changed)
        return images if tuple(images.shape[2:]) == size else resize(images, list(size))


def evaluation_batches(part: Part, preprocessing: Preprocessing, batch_size: int, workers: int) -> Iterator[Batch]:
    """The part in order, framed as `preprocessing` says."""
    batches = torch.arange(len(part)).split(batch_size)
    if isinstance(part.images, Tensor):
        for chosen in batches:
            yield preprocessing.frame(part.images[chosen]), part.labels[chosen]
    else:
        yield from _load(_Photos(part, preprocessing), batches, workers)


class _Photos(Dataset[Batch]):
    """Encoded images, decoded one by one in the workers and framed."""

    def __init__(self, part: Part, preprocessing: Preprocessing) -> None:
        self.part, self.preprocessing = part, preprocessing

    def __getitem__(self, index: int) -> Batch:
        image = self.preprocessing.decode(self.part.images[index])
        return self.preprocessing.frame(image), self.part.labels[index]


class _AugmentedPhotos(Dataset[Batch]):
    """Encoded images, decoded one by one in the workers and augmented by their draws (N, DRAWS)."""

    def __init__(
        self,
        part: Part,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        size: tuple[int, int],
        drawn: Tensor,
        cache: PhotoCache | None,
    ) -> None:
        self.part, self.channels, self.drawn, self.cache = part, preprocessing.channels, drawn, cache
        self.augmentation = augmentation
        self.crop = {"size": size, "augmentation": augmentation, "framing": preprocessing.framing}

    def __getitem__(self, index: int) -> Batch:
        drawn = self.drawn[index]
        if self.cache is not None:
            image = self.cache[index]
        else:
            image = decode(self.part.images[index], self.channels, partial(spare, drawn=drawn, **self.crop))
        box = random_resized_crop(image, drawn, **self.crop)
        if self.augmentation.changes_pixels:
            box = recolour_and_erase(box, drawn, self.augmentation)
        return box, self.part.labels[index]


def _load(photos: Dataset[Batch], batches: tuple[Tensor, ...], workers: int) -> Iterator[Batch]:
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
