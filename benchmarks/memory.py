"""What depth costs: live and process memory, time and building.

python benchmarks/memory.py [--only PART]

Live memory is the most bytes of tensors above what a step starts with; process memory is VmHWM of a process that takes
two steps and nothing else. Times of modes alternate in one process. Writes results/memory.json, part by part, each
with the commit and machine that measured it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from time import process_time

import torch
import torch.nn.functional as F
from record import RESULTS, header, save

import resnetkit as rk
from resnetkit.architecture.live_memory import LiveMemory
from resnetkit.architecture.memory_plan import live_bytes
from resnetkit.architecture.resnet import ResNet
from resnetkit.architecture.variants import spec
from resnetkit.lab.statistics import power_law
from resnetkit.training.allocator import give_back_holes, keep_freed_memory

RESULT = RESULTS / "memory.json"
DEEP = "resnet1202_cifar"


def built(name: str, mode: str = "plain", **choices):
    """A network with its gradients there, as between two steps."""
    torch.manual_seed(0)
    net = rk.build(name, **choices).train().place("cpu").set_memory(mode)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return net


def step(net, images: int, side: int = 32) -> None:
    x = torch.randn(images, 3, side, side).contiguous(memory_format=torch.channels_last)
    F.cross_entropy(net(x), torch.arange(images) % 10).backward()


def live(net, images: int) -> int:
    with LiveMemory() as memory:
        step(net, images)
    return memory.peak


def process(name: str, mode: str, images: int) -> dict:
    """In a process of its own: its memory when the network is built, and the most it ever had after two steps."""
    code = f"import memory; memory.worker({name!r}, {mode!r}, {images})"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or ["killed, as for want of memory"]
        sys.exit(f"{name}, {mode}, {images} images: the process ended with {done.returncode}: {why[0]}")
    return json.loads(done.stdout)


def worker(name: str, mode: str, images: int) -> None:
    keep_freed_memory()
    net = built(name, mode)
    give_back_holes(net)
    before = status("VmRSS")
    for _ in range(2):
        step(net, images)
    print(json.dumps({"built": before, "peak": status("VmHWM")}))


def status(field: str) -> int:
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def checkpoint() -> dict:
    """resnet1202_cifar, batch 64: live and process memory and time in both modes."""
    net, found = built(DEEP), {"network": DEEP, "images": 64, "live": {}, "process": {}}
    for mode in ("plain", "checkpoint"):
        found["process"][mode] = process(DEEP, mode, 64)
        found["live"][mode] = live(net.set_memory(mode), 64)
        print(mode, found, flush=True)
    seconds: dict[str, list[float]] = {"plain": [], "checkpoint": []}
    for _ in range(2):
        for mode, taken in seconds.items():
            net.set_memory(mode)
            began = process_time()
            step(net, 64)
            taken.append(process_time() - began)
            print(mode, taken, flush=True)
    found["cpu_seconds"] = seconds
    found["time_ratio"] = min(seconds["checkpoint"]) / min(seconds["plain"])
    return found


def exponent() -> dict:
    """Live memory against depth, as planned (the plan is tested against steps that are taken), and the slope of the
    logarithms."""
    depths = (56, 110, 302, 1202)
    found = {"images": 64, "depths": depths}
    for mode in ("plain", "checkpoint"):
        needs = []
        for depth in depths:
            network = spec(f"resnet{depth}_cifar")
            with torch.device("meta"):
                trained = {name for name, _ in ResNet(network).named_parameters()}
            need = live_bytes(network, mode, trained=trained, shape=(64, 3, 32, 32), precision="float32")
            needs.append(need)
        found[mode] = {"live": needs, "exponent": power_law(depths, needs).exponent}
        print(mode, found[mode], flush=True)
    return found


def reversible() -> dict:
    """Live memory of a step on 32 images, at 110 layers and at 10,004; and the step's loss and time."""
    found = {"images": 32, "live": {}}
    for depth in (110, 10_004):
        net = built(f"resnet{depth}_cifar", reversible=True)
        began = process_time()
        found["live"][depth] = live(net, 32)
        found["cpu_seconds"] = process_time() - began
        finite = all(p.grad.isfinite().all() for p in net.parameters())
        found["gradients_finite"] = bool(finite)
        print(found, flush=True)
    return found


def building() -> dict:
    """Seconds to build 10,004 layers, the least of three."""
    seconds = []
    for _ in range(3):
        began = process_time()
        net = rk.build("resnet10004_cifar")
        seconds.append(process_time() - began)
        print(seconds, flush=True)
    return {"cpu_seconds": min(seconds), "parameters": sum(p.numel() for p in net.parameters())}


PARTS = {p.__name__: p for p in (building, reversible, exponent, checkpoint)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    torch.set_num_threads(1)
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"id": "memory"}
    for name, part in PARTS.items():
        if only in (None, name):
            origin = header(f"memory-{name}", f"python benchmarks/memory.py --only {name}", [0])
            result[name] = part() | {"origin": origin}
            save(result)


if __name__ == "__main__":
    main()
