"""What of the machine's processor this process may use."""

import os
from math import ceil

from resnetkit.cgroups import own_cgroups


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


def default_workers() -> int:
    """Processes that decode photos, where nothing else is said."""
    return min(4, core_count())
