"""Speed and memory beside the peers: results/benchmark-NAME.json for each case.

python benchmarks/speed.py            the short size, 10 minutes on a quiet machine of 2 cores
python benchmarks/speed.py --full     every peer, at its best too; an hour or more
python benchmarks/speed.py --gpu      on a GPU, beside timm in mixed precision and at its best
python benchmarks/speed.py step-resnet50 ...

A run that is void is told and not written, and so is one that could not be made; the others go on. Exit code 7 where
some were void, 1 where some could not be made.
"""

import argparse
import sys
from functools import partial
from time import perf_counter
from typing import Any

from record import header, save

from resnetkit.benchmark.run import benchmark
from resnetkit.cli.benchmark import VOID
from resnetkit.device import find_device
from resnetkit.errors import ResnetkitError

EVERY = "torchvision,torchvision-compiled,timm,timm-compiled,transformers"
CASES: dict[str, tuple[str, ...]] = {  # name -> kind, model, peers of the short size, peers of the full one
    "step-resnet18": ("step", "resnet18", "torchvision-default,timm-default", EVERY),
    "step-resnet50": ("step", "resnet50", "torchvision-default", EVERY + ",keras-applications"),
    "step-resnet20_cifar": ("step", "resnet20_cifar", "cifar-repository-default", "cifar-repository"),
    "inference-resnet50": ("inference", "resnet50", "torchvision-default", EVERY + ",keras-applications"),
    "inference-resnet20_cifar": ("inference", "resnet20_cifar", "cifar-repository-default", "cifar-repository"),
    "loader": ("loader", "resnet18", "pillow,torchvision-folder", "pillow,torchvision-folder"),
    "memory-resnet18": ("memory", "resnet18", "torchvision-default", "torchvision,timm"),
    "startup-resnet18": ("startup", "resnet18", "torchvision-default", "torchvision-default,timm-default,transformers"),
    "step-notebook": ("step", "resnet34", "", "keras-notebook"),
}
GPU_PEERS = "timm-mixed,timm-best"
GPU_CASES: dict[str, tuple[str, ...]] = {
    "step-resnet50-gpu": ("step", "resnet50", GPU_PEERS, f"{GPU_PEERS},timm-default,torchvision-mixed"),
    "inference-resnet50-gpu": ("inference", "resnet50", GPU_PEERS, f"{GPU_PEERS},timm-default,torchvision-mixed"),
}
ON_GPU: dict[str, Any] = {"device": "cuda", "batch_size": 256, "precision": "bfloat16"}
CHOICES: dict[str, dict[str, Any]] = {
    "step-resnet18": {"batch_size": 32},
    "step-notebook": {"batch_size": 8},
    "step-resnet50-gpu": ON_GPU | {"compile": "on"},
    "inference-resnet50-gpu": ON_GPU,
}
FRESH, FRESH_ROUNDS = ("memory", "startup"), 5  # what starts a process for every value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases [default: all]")
    parser.add_argument("--full", action="store_true", help="every peer")
    parser.add_argument("--gpu", action="store_true", help="the cases of a GPU")
    arguments = parser.parse_args()
    cases = CASES | GPU_CASES
    if unknown := set(arguments.names) - set(cases):
        parser.error(f"{', '.join(unknown)}: the cases are {', '.join(cases)}")
    ends: dict[str, list[str]] = {"void": [], "failed": []}
    for name in arguments.names or (GPU_CASES if arguments.gpu else CASES):
        kind, model, short, full = cases[name]
        if against := full if arguments.full else short:
            end = measured(name, kind, model, against)
            ends.setdefault(end, []).append(name)
    if ends["void"]:
        print(
            f"void, and not written: {', '.join(ends['void'])}; the machine was not quiet, or a peer's work not equal"
        )
    if ends["failed"]:
        print(f"not measured: {', '.join(ends['failed'])}; the reasons stand above")
    sys.exit(1 if ends["failed"] else VOID if ends["void"] else 0)


def measured(name: str, kind: str, model: str, against: str) -> str:
    """How it ended: written, void or failed."""
    choices: dict[str, Any] = CHOICES.get(name, {}) | ({"rounds": FRESH_ROUNDS} if kind in FRESH else {})
    flags = "".join(f" --{key.replace('_', '-')} {value}" for key, value in choices.items())
    command = f"resnet benchmark {kind} {model} --against {against}{flags}"
    try:
        before = header(f"benchmark-{name}", command, [0], find_device(choices.get("device", "cpu")))
        began = perf_counter()
        found = benchmark(kind, model, against=against.split(","), tell=partial(tell, name, began), **choices)
    except ResnetkitError as error:
        print(f"{name}: {error}", flush=True)
        return "failed"
    seconds = perf_counter() - began
    for peer, values in found["peers"].items():
        print(f"{name}: {values['ratio']['median']:.2f} times {peer}, {seconds:.0f} s", flush=True)
    for reason in found["reasons"]:
        print(f"{name}: {reason}", flush=True)
    if found["void"]:
        return "void"
    save(before | found | {"environment": before["environment"], "benchmark_seconds": round(seconds)})
    return "written"


def tell(name: str, began: float, line: str) -> None:
    print(f"{name}: {perf_counter() - began:.0f} s: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
