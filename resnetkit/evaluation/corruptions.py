"""How accuracy falls as images get worse: every kind of corruption at every severity (Hendrycks & Dietterich 2019)."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

from resnetkit.data.corruptions import KINDS, SEVERITIES, corrupt
from resnetkit.data.loaders import Batch
from resnetkit.data.progress import watched
from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.intervals import wilson_interval

Way = tuple[str, int]  # kind and severity

WAYS: tuple[Way, ...] = tuple(product(KINDS, SEVERITIES))


def corruption_curves(
    batches: Iterable[Batch], count: int, answer_batch: Callable[[Batch], Answers], clean_top1: float
) -> dict[str, Any]:
    """top1 with its Wilson interval by kind and severity, and the mean of all.

    `batches`, `count` of them, are the images in order, as the network sees them; each is read once and corrupted in
    every way.
    """
    hits: Counter[Way] = Counter()
    seen = 0
    for way, (images, labels) in watched(_corrupted(batches), count * len(WAYS), "batches of corrupted images"):
        hits[way] += int(answer_batch((images, labels)).right.sum())
        seen += len(images)
    n = seen // len(WAYS)
    return {
        "clean_top1": clean_top1,
        "mean_top1": hits.total() / seen,
        "kinds": {kind: [_point(severity, hits[kind, severity], n) for severity in SEVERITIES] for kind in KINDS},
    }


def _corrupted(batches: Iterable[Batch]) -> Iterator[tuple[Way, Batch]]:
    first = 0
    for images, labels in batches:
        for kind, severity in WAYS:
            yield (kind, severity), (corrupt(images, kind, severity, first=first), labels)
        first += len(images)


def _point(severity: int, hits: int, n: int) -> dict[str, Any]:
    return {"severity": severity, "top1": hits / n, "top1_interval": wilson_interval(hits, n)}
