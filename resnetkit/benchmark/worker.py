"""The far side of a benchmark: a process that works when it is told to and waits otherwise.

Of the standard library alone: peers import this file too, and their start-up is measured.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

LONG = 1.0  # seconds

Work = Callable[[], int]  # does a fixed piece of work and says how many images it was


def serve(methods: dict[str, Callable[..., Any]]) -> None:
    """Answer one JSON line a request, {"do": NAME, ...}, until standard input ends.

    What libraries print goes to standard error. `pin` is answered here, before any library is loaded.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": (methods | {"pin": pin, "peak": peak_bytes})[request.pop("do")](**request)}
        except Exception as error:  # the other side has it in its message
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def pin(cores: list[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def peak_bytes() -> int:
    """The most memory that this process has had so far: on the card where torch works there, else of the process."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":  # whose ru_maxrss is at least that of the process that started this one
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def timed(
    work: Work,
    seconds: float,
    synchronise: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, float]:
    """{images, seconds} of work for at least so long. One piece goes before, untimed, since another process had the
    caches; a piece that takes LONG, and so long, is the sample itself: to fill them takes a few milliseconds.

    Between looks at the clock the pieces double until they are a tenth of it, so that a GPU is not waited for at each.
    """
    began = clock()
    images = work()
    synchronise()
    if (passed := clock() - began) >= max(seconds, LONG):
        return {"images": images, "seconds": passed}
    images, pieces, began, passed = 0, 1, clock(), 0.0
    while passed < seconds:
        for _ in range(pieces):
            images += work()
        synchronise()
        before, passed = passed, clock() - began
        if passed - before < seconds / 10:
            pieces *= 2
    return {"images": images, "seconds": passed}


class Stopwatch:
    """The seconds of one part of a start after another."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.parts[name] = now - self._last
        self._last = now
