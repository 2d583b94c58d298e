"""A network and a part of a dataset -> what it answered and how good that was."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.data.datasets import Dataset, Part, open_dataset
from resnetkit.data.ingest import ingest
from resnetkit.data.loaders import Batch, evaluation_batches
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError, did_you_mean
from resnetkit.evaluation import metrics
from resnetkit.weights.files import Model
from resnetkit.weights.load import load

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Answers:
    """Logits (N, classes) in float32 and labels (N,) of one part, in its order."""

    logits: Tensor
    labels: Tensor

    @property
    def probabilities(self) -> Tensor:
        return self.logits.softmax(1)

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(1)

    def metrics(self) -> dict[str, Any]:
        """top1, top5, loss, ece and n; fractions, weighted by image, top1 with its 95 % Wilson interval."""
        n, probabilities = len(self.labels), self.probabilities
        right = metrics.top_k(probabilities, self.labels, 1)
        return {
            "top1": right / n,
            "top1_interval": metrics.wilson_interval(right, n),
            "top5": metrics.top_k(probabilities, self.labels, 5) / n,
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
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
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
    device: str = "cpu",
    batch_size: int = 256,
    workers: int = 0,
    max_bad: float = 0.0,
) -> dict[str, Any]:
    """Figures of a run, a model file or a Model on labelled images: top1, top1_interval, top5, loss, ece, n, split.

    `data` is by default what the run was trained on; `split` is test by default, else val. Classes are matched by
    name. A share `max_bad` of the images may be unreadable and is left out. Raises ResnetkitError when there is no such
    data, split or class, TooManyBadImages past that share.
    """
    model = source if isinstance(source, Model) else load(source)
    if precision not in PRECISIONS:
        raise ResnetkitError(f"precision {precision!r} is not known; it must be {' or '.join(PRECISIONS)}")
    dataset = open_dataset(data if data is not None else _training_data(source))
    if split is None:
        split = "test" if "test" in dataset.parts else "val"
    if split not in dataset.parts:
        raise ResnetkitError(f"{dataset.name} has no {split} part; it has {', '.join(dataset.parts)}")
    kept = Dataset(dataset.name, dataset.classes, {split: dataset.parts[split]})
    part = match_classes(ingest(kept, max_bad).dataset, model.classes).parts[split]
    net = model.network.to(device, memory_format=torch.channels_last)
    batches = evaluation_batches(part, model.preprocessing, batch_size, workers)
    return {"split": split} | answer(net, batches, model.preprocessing, PRECISIONS[precision]).metrics()


def _training_data(source: Any) -> str:
    command = Path(source) / "command.json" if isinstance(source, (str, Path)) else None
    if command is None or not command.is_file():
        raise ResnetkitError("name the labelled images with --data; only a run folder remembers its own")
    return str(json.loads(command.read_text())["data"])


def match_classes(dataset: Dataset, classes: list[str]) -> Dataset:
    """The same images with labels that count in `classes`. Raises ResnetkitError for a class not among them."""
    for name in dataset.classes:
        if name not in classes:
            raise ResnetkitError(
                f"{dataset.name}: the model does not know class {name!r}; {did_you_mean(name, classes)}"
            )
    place = torch.tensor([classes.index(name) for name in dataset.classes])
    parts = {key: Part(part.images, place[part.labels], part.names) for key, part in dataset.parts.items()}
    return Dataset(dataset.name, classes, parts, dataset.bad)
