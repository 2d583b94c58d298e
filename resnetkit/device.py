"""Where, and in what arithmetic, a network computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from resnetkit.errors import ResnetkitError, ResourceExhausted

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def find_device(name: str) -> torch.device:
    """The CPU or a GPU of CUDA by name; `auto` is the first GPU where there is one. Raises ResnetkitError for another
    device, and for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise ResnetkitError(f"device {name!r} is not one that we compute on; give cpu or cuda")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ResnetkitError(
            f"device {name!r} is not to be had here: {str(error).splitlines()[0]}; give cpu"
        ) from error
    return device


def processor_has(*instructions: str) -> bool:
    """Whether the processor has any of these, by PyTorch's names."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(name) for name in instructions)


def find_precision(name: str) -> torch.dtype:
    """float32 or bfloat16 by name. Raises ResnetkitError for another."""
    if name not in PRECISIONS:
        raise ResnetkitError(f"precision {name!r} is not known; it must be {' or '.join(PRECISIONS)}")
    return PRECISIONS[name]


@contextmanager
def within_memory(device: torch.device, cure: str) -> Iterator[None]:
    """Raises ResourceExhausted, which names the cure, where a GPU's memory or the machine's is not enough, and where a
    process that reads photos is killed, which torch tells by a signal, whatever is at work then."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ResourceExhausted(f"{device} has too little memory; {cure}") from error
    except (MemoryError, RuntimeError) as error:
        if "DataLoader worker (pid" in str(error):  # torch has no class for it
            raise ResourceExhausted("a process that reads photos was killed, as where memory runs out") from error
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):  # nor for this
            raise
        raise ResourceExhausted(f"the machine has too little memory; {cure}") from error


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The arithmetic of a forward pass; float32 leaves everything as it is."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)
