"""The recipe of a run: a small file of settings, checked before anything starts."""

import json
import tomllib
from importlib.resources import files
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from resnetkit.errors import ResnetkitError, did_you_mean
from resnetkit.weights.catalogue import by_id

FOLDER = files("resnetkit") / "recipes"
WARMUP_SHARE = 0.2  # of the epochs where they are set, at most: a recipe's own warm-up is for its own epochs
CROP_PCT = 0.875  # of a photo's shorter side that evaluation sees (He et al. 2015, section 3.4)


def _numbers(value: Any) -> Any:
    """ "0.5, 0.75", as the command line has it, is a list of numbers."""
    return value.split(",") if isinstance(value, str) else value


Share = Annotated[float, Field(gt=0, lt=1)]


class Recipe(BaseModel):
    """What changes the numbers of a run, and nothing else. Sizes are in pixels, learning rates per step."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # network
    model: str = Field(description="name of the network")
    img_size: int | None = Field(
        None, ge=8, description="side that is judged at; none: the images' own; of photos that of the weights, else 224"
    )
    start_size: float = Field(
        1.0,
        ge=0.25,
        le=1,
        description="share of the size that the first epoch trains at, 12 pixels at least; it grows by eighths",
    )
    train_size: int | None = Field(None, ge=8, description="largest side that is trained at; none, or more: img_size")
    crop_pct: float = Field(
        CROP_PCT, gt=0, le=1, description="share of a photo's shorter side that is judged, where framing crops"
    )
    framing: Literal["crop", "letterbox", "squash"] = Field("crop", description="how a photo becomes a square")
    cache: bool = Field(
        False, description="photos are kept decoded on the disk, their shorter side at most 8/7 of img_size"
    )
    drop_path_rate: float = Field(
        0.0, ge=0, lt=1, description="how often the last block is left out, earlier ones less (Huang et al. 2016)"
    )
    zero_init_residual: bool = Field(
        False, description="every block begins as its shortcut (Goyal et al. 2017, section 5.1)"
    )
    whiten: bool = Field(False, description="the stem begins as a whitening of the training images (Page 2019)")
    reversible: bool = Field(
        False, description="memory that does not grow with depth, in another network (docs/depth.md)"
    )
    # fine-tuning
    weights: str | None = Field(
        None,
        description="a run folder, model file, foreign checkpoint, hf:owner/name or the id of published weights",
    )
    preprocessing: str | None = Field(
        None, description="of a foreign checkpoint's weights, in place of what it is taken for (docs/weights.md)"
    )
    freeze: str | None = Field(
        None, description="the last part that keeps its weights: stem, a stage such as stages.1, or backbone"
    )
    thaw_epochs: int = Field(0, ge=0, description="another frozen part learns after each so many; 0: they stay frozen")
    rate_decay: float = Field(
        1.0, gt=0, le=1, description="a part's learning rate as a share of the next one's, from the head downward"
    )
    # time
    epochs: int = Field(ge=1, description="times that the training images are gone through")
    prune_easy: float = Field(
        0.0, ge=0, lt=0.5, description="share of the images, half of the easiest, that an epoch skips"
    )
    batch_size: int = Field(128, ge=1, description="most images of a step; the steps of an epoch are alike")
    accumulate: int = Field(1, ge=1, description="pieces that a batch is computed in, to save memory")
    seed: int = Field(0, ge=0, lt=2**32, description="first weights, order, augmentation")
    # optimizer
    optimizer: Literal["sgd", "adamw", "lamb", "muon"] = Field("sgd", description="rule of the steps")
    lr: float = Field(gt=0, description="highest learning rate; with muon see above")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD and Muon")
    nesterov: bool = Field(True, description="SGD looks ahead along its momentum")
    weight_decay: float = Field(5e-4, ge=0, description="of all but norms and biases; with muon nor of what it turns")
    schedule: Literal["cosine", "linear", "one_cycle", "step"] = Field("cosine", description="how the rate falls")
    milestones: Annotated[tuple[Share, ...], BeforeValidator(_numbers)] = Field(
        (0.5, 0.75), description="shares of the run at which the schedule step steps"
    )
    warmup_epochs: float = Field(
        0.0, ge=0, description="epochs in which the rate rises first; one_cycle rises without too"
    )
    clip_norm: float = Field(0.0, ge=0, description="largest norm of the gradient; 0: any")
    # regularisation
    loss: Literal["softmax", "binary"] = Field(
        "softmax", description="binary: each class a question of its own (Wightman et al. 2021)"
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a label that goes to all classes (Szegedy et al. 2016), of several to both answers",
    )
    crop_padding: int = Field(0, ge=0, description="pixels around a small image before a random crop")
    padding_mode: Literal["zeros", "reflect"] = Field("zeros", description="what these pixels show")
    min_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="smallest share of a photo's area that a random crop has, before it is cut to the photo",
    )
    flip: bool = Field(True, description="images are mirrored half of the time; false for digits or text")
    policy: Literal["none", "trivial", "rand", "augmix"] = Field(
        "none", description="TrivialAugment, RandAugment or AugMix, of grey and rgb"
    )
    policy_level: int = Field(9, ge=0, le=30, description="strength of the policy rand")
    erasing: float = Field(0.0, ge=0, le=1, description="share of the images that lose a box")
    mixup: float = Field(0.0, ge=0, description="Beta parameter of mixup; 0: none")
    cutmix: float = Field(0.0, ge=0, description="Beta parameter of CutMix; 0: none")
    repeats: int = Field(
        1, ge=1, description="augmented copies of an image one after another; an epoch has as many times fewer images"
    )
    balance: Literal["none", "weights", "sampling"] = Field(
        "none", description="for classes of unlike sizes: weighs the loss, or draws rare ones more often"
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share that the delivered average of the weights keeps at a step; 0: no average",
    )
    # choosing
    holdout: float = Field(
        0.0, ge=0, lt=1, description="share of the training images that picks the best epoch; 0: the last is kept"
    )
    patience: int = Field(
        0, ge=0, description="epochs without a better holdout that end the run; 0: all epochs are run"
    )
    # arithmetic
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the machine computes in it rightly and faster"
    )


def recipe_names() -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in FOLDER.iterdir() if entry.name.endswith(".toml"))


def comes_along(source: str) -> bool:
    """Whether it names a recipe of ours, written with hyphens or underscores."""
    return source.replace("-", "_") in recipe_names()


def load_recipe(source: str | Path, settings: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name or TOML file, with `settings` in place of its own; `train_size` follows an `img_size` that is
    given without it, and of fewer `epochs` than its own at most a fifth warm up.

    Raises ResnetkitError, see also `make_recipe`.
    """
    source, path = str(source), Path(source)
    if comes_along(source):
        data = (FOLDER / f"{source.replace('-', '_')}.toml").read_bytes()
    elif path.suffix == ".toml" and path.is_file():
        data = path.read_bytes()
    elif path.suffix == ".toml":
        raise ResnetkitError(f"{source}: no such file, and so no recipe")
    else:
        raise ResnetkitError(f"no recipe {source!r}: not a .toml file, and {did_you_mean(source, recipe_names())}")
    try:
        values = tomllib.loads(data.decode(errors="surrogateescape"))  # as paths have it that are not UTF-8
    except tomllib.TOMLDecodeError as error:
        raise ResnetkitError(f"{source}: not valid TOML: {error}") from error
    if isinstance(own := values.get("weights"), str) and not own.startswith("hf:"):
        beside = path.parent / own
        if beside.exists() or not by_id(own):
            values["weights"] = str(beside.resolve())  # from wherever it is read
    return make_recipe(values | _in_proportion(values, settings or {}) | (settings or {}))


