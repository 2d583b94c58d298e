"""From data and settings to what a run needs: the parts, the recipe, the preprocessing."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnetkit.data.augment import Augmentation
from resnetkit.data.datasets import Dataset, Part, open_dataset, with_test
from resnetkit.data.ingest import SMALL, Ingested, ingest
from resnetkit.data.labels import indicators, written
from resnetkit.data.preprocess import COLOURS, IMAGENET_MEAN, IMAGENET_STD, PHOTO_SIZE, Preprocessing
from resnetkit.data.split import stratified
from resnetkit.errors import ResnetkitError
from resnetkit.tables import csv_text
from resnetkit.tasks.task import Task, task_of
from resnetkit.training.recipe import Recipe, comes_along, load_recipe, make_recipe
from resnetkit.training.schedule import training_size
from resnetkit.weights.files import Model
from resnetkit.weights.load import lasting, load, spec_by_name

# By whether the images are all of one small size, and whether training starts from trained weights.
DEFAULT_RECIPES = {
    (True, False): "small",
    (True, True): "finetune_small",
    (False, False): "photos",
    (False, True): "finetune",
}
# Settings for one kind of images, and what is done with the other.
FOR_PHOTOS = {
    "min_scale": "photos; images of one small size are cropped by crop_padding",
    "crop_pct": "photos; images of one small size are seen whole",
    "framing": "photos; images of one small size are seen as they are",
    "cache": "photos; images of one small size are kept in memory anyway",
}
FOR_SMALL = {
    "crop_padding": "images of one small size; photos are cropped by min_scale",
    "padding_mode": "images of one small size; photos are cropped by min_scale",
    "whiten": "images of one small size, whose pixels are in memory",
}
FOR_COLOURS = ("policy", "cache")
# Settings that do nothing without another, and the values of that one with which they do.
NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "padding_mode": ("crop_padding", ()),
    "thaw_epochs": ("freeze", ()),
    "preprocessing": ("weights", ()),
    "momentum": ("optimizer", ("sgd", "muon")),
    "nesterov": ("optimizer", ("sgd",)),
    "milestones": ("schedule", ("step",)),
    "policy_level": ("policy", ("rand",)),
}
BEGINNINGS = ("zero_init_residual", "whiten")  # settings for how a network without trained weights begins


@dataclass(frozen=True)
class Prepared:
    """All that a run is decided by. `parts` has train, and any of holdout, val and test; `leaks` counts the images of
    each of these that are training images too, byte for byte; `start` is the trained model that it starts from."""

    dataset: Dataset
    parts: dict[str, Part]
    split_table: str
    recipe: Recipe
    preprocessing: Preprocessing
    leaks: dict[str, int]
    start: Model | None = None

    def with_settings(self, **settings: Any) -> "Prepared":
        return replace(self, recipe=self.recipe.model_copy(update=settings))

    @property
    def task(self) -> Task:
        return task_of(self.parts["train"].labels)

    @property
    def augmentation(self) -> Augmentation:
        recipe = self.recipe
        return Augmentation(
            recipe.crop_padding,
            recipe.min_scale,
            recipe.flip,
            recipe.policy,
            recipe.erasing,
            recipe.policy_level,
            recipe.padding_mode,
        )

    @property
    def steps(self) -> int:
        """Of an epoch; their batches are alike."""
        return -(-len(self.parts["train"]) // self.recipe.batch_size)

    @property
    def largest_batch(self) -> int:
        return -(-len(self.parts["train"]) // self.steps)

    @property
    def training_size(self) -> tuple[int, int]:
        """(height, width) of the largest images that are trained on."""
        return training_size(self.recipe, self.preprocessing.size, self.recipe.epochs - 1)

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


def prepare(
    data: str | Path | Dataset,
    recipe: str | Path | Recipe | None,
    settings: dict[str, Any],
    max_bad: float,
    start: Model | None = None,
) -> Prepared:
    """Read the data once and settle everything; see `read_source`. Raises ResnetkitError."""
    return divide(read_source(data, recipe, settings, max_bad, start))


def read_source(
    data: str | Path | Dataset,
    recipe: str | Path | Recipe | None,
    settings: dict[str, Any],
    max_bad: float,
    start: Model | None = None,
) -> Source:
    """Read the data once and choose the recipe: `recipe` None chooses by the images. Raises ResnetkitError.

    With the setting `weights`, the network and the channels and normalisation of its pixels are those of the trained
    model, of photos also their size, where nothing else is said. `start` stands for the weights that a Recipe names.
    """
    dataset = with_test(data if isinstance(data, Dataset) else open_dataset(data))
    chosen: Recipe | None
    if isinstance(recipe, Recipe):
        chosen, start = recipe, start or _start(recipe.weights, recipe.preprocessing)
    else:
        start = _start(settings.get("weights"), settings.get("preprocessing"))
        if start is not None:
            of_weights = {"model": start.network.spec.name, "preprocessing": None}  # a recipe's is of those it names
            settings = of_weights | settings | {"weights": lasting(settings["weights"])}
        chosen = load_recipe(recipe, settings) if recipe is not None else None
        if chosen is not None and start is None and chosen.weights is not None:
            start = _start(chosen.weights, chosen.preprocessing)
            chosen = chosen.model_copy(update={"weights": lasting(chosen.weights)})
    if chosen is None:
        # A wrong setting is refused before the images are read.
        checked = make_recipe({"model": "resnet18", "epochs": 1, "lr": 1} | settings)
        if start is None or checked.model != start.network.spec.name:
            spec_by_name(checked.model)
    read = ingest(dataset, max_bad, start.preprocessing.channels if start else None, _band_sums, whole=False)
    _require_every_class(read.dataset)
    if chosen is None:
        chosen = load_recipe(dataset.recipe or DEFAULT_RECIPES[is_small(read), start is not None], settings)
    if recipe is None or (not isinstance(recipe, Recipe) and comes_along(str(recipe))):
        coloured, multilabel = read.channels in COLOURS, read.dataset.multilabel
        chosen = _fitting(chosen, settings, coloured=coloured, trained=start is not None, multilabel=multilabel)
    _require_settings_that_apply(chosen, is_small(read), read.channels)
    if chosen.prune_easy:
        _require_own_losses(chosen, multilabel=read.dataset.multilabel)
    _require_no_idle_settings(chosen, settings)
    return Source(read, chosen, start)


def _fitting(recipe: Recipe, settings: dict[str, Any], *, coloured: bool, trained: bool, multilabel: bool) -> Recipe:
    """A recipe that comes along, without what it cannot do to these images or weights."""
    left_out: dict[str, Any] = {} if coloured else {"policy": "none"}
    left_out |= dict.fromkeys(BEGINNINGS, False) if trained else {}
    left_out |= {} if recipe.crop_padding else {"padding_mode": "zeros"}
    left_out |= {"prune_easy": 0.0} if multilabel else {}
    return recipe.model_copy(update={name: value for name, value in left_out.items() if name not in settings})


def divide(source: Source) -> Prepared:
    """Set the recipe's holdout apart and measure what is left to train on. Raises ResnetkitError."""
    read, chosen, start = source.read, source.recipe, source.start
    parts = dict(read.dataset.parts)
    hashes = dict(read.hashes)
    sums = read.measured["train"]
    if chosen.holdout:
        whole, digests = parts["train"], hashes["train"]
        held = stratified(whole.labels, chosen.holdout, seed=0)
        if not indicators(whole.labels[held], len(read.dataset.classes)).any():
            raise ResnetkitError("holdout: no class has a second training image to set apart; leave it out")
        sums = [sums[i] for i in (~held).nonzero()[:, 0].tolist()]
        for name, mask in (("train", ~held), ("holdout", held)):
            indices = mask.nonzero()[:, 0]
            parts[name] = whole.take(indices)
            hashes[name] = [digests[i] for i in indices.tolist()]
    table = _split_table(parts, hashes, read.dataset.classes)
    trained = set(hashes["train"])
    leaks = {part: sum(digest in trained for digest in found) for part, found in hashes.items() if part != "train"}
    preprocessing = _preprocessing(read, parts["train"], chosen, start, sums)
    return Prepared(read.dataset, parts, table, chosen, preprocessing, leaks, start)


