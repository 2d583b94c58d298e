"""What our workers work on: random pixels (never zeros, which some processors compute faster) and photos."""

from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnetkit.architecture.variants import spec
from resnetkit.benchmark.worker import Work
from resnetkit.data.augment import Augmentation
from resnetkit.data.datasets import Dataset, Part, open_dataset
from resnetkit.data.ingest import SMALL
from resnetkit.data.loaders import TrainingBatches
from resnetkit.data.photo_cache import PhotoCache
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError
from resnetkit.training.freezing import set_training
from resnetkit.training.loop import train_epoch
from resnetkit.training.precision import resolve_precision
from resnetkit.training.prepare import DEFAULT_RECIPES, Prepared
from resnetkit.training.recipe import CROP_PCT, load_recipe
from resnetkit.training.state import TrainingState
from resnetkit.weights.files import Model
from resnetkit.weights.load import build

PHOTO = (375, 500)  # (height, width) of a photo in ImageNet, as it most often is
PHOTOS = 512
QUALITY = 90
GPU_STEPS = 10
CONTRAST = 16  # grey levels in each octave


def random_images(job: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """uint8 (batch, C, side, side) in channels_last, as photos come to a network, and labels (batch,)."""
    generator = torch.Generator().manual_seed(job["seed"])
    shape = (job["batch_size"], spec(job["model"]).in_channels, job["img_size"], job["img_size"])
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(job["classes"], (job["batch_size"],), generator=generator)
    return pixels.contiguous(memory_format=torch.channels_last), labels


def prepared_step(job: dict[str, Any], device: torch.device) -> Prepared:
    """What `resnet train` settles on for images like these, without looking for them."""
    images, labels = random_images(job)
    side = job["img_size"]
    settings = {name: job[name] for name in ("model", "batch_size", "seed")}
    recipe = load_recipe(DEFAULT_RECIPES[side <= SMALL, False], settings | {"img_size": side})
    recipe = recipe.model_copy(update={"precision": resolve_precision(job["precision"], device)})
    part = Part(images, labels, [str(i) for i in range(len(labels))])
    dataset = Dataset("random", [str(i) for i in range(job["classes"])], {"train": part})
    return Prepared(dataset, {"train": part}, "", recipe, Preprocessing(size=(side, side), framing="squash"), {})


def training_step(prepared: Prepared, state: TrainingState) -> Work:
    """A step of `train_epoch` on the images of `prepared`, all of them, as often as it is called; on a GPU, which is
    waited for at the end of an epoch, a short one of such steps."""
    set_training(state.net, 0)
    part = prepared.parts["train"]
    assert isinstance(part.images, Tensor)
    on_gpu = next(state.net.parameters()).device.type == "cuda"
    batch = part.images.pin_memory() if on_gpu else part.images, part.labels
    steps = GPU_STEPS if on_gpu else 1

    def epoch() -> int:
        train_epoch(
            state,
            repeat(batch, steps),
            prepared.recipe,
            rate=lambda step: 1e-3,  # labels drawn at random teach nothing, and must not diverge
            preprocessing=prepared.preprocessing,
            after_step=lambda state, waited: None,
        )
        return steps * len(part)

    return epoch


def random_model(job: dict[str, Any]) -> tuple[Model, Tensor]:
    """A network before training, and images as it gets them."""
    torch.manual_seed(job["seed"])
    side = job["img_size"]
    classes = [str(i) for i in range(job["classes"])]
    preprocessing = Preprocessing(size=(side, side), framing="squash")
    return Model(build(job["model"]), classes, preprocessing, {}, {}), random_images(job)[0]


def photo_batches(job: dict[str, Any]) -> tuple[TrainingBatches, str]:
    """Training batches of the folder at `job["data"]`, crop and flip of the recipe for photos alone, as the peers do,
    and in words how."""
    recipe = load_recipe(DEFAULT_RECIPES[False, False], {})
    side = job["img_size"]
    parts = open_dataset(job["data"]).parts
    if "train" not in parts:
        raise ResnetkitError(f"{job['data']}: photos to load must be in class folders below train/")
    if isinstance(parts["train"].images, Tensor):
        raise ResnetkitError(f"{job['data']}: no photos, but images of one small size, which no loader reads")
    preprocessing = Preprocessing(size=(side, side), resize=round(side / CROP_PCT))
    cache = PhotoCache(Path(job["cache"]), parts["train"], preprocessing.channels, round(side / CROP_PCT))
    batches = TrainingBatches(
        parts["train"],
        preprocessing,
        Augmentation(recipe.crop_padding, recipe.min_scale, recipe.flip),
        batch_size=job["batch_size"],
        seed=job["seed"],
        workers=job["threads"],
        cache=cache,
    )
    return batches, f"{len(batches.part):,} photos, {job['threads']} workers, from the cache"


def write_photos(folder: Path, count: int = PHOTOS, size: tuple[int, int] = PHOTO, seed: int = 0) -> None:
    """JPEGs in two class folders that compress about as photographs do: as much contrast at each scale
    (Field 1987)."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        pixels = np.zeros((*size, 3))
        for octave in range(2, 9):
            coarse = generator.normal(0, CONTRAST, (2**octave, 2**octave, 3))
            grain = [Image.fromarray(coarse[:, :, c].astype(np.float32)).resize(size[::-1]) for c in range(3)]
            pixels += np.stack([np.asarray(channel) for channel in grain], axis=2)
        place = folder / "train" / "ab"[number % 2] / f"{number:05}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8)).save(place, quality=QUALITY)
