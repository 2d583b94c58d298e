"""What of the machine's processor this process may use."""

import os
from math import ceil

from resnetkit.cgroups import own_cgroups


def usable_cores() -> list[int]:
    """Numbers of the cores; in a container, in a job or under taskset fewer than the machine has. Of a quota of
    processor time, as `docker --cpus` sets, as many as it keeps busy."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    for folder in own_cgroups():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except OSError:
            continue
        if quota != "max":
            cores = cores[: ceil(int(quota) / int(period))]
    return cores


def default_workers() -> int:
    """Processes that decode photos, where nothing else is said."""
    return min(4, len(usable_cores()))
