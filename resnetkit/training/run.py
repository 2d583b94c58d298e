"""The story of a run: read the data, build the network, train it, test it once, write everything down."""

import copy
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from os import cpu_count
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from resnetkit.architecture.resnet import ResNet
from resnetkit.atomic import write_text
from resnetkit.data.loaders import TrainingBatches, evaluation_batches
from resnetkit.device import find_device
from resnetkit.errors import Interrupted, ResnetkitError, ResourceExhausted
from resnetkit.evaluation.evaluate import Answers, answer
from resnetkit.evaluation.metrics import confusion_matrix
from resnetkit.evaluation.plots import draw_confusion, draw_curves
from resnetkit.training.allocator import keep_freed_memory
from resnetkit.training.averaging import Average
from resnetkit.training.display import Display
from resnetkit.training.folder import COMMAND, RunFolder, environment, new_run_path
from resnetkit.training.interrupt import StopRequest
from resnetkit.training.journal import Journal
from resnetkit.training.loop import train_epoch
from resnetkit.training.optimizer import make_optimizer
from resnetkit.training.precision import resolve_precision
from resnetkit.training.prepare import Prepared, prepare
from resnetkit.training.schedule import training_size
from resnetkit.training.state import Tally, TrainingState
from resnetkit.weights.files import Model, load_model, save_model
from resnetkit.weights.load import build

MAX_BAD = 0.1  # share of the images
SAVE_EVERY = 60.0  # seconds of work that a crash may cost
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Run:
    """A finished run. `metrics` are those of its headline part (`metrics["split"]`)."""

    folder: Path
    metrics: dict[str, Any]

    @property
    def model(self) -> Model:
        return load_model(self.folder / "model.safetensors")


def train(
    data: str | Path | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    **settings: Any,
) -> Run:
    """Train on `data`: a named set, a folder of class folders, Parquet, or a CIFAR archive.

    `settings` replace those of the recipe (`model=`, `epochs=`, `lr=`, ...; see Recipe). The run is written to
    `out`, by default runs/<data>-<model>-<number>; a share `max_bad` of the images (a tenth) may be unreadable and is
    left out. `resume` goes on with an interrupted run, on a CPU bit for bit, and takes no other setting than `device`
    and `workers`. Raises ResnetkitError, of which Interrupted means saved and resumable.
    """
    workers = min(4, cpu_count() or 1) if workers is None else workers
    if resume is not None:
        if data is not None or recipe is not None or out is not None or max_bad is not None or settings:
            raise ResnetkitError("a resumed run keeps its data and settings; give --resume alone")
        folder = RunFolder.reopen(Path(resume))
        if folder.finished:
            return Run(folder.path, folder.read("evaluation/metrics.json"))
        command = folder.read(COMMAND)
        place = find_device(command["device"] if device == "auto" else device)
        prepared = prepare(command["data"], folder.recipe(), {}, command["max_bad"])
        folder.check_same_data(prepared)
        state = _new_state(prepared, place)
        if folder.last.exists():
            state.restore(folder.last)
    else:
        if data is None:
            raise ResnetkitError("nothing to train on: name a dataset (`digits` needs no files), or --resume a run")
        if out is not None:
            RunFolder.require_free(Path(out))
        place = find_device(device)
        max_bad = MAX_BAD if max_bad is None else max_bad
        prepared = prepare(data, recipe, settings, max_bad)
        prepared = prepared.with_precision(resolve_precision(prepared.recipe.precision, place))
        state = _new_state(prepared, place)
        source = str(Path(data).resolve()) if Path(data).exists() else str(data)
        path = Path(out) if out is not None else new_run_path(prepared.dataset.name, prepared.recipe.model)
        command = {"argv": sys.argv, "data": source, "max_bad": max_bad, "device": str(place)}
        folder = RunFolder.create(path, prepared, command)
    try:
        return _Trainer(prepared, folder, state, place, workers).run()
    except torch.OutOfMemoryError as error:
        raise ResourceExhausted(f"{place} has too little memory; lower batch_size or img_size") from error


def _new_state(prepared: Prepared, device: torch.device) -> TrainingState:
    recipe, preprocessing = prepared.recipe, prepared.preprocessing
    torch.manual_seed(recipe.seed)
    classes, channels = len(prepared.dataset.classes), len(preprocessing.mean)
    net = build(recipe.model, classes, in_channels=channels, drop_path_rate=recipe.drop_path_rate)
    net.image_size = preprocessing.size
    net.place(device)
    return TrainingState(net, make_optimizer(net, recipe), Average(net, recipe.ema_decay))


