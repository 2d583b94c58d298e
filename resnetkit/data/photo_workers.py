"""Photos read by processes beside this one, a batch at a time."""

import atexit
import mmap
import multiprocessing
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from resnetkit.data.encoded import BadImage

AHEAD = 2  # batches that each process may have before they are asked for

Shape = tuple[int, int, int]  # of an image: height, width, channels
Read = Callable[[Any], Tensor]  # the image of a request, uint8 (H, W, C)
_Task = tuple[int, Shape, list[Any]]  # in which place, and of what shape, the images of which requests come
_Placed = tuple[int, int]  # in which place how many images have come


class PhotoWorkers:
    """What `read` gives for batches of up to `batch_size` requests, images of up to `shape`, read by `workers`
    processes, which live as long as this object, or if 0 by this one. `pinned` batches go to a GPU while it computes.

    Processes put batches into a few places that all of them share, and they are copied from there. A tensor that a
    process hands over comes in new shared memory: to clear and to map that took a quarter of the time of cached photos.
    Nor do the places lie in /dev/shm, which in a container is small, where processes are forked.
    """

    def __init__(self, read: Read, batch_size: int, shape: Shape, workers: int, *, pinned: bool = False) -> None:
        self._read, self._largest, self._pinned = read, shape, pinned
        self._tasks = _Tasks()
        self._loader: DataLoader[_Placed] | None = None
        if workers:
            count = AHEAD * workers + 1  # the batches that are under way, and the one that is copied
            self._places = _shared_memory(count * batch_size * prod(shape)).view(count, -1)
            self._loader = DataLoader(
                _Photos(read, self._places),
                batch_size=None,  # a task is a whole batch
                sampler=self._tasks,
                collate_fn=_as_it_is,
                num_workers=workers,
                prefetch_factor=AHEAD,
                persistent_workers=True,
                worker_init_fn=_leave_signals_to_the_run,
                generator=torch.Generator(),  # nothing is drawn in a worker: the run's own generator is left alone
            )
            # Not left to the loader: in a cycle of garbage its queues end before it can send its workers away.
            weakref.finalize(self, _end_workers, self._loader)
            _loaders.add(self._loader)

    def batches(self, requests: Iterable[list[Any]], shape: Shape) -> Iterator[Tensor]:
        """uint8 (N, C, H, W) in channels_last for each list of N requests, every image of `shape`.

        What was asked for before and is not yet read is given up: to read it on raises RuntimeError. Raises ValueError
        for images of another shape, RuntimeError where a process is killed (see `within_memory`), and what `read`
        raises in place of the batch.
        """
        if prod(shape) > prod(self._largest):
            raise ValueError(f"images of {shape} are larger than {self._largest}, for which there is room")
        if self._loader is None:
            for asked in requests:
                images = self._new_batch(len(asked), shape)
                _fill(images, asked, self._read)
                yield images.permute(0, 3, 1, 2)
            return
        places = cycle(range(len(self._places)))
        self._tasks.of_now = tasks = ((place, shape, asked) for place, asked in zip(places, requests))
        for place, count in _told(self._loader):
            if self._tasks.of_now is not tasks:
                raise RuntimeError("other batches have been asked for since")
            shared = _images(self._places[place], count, shape)
            yield self._new_batch(count, shape).copy_(shared).permute(0, 3, 1, 2)

    def _new_batch(self, count: int, shape: Shape) -> Tensor:
        return torch.empty(count, *shape, dtype=torch.uint8, pin_memory=self._pinned)


def _told(loader: "DataLoader[_Placed]") -> Iterator[_Placed]:
    """What comes from a loader, and a worker's BadImage without the traceback that torch puts into its message."""
    try:
        yield from loader
    except BadImage as error:
        raise BadImage(str(error).strip().rpartition(f"{BadImage.__name__}: ")[2]) from error


class _Tasks:
    """What a loader that outlives its tasks asks its workers for."""

    of_now: Iterator[_Task]

    def __iter__(self) -> Iterator[_Task]:
        return self.of_now


class _Photos(Dataset[_Placed]):
    """The images of a task, in a worker read into their place."""

    def __init__(self, read: Read, places: Tensor) -> None:
        self.read, self.places = read, places

    def __getitem__(self, task: _Task) -> _Placed:
        place, shape, requests = task
        _fill(_images(self.places[place], len(requests), shape), requests, self.read)
        return place, len(requests)


def _fill(images: Tensor, requests: list[Any], read: Read) -> None:
    for image, request in zip(images, requests):
        found = read(request)
        if found.shape != image.shape:
            raise ValueError(f"an image of {tuple(found.shape)}, where {tuple(image.shape)} was asked for")
        image.copy_(found)


def _images(place: Tensor, count: int, shape: Shape) -> Tensor:
    """The part of a place where so many images lie."""
    return place[: count * prod(shape)].view(count, *shape)


def _shared_memory(size: int) -> Tensor:
    """uint8 (size,), the same for a process and its workers."""
    if multiprocessing.get_start_method() == "fork":
        return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)
    return torch.empty(size, dtype=torch.uint8).share_memory_()


def _as_it_is(found: Any) -> Any:
    return found


_loaders: weakref.WeakSet[DataLoader[Any]] = weakref.WeakSet()


def _end_workers(loader: DataLoader[Any]) -> None:
    if isinstance(loader._iterator, _MultiProcessingDataLoaderIter):
        loader._iterator._shutdown_workers()


@atexit.register
def _end_all_workers() -> None:
    """Before torch and multiprocessing leave, which was registered earlier and comes later: torch then no longer ends
    workers, and multiprocessing waits for ever for those to die of the SIGTERM that they ignore."""
    for loader in list(_loaders):
        _end_workers(loader)


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, and a scheduler's SIGTERM every process of the job; a worker that
    died of it would spoil the step in progress."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
