"""One run from its state to its end: epochs, figures, saves, the last test."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import Any, NoReturn

import torch

from resnetkit.architecture.resnet import ResNet
from resnetkit.data.loaders import Batch
from resnetkit.data.preprocess import COLOURS
from resnetkit.device import find_precision
from resnetkit.errors import Diverged, Interrupted, ResnetkitError
from resnetkit.evaluation.answers import Answers, answer
from resnetkit.evaluation.calibration import fit_calibration
from resnetkit.evaluation.evaluate import figures_on
from resnetkit.evaluation.files import write_evaluation, write_metrics
from resnetkit.evaluation.slices import looks
from resnetkit.reporting.report import write_report
from resnetkit.training.allocator import give_back_holes
from resnetkit.training.display import Display
from resnetkit.training.epochs import Epochs, FramedBatches, pixels_by_epoch
from resnetkit.training.folder import RunFolder, environment
from resnetkit.training.interrupt import StopRequest
from resnetkit.training.journal import Journal
from resnetkit.training.prepare import Prepared
from resnetkit.training.schedule import learning_rate
from resnetkit.training.state import TrainingState
from resnetkit.training.tracking import Trackers
from resnetkit.weights.calibration import CALIBRATIONS
from resnetkit.weights.files import Model, load_model
from resnetkit.weights.load import load

SAVE_EVERY = 60.0  # seconds of training that a crash may cost


@dataclass(frozen=True)
class Run:
    """A finished run. `metrics` are those of its headline part (`metrics["split"]`)."""

    folder: Path
    metrics: dict[str, Any]

    @property
    def model(self) -> Model:
        """Its network with classes, preprocessing and figures."""
        return load(self.folder)


class Trainer:
    """One run from its state to its end."""

    def __init__(
        self,
        prepared: Prepared,
        folder: RunFolder,
        state: TrainingState,
        device: torch.device,
        workers: int,
        notes: list[str],
        trackers: Trackers,
    ) -> None:
        self.prepared, self.folder, self.state, self.device = prepared, folder, state, device
        self.notes = notes
        self.framed = {
            name: FramedBatches(part, prepared.preprocessing, workers) for name, part in prepared.parts.items()
        }
        self.epochs = Epochs(prepared, state, workers)
        self.steps, self.total = self.epochs.steps, self.epochs.total
        self.journal = Journal(folder.path, trackers)
        self.saved_at = perf_counter()

    def run(self) -> Run:
        state, recipe = self.state, self.prepared.recipe
        if self.device.type == "cpu":
            give_back_holes(state.net)
        if self.folder.last.exists():
            finished = state.step // self.steps - (state.ended is not None)
            self.journal.resume(finished)
            self.journal.write("resumed", step=state.step, epochs=finished)
        else:
            self.journal.write("started", data=self.prepared.dataset.name, **recipe.model_dump(exclude_none=True))
        with StopRequest() as self.stop, self._new_display() as self.display:
            for line in self._introduction():
                self.display.line(line)
            try:
                while (state.step < self.total or state.ended is not None) and not self._given_up():
                    self._epoch()
                self.display.line("testing")
                metrics = self._finish()
            except Diverged:
                self.journal.write("diverged", step=state.step)
                raise
            except Interrupted:
                raise
            except Exception:
                with suppress(ResnetkitError):  # it may be the disk that failed
                    self.journal.write("failed", step=state.step)
                raise
            write_report(self.folder.path, metrics)
            write_metrics(self.folder.metrics, metrics)  # last: with it the run is finished, no resume goes on with it
            return Run(self.folder.path, metrics)

    def _new_display(self) -> Display:
        return Display(pixels_by_epoch(self.prepared), self.steps, self.state.step, self.prepared.task.LEARNING)

    def _introduction(self) -> list[str]:
        prepared, net = self.prepared, self.state.net
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in prepared.parts.items())
        height, width = prepared.preprocessing.size
        parameters = sum(p.numel() for p in net.parameters())
        recipe, dataset = prepared.recipe, prepared.dataset
        channels = prepared.preprocessing.channels
        bands = "" if channels in COLOURS else f" in {channels} bands"
        lines = [
            f"data   {dataset.name}: {len(dataset.classes)} classes, {sizes} images, seen at {height}x{width}{bands}",
            *self.folder.left_out(prepared),
            f"model  {recipe.model}: {parameters:,} parameters, on {self.device} in {recipe.precision}",
            f"run    {self.folder.path}",
        ]
        for part, count in prepared.leaks.items():
            if count:
                lines.append(f"leak   {count} {part} images are training images too, so its figures flatter")
        if cache := self.epochs.batches.cache:
            lines.append(f"cache  {cache.folder}: {cache.bytes / 1e9:.2f} GB of decoded photos")
        lines += self.notes
        if self.state.step:
            lines.append(f"resume at step {self.state.step} of {self.total}")
        return lines

    def _epoch(self) -> None:
        state, epoch = self.state, self.epochs.begin()
        self.display.begin_epoch(state)
        self.epochs.train(self._after_step)
        tally = state.tally
        values = {
            "epoch": epoch + 1,
            "size": self.epochs.size(epoch)[0],
            "lr": learning_rate(self.prepared.recipe, state.step - 1, self.steps),
        } | (state.ended or self.display.speed(state))
        task = self.prepared.task
        values |= {"train_loss": tally.loss / tally.images, f"train_{task.LEARNING}": tally.right / tally.images}
        watched = [name for name in ("holdout", "val") if name in self.prepared.parts]
        if watched:
            delivered = state.delivered()
        for name in watched:
            figures = self._answer(delivered, name, self.prepared.recipe.precision).metrics()
            values |= {f"{name}_{figure}": figures[figure] for figure in ("loss", task.CHOOSING)}
        state.ended = None
        state.stale += 1
        if values.get(f"holdout_{task.CHOOSING}", -1.0) > state.best:
            state.best, state.stale = values[f"holdout_{task.CHOOSING}"], 0
            figures = {"split": "holdout", task.CHOOSING: state.best, "epoch": epoch + 1}
            self._model(delivered, figures, state.step).save(self.folder.best)
        self.journal.write_epoch(**values)
        self.display.epoch(state, values)
        self._save()

    def _given_up(self) -> bool:
        """Whether `patience` epochs brought no better holdout."""
        patience = self.prepared.recipe.patience
        return bool(patience) and self.state.stale >= patience

    def _after_step(self, state: TrainingState, waited: float) -> None:
        self.display.step(state, waited)
        if state.step % self.steps == 0:
            state.require_finite()  # waits for the device, whose time it is
            state.ended = self.display.speed(state)
        if self.stop.requested:
            self._interrupt()
        if perf_counter() - self.saved_at > SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        self.state.save(self.folder.last)
        self.saved_at = perf_counter()

    def _interrupt(self) -> NoReturn:
        self._save()
        self.journal.write("interrupted", step=self.state.step)
        raise Interrupted(
            f"stopped at step {self.state.step} of {self.total} and saved; "
            f"go on with: resnet train --resume {quote(str(self.folder.path))}"
        )

    def _until_stopped(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            if self.stop.requested:
                self._interrupt()
            yield batch

    def _answer(self, net: ResNet, part: str, precision: str = "float32") -> Answers:
        batches = self._until_stopped(self.framed[part])
        found = answer(net, batches, self.prepared.preprocessing, find_precision(precision))
        found.require_finite(part, "lower lr or lengthen warmup_epochs")
        return found

    def _model(self, net: ResNet, metrics: dict[str, Any], steps: int) -> Model:
        prepared = self.prepared
        provenance = {
            "data": prepared.dataset.name,
            "images": {name: len(part) for name, part in prepared.parts.items()},
            "split_hash": blake2b(prepared.split_table.encode(errors="surrogateescape"), digest_size=16).hexdigest(),
            "recipe": prepared.recipe.model_dump(),
            "steps": steps,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(self.device),
        }
        uncalibrated = CALIBRATIONS[prepared.task.NAME]()
        return Model(
            net, prepared.dataset.classes, prepared.preprocessing, metrics, provenance, calibration=uncalibrated
        )

    def _finish(self) -> dict[str, Any]:
        """The files of what the run delivers, and its figures."""
        from resnetkit.evaluation.plots import draw_curves  # loads matplotlib, which the first step need not wait for

        prepared, folder = self.prepared, self.folder
        if prepared.recipe.holdout:
            best = load_model(folder.best)
            net, steps = best.network.place(self.device), best.provenance["steps"]
        else:
            net, steps = self.state.delivered(), self.state.step
        headline = prepared.headline
        calibration = CALIBRATIONS[prepared.task.NAME]()
        if "holdout" in prepared.parts:
            held = self._answer(net, "holdout")
            calibration = fit_calibration(held.logits, held.labels, "holdout")
        part, classes = prepared.parts[headline], prepared.dataset.classes
        answers = replace(self._answer(net, headline), calibration=calibration)
        metrics = figures_on(headline, answers, classes, part.names, looks(part))
        write_evaluation(folder.metrics.parent, folder.confusion.parent, part.names, classes, answers, metrics)
        draw_curves(self.journal.epochs, metrics, folder.curves)
        short = {name: metrics[name] for name in ("split", *answers.SUMMARY)}
        model = self._model(net, short, steps)
        model.calibration = calibration
        model.save(folder.model)
        self.journal.write("finished", **short)
        return metrics
