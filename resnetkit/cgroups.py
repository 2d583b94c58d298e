"""The control groups of Linux (version 2) that bound what this process may use: a container's, a job's, a service's."""

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def own_cgroups() -> list[Path]:
    """The folders of this process's group and of those above it, each of which has limits of its own; at least the
    root, which in a container is the container's."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        lines = []
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    return [ROOT / path, *(ROOT / above for above in Path(path).parents)]
