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

AHEAD = 2  # batches that each process may have before they are asked for

Shape = tuple[int, int, int]  # of an image: height, width, channels
Read = Callable[[Any], Tensor]  # the image of a request, uint8 (H, W, C)
_Task = tuple[int, Shape, list[Any]]  # in which place, and of what shape, the images of which requests come


class PhotoWorkers:
    """What `read` gives for batches of up to `batch_size` requests, images of up to `shape`, read by `workers`
    processes or, if 0, by this one.

    Batches lie in a few places that all of them share, and are copied from there. A tensor that a process hands over
    comes in new shared memory: to clear and to map that took a quarter of the time of cached photos, and in a
    container it must fit into /dev/shm.

    The processes live as long as this object, and are forked once, while this process is small: a training process
    that is forked anew at each epoch copies every page that it then writes to, and its steps wait for that.
    """

    def __init__(self, read: Read, batch_size: int, shape: Shape, workers: int) -> None:
        count = AHEAD * workers + 1  # the batches that are under way, and the one that is copied
        self._places = _shared_memory(count * batch_size * prod(shape)).view(count, -1)
        self._tasks = _Tasks()
        self._loader: DataLoader[tuple[int, int]] = DataLoader(
            _Photos(read, self._places),
            batch_size=None,  # a task is a whole batch
            sampler=self._tasks,
            collate_fn=_as_it_is,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),  # nothing is drawn in a worker: the run's own generator is left alone
        )
        # Not left to the loader: in a cycle of garbage its queues end before it can send its workers away.
        weakref.finalize(self, _end_workers, self._loader)
        _loaders.add(self._loader)

    def batches(self, requests: Iterable[list[Any]], shape: Shape) -> Iterator[Tensor]:
        """uint8 (N, C, H, W) in channels_last for each list of N requests, every image of `shape`. What was asked for
        before and not yet read is given up."""
        places = cycle(range(len(self._places)))
        self._tasks.of_now = ((place, shape, asked) for place, asked in zip(places, requests))
        for place, count in self._loader:
            shared = _images(self._places[place], count, shape)
            copied = torch.empty(shared.shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available()).copy_(shared)
            yield copied.permute(0, 3, 1, 2)


class _Tasks:
    """What a loader that outlives its tasks asks its workers for."""

    of_now: Iterator[_Task] = iter(())

    def __iter__(self) -> Iterator[_Task]:
        return self.of_now


class _Photos(Dataset[tuple[int, int]]):
    """In a worker: the images of a task, read into their place. Gives that and their number."""

    def __init__(self, read: Read, places: Tensor) -> None:
        self.read, self.places = read, places

    def __getitem__(self, task: _Task) -> tuple[int, int]:
        place, shape, requests = task
        images = _images(self.places[place], len(requests), shape)
        for image, request in zip(images, requests):
            image.copy_(self.read(request))
        return place, len(requests)


def _images(place: Tensor, count: int, shape: Shape) -> Tensor:
    """The part of a place where so many images lie."""
    return place[: count * prod(shape)].view(count, *shape)


def _shared_memory(size: int) -> Tensor:
    """uint8 (size,), the same for a process and its workers."""
    if multiprocessing.get_start_method() == "fork":
        return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)  # not in /dev/shm, nor taken before it is used
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
