"""A function of many images or other items, by threads or by processes beside this one."""

import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from resnetkit.cores import core_count
from resnetkit.data import encoded
from resnetkit.data.encoded import Encoded
from resnetkit.errors import ResourceExhausted
from resnetkit.parent import end_with_the_parent

LARGE_FILE = 20_000  # bytes
CHUNK = 256  # items that a process is asked for at a time
FEWEST = 8 * CHUNK  # items for which processes are started

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_images(function: Callable[[Encoded], Result], images: Sequence[Encoded]) -> Iterator[Result]:
    """What `function`, which decodes it, says of every image, in order and as they come.

    Large images decode outside Python's lock; small ones spend their time in it, where threads only get in the way.
    """
    if max(map(encoded.size, images[:8]), default=0) <= LARGE_FILE:
        yield from map_in_processes(function, images)
        return
    pool = ThreadPoolExecutor(core_count())
    waiting: deque[Future[Result]] = deque()
    try:
        for image in images:
            waiting.append(pool.submit(function, image))
            if len(waiting) == CHUNK:  # not all at once: a million of them take gigabytes, and long to give up
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def map_in_processes(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of every item, in order and as they come, by a process for each core.

    By this process alone where there are few items or one core, and where processes are not forked, which must be sent
    the items and import torch first, or not to be had. Results are pickled; what the function raises ends it. Raises
    ResourceExhausted where a process is killed.
    """
    firsts = range(0, len(items), CHUNK)
    workers = min(core_count(), len(firsts))
    if workers == 1 or len(items) < FEWEST or not processes_fork():
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(function, items))
    try:
        for chunk in pool.map(_chunk_from, firsts):
            yield from pickle.loads(chunk)
    except BrokenProcessPool as error:
        raise ResourceExhausted("a process beside this one was killed, as happens where memory runs out") from error
    finally:
        pool.shutdown(cancel_futures=True)


def processes_fork() -> bool:
    """Whether this process may have others that begin as it is: at once, whatever the caller's script looks like."""
    return multiprocessing.get_start_method() == "fork" and not multiprocessing.current_process().daemon


_work: tuple[Callable[[Any], Any], Sequence[Any]]  # of a process, forked and not sent


def _begin(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _work
    _work = function, items
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; this one's end is theirs
    torch.set_num_threads(1)
    end_with_the_parent()


def _chunk_from(first: int) -> bytes:
    """Pickled here: a pool would send each tensor through a file of its own."""
    function, items = _work
    return pickle.dumps([function(item) for item in items[first : first + CHUNK]])
