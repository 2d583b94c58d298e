import platform
import subprocess
import sys

import pytest

SIZE = 2**26  # bytes, above the 32 MiB that glibc takes as the largest threshold for mmap
FAULTS = """
import resource
import torch
from resnetkit.training.allocator import keep_freed_memory
{keep}
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones({size})
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def faults(keep: str) -> int:
    """Pages that the kernel must find for the third of three tensors of SIZE bytes, each freed before the next."""
    program = FAULTS.format(keep=keep, size=SIZE // 4)
    return int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_for_the_next_tensor():
    assert faults("keep_freed_memory()") < 10
    assert faults("") > 100
