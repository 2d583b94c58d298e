"""The process that started this one."""

import multiprocessing
import os
from threading import Thread


def end_with_the_parent() -> None:
    """Whoever waits for work would wait for ever where the parent is killed."""
    Thread(target=_wait_for_its_end, daemon=True).start()


def _wait_for_its_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