def _start(weights: str | Path | None, preprocessing: str | None) -> Model | None:
    return None if weights is None else load(weights, preprocessing)


def _require_settings_that_apply(recipe: Recipe, small: bool, channels: str) -> None:
    not_for = dict(FOR_PHOTOS if small else FOR_SMALL)
    if channels not in COLOURS:
        not_for |= dict.fromkeys(FOR_COLOURS, f"grey and rgb; these images have {channels} bands: leave it out")
    for name, why in not_for.items():
        if (value := getattr(recipe, name)) != Recipe.model_fields[name].default:
            raise ResnetkitError(f"setting {name}={value!r} is for {why}")
    if recipe.patience and not recipe.holdout:
        raise ResnetkitError("setting patience needs a holdout to watch, such as holdout=0.1; the test set is no judge")
    if recipe.freeze and not recipe.weights and not (recipe.whiten and recipe.freeze == "stem"):
        raise ResnetkitError(
            "setting freeze needs trained weights to keep; name them with --weights, or whiten for freeze=stem"
        )
    for name in BEGINNINGS:
        if getattr(recipe, name) and recipe.weights:
            raise ResnetkitError(f"setting {name} is how a network without trained weights begins; leave it out")
    if recipe.batch_size * (1 - recipe.prune_easy) < 2 * recipe.accumulate:
        raise ResnetkitError("batch norm needs pieces of two images or more; raise batch_size or lower accumulate")
    if recipe.repeats > recipe.batch_size:
        raise ResnetkitError(
            f"setting repeats={recipe.repeats}: a batch has {recipe.batch_size} images; raise batch_size"
        )


