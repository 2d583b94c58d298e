"""What a network is asked of images, chosen by their labels."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from resnetkit.data.labels import are_multilabel
from resnetkit.tasks import classification, multilabel

# Figures as they are named in results.csv and metrics.json, and as a person reads them.
TITLES = {
    "top1": "top-1",
    "map": "mean average precision",
    "label_accuracy": "label decisions right",
    "exact_match": "exact match",
}


class Task(Protocol):
    """A module with these functions. LEARNING is the figure that `right` counts on training images, CHOOSING the one
    that picks the best epoch on held-out ones."""

    NAME: str
    LEARNING: str
    CHOOSING: str

    def loss(
        self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor: ...

    def right(self, logits: Tensor, targets: Tensor) -> Tensor: ...

    @property
    def describe(self) -> Callable[..., dict[str, Any]]: ...


TASKS: dict[str, Task] = {task.NAME: task for task in (classification, multilabel)}


def task_of(labels: Tensor) -> Task:
    return multilabel if are_multilabel(labels) else classification


def figures_of(epoch: dict[str, Any], part: str) -> list[str]:
    """The figures that a line of results.csv has of a part, next to its loss."""
    return [figure for figure in TITLES if f"{part}_{figure}" in epoch]
