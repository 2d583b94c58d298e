"""What of the machine's processor this process may use."""

import os
from math import ceil
from pathlib import Path

from resnetkit.cgroups import own_cgroups

CPUS = Path("/sys/devices/system/cpu")


def usable_cores() -> list[int]:
    """Numbers of the cores; in a container, in a job or under taskset fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_count() -> int:
    """How many of them can be kept busy: of a quota of processor time, as `docker --cpus` sets, what it is worth."""
    count = len(usable_cores())
    for folder in own_cgroups():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except OSError:
            continue
        if quota != "max":
            count = min(count, ceil(int(quota) / int(period)))
    return count


def follow_quota() -> None:
    """Before PyTorch is imported, have it compute with as many threads as a quota pays for, where it would take more, a
    thread for each core: what threads spend beyond the quota all of them wait for. A value of the user's own stays."""
    whole = {_threads_of_core(number) for number in usable_cores()}
    if core_count() < len(whole):
        os.environ.setdefault("OMP_NUM_THREADS", str(core_count()))


def _threads_of_core(number: int) -> str:
    """Which of the numbered cores are threads of one, as one of them tells it."""
    try:
        return (CPUS / f"cpu{number}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(number)


def default_workers(device: str) -> int:
    """Processes that decode photos, where nothing else is said: a few where the network computes on the same cores,
    more where it is on a GPU, which takes photos faster and leaves the cores alone. `device` is its type."""
    return min(16 if device == "cuda" else 4, core_count())
