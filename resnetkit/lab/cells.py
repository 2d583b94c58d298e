"""Cells of an experiment, measured one after the other or side by side: a small network is hardly faster on two cores
than on one, and two of them keep both busy."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from time import perf_counter
from typing import Any, NamedTuple

from resnetkit.cores import core_count
from resnetkit.errors import Interrupted, ResnetkitError, ResourceExhausted
from resnetkit.parent import end_with_the_parent
from resnetkit.training.allocator import keep_freed_memory
from resnetkit.training.interrupt import SIGNALS

Cell = dict[str, Any]
Measure = Callable[[Cell], Cell]
MOST = 4  # processes at a time: each has a network and its images in memory
GLANCE = 0.5  # seconds between looks at whether to stop


class Measured(NamedTuple):
    """A cell, its numbers, and the seconds that they took."""

    cell: Cell
    found: Cell
    seconds: float


def measured(measure: Measure, cells: Sequence[Cell], processes: int, stop: Callable[[], bool]) -> Iterator[Measured]:
    """Cells as they are done; with several `processes` each is measured in one that has its share of the cores.

    Raises Interrupted once `stop` says so: a training in progress saves itself, of other cells those done are kept.
    Raises ResourceExhausted where a process was killed.
    """
    if processes > 1:
        yield from _side_by_side(measure, cells, processes, stop)
        return
    for cell in cells:
        if stop():
            raise Interrupted("told to stop")
        yield _timed(measure, cell)


def _timed(measure: Measure, cell: Cell) -> Measured:
    began = perf_counter()
    return Measured(cell, measure(cell), perf_counter() - began)


def _side_by_side(
    measure: Measure, cells: Sequence[Cell], processes: int, stop: Callable[[], bool]
) -> Iterator[Measured]:
    waiting = list(reversed(cells))
    others = set(multiprocessing.active_children())
    threads = max(1, core_count() // processes)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (threads,)) as pool:
        running: set[Future[Measured]] = set()
        workers: set[BaseProcess] = set()
        try:
            while waiting or running:
                while waiting and len(running) < processes:  # the pool would not let go of what it has in its queue
                    running.add(pool.submit(_timed, measure, waiting.pop()))
                workers |= set(multiprocessing.active_children()) - others
                done, running = wait(running, timeout=GLANCE, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda one: one.exception() is not None):
                    yield future.result()
                if (waiting or running) and stop():
                    raise Interrupted("told to stop")
                if not all(worker.is_alive() for worker in workers):  # the pool may see it when the next cell is done
                    raise BrokenProcessPool
        except BrokenProcessPool as error:
            for worker in workers:
                worker.kill()
            raise _why_killed(told_to_stop=stop()) from error
        finally:
            # Only a training hears it, and not before it has begun.
            while running and wait(running, timeout=GLANCE).not_done:
                for worker in workers:
                    worker.terminate()


def _why_killed(*, told_to_stop: bool) -> ResnetkitError:
    if told_to_stop:  # which kills a process that is still starting
        return Interrupted("told to stop")
    return ResourceExhausted("a process that measured a cell was killed; free some memory")


def _begin(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    keep_freed_memory()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - lines of several trainings at once
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_the_parent()
