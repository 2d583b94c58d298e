"""Parts to batches of uint8 images. The order is a function of (seed, epoch), no state of a generator is kept."""

import atexit
import signal
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

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
_Request = tuple[int, list[float], tuple[int, int]]  # a sample, its row of draws, the size to augment to


class TrainingBatches:
    """Augmented batches of a part, epoch by epoch.

    The batches of an epoch lose no sample and differ in size by one at most, so no short one is left over. With `odds`
    (N,) an epoch draws as many samples by them, with replacement. With `repeats` a batch has so many copies of each of
    its images, augmented each in its own way, and an epoch sees as many images fewer (Hoffer et al. 2020). Photos come
    from `cache` where there is one, else are decoded no larger than their crop needs, by processes that live as long as
    this object: an epoch of photos is not read on once the next has begun.
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
        cache: PhotoCache | None = None,
    ) -> None:
        self.part = part
        self.cache = cache
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed
        self.workers = workers
        self.odds = odds
        self.repeats = repeats
        self.steps = -(-len(part) // batch_size)
        self._requests = _Requests()
        self._photos: DataLoader[Batch] | None = None

    def epoch(self, epoch: int, size: tuple[int, int], first: int = 0) -> Iterator[Batch]:
        """uint8 (n, C, *size) and labels (n,) from step `first` of the epoch on."""
        batches = self._order(epoch).tensor_split(self.steps)[first:]
        drawn = draws(self.seed, epoch, len(self.part) * self.repeats)
        if isinstance(self.part.images, Tensor):
            for chosen in batches:
                samples = chosen % len(self.part)
                yield self._small_images(samples, drawn[chosen], size), self.part.labels[samples]
        else:
            count = len(self.part)
            self._requests.of_epoch = (_photo_requests(chosen % count, drawn[chosen], size) for chosen in batches)
            if self._photos is None:
                photos = _AugmentedPhotos(self.part, self.preprocessing, self.augmentation, self.cache)
                self._photos = _loader(photos, self._requests, self.workers, lasting=True)
                # Not left to the loader: in a cycle of garbage its queues end before it can send its workers away.
                weakref.finalize(self, _end_workers, self._photos)
            yield from _read(self._photos)

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
            changed = [recolour_and_erase(image, own, self.augmentation) for image, own in zip(images, drawn.tolist())]
            images = torch.stack(changed)
        return images if tuple(images.shape[2:]) == size else resize(images, list(size))


def _photo_requests(samples: Tensor, drawn: Tensor, size: tuple[int, int]) -> list[_Request]:
    return [(sample, own, size) for sample, own in zip(samples.tolist(), drawn.tolist())]


class _Requests:
    """What a loader that outlives an epoch asks its workers for: a batch at a time, of the epoch being read."""

    of_epoch: Iterator[list[_Request]] = iter(())

    def __iter__(self) -> Iterator[list[_Request]]:
        return self.of_epoch


def evaluation_batches(part: Part, preprocessing: Preprocessing, batch_size: int, workers: int) -> Iterator[Batch]:
    """The part in order, framed as `preprocessing` says."""
    batches = torch.arange(len(part)).split(batch_size)
    if isinstance(part.images, Tensor):
        for chosen in batches:
            yield preprocessing.frame(part.images[chosen]), part.labels[chosen]
    else:
        yield from _read(_loader(_Photos(part, preprocessing), [chosen.tolist() for chosen in batches], workers))


class _Photos(Dataset[Batch]):
    """Encoded images, decoded one by one in the workers and framed: uint8 (H, W, C), so that batches are put together
    in channels_last."""

    def __init__(self, part: Part, preprocessing: Preprocessing) -> None:
        self.part, self.preprocessing = part, preprocessing

    def __getitem__(self, index: int) -> Batch:
        image = self.preprocessing.decode(self.part.images[index])
        return self.preprocessing.frame(image).permute(1, 2, 0), self.part.labels[index]


class _AugmentedPhotos(Dataset[Batch]):
    """Encoded images, decoded one by one in the workers and augmented as the request for each says: uint8 (H, W, C)."""

    def __init__(
        self, part: Part, preprocessing: Preprocessing, augmentation: Augmentation, cache: PhotoCache | None
    ) -> None:
        self.part, self.channels, self.cache = part, preprocessing.channels, cache
        self.framing, self.augmentation = preprocessing.framing, augmentation

    def __getitem__(self, request: _Request) -> Batch:
        sample, drawn, size = request
        crop: dict[str, Any] = {"size": size, "augmentation": self.augmentation, "framing": self.framing}
        if self.cache is not None:
            image = self.cache[sample]
        else:
            image = decode(self.part.images[sample], self.channels, partial(spare, drawn=drawn, **crop))
        box = random_resized_crop(image, drawn, **crop)
        if self.augmentation.changes_pixels:
            box = recolour_and_erase(box, drawn, self.augmentation)
        return box.permute(1, 2, 0), self.part.labels[sample]


def _loader(
    photos: Dataset[Batch], batches: Iterable[list[Any]], workers: int, *, lasting: bool = False
) -> DataLoader[Batch]:
    """Lasting workers are forked once, while the process is small: a training process forked anew at each epoch copies
    every page that it then writes to, and its steps wait for that."""
    return DataLoader(
        photos,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=lasting and workers > 0,
        worker_init_fn=_leave_signals_to_the_run,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # nothing is drawn in a worker: the run's own generator is left alone
    )


_readers: weakref.WeakSet[Any] = weakref.WeakSet()  # those that have workers


def _read(loader: DataLoader[Batch]) -> Iterator[Batch]:
    reader = iter(loader)
    if loader.num_workers:
        _readers.add(reader)
    for images, labels in reader:
        yield images.permute(0, 3, 1, 2), labels


def _end_workers(loader: DataLoader[Batch]) -> None:
    if isinstance(loader._iterator, _MultiProcessingDataLoaderIter):
        loader._iterator._shutdown_workers()


@atexit.register
def _end_all_workers() -> None:
    """Before torch and multiprocessing leave, which was registered earlier and comes later: torch then no longer ends
    workers, and multiprocessing waits for ever for those to die of the SIGTERM that they ignore."""
    for reader in list(_readers):
        reader._shutdown_workers()


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, and a scheduler's SIGTERM every process of the job; a worker that
    died of it would spoil the step in progress."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
