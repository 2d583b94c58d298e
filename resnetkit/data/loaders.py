"""Parts to batches of uint8 images. The order is a function of (seed, epoch), no state of a generator is kept."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from resnetkit.data.augment import (
    Augmentation,
    crop_and_flip,
    draws,
    epoch_generator,
    erase_some,
    random_resized_crop,
    recolour_and_erase,
    spare,
)
from resnetkit.data.datasets import Part
from resnetkit.data.parts import named
from resnetkit.data.photo_cache import PhotoCache
from resnetkit.data.photo_workers import PhotoWorkers, Shape
from resnetkit.data.preprocess import Preprocessing, decode, resize

GPU_SHARE = 0.05  # of its memory that training images may take: half of what `batch_size=auto` leaves free

Batch = tuple[Tensor, Tensor]
_Request = tuple[int, list[float], tuple[int, int]]  # a sample, its row of draws, the size to augment to


class TrainingBatches:
    """Augmented batches of a part, epoch by epoch.

    The batches of an epoch lose no sample and differ in size by one at most, so no short one is left over. With `odds`
    (N,) an epoch draws as many samples by them, with replacement. With `repeats` copies of an image follow one another,
    each augmented in its own way, and an epoch sees as many times fewer images (Hoffer et al. 2020). Photos come from
    `cache` where there is one, else are decoded no larger than their crop needs, by processes that live as long as this
    object: an epoch of photos is not read on once the next has begun. Small images are kept and augmented on `device`
    where they leave it room and need no policy.
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
        device: torch.device | None = None,
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
        self._photos: PhotoWorkers | None = None
        self._pinned = device is not None and device.type == "cuda"
        self._device = torch.device("cpu")
        if isinstance(part.images, Tensor):
            if device is not None and augmentation.policy == "none" and _leaves_room(part.images, device):
                self._device = device
            self._images, self._labels = part.images.to(self._device), part.labels.to(self._device)

    def samples(self, epoch: int, first: int = 0, kept: Tensor | None = None) -> list[Tensor]:
        """The numbers (n,) of the images of each batch that `epoch` gives for the same arguments."""
        return [samples for samples, _ in self._batches(epoch, first, kept)]

    def epoch(self, epoch: int, size: tuple[int, int], first: int = 0, kept: Tensor | None = None) -> Iterator[Batch]:
        """uint8 (n, C, *size) and labels (n,) from step `first` of the epoch on; of photos in no larger size than that
        of the preprocessing. With `kept` (N,) the steps share those samples alone, in smaller batches."""
        batches = self._batches(epoch, first, kept)
        drawn = draws(self.seed, epoch, len(self.part) * self.repeats)
        if isinstance(self.part.images, Tensor):
            on_device, seeds = drawn.to(self._device), drawn[:, 5]
            for batch in batches:
                chosen, rows = batch.to(self._device, non_blocking=True)
                images = self._small_images(chosen, on_device[rows], seeds[batch[1]], size)
                if self._pinned and self._device.type == "cpu":
                    images = images.pin_memory()
                yield images, self._labels[chosen]
        else:
            requests = (_photo_requests(chosen, drawn[rows], size) for chosen, rows in batches)
            photos = self._photo_workers().batches(requests, _shape(size, self.preprocessing))
            for (chosen, _), images in zip(batches, photos, strict=True):
                yield images, self.part.labels[chosen]

    def _batches(self, epoch: int, first: int, kept: Tensor | None) -> tuple[Tensor, ...]:
        """The samples of each batch and their rows of draws, (2, n)."""
        order = self._order(epoch)
        if kept is not None:
            order = order[:, kept[order[0]]]
        return order.tensor_split(self.steps, dim=1)[first:]

    def _photo_workers(self) -> PhotoWorkers:
        """Made once, while the process is small: a training process forked anew at each epoch copies every page that it
        then writes to, and its steps wait for that."""
        if self._photos is None:
            read = _AugmentedPhoto(self.part, self.preprocessing, self.augmentation, self.cache)
            largest = -(-len(self.part) // self.steps)
            shape = _shape(self.preprocessing.size, self.preprocessing)
            self._photos = PhotoWorkers(read, largest, shape, self.workers, pinned=self._pinned)
        return self._photos

    def _order(self, epoch: int) -> Tensor:
        """The samples of an epoch in order, and the row of draws of each, (2, N). Sample i's copy c has the row c N + i
        wherever it comes; one drawn by odds, perhaps often, has the row of its place, so that each time is another."""
        generator = epoch_generator(self.seed, epoch, purpose=0)
        count = len(self.part)
        if self.odds is not None:
            order = torch.multinomial(self.odds, count, replacement=True, generator=generator)
        else:
            order = torch.randperm(count, generator=generator)
        samples = order.repeat_interleave(self.repeats)[:count]
        if self.odds is not None:
            return torch.stack([samples, torch.arange(count)])
        copies = torch.arange(count) % self.repeats
        return torch.stack([samples, copies * count + samples])

    def _small_images(self, chosen: Tensor, drawn: Tensor, seeds: Tensor, size: tuple[int, int]) -> Tensor:
        """Augmented by draws (n, DRAWS), whose last ones, `seeds`, are on the processor."""
        images = crop_and_flip(self._images[chosen], drawn, self.augmentation)
        if self.augmentation.policy != "none":
            changed = [recolour_and_erase(image, own, self.augmentation) for image, own in zip(images, drawn.tolist())]
            images = torch.stack(changed)
        elif self.augmentation.erasing:
            erase_some(images, seeds.tolist(), self.augmentation.erasing)
        return images if tuple(images.shape[2:]) == size else resize(images, list(size))


def _leaves_room(images: Tensor, device: torch.device) -> bool:
    """By its whole memory, whatever others have of it now: a resumed run is to decide alike."""
    return device.type != "cuda" or images.nbytes <= GPU_SHARE * torch.cuda.get_device_properties(device).total_memory


def _photo_requests(samples: Tensor, drawn: Tensor, size: tuple[int, int]) -> list[_Request]:
    return [(sample, own, size) for sample, own in zip(samples.tolist(), drawn.tolist())]


def evaluation_batches(part: Part, preprocessing: Preprocessing, batch_size: int, workers: int) -> Iterator[Batch]:
    """The part in order, framed as `preprocessing` says."""
    batches = torch.arange(len(part)).split(batch_size)
    if isinstance(part.images, Tensor):
        for chosen in batches:
            yield preprocessing.frame(part.images[chosen]), part.labels[chosen]
    else:
        shape = _shape(preprocessing.size, preprocessing)
        workers = min(workers, len(batches))
        photos = PhotoWorkers(_FramedPhoto(part, preprocessing), len(batches[0]), shape, workers)
        requests = (chosen.tolist() for chosen in batches)
        for chosen, images in zip(batches, photos.batches(requests, shape), strict=True):
            yield images, part.labels[chosen]


def _shape(size: tuple[int, int], preprocessing: Preprocessing) -> Shape:
    return (*size, len(preprocessing.mean))


class _FramedPhoto:
    """An encoded image by its number, decoded and framed: uint8 (H, W, C)."""

    def __init__(self, part: Part, preprocessing: Preprocessing) -> None:
        self.part, self.preprocessing = part, preprocessing

    def __call__(self, sample: int) -> Tensor:
        with named(self.part, sample):
            image = self.preprocessing.decode(self.part.images[sample])
        return self.preprocessing.frame(image).permute(1, 2, 0)


class _AugmentedPhoto:
    """An encoded image, decoded and augmented as its request says: uint8 (H, W, C)."""

    def __init__(
        self, part: Part, preprocessing: Preprocessing, augmentation: Augmentation, cache: PhotoCache | None
    ) -> None:
        self.part, self.channels, self.cache = part, preprocessing.channels, cache
        self.framing, self.augmentation = preprocessing.framing, augmentation

    def __call__(self, request: _Request) -> Tensor:
        sample, drawn, size = request
        crop: dict[str, Any] = {"size": size, "augmentation": self.augmentation, "framing": self.framing}
        with named(self.part, sample):
            if self.cache is not None:
                image = self.cache[sample]
            else:
                image = decode(self.part.images[sample], self.channels, partial(spare, drawn=drawn, **crop))
        box = random_resized_crop(image, drawn, **crop)
        return recolour_and_erase(box, drawn, self.augmentation).permute(1, 2, 0)
