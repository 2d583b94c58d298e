"""Keeping the memory that one training step frees for the next."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
LARGEST_MMAP_THRESHOLD = 1 << 25  # glibc takes no more
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Have glibc keep what is freed instead of giving it back to the kernel and faulting it in again at every step.

    A step allocates the same activations as the one before. Elsewhere than under glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, NEVER)
