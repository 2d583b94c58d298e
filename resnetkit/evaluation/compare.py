"""Two networks on the same images: which is better, by how much, and could it be chance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.errors import ResnetkitError
from resnetkit.evaluation.evaluate import Computing, choose_images
from resnetkit.evaluation.intervals import difference_interval, wilson_interval
from resnetkit.evaluation.views import forward_of
from resnetkit.weights.files import Model
from resnetkit.weights.load import is_foreign, locate, opened


def compare(
    first: str | Path | Model,
    second: str | Path | Model,
    data: str | Path | None = None,
    *,
    split: str | None = None,
    tta: bool = False,
    preprocessing: str | None = None,
    precision: str = "float32",
    device: str = "auto",
    batch_size: int = 256,
    workers: int | None = None,
    max_bad: float = 0.0,
) -> dict[str, Any]:
    """top1 of two networks on the same images, their difference (second minus first) and McNemar's exact test.

    Where images have several labels it is exact_match, the share of images whose labels are all right.

    Without `data` both are measured on the images of their runs, which must be the same. Other arguments as for
    `evaluate`; `preprocessing` is for those of the two that are another library's. Raises ResnetkitError where the
    images or their classes differ, or for `tta` of a network that has no other view.
    """
    computing = Computing.of(device, precision, batch_size, workers)
    sources = (first, second)
    models = _load(sources, preprocessing)
    forwards = [forward_of(model, tta=tta) for model in models]
    images = [choose_images(source, model, data, split, max_bad) for source, model in zip(sources, models)]
    if len({(labelled.split, labelled.content(model.classes)) for labelled, model in zip(images, models)}) > 1:
        raise ResnetkitError("the two were tested on different images; name the images to compare them on with --data")
    answers = [
        computing.answers(model, labelled, forward=forward)
        for model, labelled, forward in zip(models, images, forwards)
    ]
    found = paired(answers[0].right, answers[1].right, answers[0].HEADLINE)
    return {"split": images[0].split, "tta": tta} | found


def _load(sources: Sequence[str | Path | Model], preprocessing: str | None) -> list[Model]:
    """What is said of pixels goes to others' checkpoints; to all, which refuse it, where there is none."""
    foreign = [not isinstance(source, Model) and is_foreign(locate(source)) for source in sources]
    return [
        opened(source, preprocessing if theirs or not any(foreign) else None)
        for source, theirs in zip(sources, foreign)
    ]


def paired(first: Tensor, second: Tensor, figure: str = "top1") -> dict[str, Any]:
    """The comparison of whether each image was answered rightly, (N,) booleans; the share is called `figure`."""
    n = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    hits = [int(first.sum()), int(second.sum())]
    return {
        figure: [h / n for h in hits],
        f"{figure}_interval": [wilson_interval(h, n) for h in hits],
        "difference": (hits[1] - hits[0]) / n,
        "difference_interval": difference_interval(only_first, only_second, n),
        "p_value": mcnemar(only_first, only_second),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "intervals": {figure: "Wilson", "difference": "Agresti-Min"},
        "test": "McNemar, exact",
        "n": n,
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value: were the two equally good, the images only one gets right would fall as a coin does."""
    n = only_first + only_second
    ways = tail = 1  # to choose k of n; whole numbers keep it exact
    for k in range(min(only_first, only_second)):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**n)
