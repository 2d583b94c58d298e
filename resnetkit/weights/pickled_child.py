"""The process that unpickles a checkpoint, alone and with limits; `pickled.py` starts it as a script.

Its standard input is the checkpoint, its arguments are the file to write, the keys that lead to the state dict as a
JSON list, and the bytes of memory it may use beyond what it starts with. It prints one line where it fails.
"""

import json
import resource
import sys

import torch
from safetensors.torch import save_file

SECONDS = 600  # of processor time


def main(output: str, keys: list[str], memory: int) -> None:
    if sys.platform == "linux":  # other kernels do not hold a process to it
        with open("/proc/self/statm") as status:
            data_pages = int(status.read().split()[5])
        limit(resource.RLIMIT_DATA, data_pages * resource.getpagesize() + memory)
    limit(resource.RLIMIT_CPU, SECONDS)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_FSIZE, memory)
    with open(0, "rb") as file:
        found = torch.load(file, map_location="cpu", weights_only=True)
    for key in keys:
        found = found[key]
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, output)


def limit(kind: int, amount: int) -> None:
    resource.setrlimit(kind, (amount, amount))


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
    except Exception as error:  # whatever a file of anybody's provokes is told, not raised
        sys.exit(f"{type(error).__name__}: {error}")
