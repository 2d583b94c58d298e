"""A run begun or gone on with: read the data, settle everything, build the network, hand over to the trainer."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnetkit.architecture.resnet import MEMORY_MODES, ResNet
from resnetkit.cores import default_workers
from resnetkit.data.datasets import absolute
from resnetkit.data.ingest import SMALL
from resnetkit.data.preprocess import Preprocessing
from resnetkit.device import find_device, within_memory
from resnetkit.errors import ResnetkitError, did_you_mean, require_number
from resnetkit.reporting.record import compiled
from resnetkit.sizes import parse_bytes
from resnetkit.training import tracking
from resnetkit.training.allocator import keep_freed_memory
from resnetkit.training.averaging import Average
from resnetkit.training.batch_size import find_batch_size, scaled_rate
from resnetkit.training.compiling import check_compile, check_graphs, compile_network, compiling_pays
from resnetkit.training.epochs import images_by_epoch, training_batches
from resnetkit.training.folder import RunFolder, new_run_path
from resnetkit.training.freezing import frozen_parts
from resnetkit.training.memory import choose_memory
from resnetkit.training.optimizer import make_optimizer
from resnetkit.training.precision import has_bfloat16, resolve_precision
from resnetkit.training.prepare import Prepared, prepare
from resnetkit.training.pruning import Pruning
from resnetkit.training.range_test import RangeTest, range_test
from resnetkit.training.state import TrainingState, checkpoint_spec
from resnetkit.training.trainer import Run, Trainer
from resnetkit.training.whitening import whiten
from resnetkit.weights.files import Model
from resnetkit.weights.load import build, rebuild, transfer

MAX_BAD = 0.1  # share of the images
FIRST_WEIGHTS = "resnet18.imagenet1k_v1"  # of the network that photos are trained with where nothing is said
AUTOMATIC = ("batch_size", "lr")  # settings that may be `auto`


def train(
    data: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    track: str | Sequence[str] = (),
    memory: str | None = None,
    memory_budget: str | None = None,
    compile: str | None = None,
    **settings: Any,
) -> Run:
    """Train on `data`: a named set, a folder of class folders, a CSV, an archive, ...; see datasets.KINDS.

    `settings` replace those of the recipe (`model=`, `epochs=`, `lr=`, ...; see Recipe); `batch_size="auto"` finds the
    largest that fits (`memory_budget`, where given), `lr="auto"` the rate by a range test. The run is written to `out`,
    by default runs/<data>-<model>-<number>; a share `max_bad` of the images (a tenth) may be unreadable and is left
    out. `track` names what follows the run: tensorboard, mlflow, wandb. `memory` is plain, checkpoint (see
    ResNet.set_memory; the numbers are the same) or auto, which is plain where a step fits `memory_budget`, such as
    4GiB, or the free memory. `compile` is off, on (see ResNet.compile; its numbers differ in their last bits), graphs
    (on, and CUDA graphs) or auto, which tries which of off and on ends the run sooner. `resume` goes on with an
    interrupted run, on a CPU bit for bit, and takes no other setting than `device` (auto: that of the run), `workers`,
    `memory` and `compile`. Raises ResnetkitError, of which Interrupted means saved and resumable.
    """
    execution = Execution(*_memory(memory, memory_budget), check_compile(compile))
    if workers is not None:
        require_number("workers", workers, 0)
    if resume is not None:
        if any(given is not None for given in (data, recipe, out, max_bad)) or track or settings:
            raise ResnetkitError(
                "a resumed run keeps its data and settings; give --resume alone (--weights RUN starts another)"
            )
        folder = RunFolder.reopen(Path(resume))
        if folder.finished:
            return Run(folder.path, folder.read("evaluation/metrics.json"))
        return _resumed(folder, device, execution).run(workers)
    if data is None:
        raise ResnetkitError("nothing to train on: name a dataset (`digits` needs no files), or --resume a run")
    trackers = [track] if isinstance(track, str) else track
    tracking.require(trackers)
    if out is not None:
        RunFolder.require_free(Path(out))
    place = find_device(device)
    workers = default_workers(place.type) if workers is None else workers
    if compile == "graphs":
        check_graphs(place, execution.memory or "plain")
    max_bad = MAX_BAD if max_bad is None else max_bad
    prepared, notes, trials = _settle(data, recipe, settings, max_bad, place, execution)
    found = _tried(prepared, place, workers, execution, range_tested=settings.get("lr") == "auto")
    command = {"argv": sys.argv, "data": absolute(data), "max_bad": max_bad, "device": str(place)}
    command["trials"] = [*trials, *found.trials]
    return _begun(found, notes, command, out, trackers).run(workers)


class Execution(NamedTuple):
    """How a run computes, whatever it computes; None as the folder of a resumed run has it, else the default."""

    memory: str | None
    budget: int | None
    compile: str | None


def _within_memory(device: torch.device, memory: str, verb: str = "give") -> AbstractContextManager[None]:
    less = "" if memory == "checkpoint" else f", or {verb} memory=checkpoint"
    return within_memory(device, f"lower batch_size or img_size{less}")


class Start(NamedTuple):
    """What a run begins or goes on with. `command` is what its folder keeps of how it was called."""

    folder: RunFolder
    prepared: Prepared
    state: TrainingState
    device: torch.device
    notes: list[str]
    command: dict[str, Any]

    def run(self, workers: int | None) -> Run:
        workers = default_workers(self.device.type) if workers is None else workers
        trackers = tracking.Trackers(self.folder.path, self.command.get("track", {}))
        with _within_memory(self.device, self.state.net.memory, "resume with"):
            return Trainer(self.prepared, self.folder, self.state, self.device, workers, self.notes, trackers).run()


def _resumed(folder: RunFolder, device: str, execution: Execution) -> Start:
    if execution.compile == "auto":
        raise ResnetkitError("compile=auto is for a new run; give a resumed one off, on or graphs, or nothing")
    command = folder.read(folder.command)
    tracking.require(command.get("track", ()))
    place = find_device(command["device"] if device == "auto" else device)
    recipe = folder.recipe()
    start = _as_it_was_saved(folder) if recipe.weights and folder.last.exists() else None
    prepared = prepare(command["data"], recipe, {}, command["max_bad"], start)
    folder.check_same_data(prepared)
    state, notes = new_state(prepared, place)
    memory = execution.memory or command.get("memory", "plain")
    mode, note = choose_memory(prepared, state.net, memory, execution.budget)
    _set_execution(state, mode, execution.compile or compiled(command))
    if folder.last.exists():
        with _within_memory(place, mode, "resume with"):
            state.restore(folder.last)
    return Start(folder, prepared, state, place, [*_slowness(prepared, place), *notes, *note], command)


def _as_it_was_saved(folder: RunFolder) -> Model | None:
    """What a run with a checkpoint needs of the weights that it began with, which may be gone: the network and its
    pixels. The numbers are restored later. None where an earlier version wrote the checkpoint, without a spec."""
    spec = checkpoint_spec(folder.last)
    if spec is None:
        return None
    pixels = Preprocessing.from_dict(folder.read("preprocessing.json"))
    return Model(ResNet(spec), list(folder.read("classes.json")), pixels)


def _set_execution(state: TrainingState, memory: str, compiled: str) -> None:
    if next(state.net.parameters()).device.type == "cpu":
        keep_freed_memory()
    state.net.set_memory(memory)
    if compiled != "off":
        compile_network(state, compiled)


class Found(NamedTuple):
    """A run whose settings are all numbers, in the memory mode and compiled as it will be, before its first step."""

    prepared: Prepared
    state: TrainingState
    notes: list[str]
    trials: list[str]
    range_test: RangeTest | None
    compiled: str


def _tried(
    prepared: Prepared, device: torch.device, workers: int, execution: Execution, *, range_tested: bool
) -> Found:
    """What is left to trials: the memory mode, the rate where it is `auto`, and whether compiling pays."""
    state, notes = new_state(prepared, device)
    mode, told = choose_memory(prepared, state.net, execution.memory or "plain", execution.budget)
    trials = list(told) if execution.memory == "auto" else []
    compiled = execution.compile if execution.compile in ("on", "graphs") else "off"
    tested = None
    _set_execution(state, mode, compiled)
    if range_tested:
        with _within_memory(device, mode):
            tested = range_test(state, training_batches(prepared, workers, device), prepared)
        prepared = prepared.with_settings(lr=float(f"{tested.chosen:.2g}"))
        state, _ = new_state(prepared, device)
        _set_execution(state, mode, compiled)
    if execution.compile == "auto":
        with _within_memory(device, mode):
            compiled, why = compiling_pays(prepared, state)
        told, trials = [*told, why], [*trials, why]
        state, _ = new_state(prepared, device)
        _set_execution(state, mode, compiled)
    return Found(prepared, state, [*notes, *told], trials, tested, compiled)


def _begun(
    found: Found, notes: list[str], command: dict[str, Any], out: str | Path | None, track: Sequence[str]
) -> Start:
    """The run with its folder."""
    prepared, state = found.prepared, found.state
    command = command | {"task": prepared.task.NAME, "track": tracking.begin(dict.fromkeys(track))}
    path = Path(out) if out is not None else new_run_path(f"{prepared.dataset.name}-{prepared.recipe.model}")
    command |= {"memory": state.net.memory, "compile": found.compiled}
    folder = RunFolder.create(path, prepared, command)
    if found.range_test is not None:
        from resnetkit.evaluation.plots import draw_range_test

        draw_range_test(*found.range_test, folder.range_test)
    return Start(folder, prepared, state, torch.device(command["device"]), [*notes, *found.notes], command)


def _memory(memory: str | None, budget: str | None) -> tuple[str | None, int | None]:
    """What was asked for, the budget in bytes; a budget alone asks for auto. Raises ResnetkitError."""
    known = (*MEMORY_MODES, "auto")
    if memory not in (None, *known):
        raise ResnetkitError(f"memory={memory!r}: {did_you_mean(str(memory), known)}")
    if budget is None:
        return memory, None
    if memory in MEMORY_MODES:
        raise ResnetkitError(f"memory_budget={budget!r} is for memory=auto, and memory={memory}; leave one of them out")
    return "auto", parse_bytes(budget)


def _settle(
    data: str | Path,
    recipe: str | Path | None,
    settings: dict[str, Any],
    max_bad: float,
    device: torch.device,
    execution: Execution,
) -> tuple[Prepared, list[str], list[str]]:
    """What the run is decided by, its precision and batch size found by trying where they are `auto`, its rate still 1
    where that is; what a user should know of it; and what was tried."""
    automatic = {name for name in AUTOMATIC if settings.get(name) == "auto"}
    given = {name: value for name, value in settings.items() if name not in automatic}
    prepared = prepare(data, recipe, given | ({"lr": 1.0} if "lr" in automatic else {}), max_bad)
    trials: list[str] = []
    precision = resolve_precision(prepared.recipe.precision, device, trials.append)
    prepared = prepared.with_settings(precision=precision)
    notes = _slowness(prepared, device)
    if prepared.start is None and _are_photos(prepared) and prepared.preprocessing.channels == "rgb":
        notes.append(f"start  random weights; trained ones, as --weights {FIRST_WEIGHTS}, need fewer photos")
    if "batch_size" in automatic:
        prepared, note = _with_largest_batch(prepared, device, execution, scale_rate="lr" not in settings)
        notes.append(note)
        trials.append(note)
    require_batches_of_two(prepared)
    return prepared, notes, trials


def _are_photos(prepared: Prepared) -> bool:
    """Rather than images of one small size."""
    return not isinstance(prepared.parts["train"].images, Tensor)


def _slowness(prepared: Prepared, device: torch.device) -> list[str]:
    if prepared.recipe.precision != "bfloat16" or has_bfloat16(device):
        return []
    return [f"slow   {device} has no bfloat16 and emulates it; precision=auto is several times as fast"]


def require_batches_of_two(prepared: Prepared) -> None:
    """The batches of an epoch are alike, so those of a small set may be smaller than the recipe says. Raises
    ResnetkitError."""
    if min(seen for seen, _ in images_by_epoch(prepared)) // prepared.steps < 2:
        images, most = len(prepared.parts["train"]), prepared.recipe.batch_size
        raise ResnetkitError(
            f"{images} training images in batches of up to {most} leave batch norm one of a single image; "
            "give another batch_size, or more images"
        )


def _with_largest_batch(
    prepared: Prepared, device: torch.device, execution: Execution, *, scale_rate: bool
) -> tuple[Prepared, str]:
    """The batch size found for the machine, the rate in proportion to it where it is the recipe's; and a line on it."""
    state, _ = new_state(prepared, device)
    state.net.set_memory("checkpoint" if execution.memory == "checkpoint" else "plain")
    found, recipe = find_batch_size(prepared, state, execution.budget), prepared.recipe
    note = f"batch  {found}"
    if scale_rate and found.images != recipe.batch_size:
        rate = scaled_rate(recipe, found.images)
        scaling = "linear" if recipe.optimizer == "sgd" else "square-root"
        note += f"; lr {recipe.lr:g} for {recipe.batch_size} images becomes {rate:g} ({scaling} scaling)"
        prepared = prepared.with_settings(lr=rate)
    return prepared.with_settings(batch_size=found.images), note


