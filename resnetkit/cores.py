"""What of the machine's processor this process may use."""

import os


def usable_cores() -> list[int]:
    """Numbers of the cores; in a container or under taskset fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def default_workers() -> int:
    """Processes that decode photos, where nothing else is said."""
    return min(4, len(usable_cores()))
