"""From data and settings to what a run needs: the parts, the recipe, the preprocessing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.architecture.variants import spec
from resnetkit.data.augment import Augmentation
from resnetkit.data.datasets import Dataset, Part, open_dataset, with_test
from resnetkit.data.ingest import SMALL, Ingested, ingest
from resnetkit.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from resnetkit.data.split import stratified
from resnetkit.errors import ResnetkitError
from resnetkit.tables import csv_text
from resnetkit.training.recipe import Recipe, load_recipe, make_recipe
from resnetkit.weights.files import Model
from resnetkit.weights.load import load

# By whether the images are all of one small size, and whether training starts from trained weights.
DEFAULT_RECIPES = {
    (True, False): "small",
    (True, True): "finetune_small",
    (False, False): "photos",
    (False, True): "finetune",
}
PHOTO_SIZE = 224
PHOTO_RESIZE = 256 / 224  # the centre 7/8 of a photo is what evaluation sees (He et al. 2015, section 3.4)


@dataclass(frozen=True)
class Prepared:
    """All that a run is decided by. `parts` has train, and any of holdout, val and test; `leaks` counts the images of
    each of these that are training images too, byte for byte."""

    dataset: Dataset
    parts: dict[str, Part]
    split_table: str
    recipe: Recipe
    preprocessing: Preprocessing
    leaks: dict[str, int]

    def with_settings(self, **settings: Any) -> "Prepared":
        return replace(self, recipe=self.recipe.model_copy(update=settings))

    @property
    def augmentation(self) -> Augmentation:
        recipe = self.recipe
        return Augmentation(recipe.crop_padding, recipe.min_scale, recipe.flip, recipe.policy, recipe.erasing)

    @property
    def headline(self) -> str:
        """The part whose figures are the run's."""
        return "test" if "test" in self.parts else "val"


@dataclass(frozen=True)
class Source:
    """Images that read, the recipe for them, and the trained model that it starts from."""

    read: Ingested
    recipe: Recipe
    start: Model | None


def prepare(data: str | Path, recipe: str | Recipe | None, settings: dict[str, Any], max_bad: float) -> Prepared:
    """Read the data once and settle everything; see `read_source`. Raises ResnetkitError."""
    return divide(read_source(data, recipe, settings, max_bad))


def read_source(data: str | Path, recipe: str | Recipe | None, settings: dict[str, Any], max_bad: float) -> Source:
    """Read the data once and choose the recipe: `recipe` None chooses by the images. Raises ResnetkitError.

    With the setting `weights`, the network and its preprocessing are those of the trained model, where nothing else is
    said.
    """
    dataset = with_test(open_dataset(data))
    chosen: Recipe | None
    if isinstance(recipe, Recipe):
        chosen, start = recipe, _start(recipe.weights)
    else:
        start = _start(settings.get("weights"))
        if start is not None:
            path = str(Path(settings["weights"]).resolve())
            settings = {"model": start.network.spec.name} | settings | {"weights": path}
        chosen = load_recipe(recipe, settings) if recipe is not None else None
        if chosen is not None and start is None:
            start = _start(chosen.weights)
    if chosen is None:
        # A wrong setting is refused before the images are read.
        spec(make_recipe({"model": "resnet18", "epochs": 1, "lr": 1} | settings).model)
    read = ingest(dataset, max_bad, start.preprocessing.channels if start else None)
    _require_every_class(read.dataset)
    if chosen is None:
        chosen = load_recipe(dataset.recipe or DEFAULT_RECIPES[_small(read), start is not None], settings)
    _require_settings_that_apply(chosen, _small(read))
    return Source(read, chosen, start)


def divide(source: Source) -> Prepared:
    """Set the recipe's holdout apart and measure what is left to train on. Raises ResnetkitError."""
    read, chosen, start = source.read, source.recipe, source.start
    parts = dict(read.dataset.parts)
    hashes = dict(read.hashes)
    if chosen.holdout:
        whole, digests = parts["train"], hashes["train"]
        held = stratified(whole.labels, chosen.holdout, seed=0)
        if not held.any():
            raise ResnetkitError("holdout: no class has a second training image to set apart; leave it out")
        for name, mask in (("train", ~held), ("holdout", held)):
            indices = mask.nonzero()[:, 0]
            parts[name] = whole.take(indices)
            hashes[name] = [digests[i] for i in indices.tolist()]
    table = _split_table(parts, hashes, read.dataset.classes)
    trained = set(hashes["train"])
    leaks = {part: sum(digest in trained for digest in found) for part, found in hashes.items() if part != "train"}
    return Prepared(read.dataset, parts, table, chosen, _preprocessing(read, parts["train"], chosen, start), leaks)


