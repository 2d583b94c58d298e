"""The labelled images to measure on: those of a run, as it split them, or others."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from resnetkit.data.datasets import Dataset, Part, open_dataset
from resnetkit.data.ingest import Ingested, digest, ingest
from resnetkit.data.labels import renumbered, written
from resnetkit.data.parts import numbered_where_equal
from resnetkit.errors import ResnetkitError, did_you_mean
from resnetkit.evaluation.slices import Look, look
from resnetkit.tables import read_csv
from resnetkit.tasks.task import task_of
from resnetkit.weights.files import Model
from resnetkit.weights.foreign import adopt_classes

TO_CALIBRATE = "give images with one or images that are not split; a run with holdout=0.1 calibrates itself"
CURE = "name the images to measure on with --data"


@dataclass(frozen=True)
class Labelled:
    """One part, its labels counted in the model's classes, with the content hash and the look of every image.
    `in_training` is how many a run was trained on, as `seen_in_training` counts them."""

    split: str
    part: Part
    hashes: list[str]
    seen: list[Look]
    in_training: int | None = None

    @classmethod
    def of(cls, read: Ingested, split: str) -> "Labelled":
        return cls(split, read.dataset.parts[split], read.hashes[split], read.measured[split])

    def content(self, classes: list[str]) -> tuple[tuple[str, str, str], ...]:
        """Name, hash and class of every image, in order."""
        return tuple(zip(self.part.names, self.hashes, written(self.part.labels, classes)))


def own_images(folder: Path, split: str | None, model: Model) -> Labelled:
    """The images that a run's split.csv lists under `split` (test by default, else val), which must be there unchanged.

    Drawing the split anew would not do: a folder that has grown since is split otherwise. Raises ResnetkitError.
    """
    if not (folder / "split.csv").is_file():
        raise ResnetkitError("name the labelled images with --data; only a run folder remembers its own")
    rows = read_csv(folder / "split.csv")
    has = list(dict.fromkeys(row["split"] for row in rows))
    split = split or ("test" if "test" in has else "val")
    if split not in has:
        raise ResnetkitError(f"{folder} has no {split} part; it has {', '.join(has)}")
    dataset = match_model(open_dataset(json.loads((folder / "command.json").read_text())["data"]), model)
    where = {name: (part, i) for part in dataset.parts.values() for i, name in enumerate(part.names)}
    listed = [row for row in rows if row["split"] == split]
    lost = [row["path"] for row in listed if row["path"] not in where]
    if lost:
        raise ResnetkitError(f"{folder}: {len(lost)} of its {split} images are gone, {lost[0]} for one; {CURE}")
    whole = where[listed[0]["path"]][0]
    if any(where[row["path"]][0] is not whole for row in listed):
        raise ResnetkitError(f"{folder}: its {split} images lie in several parts of the data now; {CURE}")
    part = whole.take(torch.tensor([where[row["path"]][1] for row in listed]))
    read = ingest(replace(dataset, parts={split: part}), 0.0, model.preprocessing.channels, look)
    if read.hashes[split] != [row["hash"] for row in listed]:
        raise ResnetkitError(f"{folder}: some of its {split} images have changed since; {CURE}")
    return Labelled.of(read, split)


def given_images(
    data: str | Path, split: str | None, model: Model, max_bad: float, defaults: tuple[str, ...] = ("test", "val")
) -> Labelled:
    """One part of `data`: `split`, else the first of `defaults` that is there; data that is not split is taken whole.

    A share `max_bad` may be unreadable and is left out. Standard error says how many files were, those of no part too.
    Raises ResnetkitError where there is no such part or class.
    """
    dataset = open_dataset(data)
    chosen = split or next((name for name in (*defaults, "all") if name in dataset.parts), defaults[0])
    if chosen not in dataset.parts:
        there = f"{dataset.name} has no {chosen} part; it has {', '.join(dataset.parts)}"
        raise ResnetkitError(f"{there}, which --split names" if "test" in defaults else f"{there}; {TO_CALIBRATE}")
    one = replace(dataset, parts={chosen: dataset.parts[chosen]})
    read = ingest(match_model(one, model), max_bad, model.preprocessing.channels, look)
    if bad := read.dataset.bad:
        told = f"bad    {len(bad)} files of {dataset.name} are left out; {bad[0][0]}, for one: {bad[0][1]}"
        print(told, file=sys.stderr)
    return Labelled.of(read, chosen)


def seen_in_training(source: str | Path | Model, images: Labelled) -> int | None:
    """How many of the images the run `source` was trained on: equal files, or of small images equal pixels, as sets of
    arrays were hashed by. None for what is no run folder, and so knows none."""
    if isinstance(source, Model) or not (table := Path(source) / "split.csv").is_file():
        return None
    trained = {row["hash"] for row in read_csv(table) if row["split"] == "train"}
    found, pixels = images.hashes, images.part.images
    shown = [digest(image.numpy().tobytes()) for image in pixels] if isinstance(pixels, Tensor) else found
    return sum(not trained.isdisjoint(pair) for pair in zip(found, shown))


def match_model(dataset: Dataset, model: Model) -> Dataset:
    """The same images with labels as the model's. Raises ResnetkitError where it has not those classes, or gives one
    label an image and the images have several, or the other way about."""
    if model.task != task_of(next(iter(dataset.parts.values())).labels).NAME:
        those = "any number of labels" if dataset.multilabel else "one label each (a column `labels` may have more)"
        raise ResnetkitError(f"{dataset.name}: its images have {those}, and the model is for {model.task}")
    adopt_classes(model, dataset.classes)
    return match_classes(dataset, model.classes)


def match_classes(dataset: Dataset, classes: list[str]) -> Dataset:
    """The same images with labels that count in `classes`. Raises ResnetkitError for a class not among them."""
    # Of equal names the first is meant, unless the data numbers its own.
    of_name = {name: i for i, name in reversed([*enumerate(classes), *enumerate(numbered_where_equal(classes))])}
    for name in dataset.classes:
        if name not in of_name:
            near = did_you_mean(name, classes)
            raise ResnetkitError(f"{dataset.name}: the model does not know class {name!r}; {near}")
    place = torch.tensor([of_name[name] for name in dataset.classes])
    parts = {
        key: Part(part.images, renumbered(part.labels, place, len(classes)), part.names)
        for key, part in dataset.parts.items()
    }
    return replace(dataset, classes=classes, parts=parts)
