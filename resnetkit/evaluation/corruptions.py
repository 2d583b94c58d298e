"""How accuracy falls as images get worse: every kind of corruption at every severity (Hendrycks & Dietterich 2019)."""

import sys
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

from resnetkit.data.corruptions import KINDS, SEVERITIES, corrupt
from resnetkit.data.loaders import Batch
from resnetkit.evaluation import metrics
from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.intervals import wilson_interval

LINE_EVERY = 10.0  # seconds between lines of progress


def corruption_curves(
    batches: Iterable[Batch], n: int, answer_batch: Callable[[Batch], Answers], clean_top1: float
) -> dict[str, Any]:
    """top1 with its Wilson interval by kind and severity, and the mean of all.

    `batches` are the `n` images in order, as the network sees them; each is read once and corrupted in every way.
    """
    hits = {(kind, severity): 0 for kind in KINDS for severity in SEVERITIES}
    progress = _Progress(n * len(hits))
    first = 0
    for images, labels in batches:
        for kind, severity in hits:
            answers = answer_batch((corrupt(images, kind, severity, first=first), labels))
            hits[kind, severity] += metrics.top_k(answers.logits, labels, 1)
            progress.advance(
                len(images), f"{kind} {severity}, images {first + 1:,} to {first + len(images):,} of {n:,}"
            )
        first += len(images)
    progress.end(f"{n:,} images")
    return {
        "clean_top1": clean_top1,
        "mean_top1": sum(hits.values()) / (n * len(hits)),
        "kinds": {kind: [_point(severity, hits[kind, severity], n) for severity in SEVERITIES] for kind in KINDS},
    }


def _point(severity: int, hits: int, n: int) -> dict[str, Any]:
    return {"severity": severity, "top1": hits / n, "top1_interval": wilson_interval(hits, n)}


class _Progress:
    """Now and then a line on standard error of how far it is."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._start = self._last_line = perf_counter()

    def advance(self, images: int, where: str) -> None:
        self._done += images
        now = perf_counter()
        if now - self._last_line > LINE_EVERY:
            left = (now - self._start) / self._done * (self._total - self._done)
            _say(f"{where}; {self._done / self._total:.0%} done, {left:,.0f} s left")
            self._last_line = now

    def end(self, what: str) -> None:
        _say(f"{what} corrupted in {len(KINDS) * len(SEVERITIES)} ways in {perf_counter() - self._start:,.0f} s")


def _say(text: str) -> None:
    print(f"corruptions: {text}", file=sys.stderr, flush=True)
