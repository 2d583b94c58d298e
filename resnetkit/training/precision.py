"""Which arithmetic the network trains in. Weights and the loss stay float32."""

import torch


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the processor computes in it, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN emulates bfloat16 elsewhere, several times slower than float32.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86 and ARM
