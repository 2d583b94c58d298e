"""Seconds from pressing return to the end of the first step of `resnet train digits`: results/first-step.json.

python benchmarks/first_step.py     a minute on 2 cores

Beside it, start by start and on the same cores, a process that imports PyTorch alone. Both are by the clock, so a
machine that is not quiet makes them longer.
"""

import subprocess
import sys
from statistics import median
from time import perf_counter

from record import header, save

from resnetkit.benchmark.first_step import first_step_seconds
from resnetkit.benchmark.process import variables
from resnetkit.cores import core_count, usable_cores

TIMES = 15


def import_seconds(cores: list[int]) -> float:
    """Of PyTorch, without what a process does at its end."""
    code = f"from resnetkit.benchmark.worker import pin; pin({cores}); import os, torch; os._exit(0)"
    began = perf_counter()
    subprocess.run([sys.executable, "-c", code], env=variables(cores, "cpu"), check=True)
    return perf_counter() - began


def figures(seconds: list[float]) -> dict:
    return {"median": median(seconds), "most": max(seconds), "seconds": seconds}


def main() -> None:
    before = header("first-step", "resnet train digits", [0])
    cores = usable_cores()[: core_count()]
    first_step_seconds(1, cores, "cpu")  # files come into memory
    pairs = [(*first_step_seconds(1, cores, "cpu"), import_seconds(cores)) for _ in range(TIMES)]
    before["environment"]["threads"] = len(cores)
    steps, imports = map(figures, map(list, zip(*pairs)))
    save(before | {"first_step": steps, "import_torch": imports})
    print(f"{steps['median']:.2f} s, {steps['most']:.2f} s at most; to import PyTorch {imports['median']:.2f} s")


if __name__ == "__main__":
    main()
