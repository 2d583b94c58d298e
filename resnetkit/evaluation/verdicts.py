"""Candidates that were run on images -> what they settle: stored moments have the first word, accuracy the second."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from resnetkit.evaluation.candidates import Pixels
from resnetkit.evaluation.compare import paired
from resnetkit.evaluation.moments import Fit

MARGIN = 1.2  # the next must be so many times as far
FAR = 0.1  # beyond this the images are of another kind, or no candidate is the network
CHANCE = 0.05


@dataclass(frozen=True)
class Tried:
    """A candidate, in words by what is open, and how it fits; `right` (N,) says which images it answers rightly."""

    words: dict[str, str]
    pixels: Pixels
    view: str
    fit: Fit
    right: Tensor | None = None

    def to_dict(self) -> dict[str, Any]:
        accuracy = {} if self.right is None else {"top1": self.right.float().mean().item()}
        return {**self.words, "images": self.view, "distance": self.fit.distance, **accuracy}

    def clearly_nearer(self, other: "Tried") -> bool:
        """By a margin, and in every group of images."""
        each = all(own < others for own, others in zip(self.fit.groups, other.fit.groups))
        return each and other.fit.distance >= MARGIN * self.fit.distance


@dataclass(frozen=True)
class Verdict:
    """What is taken of one thing, and why. `by` is moments or labels; told where a file or the user said it; None where
    nothing settles it, and what was taken before stays."""

    taken: str
    by: str | None
    reason: str


def settle(what: str, tried: list[Tried], before: str, told: dict[str, str]) -> Verdict:
    """What the candidates say of one thing, which `before` was taken to be. `told` is what does not change."""
    fixed = {other: word for other, word in told.items() if other != what}
    allowed = [one for one in tried if all(word == fixed.get(other, word) for other, word in one.words.items())]
    allowed.sort(key=distance)
    best = allowed[0]
    rival = next((one for one in allowed if one.words[what] != best.words[what]), None)
    if rival is None:
        return Verdict(before, "told" if what in told else None, "nothing else is possible")
    found, by, reason = _compare(what, allowed, best, rival)
    if what not in told:
        return Verdict(found if by else before, by, reason if by else f"not settled: {reason}")
    if by is None:
        return Verdict(before, "told", f"as was told; not confirmed: {reason}")
    agreed = "the images agree" if found == before else f"BUT THE IMAGES SPEAK FOR {found}"
    return Verdict(before, "told", f"as was told; {agreed}: {reason}")


def nearest(tried: list[Tried]) -> list[Tried]:
    """The one nearest to what is stored and those that are not clearly further; the first where none is near."""
    best = min(tried, key=distance)
    return [one for one in tried if not best.clearly_nearer(one)] if best.fit.distance < FAR else tried[:1]


def distance(one: Tried) -> float:
    return one.fit.distance


def _compare(what: str, allowed: list[Tried], best: Tried, rival: Tried) -> tuple[str, str | None, str]:
    """The better of two words, by what, and the figures."""
    figures = f"distance {best.fit.distance:.3g}, {rival.fit.distance:.3g} with {rival.words[what]}"
    if best.fit.distance >= FAR:
        return (
            best.words[what],
            None,
            f"{figures}; these images are unlike those it was trained on",
        )
    if best.clearly_nearer(rival):
        return best.words[what], "moments", figures
    return _by_accuracy(what, [one for one in allowed if not best.clearly_nearer(one)], figures)


def _by_accuracy(what: str, near: list[Tried], figures: str) -> tuple[str, str | None, str]:
    ranked = sorted(near, key=lambda one: -1 if one.right is None else int(one.right.sum()), reverse=True)
    best = ranked[0]
    rival = next(one for one in ranked if one.words[what] != best.words[what])
    if best.right is None or rival.right is None:
        return best.words[what], None, f"{figures}; too near each other, and there are no labels to rank them by"
    found = paired(rival.right, best.right)
    shares = (
        f"top-1 {found['top1'][1]:.1%}, {found['top1'][0]:.1%} with {rival.words[what]} (p = {found['p_value']:.2g})"
    )
    clear = found["p_value"] < CHANCE
    return best.words[what], "labels" if clear else None, f"{figures}, too near each other; {shares}"