def _require_no_idle_settings(recipe: Recipe, given: Iterable[str]) -> None:
    for name, (other, needed) in NEEDS.items():
        idle = getattr(recipe, other) not in needed if needed else not getattr(recipe, other)
        if name in given and idle and getattr(recipe, name) != Recipe.model_fields[name].default:
            cure = f"{other}={' or '.join(needed)}" if needed else other
            raise ResnetkitError(f"setting {name} does nothing without {cure}; leave it out, or set {other}")


def _require_own_losses(recipe: Recipe, *, multilabel: bool) -> None:
    if recipe.mixup or recipe.cutmix or recipe.repeats > 1 or recipe.balance == "sampling":
        raise ResnetkitError(
            "setting prune_easy goes by the loss of each image, seen once and unmixed; set prune_easy=0, or leave "
            "mixup, cutmix, repeats and balance=sampling out"
        )
    if multilabel:
        raise ResnetkitError("setting prune_easy is for images of one label each; leave it out")


def _require_every_class(dataset: Dataset) -> None:
    present = {part: indicators(images.labels, len(dataset.classes)) for part, images in dataset.parts.items()}
    for name, count in zip(dataset.classes, present["train"].sum(0).tolist()):
        if not count:
            raise ResnetkitError(f"class {name!r} has no readable training image; add some or remove it")
    for part, found in present.items():
        if not found.any():
            raise ResnetkitError(f"no {part} image has any of the classes, so nothing can be measured on them")


def is_small(read: Ingested) -> bool:
    return read.side is not None and max(read.side) <= SMALL


def _preprocessing(
    read: Ingested, train: Part, recipe: Recipe, start: Model | None, sums: list[Tensor | None]
) -> Preprocessing:
    known = start.preprocessing if start else None
    if known:
        moments: dict[str, Any] = {"channels": known.channels, "mean": known.mean, "std": known.std}
    elif is_small(read):
        assert isinstance(train.images, Tensor)
        moments = _moments(train.images, read.channels)
    else:
        moments = _photo_moments(read.channels, sums)
    return framed_for(read, recipe, known.size if known else (PHOTO_SIZE, PHOTO_SIZE), moments)


def framed_for(read: Ingested, recipe: Recipe, size: tuple[int, int], moments: dict[str, Any]) -> Preprocessing:
    """How a recipe has the images framed: photos at `size`, small ones at their own, where it says none."""
    own = (recipe.img_size, recipe.img_size) if recipe.img_size else None
    if is_small(read):
        assert read.side
        return Preprocessing(size=own or read.side, framing="squash", **moments)
    size = own or size
    resize = round(max(size) / recipe.crop_pct) if recipe.framing == "crop" else None
    return Preprocessing(size=size, resize=resize, framing=recipe.framing, **moments)


def _photo_moments(channels: str, sums: list[Tensor | None]) -> dict[str, Any]:
    """ImageNet's for pictures; for images of bands their own, from the `_band_sums` of the training images."""
    if channels == "rgb":
        return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    if channels not in COLOURS:
        measured = torch.stack([own for own in sums if own is not None])
        means, squares = measured.mean(0).tolist()
        return _rounded(channels, means, [round(square - mean**2, 12) for mean, square in zip(means, squares)])
    mean, std = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
    return {"channels": channels, "mean": (round(mean, 4),), "std": (round(std, 4),)}


def _band_sums(pixels: Tensor) -> Tensor | None:
    """Of uint8 (C, H, W) the means of the values and of their squares in 0..1, (2, C); None for a picture."""
    if len(pixels) in COLOURS.values():
        return None
    levels = torch.stack([channel.flatten().bincount(minlength=256) for channel in pixels]).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    return torch.stack([levels @ values, levels @ values.square()]) / pixels[0].numel()


def _moments(images: Tensor, channels: str) -> dict[str, Any]:
    """Mean and standard deviation of each channel in 0..1, to four places, from exact integer sums."""
    pixels = images.transpose(0, 1).flatten(1)
    levels = [channel.bincount(minlength=256).double() for channel in pixels]
    values = levels[0].new_tensor(range(256)) / 255
    means = [float((count * values).sum() / count.sum()) for count in levels]
    variances = [float((count * (values - mean) ** 2).sum() / count.sum()) for count, mean in zip(levels, means)]
    return _rounded(channels, means, variances)


def _rounded(channels: str, means: list[float], variances: list[float]) -> dict[str, Any]:
    if not any(variances):
        raise ResnetkitError("every training image is of one colour; there is nothing to learn")
    mean, std = tuple(round(m, 4) for m in means), tuple(max(1e-4, round(max(0.0, v) ** 0.5, 4)) for v in variances)
    return {"channels": channels, "mean": mean, "std": std}


def _split_table(parts: dict[str, Part], hashes: dict[str, list[str]], classes: list[str]) -> str:
    rows = [
        (name, label, split, digest)
        for split, part in parts.items()
        for name, label, digest in zip(part.names, written(part.labels, classes), hashes[split])
    ]
    return csv_text(("path", "class", "split", "hash"), rows)
