"""Whether a run's network is compiled: as it is asked for, or by a short trial on the machine at hand."""

from math import prod
from time import perf_counter
from typing import Any

import torch

from resnetkit.errors import ResnetkitError, did_you_mean
from resnetkit.training.epochs import images_by_epoch, pixels_by_epoch
from resnetkit.training.memory import trial_step
from resnetkit.training.prepare import Prepared
from resnetkit.training.state import TrainingState

COMPILE_MODES = ("off", "on", "graphs", "auto")
SHORT = 600.0  # seconds of a run, of which compiling, about a minute on two cores, would take too large a share
TRIALS = 3  # steps of which the fastest counts
AFRESH = 2  # times that it compiles on a CPU: for the first shape and, then, for any


def check_compile(asked: str | None) -> str | None:
    """The same. Raises ResnetkitError where it is no mode."""
    if asked not in (None, *COMPILE_MODES):
        raise ResnetkitError(f"compile={asked!r}: {did_you_mean(str(asked), COMPILE_MODES)}")
    return asked


def compile_network(state: TrainingState, mode: str = "on") -> None:
    """Compile it block by block; `graphs`: to be replayed as CUDA graphs, which spares the launch of each kernel.

    Raises ResnetkitError for a network that cannot be compiled so, or where nothing can.
    """
    device = next(state.net.parameters()).device
    how: dict[str, Any] = {"mode": "reduce-overhead"} if mode == "graphs" else {}
    if device.type == "cuda":  # kernels for any shape are slower there, and took minutes to make
        how["dynamic"] = False
    if mode == "graphs":
        check_graphs(device, state.net.memory)
    state.net.compile(**how)
    if mode == "graphs":
        _mark_steps(state)
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except RuntimeError as error:  # torch._dynamo.exc.TorchDynamoException is one
        reason = str(error).strip().splitlines()[0]
        raise ResnetkitError(
            f"torch.compile does not work here: {reason}; install a C++ compiler, or leave compile off"
        ) from error


def check_graphs(device: torch.device, memory: str) -> None:
    """Raises ResnetkitError where there are no CUDA graphs, or where they would be recorded at every step: the memory
    mode `checkpoint` computes again with copies of the statistics, which lie elsewhere each time."""
    if device.type != "cuda":
        raise ResnetkitError(f"compile=graphs records CUDA graphs, and the run is on {device}; give compile=on")
    if memory != "plain":
        raise ResnetkitError(f"compile=graphs needs memory=plain; with memory={memory} give compile=on")


def _mark_steps(state: TrainingState) -> None:
    """From the first call after a mark on, graphs overwrite what they gave. The mark comes after the optimizer's step,
    so that gradients live while they accumulate."""
    mark = torch.compiler.cudagraph_mark_step_begin
    state.optimizer.register_step_post_hook(lambda *_: mark())
    mark()


def compiling_pays(prepared: Prepared, state: TrainingState) -> tuple[str, str]:
    """`on` where the run ends sooner with the time to compile in it, else `off`, and a line on it.

    Timed by steps on blank images of the full size, smaller ones by their pixels; `state` is spent.
    """
    steps = len(prepared.parts["train"]) / prepared.largest_batch * _whole_epochs(prepared)
    plain = _least(prepared, state)
    if plain * steps < SHORT:
        return "off", f"compile off: {plain * steps / 60:.1f} minutes of training are too few for it to pay"
    try:
        compile_network(state)
    except ResnetkitError as error:
        return "off", f"compile off: {error}"
    first = _seconds(prepared, state)
    compiled = _least(prepared, state)
    times = _shapes(prepared) if next(state.net.parameters()).device.type == "cuda" else AFRESH
    chosen = "on" if times * first + compiled * steps < plain * steps else "off"
    told = f"a step takes {compiled:.3g} s compiled and {plain:.3g} s not, and compiling {first:.0f} s"
    return chosen, f"compile {chosen}: {told}"


def _shapes(prepared: Prepared) -> int:
    """How many shapes a run's batches have, by the size of the images and how many they are."""
    steps, epochs = prepared.steps, images_by_epoch(prepared)
    return len({(size, count) for seen, size in epochs for count in (seen // steps, -(-seen // steps))})


def _whole_epochs(prepared: Prepared) -> float:
    """How many epochs of all images at their full size multiply as much."""
    return sum(pixels_by_epoch(prepared)) / (len(prepared.parts["train"]) * prod(prepared.training_size))


def _least(prepared: Prepared, state: TrainingState) -> float:
    return min(_seconds(prepared, state) for _ in range(1 + TRIALS))


def _seconds(prepared: Prepared, state: TrainingState) -> float:
    began = perf_counter()
    trial_step(state, prepared, prepared.largest_batch)  # waits for the device
    return perf_counter() - began
