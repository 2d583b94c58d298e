"""Which arithmetic the network trains in. Weights and the loss stay float32."""

from time import perf_counter

import torch

from resnetkit.device import PRECISIONS

SIDE = 1024  # of the matrices that are timed: some milliseconds a product
TRIALS = 5


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the processor computes in it and is faster so, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) and bfloat16_is_faster(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN emulates bfloat16 elsewhere, several times slower than float32.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86 and ARM


def bfloat16_is_faster(device: torch.device) -> bool:
    """By the least times of matrix products in turn. With AVX-512 alone, some processors take twice as long in it."""
    if device.type == "cuda":
        return True
    seconds = product_seconds(SIDE)
    return seconds["bfloat16"] < seconds["float32"]


def product_seconds(side: int) -> dict[str, float]:
    """The least time of a square matrix product on the CPU in each of PRECISIONS, tried in turn."""
    matrices = {name: torch.ones(side, side, dtype=dtype) for name, dtype in PRECISIONS.items()}
    seconds = {name: float("inf") for name in matrices}
    for _ in range(TRIALS):
        for name, matrix in matrices.items():
            began = perf_counter()
            matrix @ matrix
            seconds[name] = min(seconds[name], perf_counter() - began)
    return seconds
