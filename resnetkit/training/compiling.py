"""Whether a run's network is compiled: as it is asked for, or by a short trial on the machine at hand."""

import os
from shutil import which
from time import perf_counter

import torch

from resnetkit.errors import ResnetkitError, did_you_mean
from resnetkit.training.memory import trial_step
from resnetkit.training.prepare import Prepared
from resnetkit.training.state import TrainingState

COMPILE_MODES = ("off", "on", "auto")
COMPILERS = (os.environ.get("CXX", "clang++"), "clang++", "g++")  # as torch looks for them
SHORT = 600.0  # seconds of a run, of which compiling, about a minute on two cores, would take too large a share
TRIALS = 3  # steps of which the fastest counts
COMPILATIONS = 3  # for the first batch, for batches of another size, for images of another size


def check_compile(asked: str | None) -> None:
    """Raises ResnetkitError where it is no mode, or one that this machine cannot have."""
    if asked not in (None, *COMPILE_MODES):
        raise ResnetkitError(f"compile={asked!r}: {did_you_mean(str(asked), COMPILE_MODES)}")
    if asked in ("on", "auto") and not any(map(which, COMPILERS)):
        raise ResnetkitError(f"compile={asked} needs a C++ compiler: install {COMPILERS[-1]}, or leave compile off")


def compiling_pays(prepared: Prepared, state: TrainingState, steps_per_epoch: int) -> tuple[bool, str]:
    """Whether the run ends sooner with the time to compile in it, and a line on it.

    Timed by steps on blank images of the full size; `state` is spent.
    """
    if state.net.spec.drop_path_rate or state.net.spec.reversible:
        return False, "compile off: the network is of stochastic depth or reversible"
    steps = prepared.recipe.epochs * steps_per_epoch
    plain = _least(prepared, state)
    if plain * steps < SHORT:
        return False, f"compile off: {plain * steps / 60:.1f} minutes of training are too few for it to pay"
    state.net.compile()
    first = _seconds(prepared, state)
    compiled = _least(prepared, state)
    pays = COMPILATIONS * first + compiled * steps < plain * steps
    told = f"a step takes {compiled:.3g} s compiled and {plain:.3g} s not, and compiling {first:.0f} s"
    return pays, f"compile {'on' if pays else 'off'}: {told}"


def _least(prepared: Prepared, state: TrainingState) -> float:
    return min(_seconds(prepared, state) for _ in range(1 + TRIALS))


def _seconds(prepared: Prepared, state: TrainingState) -> float:
    began = perf_counter()
    trial_step(state, prepared, prepared.recipe.batch_size)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter() - began