def _start(weights: str | Path | None) -> Model | None:
    return None if weights is None else load(weights)


def _require_settings_that_apply(recipe: Recipe, small: bool) -> None:
    if small and recipe.min_scale != 1:
        raise ResnetkitError("setting min_scale is for photos; images of one small size are cropped by crop_padding")
    if not small and recipe.crop_padding:
        raise ResnetkitError("setting crop_padding is for images of one small size; photos are cropped by min_scale")
    if small and recipe.framing != "crop":
        raise ResnetkitError("setting framing is for photos; images of one small size are seen as they are")
    if recipe.patience and not recipe.holdout:
        raise ResnetkitError("setting patience needs a holdout to watch, such as holdout=0.1; the test set is no judge")
    if recipe.freeze and not recipe.weights:
        raise ResnetkitError("setting freeze needs trained weights to keep; name them with --weights")
    if recipe.batch_size < 2 * recipe.accumulate:
        raise ResnetkitError("batch norm needs pieces of two images or more; raise batch_size or lower accumulate")


def _require_every_class(dataset: Dataset) -> None:
    counts = dataset.parts["train"].labels.bincount(minlength=len(dataset.classes))
    for name, count in zip(dataset.classes, counts.tolist()):
        if not count:
            raise ResnetkitError(f"class {name!r} has no readable training image; add some or remove it")


def _small(read: Ingested) -> bool:
    return read.side is not None and max(read.side) <= SMALL


def _preprocessing(read: Ingested, train: Part, recipe: Recipe, start: Model | None) -> Preprocessing:
    own = (recipe.img_size, recipe.img_size) if recipe.img_size else None
    known = start.preprocessing if start else None
    moments = {"channels": known.channels, "mean": known.mean, "std": known.std} if known else None
    if not _small(read):
        size = own or (known.size if known else (PHOTO_SIZE, PHOTO_SIZE))
        resize = round(max(size) * PHOTO_RESIZE) if recipe.framing == "crop" else None
        return Preprocessing(
            size=size, resize=resize, framing=recipe.framing, **moments or _photo_moments(read.channels)
        )
    assert read.side and isinstance(train.images, Tensor)
    return Preprocessing(size=own or read.side, framing="squash", **moments or _moments(train.images, read.channels))


def _photo_moments(channels: str) -> dict[str, Any]:
    if channels == "rgb":
        return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    mean, std = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
    return {"channels": channels, "mean": (round(mean, 4),), "std": (round(std, 4),)}


def _moments(images: Tensor, channels: str) -> dict[str, Any]:
    """Mean and standard deviation of each channel in 0..1, to four places, from exact integer sums."""
    pixels = images.transpose(0, 1).flatten(1)
    levels = [channel.bincount(minlength=256).double() for channel in pixels]
    values = levels[0].new_tensor(range(256)) / 255
    means = [float((count * values).sum() / count.sum()) for count in levels]
    variances = [float((count * (values - mean) ** 2).sum() / count.sum()) for count, mean in zip(levels, means)]
    if not any(variances):
        raise ResnetkitError("every training image is of one colour; there is nothing to learn")
    mean, std = tuple(round(m, 4) for m in means), tuple(max(1e-4, round(v**0.5, 4)) for v in variances)
    return {"channels": channels, "mean": mean, "std": std}


def _split_table(parts: dict[str, Part], hashes: dict[str, list[str]], classes: list[str]) -> str:
    rows = [
        (name, classes[label], split, digest)
        for split, part in parts.items()
        for name, label, digest in zip(part.names, part.labels.tolist(), hashes[split])
    ]
    return csv_text(("path", "class", "split", "hash"), rows)
