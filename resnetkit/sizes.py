"""Amounts of memory, as people write them."""

import re

from resnetkit.errors import ResnetkitError

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_bytes(text: str) -> int:
    """ "4GiB", "500MB" or "1.5 GB" in bytes. Raises ResnetkitError."""
    units = {unit.lower(): size for unit, size in UNITS.items()}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", str(text).lower())
    if match is None or match[2] not in units or float(match[1]) == 0:
        raise ResnetkitError(f"{text!r} is no amount of memory; write a number above 0 and a unit, as 4GiB or 500MB")
    return int(float(match[1]) * units[match[2]])


def written_bytes(count: float) -> str:
    """In the largest unit of 1024s that leaves 1 or more."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count >= UNITS[unit]:
            return f"{count / UNITS[unit]:.1f} {unit}"
    return f"{count:.0f} B"