def _in_proportion(values: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What of a recipe follows the settings: it trains at the same share of the size that it evaluates at, and of
    fewer epochs most are no warm-up."""
    side, epochs = (_number(settings.get(name)) for name in ("img_size", "epochs"))
    names = ("img_size", "train_size", "epochs", "warmup_epochs")
    own_side, train_size, own_epochs, warmup = (_number(values.get(name)) for name in names)
    followed: dict[str, Any] = {}
    if own_side and train_size and side:
        followed["train_size"] = round(train_size * side / own_side)
    if 0 < epochs < own_epochs:
        followed["warmup_epochs"] = min(warmup, WARMUP_SHARE * epochs)
    return followed


def _number(value: Any) -> float:
    """0 for what is none; what is wrong with that is told when the recipe is made."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def make_recipe(values: dict[str, Any]) -> Recipe:
    """Raises ResnetkitError that names the setting, the value, and the nearest setting for one unknown."""
    for key in values:
        if key not in Recipe.model_fields:
            raise ResnetkitError(f"no setting is called {key!r}; {did_you_mean(key, Recipe.model_fields)}")
    try:
        return Recipe(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise ResnetkitError(f"setting {name} is missing, which has no default; give it") from error
        value = shorten(repr(first["input"]), 100, placeholder="...")
        raise ResnetkitError(f"setting {name}={value}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def to_toml(recipe: Recipe) -> str:
    """The recipe as a file that `load_recipe` reads; a setting left None is left out."""
    values = recipe.model_dump(exclude_none=True)
    # TOML writes finite numbers and booleans as JSON does, and strings where nothing beyond ASCII is escaped.
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def parse_settings(flags: dict[str, Any], pairs: list[str] | None) -> dict[str, Any]:
    """What flags give (None: nothing) and ["lr=0.2", ...] as {"lr": "0.2", ...}; the recipe turns the words into
    numbers. Raises ResnetkitError, also for what is said twice."""
    settings = {key: value for key, value in flags.items() if value is not None}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ResnetkitError(f"--set {pair}: write it as key=value")
        name = key.strip().replace("-", "_")
        if name in settings:
            raise ResnetkitError(f"--set {pair}: {name} is given twice; leave out one of the two")
        settings[name] = value.strip()
    return settings
