"""The near side of a worker: started, asked, closed."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from resnetkit.errors import ResnetkitError

PACKAGE = Path(__file__).parents[2]  # what a worker of another environment imports resnetkit from


def variables(cores: Sequence[int], device: str) -> dict[str, str]:
    """The environment of a process that works with a thread on each of `cores`. With `device` cpu it sees no GPU: Keras
    takes one unasked. Bytecode is written, as an installed package has it, and a checkout after its first start."""
    path = os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"OMP_NUM_THREADS": str(len(cores)), "MKL_NUM_THREADS": str(len(cores)), "PYTHONPATH": path}
    found = os.environ | own | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    return {name: value for name, value in found.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Worker:
    """A process of one contender, pinned to `cores` before it loads anything. Used as a context, and closed by it."""

    def __init__(self, name: str, command: Sequence[str], cores: Sequence[int], device: str = "cpu") -> None:
        self.name = name
        self._errors = TemporaryFile("w+")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=variables(cores, device),
            )
        except OSError as error:
            raise ResnetkitError(f"{name}: {command[0]} does not start: {error.strerror}") from error
        self.ask("pin", cores=list(cores))

    def ask(self, do: str, **values: Any) -> Any:
        """Have it do one thing, and wait. Raises ResnetkitError with what it says went wrong."""
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):
            print(json.dumps({"do": do} | values), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["it said nothing"])[-1]
            raise ResnetkitError(f"{self.name}: the worker ended: {last}")
        answer = json.loads(line)
        if "error" in answer:
            raise ResnetkitError(f"{self.name}: {answer['error']}")
        return answer["answer"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def ours(kind: str) -> list[str]:
    """The command of one of our own workers."""
    return [sys.executable, "-m", "resnetkit.benchmark.ours", kind]