def new_state(prepared: Prepared, device: torch.device) -> tuple[TrainingState, list[str]]:
    """The state before the first step, and what a user should know of how it was made. Raises ResnetkitError for what
    cannot be built or begun so, ResourceExhausted where the network does not fit the device."""
    recipe, preprocessing = prepared.recipe, prepared.preprocessing
    torch.manual_seed(recipe.seed)
    classes, channels = len(prepared.dataset.classes), len(preprocessing.mean)
    choices: dict[str, Any] = {"drop_path_rate": recipe.drop_path_rate}
    for choice in ("reversible", "zero_init_residual"):  # else as the weights have it
        if getattr(recipe, choice):
            choices[choice] = True
    start = prepared.start
    if start is not None and start.network.spec.name == recipe.model:
        net = rebuild(start.network.spec, classes, channels, **choices)
    else:
        net = build(recipe.model, classes, in_channels=channels, **choices)
    net.image_size = preprocessing.size
    notes = []
    if start is not None:
        notes += start.report.splitlines() if "taken_for" in start.provenance else []
        notes.append("; ".join([f"start  {recipe.weights}", *transfer(net, start)]))
        if _are_photos(prepared) and recipe.img_size is None and max(net.image_size) <= SMALL:
            size = "x".join(map(str, net.image_size))
            notes.append(f"small  photos are seen at {size} pixels, the size of the weights; --img-size gives another")
    if recipe.whiten:
        images = prepared.parts["train"].images
        assert isinstance(images, Tensor)  # `prepare` refuses photos
        notes.append(whiten(net, images, preprocessing))
    frozen_parts(net, recipe, epoch=0)  # refuses a part that is not there
    with within_memory(device, "free some of it, or give another device"):
        net.place(device)
        pruning = Pruning(len(prepared.parts["train"]), recipe.prune_easy, device)
        return TrainingState(net, make_optimizer(net, recipe), Average(net, recipe.ema_decay), pruning), notes
