"""Setting images apart."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from resnetkit.data.labels import are_multilabel


def stratified(labels: Tensor, share: float, seed: int) -> Tensor:
    """A boolean mask over `labels`, True for about `share` of each class: one at least of two or more, never all."""
    if are_multilabel(labels):
        return _iteratively_stratified(labels, share, seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        order = members[torch.randperm(len(members), generator=generator)]
        count = min(len(members) - 1, max(1, round(share * len(members))))
        chosen[order[:count]] = True
    return chosen


def _iteratively_stratified(labels: Tensor, share: float, seed: int) -> Tensor:
    """The mask where images have several classes: the rarest class is divided first (Sechidis, Tsoumakas and Vlahavas
    2011), each of its images going where most of the class, then of all images, is still wanted. A class of two or more
    may end without a chosen image, where rarer classes decided; none is chosen wholly."""
    present = labels.bool().numpy()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).numpy()
    counts = present.sum(0)
    aside = np.minimum(counts - 1, np.maximum(1, np.round(share * counts))).clip(min=0)
    wanted = np.stack((counts - aside, aside))
    room = np.array([len(labels) - round(share * len(labels)), round(share * len(labels))])
    waiting = np.ones(len(labels), bool)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    while (left := present[waiting].sum(0)).any():
        rarest = int(np.where(left > 0, left, len(labels) + 1).argmin())
        for i in order[(waiting & present[:, rarest])[order]]:
            side = max((0, 1), key=lambda s: (wanted[s, rarest], room[s]))
            wanted[side] -= present[i]
            room[side] -= 1
            waiting[i], chosen[i] = False, bool(side)
    for i in order[waiting[order]]:  # of no class
        side = int(room[1] > room[0])
        room[side] -= 1
        chosen[i] = bool(side)
    for members in present.T:
        if members.any() and bool(chosen[members].all()):
            chosen[int(members.argmax())] = False
    return chosen


def by_hash(hashes: Sequence[str], groups: Sequence[Hashable], shares: Sequence[float]) -> list[int]:
    """Of each image the index of its share, decided by nothing but the lowest content hash of its group.

    Images that come later never move those that were there, unless they join their group with a lower hash.
    `hashes` are hexadecimal.
    """
    lowest: dict[Hashable, str] = {}
    for group, digest in zip(groups, hashes):
        lowest[group] = min(digest, lowest.get(group, digest))
    bounds = np.cumsum(shares)[:-1]
    # The first 13 hexadecimal digits are what a float holds exactly.
    return [int(np.searchsorted(bounds, int(lowest[group][:13], 16) / 16**13, "right")) for group in groups]


def by_group(groups: Sequence[Hashable], strata: Sequence[Hashable], shares: Sequence[float], seed: int) -> list[int]:
    """Of each image the index of its share: no group in two, and of each stratum about its share in each.

    An image is of one stratum, or of each in a tuple. The largest groups are placed first, those of one size in an
    order drawn by `seed`, each where most is missing of what it has.
    """
    several = [stratum if isinstance(stratum, tuple) else (stratum,) for stratum in strata]
    column = {name: i for i, name in enumerate(dict.fromkeys(name for names in several for name in names))}
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    blocks = list(members.values())
    drawn = np.random.default_rng(seed).permutation(len(blocks))

    def content(images: Sequence[int]) -> np.ndarray:
        return np.bincount([column[name] for i in images for name in several[i]], minlength=len(column))

    counts = content(range(len(groups)))
    share = np.asarray(shares)
    missing = share[:, None] * counts
    target = np.maximum(missing, 1e-9)
    place = [0] * len(groups)
    for block in sorted((blocks[i] for i in drawn), key=len, reverse=True):
        own = content(block)
        wanted = (missing / target) @ own / own.sum() + missing.sum(1) / target.sum(1)
        best = int(np.where(share > 0, wanted, -np.inf).argmax())
        missing[best] -= own
        for i in block:
            place[i] = best
    return place
