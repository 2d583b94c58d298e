"""`resnet train digits` up to its first step: python -m resnetkit.benchmark.first_step FOLDER CORE... ends there."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from runpy import run_module
from tempfile import TemporaryDirectory
from time import perf_counter

from resnetkit.benchmark.process import variables
from resnetkit.benchmark.worker import pin
from resnetkit.errors import ResnetkitError


def first_step_seconds(times: int, cores: Sequence[int], device: str) -> list[float]:
    """From the start of the process to the end of its first step, so many times. Raises ResnetkitError where it does
    not get there."""
    found = []
    for _ in range(times):
        with TemporaryDirectory() as folder:
            began = perf_counter()
            command = [sys.executable, "-m", "resnetkit.benchmark.first_step", str(Path(folder) / "run")]
            command += map(str, cores)
            done = subprocess.run(command, capture_output=True, text=True, env=variables(cores, device))
            found.append(perf_counter() - began)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise ResnetkitError(f"resnet train digits: {last}")
    return found


def main() -> None:
    folder, *cores = sys.argv[1:]
    pin([int(core) for core in cores])
    from resnetkit.training.trainer import Trainer

    Trainer._after_step = lambda *_: os._exit(0)  # type: ignore[method-assign]
    sys.argv = ["resnet", "train", "digits", "--out", folder]
    run_module("resnetkit.cli.main", run_name="__main__")


if __name__ == "__main__":
    main()
