"""What glibc keeps and gives back, by the kernel's counts, in a process of its own."""

import json
import subprocess
import sys

import pytest

from resnetkit.training import allocator

SCRIPT = """
import json, resource, torch
from pathlib import Path
import resnetkit as rk
from resnetkit.training.allocator import give_back_freed_memory, give_back_holes, keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0])

found = {}
keep_freed_memory()
faults()
found["kept"] = faults()
held = resident()
give_back_freed_memory()
found["given back"] = held - resident()
give_back_holes(rk.build("resnet20_cifar").set_memory("checkpoint"))
faults()
found["in checkpoint mode"] = faults()
keep_freed_memory()
faults()
found["kept again"] = faults()
print(json.dumps(found))
"""
FEW = 16  # pages; a tensor of 64 MiB has 16,384, or 32 where the kernel makes large ones


@pytest.mark.skipif(allocator._glibc("mallopt") is None, reason="needs glibc")
def test_a_large_tensor_is_faulted_in_once_and_given_back_when_asked():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["kept"] < FEW and found["kept again"] < FEW
    assert found["in checkpoint mode"] >= FEW
    assert found["given back"] > 60 * 1024  # KiB of 64 MiB
