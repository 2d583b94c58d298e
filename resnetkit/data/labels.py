"""Labels in their two forms: the class of each image, int64 (N,), or which of the classes each has, uint8 (N, classes).

What depends on the form stands here; elsewhere images have labels.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from resnetkit.errors import ResnetkitError

SEPARATOR = "|"  # between the classes of one image, wherever they are written


def are_multilabel(labels: Tensor) -> bool:
    """Whether an image may have none or several of the classes."""
    return labels.ndim == 2


def indicators(labels: Tensor, classes: int) -> Tensor:
    """Whether each image has each class: bool (N, classes)."""
    return labels.bool() if are_multilabel(labels) else labels[:, None] == torch.arange(classes, device=labels.device)


def from_sets(rows: Sequence[Iterable[int]], classes: int) -> Tensor:
    """The classes of each image -> uint8 (N, classes)."""
    labels = torch.zeros(len(rows), classes, dtype=torch.uint8)
    for row, chosen in zip(labels, rows):
        row[list(chosen)] = 1
    return labels


def sets(labels: Tensor) -> list[tuple[int, ...]]:
    """The classes of each image."""
    if not are_multilabel(labels):
        return [(label,) for label in labels.tolist()]
    return [tuple(i for i, present in enumerate(row) if present) for row in labels.tolist()]


def written(labels: Tensor, classes: Sequence[str]) -> list[str]:
    """The classes of each image in a word."""
    return [SEPARATOR.join(classes[i] for i in chosen) for chosen in sets(labels)]


def renumbered(labels: Tensor, place: Tensor, classes: int) -> Tensor:
    """The same labels where the class that was i is `place[i]` of so many `classes`."""
    if not are_multilabel(labels):
        return place[labels]
    return labels.new_zeros(len(labels), classes).index_copy(1, place, labels)


def require_writable(where: object, classes: Iterable[str]) -> None:
    """Raise ResnetkitError for a class name that a table would not give back, where several stand in a cell."""
    for name in classes:
        if SEPARATOR in name or not name or name != name.strip():
            what = f"is empty, has a blank at an end or a {SEPARATOR} in it"
            raise ResnetkitError(f"{where}: class name {name!r} {what}; rename it")
