"""`resnet train digits` up to its first step: python -m resnetkit.benchmark.first_step FOLDER ends there."""

import os
import subprocess
import sys
from pathlib import Path
from runpy import run_module
from tempfile import TemporaryDirectory
from time import perf_counter


def first_step_seconds(times: int) -> list[float]:
    """From the start of the process to the end of its first step, so many times."""
    found = []
    for _ in range(times):
        with TemporaryDirectory() as folder:
            began = perf_counter()
            command = [sys.executable, "-m", "resnetkit.benchmark.first_step", str(Path(folder) / "run")]
            subprocess.run(command, check=True, capture_output=True)
            found.append(perf_counter() - began)
    return found


def main() -> None:
    from resnetkit.training.trainer import Trainer

    Trainer._after_step = lambda *_: os._exit(0)  # type: ignore[method-assign]
    sys.argv = ["resnet", "train", "digits", "--out", sys.argv[1]]
    run_module("resnetkit.cli.main", run_name="__main__")


if __name__ == "__main__":
    main()
