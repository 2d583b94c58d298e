"""A network and a part of a dataset -> what it answered and how good that was."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.data.datasets import Dataset, open_dataset
from resnetkit.data.ingest import ingest
from resnetkit.data.loaders import Batch, evaluation_batches
from resnetkit.data.preprocess import Preprocessing
from resnetkit.device import autocast, find_device, find_precision
from resnetkit.errors import ResnetkitError
from resnetkit.evaluation import metrics
from resnetkit.evaluation.own_images import match_classes, own_images
from resnetkit.weights.files import Model
from resnetkit.weights.load import load


@dataclass(frozen=True)
class Answers:
    """Logits (N, classes) in float32 and labels (N,) of one part, in its order."""

    logits: Tensor
    labels: Tensor

    @property
    def probabilities(self) -> Tensor:
        """In float64: float32 would call many a sure answer exactly 1."""
        return self.logits.double().softmax(1)

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(1)

    def metrics(self) -> dict[str, Any]:
        """top1, top5, loss, ece and n; fractions, weighted by image, top1 with its 95 % Wilson interval."""
        n, probabilities = len(self.labels), self.probabilities
        right = metrics.top_k(self.logits, self.labels, 1)
        return {
            "top1": right / n,
            "top1_interval": metrics.wilson_interval(right, n),
            "top5": metrics.top_k(self.logits, self.labels, 5) / n,
            "loss": float(F.cross_entropy(self.logits.double(), self.labels)),
            "ece": metrics.expected_calibration_error(probabilities, self.labels),
            "n": n,
        }


@torch.inference_mode()
def answer(
    net: nn.Module, batches: Iterable[Batch], preprocessing: Preprocessing, precision: torch.dtype = torch.float32
) -> Answers:
    """Run `net` in evaluation mode over batches of uint8 images; its mode is restored."""
    device = next(net.parameters()).device
    was_training = net.training
    net.eval()
    logits, labels = [], []
    with autocast(device, precision):
        for images, batch_labels in batches:
            x = preprocessing.normalise(images.to(device)).contiguous(memory_format=torch.channels_last)
            logits.append(net(x).float().cpu())
            labels.append(batch_labels)
    net.train(was_training)
    return Answers(torch.cat(logits), torch.cat(labels))


def evaluate(
    source: str | Path | Model,
    data: str | Path | None = None,
    *,
    split: str | None = None,
    precision: str = "float32",
    device: str = "auto",
    batch_size: int = 256,
    workers: int = 0,
    max_bad: float = 0.0,
) -> dict[str, Any]:
    """Figures of a run, a model file or a Model on labelled images: top1, top1_interval, top5, loss, ece, n, split.

    Without `data` a run is measured on its own images, as its split.csv lists them. `split` is test by default, else
    val; data that is not split is taken whole. Classes are matched by name. A share `max_bad` of the images may be
    unreadable and is left out. Raises ResnetkitError when there is no such data, split or class, TooManyBadImages past
    that share.
    """
    place = find_device(device)
    arithmetic = find_precision(precision)
    model = source if isinstance(source, Model) else load(source)
    channels = model.preprocessing.channels
    if data is not None:
        dataset, split = _one_part(open_dataset(data), split)
        part = ingest(match_classes(dataset, model.classes), max_bad, channels).dataset.parts[split]
    else:
        folder = Path(source) if isinstance(source, (str, Path)) else Path()
        split, part = own_images(folder, split, model.classes, channels)
    batches = evaluation_batches(part, model.preprocessing, batch_size, workers)
    return {"split": split} | answer(model.network.place(place), batches, model.preprocessing, arithmetic).metrics()


def _one_part(dataset: Dataset, split: str | None) -> tuple[Dataset, str]:
    chosen = split or next((name for name in ("test", "val", "all") if name in dataset.parts), "test")
    if chosen not in dataset.parts:
        raise ResnetkitError(f"{dataset.name} has no {chosen} part; it has {', '.join(dataset.parts)}")
    return replace(dataset, parts={chosen: dataset.parts[chosen]}), chosen
