"""Setting images apart."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor


def stratified(labels: Tensor, share: float, seed: int) -> Tensor:
    """A boolean mask over `labels`, True for about `share` of each class: one at least of two or more, never all."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        order = members[torch.randperm(len(members), generator=generator)]
        count = min(len(members) - 1, max(1, round(share * len(members))))
        chosen[order[:count]] = True
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

    The largest groups are placed first, those of one size in an order drawn by `seed`, each where most is missing of
    what it has.
    """
    names = list(dict.fromkeys(strata))
    column = {name: i for i, name in enumerate(names)}
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    blocks = list(members.values())
    drawn = np.random.default_rng(seed).permutation(len(blocks))
    counts = np.bincount([column[s] for s in strata], minlength=len(names))
    share = np.asarray(shares)
    missing = share[:, None] * counts
    target = np.maximum(missing, 1e-9)
    place = [0] * len(groups)
    for block in sorted((blocks[i] for i in drawn), key=len, reverse=True):
        content = np.bincount([column[strata[i]] for i in block], minlength=len(names))
        wanted = (missing / target) @ content / len(block) + missing.sum(1) / target.sum(1)
        best = int(np.where(share > 0, wanted, -np.inf).argmax())
        missing[best] -= content
        for i in block:
            place[i] = best
    return place
