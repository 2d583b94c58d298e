"""What the machine can do at most, and a fixed piece of work that shows whether it still does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

from resnetkit.device import PRECISIONS
from resnetkit.training.precision import has_bfloat16

SIDE = 2048  # of the square matrices
EMULATED_SIDE = 256  # a product of larger ones takes a minute where bfloat16 is emulated
COPIED = 2**28  # bytes; several times any cache of a processor
GPU_SIDE, GPU_BYTES = 4, 16  # times the sizes here, for a GPU: what takes microseconds there says little
GPU_SHARE = 32  # of a GPU's free memory one copy takes so small a part at most
TRIALS = 10
# Of 32 MiB, which a cache may hold in part, a copy took a sixth longer or shorter from one time to the next.
PROBE_SIDE, PROBED_BYTES, PROBE_TRIALS = 768, 2**27, 15


def ceilings(device: torch.device) -> dict[str, float]:
    """GFLOP/s of a matrix product in each precision, and GB/s of a copy, read and written; the best of TRIALS."""
    found = {f"{name}_gflops": gflops for name, gflops in products(device).items()}
    found["copy_gb_per_second"] = _copied(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what is measured next runs in other processes
    return found


def _copied(device: torch.device) -> float:
    count = _bytes(device, COPIED)
    source = torch.randn(count // 4, device=device)
    target = torch.empty_like(source)
    return 2 * count / _least(lambda: target.copy_(source), device, TRIALS) / 1e9


def products(device: torch.device) -> dict[str, float]:
    """GFLOP/s of a matrix product by precision, the best of TRIALS; on a GPU float32 is multiplied in TF32, as cuDNN's
    convolutions are where nothing else is said."""
    found = {}
    for name, dtype in PRECISIONS.items():
        side = _side(device, dtype)
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        with _multiplied_as_convolutions(device):
            found[name] = 2 * side**3 / _least(lambda a=a, b=b: a @ b, device, TRIALS) / 1e9  # type: ignore[misc]
    return found


@contextmanager
def _multiplied_as_convolutions(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if torch.backends.cudnn.allow_tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _side(device: torch.device, dtype: torch.dtype) -> int:
    if device.type == "cuda":
        return GPU_SIDE * SIDE
    return EMULATED_SIDE if dtype == torch.bfloat16 and not has_bfloat16(device) else SIDE


def _bytes(device: torch.device, count: int) -> int:
    """What to copy: on a GPU more, but no more than leaves room for what is measured."""
    if device.type != "cuda":
        return count
    free, _ = torch.cuda.mem_get_info(device)
    return min(GPU_BYTES * count, free // GPU_SHARE)


class Probe:
    """Seconds of a product in float32 and of a copy, each the least of a few."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        side = PROBE_SIDE * (GPU_SIDE if device.type == "cuda" else 1)
        self._matrix = torch.randn(side, side, device=device)
        self._source = torch.randn(_bytes(device, PROBED_BYTES) // 4, device=device)
        self._target = torch.empty_like(self._source)

    def __call__(self) -> list[float]:
        works: tuple[Callable[[], object], ...] = (
            lambda: self._matrix @ self._matrix,
            lambda: self._target.copy_(self._source),
        )
        return [_least(work, self._device, PROBE_TRIALS) for work in works]


def _least(work: Callable[[], object], device: torch.device, trials: int) -> float:
    seconds = float("inf")
    work()
    for _ in range(trials):
        _wait(device)
        began = perf_counter()
        work()
        _wait(device)
        seconds = min(seconds, perf_counter() - began)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
