"""How the tested images came out, counted from the answers of a run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from resnetkit.evaluation.intervals import wilson_interval
from resnetkit.evaluation.metrics import BINS, ClassCounts, confusion_matrix, reliability
from resnetkit.reporting.record import Answered


@dataclass(frozen=True)
class ClassOutcome:
    """Figures of a class of `n` images, with 95 % Wilson intervals; None where there is nothing to take a share of."""

    label: str
    n: int
    precision: float | None
    precision_interval: list[float] | None
    recall: float | None
    recall_interval: list[float] | None
    f1: float | None


@dataclass(frozen=True)
class Pair:
    """A cell of the confusion matrix, by the places of its classes, and the answers in it: the surest first of wrong
    ones, last of right ones. `share` is of the images of the class."""

    true: int
    predicted: int
    answers: list[Answered]
    share: float

    @property
    def right(self) -> bool:
        return self.true == self.predicted


@dataclass(frozen=True)
class Bin:
    """Answers with a probability above `low` and up to `high`: their mean probability, the share of right ones."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def by_class(answers: Sequence[Answered], classes: Sequence[str]) -> list[ClassOutcome]:
    """Precision, recall and F1 of every class."""
    place = {label: i for i, label in enumerate(classes)}
    labels = torch.tensor([place[answer.label] for answer in answers])
    predicted = torch.tensor([place[answer.predicted] for answer in answers])
    counts = ClassCounts.of(confusion_matrix(predicted, labels, len(classes)))
    outcomes = []
    for i, label in enumerate(classes):
        right, n, called = (int(count[i]) for count in (counts.right, counts.support, counts.called))
        outcomes.append(
            ClassOutcome(
                label,
                n,
                precision=right / called if called else None,
                precision_interval=wilson_interval(right, called) if called else None,
                recall=right / n if n else None,
                recall_interval=wilson_interval(right, n) if n else None,
                f1=float(counts.f1[i]) if n or called else None,
            )
        )
    return outcomes


def pairs(answers: Sequence[Answered], classes: Sequence[str]) -> list[Pair]:
    """The cells of the confusion matrix that hold an image, row by row."""
    place = {label: i for i, label in enumerate(classes)}
    support = Counter(answer.label for answer in answers)

    def cell(answer: Answered) -> tuple[int, int]:
        return place[answer.label], place[answer.predicted]

    found = []
    for (true, predicted), group in groupby(sorted(answers, key=cell), key=cell):
        held = sorted(group, key=lambda answer: answer.probability, reverse=true != predicted)
        found.append(Pair(true, predicted, held, len(held) / support[classes[true]]))
    return found


def calibration(answers: Sequence[Answered]) -> list[Bin]:
    """Confidence against accuracy in the bins that hold an answer."""
    found = reliability(
        torch.tensor([answer.probability for answer in answers], dtype=torch.float64),
        torch.tensor([answer.right for answer in answers]),
    )
    columns = zip(found.n.tolist(), found.confidence.tolist(), found.accuracy.tolist())
    return [
        Bin(i / BINS, (i + 1) / BINS, int(n), confidence, accuracy)
        for i, (n, confidence, accuracy) in enumerate(columns)
        if n
    ]


def listed(rows: Sequence[dict[str, float]]) -> list[Bin]:
    """The same from the lines of reliability.csv."""
    return [Bin(row["above"], row["up_to"], int(row["n"]), row["confidence"], row["accuracy"]) for row in rows]
