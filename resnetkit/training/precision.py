"""Which arithmetic the network trains in. Weights and the loss stay float32."""

from collections.abc import Callable
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from resnetkit.device import PRECISIONS, autocast, processor_has

SIDE = 1024  # of the matrices that are timed: some milliseconds a product
TRIALS = 5
FASTER = 0.8  # of the time in float32, at most: which one is taken must not hang on noise
TOLERANCE = 0.02  # of the norm; bfloat16 rounds to 0.4 %
CONVOLUTIONS = ((1, 1), (1, 2), (8, 1), (8, 2))  # images and stride of those that are checked


Tell = Callable[[str], object]


def resolve_precision(precision: str, device: torch.device, tell: Tell = lambda line: None) -> str:
    """`auto` is bfloat16 where the processor computes in it, rightly and faster so, else float32. `tell` hears what was
    timed."""
    if precision != "auto":
        return precision
    chosen = has_bfloat16(device) and bfloat16_is_faster(device, tell) and bfloat16_is_right(device)
    return "bfloat16" if chosen else "float32"


def has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN emulates bfloat16 elsewhere, several times slower than float32.
    return processor_has("avx512_bf16", "amx_bf16", "bf16")  # x86, x86 and ARM


def bfloat16_is_faster(device: torch.device, tell: Tell = lambda line: None) -> bool:
    """By the least times of matrix products in turn. With AVX-512 alone, some processors take twice as long in it."""
    if device.type == "cuda":
        return True
    seconds = _product_seconds()
    times = " and ".join(f"{1000 * value:.2f} ms in {name}" for name, value in seconds.items())
    tell(f"precision: a product of two {SIDE} x {SIDE} matrices takes {times}")
    return seconds["bfloat16"] < FASTER * seconds["float32"]


def bfloat16_is_right(device: torch.device) -> bool:
    """Whether convolutions in it give what float32 gives, forward and backward, within TOLERANCE.

    Some builds of torch compute wrong ones on some processors (pytorch issue 163347).
    """
    for batch, stride in CONVOLUTIONS:
        found = [_convolved(device, precision, batch, stride) for precision in PRECISIONS.values()]
        for exact, rounded in zip(*found):
            if not (rounded - exact).norm() <= TOLERANCE * exact.norm():  # NaN is wrong, too
                return False
    return True


def _convolved(device: torch.device, precision: torch.dtype, batch: int, stride: int) -> list[Tensor]:
    """A 3x3 convolution of fixed numbers and its gradients of image and filters, on the CPU in float32."""
    generator = torch.Generator().manual_seed(0)
    x, filters = (
        torch.randn(shape, generator=generator)
        .to(device)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for shape in ((batch, 32, 14, 14), (64, 32, 3, 3))
    )
    with autocast(device, precision):
        y = F.conv2d(x, filters, stride=stride, padding=1)
    y.float().square().sum().backward()
    assert x.grad is not None and filters.grad is not None
    return [value.detach().float().cpu() for value in (y, x.grad, filters.grad)]


def _product_seconds() -> dict[str, float]:
    """The least time of a square matrix product on the CPU in each of PRECISIONS, tried in turn."""
    matrices = {name: torch.ones(SIDE, SIDE, dtype=dtype) for name, dtype in PRECISIONS.items()}
    seconds = {name: float("inf") for name in matrices}
    for _ in range(TRIALS):
        for name, matrix in matrices.items():
            began = perf_counter()
            matrix @ matrix
            seconds[name] = min(seconds[name], perf_counter() - began)
    return seconds
