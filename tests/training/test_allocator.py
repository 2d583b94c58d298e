"""Where glibc places large tensors and what it gives back, by its own counts and the kernel's, in a process apart."""

import json
import subprocess
import sys

import pytest

from resnetkit.training import allocator

SCRIPT = """
import ctypes, json, torch
from pathlib import Path
import resnetkit as rk
from resnetkit.training.allocator import give_back_freed_memory, give_back_holes, keep_freed_memory

class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]

count = ctypes.CDLL(None).mallinfo2
count.restype = Counts

def mapped():
    before = count().hblkhd
    tensor = torch.ones(2**24)
    return (count().hblkhd - before) / 2**20

def resident():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024

found = {"before": mapped()}
keep_freed_memory()
found["kept"] = mapped()
held = resident()
give_back_freed_memory()
found["given back"] = held - resident()
give_back_holes(rk.build("resnet20_cifar").set_memory("checkpoint"))
found["in checkpoint mode"] = mapped()
keep_freed_memory()
found["kept again"] = mapped()
print(json.dumps(found))
"""
SIZE = 64  # MiB of the tensor


@pytest.mark.skipif(allocator._glibc("mallinfo2") is None, reason="needs glibc 2.33 or newer")
def test_a_large_tensor_is_kept_but_in_checkpoint_mode_and_given_back_when_asked():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["before"] >= SIZE and found["in checkpoint mode"] >= SIZE
    assert found["kept"] == found["kept again"] == 0
    assert found["given back"] > 0.9 * SIZE
