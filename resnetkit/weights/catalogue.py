"""Published weights: where they are, how to know them, what pixels they expect, how good they are said to be.

`catalogue.json` is written by benchmarks/peers/catalogue.py from the torchvision and timm packages. What nobody
vouches for is None there.
"""

import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from resnetkit.errors import ResnetkitError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """`spec(variant, **choices)` is the network. `id` begins with the variant, or with the publisher's name for it
    where choices are needed.

    `sha256` is of the file at `url`: whole, or its first digits, as torch.hub has them in the name; of the files at
    `hf_hub_id` the Hub itself tells the hashes. `preprocessing` is a record of Preprocessing. `top1` and `top5` are
    fractions, on ImageNet's 50,000 validation images or CIFAR-10's 10,000 test images, as stated in `published`.
    `recipe` is a page or a paper.
    """

    id: str
    variant: str
    choices: dict[str, Any] = field(default_factory=dict)
    library: str
    url: str | None = None
    hf_hub_id: str | None = None
    sha256: str | None = None
    licence: str | None = None
    preprocessing: dict[str, Any]
    top1: float | None = None
    top5: float | None = None
    published: str | None = None
    recipe: str | None = None

    @property
    def names(self) -> set[str]:
        """What it is asked for by: the id, and what it is called on the Hub."""
        return {self.id, (self.hf_hub_id or "").partition("/")[2]} - {""}

    @property
    def place(self) -> str:
        return f"hf:{self.hf_hub_id}" if self.hf_hub_id else self.url or "no address is known"


@cache
def catalogue() -> tuple[PublishedWeights, ...]:
    """All of it, an author's own entry before those of others for the same file."""
    rows = json.loads((files("resnetkit.weights") / "catalogue.json").read_text(encoding="utf-8"))["weights"]
    return tuple(PublishedWeights(**row | {"choices": _with_tuples(row["choices"])}) for row in rows)


def _with_tuples(choices: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in choices.items()}


def by_id(name: str) -> PublishedWeights | None:
    """The weights of this id, or that are called so on the Hub."""
    return next((entry for entry in catalogue() if name.lower() in entry.names), None)


def find(variant: str, tag: str) -> PublishedWeights:
    """The weights `tag`, such as `a1_in1k`, of a network by our name or the publisher's; an id in full will do, too.
    Raises ResnetkitError."""
    if entry := by_id(f"{variant}.{tag}") or by_id(tag):
        return entry
    tags = [name.removeprefix(f"{variant}.") for e in catalogue() for name in e.names if name.startswith(f"{variant}.")]
    hint = did_you_mean(tag, tags) if tags else "`resnet models --weights` lists all"
    raise ResnetkitError(f"no file is called {tag!r}, nor published weights of {variant}; {hint}")


def meant(word: str) -> list[str]:
    """Ids that a word may stand for: those that begin or end with it, else the nearest."""
    named = [e.id for e in catalogue() if any(word.lower() in name.split(".", 1) for name in e.names)]
    return named or get_close_matches(word, [entry.id for entry in catalogue()], n=1, cutoff=0.8)


def published_as(name: str) -> PublishedWeights | None:
    """Some weights of a network that has this name where they are published, and another one here."""
    named = (e for e in catalogue() if any(known.startswith(f"{name}.") for known in e.names))
    return next((entry for entry in named if entry.variant != name), None)


def by_hash(sha256: str) -> PublishedWeights | None:
    """The weights whose file has this SHA-256 (64 digits); of several that publish the same file, its author's."""
    return next((entry for entry in catalogue() if entry.sha256 and sha256.lower().startswith(entry.sha256)), None)
