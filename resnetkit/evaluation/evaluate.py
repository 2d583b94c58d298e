"""A trained network and labelled images -> how good it is, and how sure it may be."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from resnetkit.architecture.resnet import ResNet
from resnetkit.cores import default_workers
from resnetkit.data.loaders import Batch, evaluation_batches
from resnetkit.data.parallel import processes_fork
from resnetkit.data.preprocess import COLOURS
from resnetkit.data.progress import watched
from resnetkit.device import find_device, find_precision, within_memory
from resnetkit.errors import ResnetkitError, refused, require_number
from resnetkit.evaluation.answers import Answers as Answers
from resnetkit.evaluation.answers import answer as answer
from resnetkit.evaluation.answers import judge
from resnetkit.evaluation.calibration import fit_calibration
from resnetkit.evaluation.files import write_evaluation, write_metrics
from resnetkit.evaluation.own_images import Labelled, given_images, own_images, seen_in_training
from resnetkit.evaluation.slices import Look, slices
from resnetkit.evaluation.views import Forward, forward_of, once
from resnetkit.weights.files import Model
from resnetkit.weights.hub import SCHEME
from resnetkit.weights.load import is_foreign, locate, model_path, opened

CURE = "lower batch_size"  # where memory is not enough


@dataclass(frozen=True)
class Computing:
    """How a network is run over images."""

    device: torch.device
    precision: torch.dtype
    batch_size: int
    workers: int

    @classmethod
    def of(cls, device: str, precision: str, batch_size: int, workers: int | None) -> "Computing":
        """By the words of a user. Raises ResnetkitError for those that are none.

        Processes that are not forked import torch first, and run the caller's script once more: none by default.
        """
        place = find_device(device)
        if workers is None:
            workers = default_workers(place.type) if processes_fork() else 0
        require_number("batch_size", batch_size, 1)
        require_number("workers", workers, 0)
        return cls(place, find_precision(precision), batch_size, workers)

    def answers(self, model: Model, images: Labelled, *, forward: Forward = once) -> Answers:
        batches, count = self._batches(model, images)
        batches = watched(batches, count, f"batches of {images.split} images")
        with within_memory(self.device, CURE), self._placed(model.network) as net:
            found = answer(net, batches, model.preprocessing, self.precision, model.calibration, forward=forward)
        found.require_finite(images.split, "use another checkpoint")
        return found

    def curves(self, model: Model, images: Labelled, clean_top1: float, *, forward: Forward = once) -> dict[str, Any]:
        from resnetkit.evaluation.corruptions import corruption_curves  # loads scipy

        batches, count = self._batches(model, images)

        def answer_batch(batch: Batch) -> Answers:
            found = answer(net, [batch], model.preprocessing, self.precision, model.calibration, forward=forward)
            found.require_finite(f"corrupted {images.split}", "use another checkpoint")
            return found

        with within_memory(self.device, CURE), self._placed(model.network) as net:
            return corruption_curves(batches, count, answer_batch, clean_top1)

    @contextmanager
    def _placed(self, net: ResNet) -> Iterator[ResNet]:
        """On the device that computes, and afterwards where a caller had it."""
        before = next(net.parameters()).device
        try:
            yield net.place(self.device)
        finally:
            net.place(before)

    def _batches(self, model: Model, images: Labelled) -> tuple[Iterator[Batch], int]:
        batches = evaluation_batches(images.part, model.preprocessing, self.batch_size, self.workers)
        return batches, ceil(len(images.part) / self.batch_size)


def evaluate(
    source: str | Path | Model,
    data: str | Path | None = None,
    *,
    split: str | None = None,
    calibrate: str | Path | None = None,
    tta: bool = False,
    corruptions: bool = False,
    preprocessing: str | None = None,
    out: str | Path | None = None,
    precision: str = "float32",
    device: str = "auto",
    batch_size: int = 256,
    workers: int | None = None,
    max_bad: float = 0.0,
) -> dict[str, Any]:
    """Figures of a run, a model file or a Model on labelled images, as `judge` lists them, and its slices.

    Without `data` a run is measured on its own images, as its split.csv lists them. `split` is test by default, else
    val; data that is not split is taken whole. Classes are matched by name. A share `max_bad` of the images of `data`
    may be unreadable and is left out. `calibrate` names other labelled images (their val part, or all of them) to
    calibrate on first; the model file then keeps the calibration. `tta` averages the logits of each image and its
    mirror image (not where it was trained without), small ones moved by a pixel too. `corruptions` measures top1 under
    15 corruptions at 5 severities each, laid on the pixels that the network sees, too. Of a checkpoint of another
    library `preprocessing` says what its file does not (see `load`), and `taken_for` among the figures has what it was
    taken for. A run counts those of `data` that it was trained on as `seen_in_training`, byte for byte. `out` is a new
    folder for the tables and plots. Raises ResnetkitError when there is no such data, split, class or view, or when it
    would test on images it calibrates on, or calibrate on training images; TooManyBadImages past `max_bad`;
    ResourceExhausted where memory gives out; Diverged where answers are not finite.
    """
    computing = Computing.of(device, precision, batch_size, workers)
    folder = _new_folder(out)
    if calibrate is not None:
        _require_keeping(source)
    model = opened(source, preprocessing)
    if corruptions:
        _require_corruptible(model)
    forward = forward_of(model, tta=tta)
    images = choose_images(source, model, data, split, max_bad)
    _make(folder)  # before what may take hours
    if calibrate is not None:
        calibrating = _calibration_images(source, model, calibrate, max_bad)
        shared = set(images.hashes) & set(calibrating.hashes)
        if shared:
            raise ResnetkitError(f"{calibrate}: {len(shared)} of its images are among those to test on; give others")
        _calibrate(source, model, calibrating, calibrate, computing)
    answers = computing.answers(model, images, forward=forward)
    figures = figures_on(images.split, answers, model.classes, images.part.names, images.seen, tta=tta)
    if corruptions:
        figures["corruptions"] = computing.curves(model, images, figures["top1"], forward=forward)
    if images.in_training is not None:
        figures["seen_in_training"] = images.in_training
    if "taken_for" in model.provenance:
        figures["taken_for"] = model.provenance["taken_for"]
    if folder is not None:
        write_evaluation(folder, folder / "plots", images.part.names, model.classes, answers, figures)
        write_metrics(folder / "metrics.json", figures)
    return figures


def figures_on(
    split: str, answers: Answers, classes: list[str], names: Sequence[str], seen: Sequence[Look], *, tta: bool = False
) -> dict[str, Any]:
    """All figures of answers to the images called `names`, which look as in `seen`: what `evaluate` gives."""
    sliced = slices(answers.right, answers.labels, names, seen, answers.HEADLINE)
    return {"split": split, "tta": tta} | judge(answers, classes) | {"slices": sliced}


def calibrate(
    source: str | Path | Model,
    data: str | Path,
    *,
    precision: str = "float32",
    device: str = "auto",
    batch_size: int = 256,
    workers: int | None = None,
    max_bad: float = 0.0,
) -> Model:
    """The model with temperature and thresholds fitted on labelled images (their val part, or all of them).

    The images must be none that it was trained on, which a run refuses and a model file cannot tell, or will be tested
    on. Where `source` is a run or a model file, that file keeps the calibration. Raises ResnetkitError.
    """
    computing = Computing.of(device, precision, batch_size, workers)
    _require_keeping(source)
    model = opened(source)
    _calibrate(source, model, _calibration_images(source, model, data, max_bad), data, computing)
    return model


def choose_images(
    source: str | Path | Model, model: Model, data: str | Path | None, split: str | None, max_bad: float
) -> Labelled:
    """The images to measure on: those of `data`, else of the run that `source` is. Standard error says how many of
    `data` the run was trained on. Raises ResnetkitError."""
    if data is not None:
        images = given_images(data, split, model, max_bad)
        if seen := seen_in_training(source, images):
            told = f"{seen} of these {len(images.part)} images are training images of {source}"
            print(f"leak   {told}, so the figures flatter", file=sys.stderr)
        return replace(images, in_training=seen)
    if isinstance(source, Model):
        raise ResnetkitError("a Model has no images of its own; name the labelled images with data")
    return own_images(Path(source), split, model)


def _calibration_images(source: str | Path | Model, model: Model, data: str | Path, max_bad: float) -> Labelled:
    images = given_images(data, None, model, max_bad, defaults=("val",))
    if seen := seen_in_training(source, images):
        raise ResnetkitError(f"{data}: {seen} of its images are training images of {source}; give others")
    return images


def _calibrate(
    source: str | Path | Model, model: Model, images: Labelled, data: str | Path, computing: Computing
) -> None:
    found = computing.answers(model, images)
    model.calibration = fit_calibration(found.logits, found.labels, f"{images.split} of {data}")
    model.metrics = {name: value for name, value in model.metrics.items() if name not in found.CALIBRATED}
    if not isinstance(source, Model):
        model.save(model_path(source))


def _require_keeping(source: str | Path | Model) -> None:
    """Raise ResnetkitError where a calibration cannot be kept."""
    if isinstance(source, Model):
        return
    if is_foreign(locate(source)):
        raise ResnetkitError(f"{source}: another library's file cannot keep a calibration; resnet convert it first")
    if str(source).startswith(SCHEME):
        raise ResnetkitError(f"{source}: what lies on the Hub cannot keep a calibration; name a copy of your own")


def _require_corruptible(model: Model) -> None:
    if model.task != "classification":
        raise ResnetkitError("corruptions are measured by top-1, which needs one label an image")
    if model.preprocessing.channels not in COLOURS:
        raise ResnetkitError(f"corruptions are of pictures; this model takes {model.preprocessing.channels} bands")


def _new_folder(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ResnetkitError(f"{folder} is there already and would be overwritten; choose another --out")
    return folder


def _make(folder: Path | None) -> None:
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(folder, error, "choose another --out", full="free some space or choose another --out") from error
