"""What may be concluded from rounds: ratios with intervals, whether they mean anything, how they are written."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LEVEL = 0.95
DRAWS = 10_000
CONTROL = (0.98, 1.02)  # what the interval of ours against ours must lie within
FEWEST = 5  # rounds that an interval can be drawn from


def spread(values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """The median and its bootstrap interval at LEVEL, by percentiles."""
    array = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(array), (DRAWS, len(array)))
    low, high = np.quantile(np.median(array[drawn], axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"median": float(np.median(array)), "low": float(low), "high": float(high)}


def ratio(ours: Sequence[float], theirs: Sequence[float], *, more_is_better: bool) -> dict[str, float]:
    """By what factor ours is better, of each round by itself: the machine was the same for both."""
    pairs = zip(ours, theirs, strict=True)
    return spread([a / b if more_is_better else b / a for a, b in pairs])


def four_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def agrees(control: dict[str, float]) -> bool:
    """Whether ours against ours, a `ratio`, is 1 as nearly as its interval must say."""
    return CONTROL[0] <= control["low"] <= control["high"] <= CONTROL[1]


def reasons_void(control: dict[str, float], kept: int, unequal: dict[str, dict[str, Any]]) -> list[str]:
    """Why the run says nothing, if so; `unequal` has the peers that did other work."""
    reasons = []
    if kept < FEWEST:
        reasons.append(f"only {kept} rounds between steady probes; {FEWEST} are needed: the machine is not quiet")
    if not agrees(control):
        reasons.append(
            f"ours against ours is {control['low']:.3f} to {control['high']:.3f}, "
            f"which must lie within {CONTROL[0]} and {CONTROL[1]}: the machine is not quiet"
        )
    for name, found in unequal.items():
        reasons.append(
            f"{name} computes something else: its logits are off by {found['error']:.1e}, "
            f"top-1 agrees on {found['top1_agreement']:.0%}"
        )
    return reasons
