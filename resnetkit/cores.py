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


def follow_quota() -> None:
    """Before PyTorch is imported, have it compute with as many threads as a quota pays for: it goes by the cores, and
    what its threads spend beyond the quota all of them wait for. A value of the user's own stays."""
    if core_count() < len(usable_cores()):
        os.environ.setdefault("OMP_NUM_THREADS", str(core_count()))


def default_workers() -> int:
    """Processes that decode photos, where nothing else is said."""
    return min(4, core_count())
