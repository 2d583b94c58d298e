"""From data and settings to what a run needs: the parts, the recipe, the preprocessing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.architecture.variants import spec
from resnetkit.data.augment import Augmentation
from resnetkit.data.datasets import Dataset, Part, open_dataset
from resnetkit.data.ingest import SMALL, Ingested, ingest
from resnetkit.data.preprocess import Preprocessing
from resnetkit.data.split import stratified
from resnetkit.errors import ResnetkitError
from resnetkit.training.recipe import Recipe, load_recipe, make_recipe

PHOTO_SIZE = 224
PHOTO_RESIZE = 256 / 224  # the centre 7/8 of a photo is what evaluation sees (He et al. 2015, section 3.4)


@dataclass(frozen=True)
class Prepared:
    """All that a run is decided by. `parts` has train, and any of holdout, val and test."""

    dataset: Dataset
    parts: dict[str, Part]
    split_table: str
    recipe: Recipe
    preprocessing: Preprocessing

    def with_precision(self, precision: str) -> "Prepared":
        return replace(self, recipe=self.recipe.model_copy(update={"precision": precision}))

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.recipe.crop_padding, self.recipe.min_scale, self.recipe.flip)

    @property
    def headline(self) -> str:
        """The part whose figures are the run's."""
        return "test" if "test" in self.parts else "val"


def prepare(data: str | Path, recipe: str | Recipe | None, settings: dict[str, Any], max_bad: float) -> Prepared:
    """Read the data once and settle everything. `recipe` None chooses by the images. Raises ResnetkitError."""
    dataset = open_dataset(data)
    if isinstance(recipe, Recipe):
        chosen = recipe
    elif recipe is not None:
        chosen = load_recipe(recipe, settings)
    else:
        chosen = None
        # A wrong setting is refused before the images are read.
        spec(make_recipe({"model": "resnet18", "epochs": 1, "lr": 1} | settings).model)
    read = ingest(dataset, max_bad)
    _require_every_class(read.dataset)
    if chosen is None:
        name = "digits" if read.dataset.name == "digits" else "small" if _small(read) else "photos"
        chosen = load_recipe(name, settings)
    parts = dict(read.dataset.parts)
    hashes = dict(read.hashes)
    if chosen.holdout:
        whole, digests = parts["train"], hashes["train"]
        held = stratified(whole.labels, chosen.holdout, seed=0)
        for name, mask in (("train", ~held), ("holdout", held)):
            indices = mask.nonzero()[:, 0]
            parts[name] = whole.take(indices)
            hashes[name] = [digests[i] for i in indices.tolist()]
    table = _split_table(parts, hashes, read.dataset.classes)
    return Prepared(read.dataset, parts, table, chosen, _preprocessing(read, parts["train"], chosen))


def _require_every_class(dataset: Dataset) -> None:
    counts = dataset.parts["train"].labels.bincount(minlength=len(dataset.classes))
    for name, count in zip(dataset.classes, counts.tolist()):
        if not count:
            raise ResnetkitError(f"class {name!r} has no readable training image; add some or remove it")


def _small(read: Ingested) -> bool:
    return read.side is not None and max(read.side) <= SMALL


def _preprocessing(read: Ingested, train: Part, recipe: Recipe) -> Preprocessing:
    if not _small(read):
        size = recipe.img_size or PHOTO_SIZE
        return Preprocessing(size=(size, size), resize=round(size * PHOTO_RESIZE))
    assert read.side and isinstance(train.images, Tensor)
    size = (recipe.img_size, recipe.img_size) if recipe.img_size else read.side
    mean, std = _moments(train.images)
    return Preprocessing(size=size, resize=None, channels="grey" if read.grey else "rgb", mean=mean, std=std)


def _moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in 0..1, to four places, from exact integer sums."""
    pixels = images.transpose(0, 1).flatten(1)
    levels = [channel.bincount(minlength=256).double() for channel in pixels]
    values = (1.0 * levels[0].new_tensor(range(256))) / 255
    means = [float((count * values).sum() / count.sum()) for count in levels]
    variances = [float((count * (values - mean) ** 2).sum() / count.sum()) for count, mean in zip(levels, means)]
    if 0.0 in variances:
        raise ResnetkitError("every training image is of one colour; there is nothing to learn")
    return tuple(round(m, 4) for m in means), tuple(max(1e-4, round(v**0.5, 4)) for v in variances)


def _split_table(parts: dict[str, Part], hashes: dict[str, list[str]], classes: list[str]) -> str:
    lines = ["path,class,split,hash"]
    for split, part in parts.items():
        for name, label, digest in zip(part.names, part.labels.tolist(), hashes[split]):
            lines.append(f"{csv_cell(name)},{csv_cell(classes[label])},{split},{digest}")
    return "\n".join(lines) + "\n"


def csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text
