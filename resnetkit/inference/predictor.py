"""Images in, labels with probabilities out."""

import glob
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnetkit.architecture.folding import folded
from resnetkit.architecture.fusing import can_fuse, fused
from resnetkit.cores import default_workers
from resnetkit.data.image_files import images_below, is_image
from resnetkit.data.preprocess import BadImage
from resnetkit.device import autocast, find_device, find_precision, within_memory
from resnetkit.errors import Diverged, ResnetkitError, require_number
from resnetkit.tasks.task import TASKS
from resnetkit.weights.files import Model
from resnetkit.weights.load import opened

BATCH = 32
CURE = "lower batch_size, or free some of it"

Read = tuple[str | None, Tensor | BadImage]  # the path, of what is one, with its framed image, or why there is none


class Predictor:
    """Labels for images: `Predictor("model.safetensors")("photo.jpg")["label"]`.

    `source` is a model file, a run folder or a loaded Model, a copy of whose network computes. `engine` is what does:
    "auto" or "torch". `top` is how many of the likeliest classes an answer lists, `batch_size` how many images are
    computed at once, `workers` how many threads read them (one a core, at most 4; 0: the caller's own). A calibrated
    model can say more: with `certainty` the label is None, for none of these, unless such answers are right at least
    that often; with `coverage` answers have a `set` of classes, which holds the truth that often. A model of several
    labels an image answers with `labels`, which are those that reach their threshold. Raises ResnetkitError for what
    the model cannot, ResourceExhausted where memory gives out.
    """

    def __init__(
        self,
        source: str | Path | Model,
        engine: str = "auto",
        *,
        device: str = "auto",
        precision: str = "float32",
        top: int = 5,
        batch_size: int = BATCH,
        workers: int | None = None,
        coverage: float | None = None,
        certainty: float | None = None,
    ) -> None:
        if engine not in ("auto", "torch"):
            raise ResnetkitError(f"engine {engine!r} is not known; it must be auto or torch")
        require_number("top", top, 1)
        require_number("batch_size", batch_size, 1)
        if workers is not None:
            require_number("workers", workers, 0)
        self.model = opened(source)
        if not self.model.classes:
            raise ResnetkitError(f"{self.model.network.spec.name} has no classifier, so there is nothing to predict")
        self.device, self.precision = find_device(device), find_precision(precision)
        self.top, self.batch_size = top, batch_size
        # Threads share Python's lock: no more for a GPU.
        self.workers = default_workers("cpu") if workers is None else workers
        self.task = TASKS[self.model.task]
        classes = len(self.model.classes)
        self.thresholds = self.model.calibration.thresholds_for(classes, coverage, certainty)
        with within_memory(self.device, CURE):
            self._network = folded(self.model.network).place(self.device)
            if can_fuse(self.device, self.precision):
                self._network = fused(self._network, self.precision)

    def __call__(self, image: Any) -> dict[str, Any]:
        """A path, bytes, PIL image or (H, W[, C]) array -> {path, label, probability, top}. Raises BadImage, and
        Diverged where the answer is not finite."""
        path, read = self._frame(image)
        if isinstance(read, BadImage):
            raise read if path is None else BadImage(f"{path}: {read}")
        return {"path": path} | self._describe(self._probabilities(read[None])[0])

    def predict(self, images: Any) -> Iterator[dict[str, Any]]:
        """One answer an image, in order, `path` being None for what is no path; one that cannot be read is answered
        {path, error}. `images` are several of what a call takes, or one, which may also be a folder or a pattern. Two
        batches at most are taken ahead of their answers. Raises ResnetkitError where a folder or pattern has no image,
        Diverged where answers are not finite."""
        if isinstance(images, (str, Path)):
            images = find_images([images])
        elif isinstance(images, (bytes, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4):
            images = [images]
        for chunk in self._read(images):
            frames = [read for _, read in chunk if isinstance(read, Tensor)]
            rows = iter(self._probabilities(_together(frames)) if frames else ())
            for path, read in chunk:
                if isinstance(read, BadImage):
                    yield {"path": path, "error": str(read)}
                else:
                    yield {"path": path} | self._describe(next(rows))

    def _read(self, images: Iterable[Any]) -> Iterator[list[Read]]:
        """A batch at a time, each image with its frame or why there is none; threads are at the next meanwhile, where
        there are any."""
        remaining = iter(images)
        pool = ThreadPoolExecutor(self.workers) if self.workers else None
        each = pool.map if pool else map
        try:
            coming = each(self._frame, list(islice(remaining, self.batch_size)))
            while chunk := list(coming):
                coming = each(self._frame, list(islice(remaining, self.batch_size)))
                yield chunk
        finally:
            if pool:
                pool.shutdown(cancel_futures=True)

    def _frame(self, image: Any) -> Read:
        preprocessing = self.model.preprocessing
        path = str(image) if isinstance(image, (str, Path)) else None
        try:
            return path, preprocessing.frame(preprocessing.decode(image))
        except BadImage as error:
            return path, error

    def _describe(self, probabilities: Tensor) -> dict[str, Any]:
        return self.task.describe(probabilities, self.model.classes, self.top, **self.thresholds)

    @torch.inference_mode()
    def _probabilities(self, frames: Tensor) -> Tensor:
        with within_memory(self.device, CURE):
            x = self.model.preprocessing.normalise(frames.to(self.device)).contiguous(memory_format=torch.channels_last)
            with autocast(self.device, self.precision):
                logits = self._network(x)
            if not logits.isfinite().all():
                raise Diverged("the network's answers are not finite; use another checkpoint")
            return self.model.calibration.probabilities(logits).cpu()


def _together(frames: Iterable[Tensor]) -> Tensor:
    """(C, H, W) each -> (N, C, H, W) in channels_last."""
    return torch.stack([frame.permute(1, 2, 0) for frame in frames]).permute(0, 3, 1, 2)


def named_paths(argument: str | Path) -> list[Path]:
    """The file or folder of that name, else what it matches as a pattern, in order."""
    path = Path(argument)
    return [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(argument), recursive=True))]


def find_images(arguments: Iterable[str | Path]) -> list[Path]:
    """Files as given, the images in folders, and so of what globs match: in order, none twice. Raises ResnetkitError
    for none."""
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(argument)
        matches: list[Path] = []
        for named in named_paths(argument):
            if named.is_dir():
                matches += images_below(named)
            elif named == path or is_image(named):
                matches.append(named)
        if not matches:
            what = "no image in this folder" if path.is_dir() else "no such file, and as a pattern it matches no image"
            raise ResnetkitError(f"{argument}: {what}")
        found |= dict.fromkeys(matches)
    return list(found)