class _Trainer:
    """One run from its state to its end."""

    def __init__(
        self, prepared: Prepared, folder: RunFolder, state: TrainingState, device: torch.device, workers: int
    ) -> None:
        self.prepared, self.folder, self.state, self.device, self.workers = prepared, folder, state, device, workers
        recipe = prepared.recipe
        self.batches = TrainingBatches(
            prepared.parts["train"],
            prepared.preprocessing,
            prepared.augmentation,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            workers=workers,
        )
        self.steps = self.batches.steps
        self.total = recipe.epochs * self.steps
        self.journal = Journal(folder.path)
        self.saved_at = perf_counter()

    def run(self) -> Run:
        state, recipe = self.state, self.prepared.recipe
        if self.device.type == "cpu":
            keep_freed_memory()
        if self.folder.last.exists():
            self.journal.resume(state.step // self.steps)
            self.journal.write("resumed", step=state.step)
        else:
            self.journal.write("started", data=self.prepared.dataset.name, model=recipe.model)
        with StopRequest() as self.stop, Display(recipe.epochs, self.steps, state.step) as self.display:
            for line in self._introduction():
                self.display.line(line)
            while state.step < self.total:
                self._epoch()
            self.display.line("testing")
            return self._finish()

    def _introduction(self) -> list[str]:
        prepared, net = self.prepared, self.state.net
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in prepared.parts.items())
        height, width = prepared.preprocessing.size
        parameters = sum(p.numel() for p in net.parameters())
        recipe, dataset = prepared.recipe, prepared.dataset
        lines = [
            f"data   {dataset.name}: {len(dataset.classes)} classes, {sizes} images, seen at {height}x{width}",
            f"model  {recipe.model}: {parameters:,} parameters, on {self.device} in {recipe.precision}",
            f"run    {self.folder.path}",
        ]
        if dataset.bad:
            where = self.folder.path / "bad_files.csv"
            lines.insert(1, f"bad    {len(dataset.bad)} images cannot be read and are left out: {where}")
        if self.state.step:
            lines.append(f"resume at step {self.state.step} of {self.total}")
        return lines

    def _epoch(self) -> None:
        state, recipe = self.state, self.prepared.recipe
        epoch, first = divmod(state.step, self.steps)
        if first == 0:
            state.tally = Tally()
        self.display.begin_epoch(state)
        size = training_size(recipe, self.prepared.preprocessing.size, epoch)
        train_epoch(
            state,
            self.batches.epoch(epoch, size, first),
            recipe,
            steps_per_epoch=self.steps,
            preprocessing=self.prepared.preprocessing,
            after_step=self._after_step,
        )
        tally = state.tally
        values = {
            "epoch": epoch + 1,
            "size": size[0],
            "lr": state.optimizer.param_groups[0]["lr"],
        } | self.display.speed(state)
        values |= {"train_loss": tally.loss / tally.images, "train_top1": tally.right / tally.images}
        watched = [name for name in ("holdout", "val") if name in self.prepared.parts]
        if watched:
            delivered = self._delivered()
        for name in watched:
            figures = self._answer(delivered, name).metrics()
            values |= {f"{name}_loss": figures["loss"], f"{name}_top1": figures["top1"]}
        if values.get("holdout_top1", -1.0) > state.best:
            state.best = values["holdout_top1"]
            figures = {"split": "holdout", "top1": state.best, "epoch": epoch + 1}
            save_model(self._model(delivered, figures, state.step), self.folder.best)
        self.journal.write_epoch(**values)
        self.display.epoch(state, values)
        self._save()
        if self.stop.requested and state.step < self.total:
            self._interrupt()

    def _after_step(self, state: TrainingState, waited: float) -> None:
        self.display.step(state, waited)
        if state.step % self.steps == 0:  # the epoch's end saves, after its figures are in
            return
        if self.stop.requested:
            self._save()
            self._interrupt()
        if perf_counter() - self.saved_at > SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        self.state.save(self.folder.last)
        self.saved_at = perf_counter()

    def _interrupt(self) -> None:
        self.journal.write("interrupted", step=self.state.step)
        raise Interrupted(
            f"stopped at step {self.state.step} of {self.total} and saved; "
            f"go on with: resnet train --resume {self.folder.path}"
        )

    def _delivered(self) -> ResNet:
        """A copy of the network with the weights that the run delivers."""
        net = copy.deepcopy(self.state.net)
        net.load_state_dict(self.state.final_tensors())
        return net

    def _answer(self, net: ResNet, part: str) -> Answers:
        preprocessing = self.prepared.preprocessing
        batches = evaluation_batches(self.prepared.parts[part], preprocessing, EVALUATION_BATCH, self.workers)
        return answer(net, batches, preprocessing)

    def _model(self, net: ResNet, metrics: dict[str, Any], steps: int) -> Model:
        prepared = self.prepared
        provenance = {
            "data": prepared.dataset.name,
            "images": {name: len(part) for name, part in prepared.parts.items()},
            "split_hash": blake2b(prepared.split_table.encode(), digest_size=16).hexdigest(),
            "recipe": prepared.recipe.model_dump(),
            "steps": steps,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(),
        }
        return Model(net, prepared.dataset.classes, prepared.preprocessing, metrics, provenance)

    def _finish(self) -> Run:
        prepared, folder = self.prepared, self.folder
        if prepared.recipe.holdout:
            best = load_model(folder.best)
            net, steps = best.network.place(self.device), best.provenance["steps"]
        else:
            net, steps = self._delivered(), self.total
        headline = prepared.headline
        answers = self._answer(net, headline)
        metrics = {"split": headline} | answers.metrics()
        folder.write_answers(prepared, answers)
        classes = prepared.dataset.classes
        counts = confusion_matrix(answers.predicted, answers.labels, len(classes))
        draw_curves(self.journal.epochs, metrics, folder.curves)
        title = f"{headline}: top-1 {metrics['top1']:.2%} of {metrics['n']:,}"
        draw_confusion(counts, classes, title, folder.confusion)
        save_model(self._model(net, metrics, steps), folder.model)
        write_text(folder.metrics, json.dumps(metrics, indent=2) + "\n")
        self.journal.write("finished", **metrics)
        return Run(folder.path, metrics)
