"""Which settings of a recipe a search varies, and how far."""

from dataclasses import dataclass
from typing import Any

from resnetkit.data.preprocess import COLOURS
from resnetkit.training.recipe import Recipe

RATE_FACTOR, DECAY_FACTOR = 5, 10  # below and above the recipe's own
LARGEST_SMOOTHING = 0.2
LARGEST_MIXUP = 0.4  # the range that gains on ImageNet (Zhang et al. 2018, section 3.1)
POLICIES = ("none", "trivial", "rand")  # augmix takes several times as long


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`, spread evenly or by their logarithm."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """Words to choose among."""

    words: tuple[str, ...]


Space = dict[str, Span | Choice]


def search_space(recipe: Recipe, fixed: set[str], channels: str) -> Space:
    """The settings to vary by name, around the recipe's own values, without those `fixed` by the user.

    A recipe without weight decay stays without, and so does one of Muon, where it moves the classifier and little
    else; one that passes over easy images takes no mixup; policies are for images of `channels` rgb and grey. What is
    varied can be changed when the data is prepared already.
    """
    space: Space = {"lr": _around(recipe.lr, RATE_FACTOR)}
    if recipe.weight_decay and recipe.optimizer != "muon":
        space["weight_decay"] = _around(recipe.weight_decay, DECAY_FACTOR)
    space["label_smoothing"] = Span(0.0, max(LARGEST_SMOOTHING, recipe.label_smoothing))
    if not recipe.prune_easy:
        space["mixup"] = Span(0.0, max(LARGEST_MIXUP, recipe.mixup))
    if channels in COLOURS:
        space["policy"] = Choice(tuple(dict.fromkeys((*POLICIES, recipe.policy))))
    return {name: values for name, values in space.items() if name not in fixed}


def _around(value: float, factor: float) -> Span:
    return Span(value / factor, value * factor, log=True)


def rounded(settings: dict[str, Any], space: Space, recipe: Recipe) -> dict[str, Any]:
    """Settings as a person would write them; the recipe's own stay as they are."""
    return {
        name: value if value == getattr(recipe, name) else _rounded(value, space[name])
        for name, value in settings.items()
    }


def _rounded(value: Any, among: Span | Choice) -> Any:
    if isinstance(among, Choice):
        return value
    return float(f"{value:.3g}") if among.log else round(value, 2)
