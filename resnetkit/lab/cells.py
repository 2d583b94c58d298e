"""Cells of an experiment, measured one after the other or side by side: a small network is hardly faster on two cores
than on one, and two of them keep both busy."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from threading import Thread
from typing import Any

from resnetkit.errors import Interrupted
from resnetkit.training.allocator import keep_freed_memory
from resnetkit.training.interrupt import SIGNALS

Cell = dict[str, Any]
GLANCE = 0.5  # seconds between looks at whether to stop


def measured(
    measure: Callable[[Cell], Cell], cells: Sequence[Cell], processes: int, stop: Callable[[], bool]
) -> Iterator[tuple[Cell, Cell]]:
    """Cells and their numbers as they come; with several `processes` each is measured in one that has a single thread.

    Raises Interrupted once `stop` says so: a training in progress saves itself, of other cells those done are kept.
    """
    if processes > 1:
        yield from _side_by_side(measure, cells, processes, stop)
        return
    for cell in cells:
        if stop():
            raise Interrupted("told to stop")
        yield cell, measure(cell)


def _side_by_side(
    measure: Callable[[Cell], Cell], cells: Sequence[Cell], processes: int, stop: Callable[[], bool]
) -> Iterator[tuple[Cell, Cell]]:
    waiting = list(reversed(cells))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin) as pool:
        running: dict[Future[Cell], Cell] = {}
        try:
            while waiting or running:
                while waiting and len(running) < processes:  # the pool would not let go of what it has in its queue
                    cell = waiting.pop()
                    running[pool.submit(measure, cell)] = cell
                done, _ = wait(running, timeout=GLANCE, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
                if (waiting or running) and stop():
                    raise Interrupted("told to stop")
        finally:
            for worker in multiprocessing.active_children() if running else ():
                worker.terminate()  # a signal that only a training hears


def _begin() -> None:
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - lines of several trainings at once
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """It waits for work for ever where the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
